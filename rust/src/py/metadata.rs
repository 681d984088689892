//! The metadata of a message: where each name is kept, how it is shown to Python and what it accepts.
use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString, PyTuple};

use super::context;
use super::event::{self, MessageRef, Slot, UNSTAMPED};
use super::values;
use crate::errors::EventValidationError;

/// Characters of a tag, as in `stores/_validation.py`.
const MAX_TAG_LENGTH: usize = 255;

/// What a class of ours is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An event: thirteen metadata names.
    Event,
    /// A command or a query: `id`, `timestamp` and a `MessageMetadata`.
    Message,
}

/// One metadata name. `EventId`, `OccurredAt` and `Metadata` also serve the three names of commands and queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Meta {
    EventId,
    OccurredAt,
    EventType,
    AggregateId,
    AggregateType,
    SequenceNumber,
    ActorId,
    SchemaVersion,
    Version,
    CorrelationId,
    CausationId,
    Tags,
    Metadata,
}

use Meta::*;

const ALL: [Meta; 13] = [
    EventId,
    OccurredAt,
    EventType,
    AggregateId,
    AggregateType,
    SequenceNumber,
    ActorId,
    SchemaVersion,
    Version,
    CorrelationId,
    CausationId,
    Tags,
    Metadata,
];

static EVENT_NAMES: [(Meta, &CStr); 13] = [
    (EventId, c"event_id"),
    (OccurredAt, c"occurred_at"),
    (EventType, c"event_type"),
    (AggregateId, c"aggregate_id"),
    (AggregateType, c"aggregate_type"),
    (SequenceNumber, c"sequence_number"),
    (ActorId, c"actor_id"),
    (SchemaVersion, c"schema_version"),
    (Version, c"version"),
    (CorrelationId, c"correlation_id"),
    (CausationId, c"causation_id"),
    (Tags, c"tags"),
    (Metadata, c"metadata"),
];

static MESSAGE_NAMES: [(Meta, &CStr); 3] = [(EventId, c"id"), (OccurredAt, c"timestamp"), (Metadata, c"metadata")];

impl Kind {
    /// The metadata names of this kind, in the order they are shown.
    pub fn names(self) -> &'static [(Meta, &'static CStr)] {
        match self {
            Kind::Event => &EVENT_NAMES,
            Kind::Message => &MESSAGE_NAMES,
        }
    }
}

impl Meta {
    pub fn from_index(index: usize) -> Meta {
        ALL[index % ALL.len()]
    }

    /// One bit per name, for sets of names.
    pub fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Where this name is kept if its value is a Python object; None also while the rare part does not exist.
    fn slot<'a>(self, message: MessageRef<'a, '_>) -> Option<&'a Slot> {
        let body = message.body();
        match self {
            AggregateId => Some(&body.aggregate_id),
            AggregateType => Some(&body.aggregate_type),
            CorrelationId => Some(&body.correlation_id),
            EventType => body.rare().map(|rare| &rare.event_type),
            ActorId => body.rare().map(|rare| &rare.actor_id),
            SchemaVersion => body.rare().map(|rare| &rare.schema_version),
            CausationId => body.rare().map(|rare| &rare.causation_id),
            Tags => body.rare().map(|rare| &rare.tags),
            Metadata => body.rare().map(|rare| &rare.metadata),
            EventId | OccurredAt | SequenceNumber | Version => None,
        }
    }
}

/// The object stored for `meta`, None when it is unset or kept as a native value.
pub fn stored<'py>(message: MessageRef<'_, 'py>, meta: Meta) -> Option<Bound<'py, PyAny>> {
    event::peek(message.py(), meta.slot(message)?)
}

/// Stores an object for `meta` as it is; None empties the place.
pub fn store<'py>(message: MessageRef<'_, 'py>, meta: Meta, value: Option<Bound<'py, PyAny>>) {
    if value.is_some() {
        message.body().rare_or_new_for(meta);
    }
    if let Some(value) = &value {
        message.track_if_container(value);
    }
    if let Some(slot) = meta.slot(message) {
        event::put(message.py(), slot, value);
    }
}

impl event::Body {
    fn rare_or_new_for(&self, meta: Meta) {
        if !matches!(meta, AggregateId | AggregateType | CorrelationId) {
            self.rare_or_new();
        }
    }
}

/// The value of `meta` as Python sees it.
pub fn get<'py>(message: MessageRef<'_, 'py>, meta: Meta) -> PyResult<Bound<'py, PyAny>> {
    let py = message.py();
    let body = message.body();
    match meta {
        EventId => values::uuid_from_bytes(py, body.id.get()),
        OccurredAt => values::datetime_from_us(py, body.time_us.get()),
        SequenceNumber if body.sequence.get() == UNSTAMPED => Ok(py.None().into_bound(py)),
        SequenceNumber => Ok(body.sequence.get().into_pyobject(py)?.into_any()),
        Version => Ok(body.version.get().into_pyobject(py)?.into_any()),
        SchemaVersion => match stored(message, meta) {
            Some(value) => Ok(value),
            None => Ok(body.schema.get().into_pyobject(py)?.into_any()),
        },
        EventType => match (stored(message, meta), message.plan()) {
            (Some(value), _) => Ok(value),
            (None, Some(plan)) => Ok(plan.event_type.bind(py).clone().into_any()),
            (None, None) => Ok(py.None().into_bound(py)),
        },
        Tags => Ok(stored(message, meta).unwrap_or_else(|| PyTuple::empty(py).into_any())),
        Metadata => metadata_value(message),
        AggregateId | AggregateType | ActorId | CorrelationId | CausationId => {
            Ok(stored(message, meta).unwrap_or_else(|| py.None().into_bound(py)))
        }
    }
}

