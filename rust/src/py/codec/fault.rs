//! What goes wrong while encoding or decoding, with the path to where.
use std::convert::Infallible;
use std::fmt::Display;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::{CastError, CastIntoError};

use crate::core::binary::Damaged;
use crate::core::json::Malformed;
use crate::errors::{EventValidationError, SerializationError};

/// A failure on its way out; each level that it leaves adds its part of the path.
pub struct Fault(Box<Inner>);

struct Inner {
    message: String,
    cause: Option<PyErr>,
    /// Innermost part first.
    path: Vec<String>,
}

pub type Res<T> = Result<T, Fault>;

/// A failure with a message of ours.
pub fn fault(message: impl Into<String>) -> Fault {
    Fault(Box::new(Inner { message: message.into(), cause: None, path: Vec::new() }))
}

pub fn fail<T>(message: impl Into<String>) -> Res<T> {
    Err(fault(message))
}

impl From<PyErr> for Fault {
    fn from(cause: PyErr) -> Self {
        Fault(Box::new(Inner { message: String::new(), cause: Some(cause), path: Vec::new() }))
    }
}

impl From<CastError<'_, '_>> for Fault {
    fn from(error: CastError<'_, '_>) -> Self {
        PyErr::from(error).into()
    }
}

impl From<CastIntoError<'_>> for Fault {
    fn from(error: CastIntoError<'_>) -> Self {
        PyErr::from(error).into()
    }
}

impl From<Infallible> for Fault {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<Malformed> for Fault {
    fn from(error: Malformed) -> Self {
        fault(error.to_string())
    }
}

impl From<Damaged> for Fault {
    fn from(error: Damaged) -> Self {
        fault(error.to_string())
    }
}

impl Fault {
    /// Adds a part of the path.
    pub fn inside(mut self, part: String) -> Self {
        self.0.path.push(part);
        self
    }

    /// Turns the failure into a `SerializationError`; what is not an `Exception` (an interrupt) stays as it is.
    pub fn into_error(self, py: Python<'_>, name: &str) -> PyErr {
        let Inner { message, cause, path } = *self.0;
        if let Some(cause) = &cause
            && (!cause.is_instance_of::<PyException>(py)
                || path.is_empty() && cause.is_instance_of::<EventValidationError>(py))
        {
            return cause.clone_ref(py);
        }
        let message = match &cause {
            Some(cause) => {
                cause.value(py).str().map_or_else(|_| "failed".to_owned(), |text| text.to_string_lossy().into_owned())
            }
            None => message,
        };
        let path = join(&path);
        let place = match (name.is_empty(), path.is_empty()) {
            (true, true) => "value".to_owned(),
            (true, false) => path.clone(),
            (false, true) => name.to_owned(),
            (false, false) => format!("{name}.{path}"),
        };
        let error = SerializationError::new_err((format!("{place}: {message}"), (!path.is_empty()).then_some(path)));
        error.set_cause(py, cause);
        error
    }
}

fn join(path: &[String]) -> String {
    let mut text = String::new();
    for part in path.iter().rev() {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
        if text.len() > 300 {
            text.push('…');
            break;
        }
    }
    text
}

/// Adds a part of the path to a failure.
pub trait At<T> {
    fn at(self, name: &str) -> Res<T>;
    fn at_item(self, item: impl Display) -> Res<T>;
}

impl<T, E: Into<Fault>> At<T> for Result<T, E> {
    #[inline(always)]
    fn at(self, name: &str) -> Res<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(inside(error.into(), name)),
        }
    }

    #[inline(always)]
    fn at_item(self, item: impl Display) -> Res<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(inside(error.into(), format_args!("[{item}]"))),
        }
    }
}

#[cold]
#[inline(never)]
fn inside(fault: Fault, part: impl Display) -> Fault {
    fault.inside(part.to_string())
}
