//! What an encoder returns of an event.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyString, PyTuple};

use super::fault::{At, Res, fail};
use super::record::RecordPlan;
use crate::errors::EventValidationError;
use crate::py::event::Planned;
use crate::py::metadata::{Meta, stored};
use crate::py::values;

/// One event as a store writes it; `payload` has everything except version and position.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct EncodedEvent {
    event_id: [u8; 16],
    #[pyo3(get)]
    type_name: Py<PyString>,
    #[pyo3(get)]
    event_type: Py<PyString>,
    #[pyo3(get)]
    occurred_at_us: i64,
    tags: Option<Py<PyTuple>>,
    #[pyo3(get)]
    payload: Py<PyBytes>,
}

#[pymethods]
impl EncodedEvent {
    #[new]
    fn new(
        event_id: [u8; 16],
        type_name: Py<PyString>,
        event_type: Py<PyString>,
        occurred_at_us: i64,
        tags: Py<PyTuple>,
        payload: Py<PyBytes>,
    ) -> Self {
        Self { event_id, type_name, event_type, occurred_at_us, tags: Some(tags), payload }
    }

    /// The sixteen bytes of the event's id.
    #[getter]
    fn event_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event_id)
    }

    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.tags.as_ref().map_or_else(|| PyTuple::empty(py), |tags| tags.bind(py).clone())
    }

    /// Unpacks into the six parts, in order.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let (id, tags) = (self.event_id(py), self.tags(py));
        let parts = (id, &self.type_name, &self.event_type, self.occurred_at_us, tags, &self.payload);
        parts.into_pyobject(py)?.try_iter()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let size = self.payload.bind(py).as_bytes().len();
        Ok(format!("EncodedEvent({}, {size} bytes)", self.type_name.bind(py)))
    }
}

pub fn not_an_event<T>(value: &Bound<'_, PyAny>) -> Res<T> {
    let message = format!("an event expected, not {}", values::shown(value));
    Err(EventValidationError::new_err((message, "event")).into())
}

/// An event whose class is not known is stored again as it was read.
pub fn stored_again<'py>(event: &Bound<'py, PyAny>, record: &RecordPlan) -> Res<Bound<'py, EncodedEvent>> {
    let py = event.py();
    let type_name = event.getattr(intern!(py, "type_name"))?.extract()?;
    let payload = event.getattr(intern!(py, "payload"))?.extract()?;
    head(event, record, type_name, payload)
}

/// Puts id, time, event type and tags of an event, which stores keep too, beside its payload.
pub fn head<'py>(
    event: &Bound<'py, PyAny>,
    plan: &RecordPlan,
    type_name: Py<PyString>,
    payload: Py<PyBytes>,
) -> Res<Bound<'py, EncodedEvent>> {
    let py = event.py();
    if let Some(planned) = Planned::cast(event) {
        let (message, plan) = (planned.message(), planned.plan());
        let tags =
            stored(message, Meta::Tags).map(|tags| tags.cast_into::<PyTuple>().map(Bound::unbind)).transpose()?;
        let event_type = match stored(message, Meta::EventType) {
            Some(event_type) => event_type.cast_into::<PyString>()?.unbind(),
            None => plan.event_type.clone_ref(py),
        };
        let (event_id, occurred_at_us) = (message.body().id.get(), message.body().time_us.get());
        let encoded = EncodedEvent { event_id, type_name, event_type, occurred_at_us, tags, payload };
        return Ok(Bound::new(py, encoded)?);
    }
    let id = event.getattr(intern!(py, "event_id"))?;
    if !values::is_uuid(&id) {
        return fail(format!("a UUID expected, not {}", values::shown(&id))).at("event_id");
    }
    let event_id = values::uuid_to_bytes(&id, "event_id").at("event_id")?;
    let time = event.getattr(intern!(py, "occurred_at"))?;
    let occurred_at_us = values::datetime_to_us(&time, "occurred_at").at("occurred_at")?;
    let event_type = match event.getattr(intern!(py, "event_type"))?.cast_into::<PyString>() {
        Ok(event_type) => event_type,
        Err(_) => PyString::new(py, &plan.name),
    };
    let event_type = event_type.unbind();
    let encoded = EncodedEvent { event_id, type_name, event_type, occurred_at_us, tags: None, payload };
    Ok(Bound::new(py, encoded)?)
}