fn metadata_value<'py>(message: MessageRef<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = message.py();
    let value = stored(message, Metadata);
    if message.plan().is_some_and(|plan| plan.kind == Kind::Event) {
        // A copy: events are immutable, dictionaries are not.
        return match value {
            Some(value) => Ok(value.cast_into::<PyDict>()?.copy()?.into_any()),
            None => Ok(PyDict::new(py).into_any()),
        };
    }
    let created = match value {
        Some(value) if context::is_pending(&value) => context::message_metadata(&value)?,
        Some(value) => return Ok(value),
        None => context::empty_metadata(py)?,
    };
    store(message, Metadata, Some(created.clone()));
    Ok(created)
}

/// Sets `meta` from a Python value, checking and converting it.
pub fn set<'py>(message: MessageRef<'_, 'py>, meta: Meta, value: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = message.py();
    let body = message.body();
    let present = (!value.is_none()).then(|| value.clone());
    match meta {
        EventId => body.id.set(values::uuid_to_bytes(value, if is_event(message) { "event_id" } else { "id" })?),
        OccurredAt => {
            let name = if is_event(message) { "occurred_at" } else { "timestamp" };
            body.time_us.set(values::datetime_to_us(value, name)?);
        }
        SequenceNumber if present.is_none() => body.sequence.set(UNSTAMPED),
        SequenceNumber => body.sequence.set(values::integer(value, "sequence_number", 0, i64::MAX)?),
        Version => body.version.set(values::integer(value, "version", 0, i64::from(u32::MAX))? as u32),
        SchemaVersion => {
            let number = values::integer(value, "schema_version", 0, i64::MAX)?;
            match u16::try_from(number) {
                Ok(small) => {
                    store(message, meta, None);
                    body.schema.set(small);
                }
                Err(_) => store(message, meta, present),
            }
        }
        EventType => {
            let text = present.map(|value| nonempty_text(value, "event_type")).transpose()?;
            let default = message.plan().map(|plan| plan.event_type.bind(py));
            let same = matches!((&text, default), (Some(text), Some(default)) if text.eq(default)?);
            store(message, meta, if same { None } else { text });
        }
        Tags => store(message, meta, present.map(|value| tag_tuple(&value)).transpose()?.flatten()),
        Metadata if is_event(message) => {
            store(message, meta, present.map(|value| metadata_copy(&value)).transpose()?.flatten());
        }
        Metadata if present.as_ref().is_some_and(context::is_pending) => {
            let message = format!("metadata must be a MessageMetadata, not {}", values::shown(value));
            return Err(EventValidationError::new_err((message, "metadata")));
        }
        Metadata | AggregateId | AggregateType | ActorId | CorrelationId | CausationId => {
            store(message, meta, present);
        }
    }
    Ok(())
}

fn is_event(message: MessageRef<'_, '_>) -> bool {
    message.plan().is_some_and(|plan| plan.kind == Kind::Event)
}

fn nonempty_text<'py>(value: Bound<'py, PyAny>, field: &str) -> PyResult<Bound<'py, PyAny>> {
    match value.cast::<PyString>() {
        Ok(text) if !text.is_empty()? => Ok(value),
        _ => {
            let message = format!("{field} must be a non-empty string, not {}", values::shown(&value));
            Err(EventValidationError::new_err((message, field.to_owned())))
        }
    }
}

/// A text that every backend can store and index as a tag.
fn tag_text(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let value = nonempty_text(value, "tags")?;
    let wrong = match value.cast::<PyString>()?.to_str() {
        Err(_) => "must not contain lone surrogates".to_owned(),
        Ok(text) if text.contains('\0') => "must not contain NUL characters".to_owned(),
        Ok(text) => match text.chars().count() {
            0..=MAX_TAG_LENGTH => return Ok(value),
            length => format!("has {length} characters, at most {MAX_TAG_LENGTH} fit"),
        },
    };
    Err(EventValidationError::new_err((format!("tags {wrong}"), "tags")))
}

/// A tuple of distinct, non-empty strings; None if there are none.
fn tag_tuple<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let items = if value.is_instance_of::<PyString>() { None } else { value.try_iter().ok() };
    let Some(items) = items else {
        let message = format!("tags must be a collection of strings, not {}", values::shown(value));
        return Err(EventValidationError::new_err((message, "tags")));
    };
    let mut tags: Vec<Bound<'py, PyAny>> = Vec::new();
    for tag in items {
        let tag = tag_text(tag?)?;
        if !PyTuple::new(value.py(), &tags)?.contains(&tag)? {
            tags.push(tag);
        }
    }
    if tags.is_empty() {
        return Ok(None);
    }
    Ok(Some(PyTuple::new(value.py(), tags)?.into_any()))
}

/// A dictionary of our own with string keys; None if it would be empty.
fn metadata_copy<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    let Ok(mapping) = value.cast::<PyMapping>() else {
        let message = format!("metadata must be a mapping, not {}", values::shown(value));
        return Err(EventValidationError::new_err((message, "metadata")));
    };
    let copy = PyDict::new(py);
    copy.update(mapping)?;
    for key in copy.keys() {
        nonempty_text(key, "metadata")?;
    }
    Ok((!copy.is_empty()).then(|| copy.into_any()))
}
