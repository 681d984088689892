//! What the log needs to know of an event: id, tags, and how to stamp it.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use super::builder;
use super::event::{self, Items, MessageRef, Planned, UNSTAMPED, peek};
use super::metadata::Kind;
use super::plan::Plan;
use super::storable;
use crate::core::ids;

/// An event on its way into the log.
pub struct Facts {
    pub event: Py<PyAny>,
    pub id: u128,
    pub tags: Vec<String>,
    /// The event is one of ours, so that stamping it runs no Python code.
    pub is_native: bool,
    /// The cyclic collector looks at the event.
    pub is_tracked: bool,
}

/// A batch that the fast way of appending may store.
pub struct Fresh<'py> {
    pub events: Items<'py>,
    pub first_id: u128,
    /// All ids are UUIDv7, so that if the first one is higher than all stored ones, so are the others.
    pub is_ordered: bool,
    /// All are of the class of the first one.
    pub is_uniform: bool,
    /// The cyclic collector looks at some of them.
    pub is_tracked: bool,
    /// Index and tags of the events that have any.
    pub tagged: Vec<(usize, Vec<String>)>,
    /// The plan of the last one.
    plan: &'static Plan,
}

impl<'py> Fresh<'py> {
    /// Looks at a batch; None unless all are events of ours that no store has stamped, with ids in ascending order, the
    /// event type of their class and no value that only the codec can judge.
    #[inline]
    pub fn examine(list: &Bound<'py, PyList>) -> Option<Self> {
        let events = event::items(list);
        let first = Planned::cast(events.first()?)?;
        let (mut plan, first_id) = (first.plan(), id(first.message()));
        let (mut last, mut is_ordered, mut is_uniform, mut is_tracked) = (0, true, true, false);
        let mut tagged = Vec::new();
        for (n, event) in events.iter().enumerate() {
            let event = match Planned::fresh(event, plan) {
                Some(event) => event,
                None => {
                    is_uniform = false;
                    Planned::cast(event)?
                }
            };
            plan = event.plan();
            let (message, id) = (event.message(), id(event.message()));
            if plan.kind != Kind::Event || message.body().sequence.get() != UNSTAMPED || id <= last {
                return None;
            }
            last = id;
            is_ordered &= ids::is_ordered(id);
            if message.is_tracked() {
                // It may hold something that cannot be stored.
                is_tracked = true;
                if !storable::is_plain(event) {
                    return None;
                }
            }
            if message.body().rare().is_some() {
                if has_own_type(message) {
                    return None;
                }
                if let Some(tags) = tags(message) {
                    tagged.push((n, texts(&tags)?));
                }
            }
        }
        Some(Fresh { events, first_id, is_ordered, is_uniform, is_tracked, tagged, plan })
    }

    #[inline]
    fn message<'a>(&self, event: &'a Bound<'py, PyAny>) -> MessageRef<'a, 'py> {
        let message = MessageRef::of_class(event, self.plan).or_else(|| MessageRef::event(event));
        message.expect("events of ours stay that")
    }

    /// The id of one of these events.
    #[inline]
    pub fn id(&self, event: &Bound<'py, PyAny>) -> u128 {
        id(self.message(event))
    }

    /// One of these events with its numbers. Runs no Python code, so it may be called under a lock.
    #[inline]
    pub fn stamped(&self, event: &Bound<'py, PyAny>, version: u32, position: u32) -> Py<PyAny> {
        builder::stamp(self.message(event), version, i64::from(position));
        event.clone().unbind()
    }
}

/// The texts in a tuple, None if there is anything else. Makes no Python object.
fn texts(tuple: &Bound<'_, PyAny>) -> Option<Vec<String>> {
    let text = |item: Borrowed<'_, '_, PyAny>| item.cast::<PyString>().ok()?.to_str().ok().map(str::to_owned);
    tuple.cast::<PyTuple>().ok()?.iter_borrowed().map(text).collect()
}

/// The id of one of our events as a number that sorts like its bytes.
#[inline]
pub fn id(message: MessageRef<'_, '_>) -> u128 {
    u128::from_be_bytes(message.body().id.get())
}

/// Whether a stored event is one of ours with this id. Runs no Python code.
pub fn has_id(py: Python<'_>) -> impl Fn(&Py<PyAny>, u128) -> bool {
    move |event, wanted| MessageRef::event(event.bind(py)).is_some_and(|message| id(message) == wanted)
}

/// Tells whether the event was given another event type than its class has.
#[inline]
fn has_own_type(message: MessageRef<'_, '_>) -> bool {
    message.body().rare().is_some_and(|rare| peek(message.py(), &rare.event_type).is_some())
}

#[inline]
fn tags<'py>(message: MessageRef<'_, 'py>) -> Option<Bound<'py, PyAny>> {
    message.body().rare().and_then(|rare| peek(message.py(), &rare.tags))
}

impl Facts {
    /// Reads any event that is not stamped.
    pub fn read(event: &Bound<'_, PyAny>) -> PyResult<Facts> {
        let object = event.clone().unbind();
        if let Some(message) = MessageRef::event(event) {
            let tags = tags(message).map_or(Ok(Vec::new()), |tags| tags.extract())?;
            let is_tracked = message.is_tracked();
            return Ok(Facts { event: object, id: id(message), tags, is_native: true, is_tracked });
        }
        let py = event.py();
        let id: u128 = event.getattr(intern!(py, "event_id"))?.getattr(intern!(py, "int"))?.extract()?;
        let tags = match event.getattr_opt(intern!(py, "tags"))? {
            Some(tags) if tags.is_instance_of::<PyTuple>() => tags.extract()?,
            _ => Vec::new(),
        };
        Ok(Facts { event: object, id, tags, is_native: false, is_tracked: true })
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
        builder::stamp(message, version, i64::from(position));
    }
}
