//! A quick look whether every store could keep what an event holds, for the log, which keeps the objects as they are.
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyList, PyString, PyTime, PyTuple, PyType, PyTzInfo,
    PyTzInfoAccess,
};

use super::event::{self, Planned};
use super::values;

/// Far below what the codec writes: whatever is larger or deeper is for the codec to judge.
const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 16;
/// What a value counts for besides its text, so that the limit also bounds the time of the look.
const VALUE_BYTES: usize = 16;

/// Tells whether an event holds only numbers, texts, times and the like, and lists, tuples and dictionaries of them. False
/// says nothing: the codec knows more types. Runs no Python code and makes no object that the collector would look at.
pub fn is_plain(event: Planned<'_, '_>) -> bool {
    let message = event.message();
    let mut look = Look { bytes: 0 };
    let mut fields = (0..event.plan().fields.len()).filter_map(|index| event.get(index));
    message.extra().is_none_or(|extra| extra.is_empty())
        && fields.all(|value| look.value(&value, 0))
        && message.metadata().all(|value| look.value(&value, 0))
}

struct Look {
    bytes: usize,
}

impl Look {
    fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> bool {
        self.bytes += VALUE_BYTES;
        if self.bytes > MAX_BYTES || depth > MAX_DEPTH {
            return false;
        }
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.text(text);
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            return list.iter().all(|item| self.value(&item, depth + 1));
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return tuple.iter_borrowed().all(|item| self.value(&item, depth + 1));
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return dict.iter().all(|(key, item)| {
                key.cast_exact::<PyString>().is_ok_and(|key| self.text(key)) && self.value(&item, depth + 1)
            });
        }
        value.is_none()
            || event::small_int(value).is_some()
            || value.is_exact_instance_of::<PyFloat>()
            || value.is_exact_instance_of::<PyBool>()
            || self.is_rarer_scalar(value)
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> bool {
        let Some(text) = event::ascii(text).or_else(|| text.to_str().ok()) else { return false };
        self.bytes += text.len();
        self.bytes <= MAX_BYTES
    }

    fn is_rarer_scalar(&mut self, value: &Bound<'_, PyAny>) -> bool {
        if let Ok(moment) = value.cast_exact::<PyDateTime>() {
            let utc = PyTzInfo::utc(value.py());
            return moment.get_tzinfo().is_none_or(|zone| utc.is_ok_and(|utc| zone.is(utc)));
        }
        if let Ok(time) = value.cast_exact::<PyTime>() {
            return time.get_tzinfo().is_none();
        }
        if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            self.bytes += bytes.as_bytes().len();
            return self.bytes <= MAX_BYTES;
        }
        value.is_exact_instance_of::<PyDate>()
            || value.is_exact_instance_of::<PyDelta>()
            || values::exact_uuid(value).is_some()
            || is_decimal(value)
    }
}

fn is_decimal(value: &Bound<'_, PyAny>) -> bool {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(value.py(), "decimal", "Decimal").is_ok_and(|class| value.is_exact_instance(class))
}
