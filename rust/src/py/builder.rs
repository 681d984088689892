//! Making messages from stored parts and from other messages; no user code of the class runs.
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::construct::{apply_fallbacks, identify, planned, quoted};
use super::event::{self, MessageRef, Planned};
use super::metadata::{self, Meta};
use super::plan::{Field, Plan};

/// A message in the making.
pub struct Builder<'py> {
    object: Bound<'py, PyAny>,
    plan: &'static Plan,
}

impl<'py> Builder<'py> {
    pub fn new(py: Python<'py>, plan: &'static Plan) -> PyResult<Self> {
        let object = event::allocate(py, plan)?;
        if plan.always_tracked {
            planned(&object, plan)?.message().track();
        }
        Ok(Builder { object, plan })
    }

    /// The unfinished message, for direct access.
    #[inline]
    pub fn planned(&self) -> Planned<'_, 'py> {
        Planned::fresh(&self.object, self.plan).expect("allocate makes instances of the plan's class")
    }

    fn message(&self) -> MessageRef<'_, 'py> {
        self.planned().message()
    }

    /// Sets the field at an index of `plan.fields`.
    #[inline]
    pub fn set_field(&self, index: usize, value: Bound<'py, PyAny>) {
        let target = self.planned();
        target.message().track_if_container(&value);
        target.put(index, value);
    }

    /// Sets a field to a value that cannot lead back to the message.
    #[inline(always)]
    pub fn set_plain(&self, index: usize, value: Bound<'py, PyAny>) {
        self.planned().put(index, value);
    }

    /// Sets metadata from a Python value, with the checks of the constructor.
    pub fn set_meta(&self, meta: Meta, value: &Bound<'py, PyAny>) -> PyResult<()> {
        metadata::set(self.message(), meta, value)
    }

    pub fn set_id(&self, id: [u8; 16]) {
        self.message().body().id.set(id);
    }

    pub fn set_time_us(&self, us: i64) {
        self.message().body().time_us.set(us);
    }

    pub fn set_schema(&self, schema: u16) {
        metadata::store(self.message(), Meta::SchemaVersion, None);
        self.message().body().schema.set(schema);
    }

    /// Gives the message a new id and the present time, where the stored parts had none.
    pub fn identify(&self, has_id: bool, has_time: bool) {
        let id = if has_id { Meta::EventId.bit() } else { 0 };
        let time = if has_time { Meta::OccurredAt.bit() } else { 0 };
        identify(self.message(), id | time);
    }

    /// Attributes that are not declared fields.
    pub fn set_extra(&self, extra: &Bound<'py, PyDict>) -> PyResult<()> {
        if !extra.is_empty() {
            self.message().extra_or_new()?.update(extra.as_mapping())?;
            self.message().track();
        }
        Ok(())
    }

    /// The message, every field of which has been set.
    #[inline]
    pub fn into_object(self) -> Bound<'py, PyAny> {
        self.object
    }

    /// The finished message; unset fields get their defaults.
    ///
    /// Fails with a TypeError that names the first required field without a value.
    pub fn finish(self) -> PyResult<Bound<'py, PyAny>> {
        let plan = self.plan;
        let py = self.object.py();
        let missing = |field: &Field| {
            let name = quoted(field.name.bind(py));
            PyTypeError::new_err(format!("{}() missing required keyword argument: {name}", plan.name(py)))
        };
        if apply_fallbacks(self.planned(), missing)? {
            self.message().track();
        }
        Ok(self.object)
    }
}

/// Marks an event as stored at a version of its stream and a global position.
pub fn stamp(message: MessageRef<'_, '_>, version: u32, sequence: i64) {
    message.body().version.set(version);
    message.body().sequence.set(sequence);
}

/// A new message of the same class with the same content.
pub fn duplicate<'py>(source: Planned<'_, 'py>) -> PyResult<Builder<'py>> {
    let plan = source.plan();
    let message = source.message();
    let builder = Builder::new(message.py(), plan)?;
    let copy = builder.message();
    let (from, to) = (message.body(), copy.body());
    to.id.set(from.id.get());
    to.time_us.set(from.time_us.get());
    to.sequence.set(from.sequence.get());
    to.version.set(from.version.get());
    to.schema.set(from.schema.get());
    for (meta, _) in plan.kind.names() {
        if let Some(value) = metadata::stored(message, *meta) {
            metadata::store(copy, *meta, Some(value));
        }
    }
    for index in 0..plan.fields.len() {
        if let Some(value) = source.get(index) {
            builder.set_field(index, value);
        }
    }
    if let Some(extra) = message.extra() {
        builder.set_extra(&extra)?;
    }
    Ok(builder)
}
