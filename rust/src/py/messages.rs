//! What `messages/*.py` calls: copies, state for pickling, rebuilding and stamping.
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use super::builder::{self, Builder};
use super::construct;
use super::event::{MessageRef, Planned};
use super::metadata::{self, Meta};
use super::plan::{self, Plan};

fn known<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<Planned<'a, 'py>> {
    Planned::cast(object).ok_or_else(|| PyTypeError::new_err(format!("{} is not a message", object.get_type())))
}

/// The key of metadata whose usual name is a field of the class.
fn hidden_key(name: &str) -> String {
    format!("__{name}__")
}

/// The entries of a dictionary, taken out first: converting one of them can run code that changes the dictionary.
fn entries<'py>(dict: &Bound<'py, PyDict>) -> Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    dict.iter().collect()
}

/// Sets one entry of a field dictionary; false if the class knows no such name.
fn set_entry<'py>(
    builder: &Builder<'py>,
    plan: &Plan,
    name: &Bound<'py, PyString>,
    value: &Bound<'py, PyAny>,
) -> PyResult<bool> {
    let text = name.to_str()?;
    let py = name.py();
    for (index, field) in plan.fields.iter().enumerate() {
        if field.name.bind(py).to_str()? == text {
            builder.set_field(index, value.clone());
            return Ok(true);
        }
    }
    for (meta, spelling) in plan.kind.names() {
        let spelling = spelling.to_string_lossy();
        if spelling == text || hidden_key(&spelling) == text {
            builder.set_meta(*meta, value)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// A copy of `message` with some fields or metadata changed.
#[pyfunction]
pub fn copy_message<'py>(
    message: &Bound<'py, PyAny>,
    changes: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let source = known(message)?;
    let plan = source.plan();
    let builder = builder::duplicate(source)?;
    for (name, value) in changes.map(entries).unwrap_or_default() {
        let name = name.cast_into::<PyString>()?;
        if set_entry(&builder, plan, &name, &value)? {
            continue;
        }
        if !plan.accepts_extra {
            let class = plan.name(message.py());
            return Err(PyTypeError::new_err(format!("{class} has no field {name:?}")));
        }
        let extra = PyDict::new(message.py());
        extra.set_item(name, value)?;
        builder.set_extra(&extra)?;
    }
    builder.finish()
}

/// `(fields and metadata by name, attribute dictionary or None)`: what `rebuild` needs to make an equal message.
#[pyfunction]
pub fn message_state<'py>(message: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyDict>, Option<Bound<'py, PyDict>>)> {
    let source = known(message)?;
    let (message, plan) = (source.message(), source.plan());
    let py = message.py();
    let state = PyDict::new(py);
    for (index, field) in plan.fields.iter().enumerate() {
        if let Some(value) = source.get(index) {
            state.set_item(&field.name, value)?;
        }
    }
    for (meta, name) in plan.kind.names() {
        let native = matches!(
            meta,
            Meta::EventId | Meta::OccurredAt | Meta::SequenceNumber | Meta::Version | Meta::SchemaVersion
        );
        if !native && metadata::stored(message, *meta).is_none() {
            continue;
        }
        let name = name.to_string_lossy();
        let key = if plan.shadows(*meta) { hidden_key(&name) } else { name.into_owned() };
        state.set_item(key, metadata::get(message, *meta)?)?;
    }
    let extra = message.extra().filter(|extra| !extra.is_empty());
    Ok((state, extra))
}

/// A message of `cls` from `message_state`, without `__init__` and `__post_init__`.
#[pyfunction]
#[pyo3(signature = (cls, fields, extra=None))]
pub fn rebuild<'py>(
    cls: &Bound<'py, PyType>,
    fields: &Bound<'py, PyDict>,
    extra: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let plan = plan::finalized(cls)?;
    let builder = Builder::new(cls.py(), plan)?;
    let names = plan.kind.names();
    builder.identify(fields.contains(names[0].1.to_string_lossy())?, fields.contains(names[1].1.to_string_lossy())?);
    for (name, value) in entries(fields) {
        let name = name.cast_into::<PyString>()?;
        if !set_entry(&builder, plan, &name, &value)? {
            let class = plan.name(cls.py());
            return Err(PyTypeError::new_err(format!("{class} has no field {name:?}")));
        }
    }
    if let Some(extra) = extra {
        builder.set_extra(extra)?;
    }
    builder.finish()
}

/// Marks an event as stored, in place.
#[pyfunction]
pub fn stamp_event(event: &Bound<'_, PyAny>, version: u32, sequence_number: i64) -> PyResult<()> {
    builder::stamp(known(event)?.message(), version, sequence_number);
    Ok(())
}

/// True for an event of ours that a store has numbered, False for one that none has, None for any other object.
#[pyfunction]
pub fn is_stamped(event: &Bound<'_, PyAny>) -> Option<bool> {
    MessageRef::event(event).map(|message| message.body().sequence.get() != super::event::UNSTAMPED)
}

/// The metadata of an event, also where its class uses the name for a field of its own.
#[pyfunction]
pub fn event_meta<'py>(event: &Bound<'py, PyAny>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let message = known(event)?;
    for (meta, spelling) in message.plan().kind.names() {
        if spelling.to_string_lossy() == name {
            return metadata::get(message.message(), *meta);
        }
    }
    Err(PyTypeError::new_err(format!("{name} is not metadata of a message")))
}

/// Adds the functions of this file to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    construct::reseed_ids();
    module.add_function(wrap_pyfunction!(copy_message, module)?)?;
    module.add_function(wrap_pyfunction!(message_state, module)?)?;
    module.add_function(wrap_pyfunction!(rebuild, module)?)?;
    module.add_function(wrap_pyfunction!(stamp_event, module)?)?;
    module.add_function(wrap_pyfunction!(is_stamped, module)?)?;
    module.add_function(wrap_pyfunction!(event_meta, module)?)?;
    module.add_function(wrap_pyfunction!(construct::install_context, module)?)?;
    module.add_function(wrap_pyfunction!(construct::reseed_ids, module)?)?;
    module.add_function(wrap_pyfunction!(construct::new_id, module)?)?;
    Ok(())
}
