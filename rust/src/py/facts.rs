//! What the log needs to know of an event: id, tags, and how to stamp it.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::construct;
use super::event::{MessageRef, UNSTAMPED, peek};

/// An event on its way into the log.
pub struct Facts {
    pub event: Py<PyAny>,
    pub id: u128,
    pub tags: Vec<String>,
    /// The event is one of ours, so that stamping it runs no Python code.
    pub is_native: bool,
}

impl Facts {
    /// Reads an event of ours that no store has stamped; None for anything else.
    #[inline]
    pub fn fresh(event: &Bound<'_, PyAny>) -> Option<Facts> {
        let message = MessageRef::event(event)?;
        let body = message.body();
        if body.sequence.get() != UNSTAMPED {
            return None;
        }
        let tags = match body.rare().and_then(|rare| peek(event.py(), &rare.tags)) {
            Some(tags) => tags.extract().ok()?,
            None => Vec::new(),
        };
        Some(Facts { event: event.clone().unbind(), id: u128::from_be_bytes(body.id.get()), tags, is_native: true })
    }

    /// Reads any event.
    pub fn read(event: &Bound<'_, PyAny>) -> PyResult<Facts> {
        if let Some(facts) = Self::fresh(event) {
            return Ok(facts);
        }
        let py = event.py();
        let id: u128 = event.getattr(intern!(py, "event_id"))?.getattr(intern!(py, "int"))?.extract()?;
        let tags = match event.getattr_opt(intern!(py, "tags"))? {
            Some(tags) if tags.is_instance_of::<PyTuple>() => tags.extract()?,
            _ => Vec::new(),
        };
        Ok(Facts { event: event.clone().unbind(), id, tags, is_native: false })
    }

    /// The address of the event's class.
    #[inline]
    pub fn class(&self, py: Python<'_>) -> usize {
        self.event.bind(py).get_type_ptr() as usize
    }

    /// Stamps a native event; does nothing to others. Runs no Python code, so it may be called under a lock.
    #[inline]
    pub fn stamp(&self, py: Python<'_>, version: u32, position: u32) {
        if self.is_native {
            stamp(self.event.bind(py), version, position);
        }
    }
}

/// Stamps an event if it is native. Runs no Python code, so it may be called under a lock.
#[inline]
pub fn stamp(event: &Bound<'_, PyAny>, version: u32, position: u32) {
    if let Some(message) = MessageRef::event(event) {
        construct::stamp(message, version, i64::from(position));
    }
}
