//! What the log needs to know of an event: id, tags, and how to stamp it.
use std::ptr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::builder;
use super::event::{MessageRef, UNSTAMPED, peek};
use super::plan::Plan;
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

/// A batch that the fast way of appending may store, as it was before the lock is taken.
pub struct Fresh<'a, 'py> {
    pub events: &'a Bound<'py, PyList>,
    pub first_id: u128,
    /// All ids are UUIDv7, so that if the first one is higher than all stored ones, so are the others.
    pub is_ordered: bool,
    /// All are of the class of the first one.
    pub is_uniform: bool,
    /// Index and tags of the events that have any.
    pub tagged: Vec<(usize, Vec<String>)>,
}

impl<'a, 'py> Fresh<'a, 'py> {
    /// Looks at a batch; None unless all are events of ours that no store has stamped, with ids in ascending order,
    /// the event type of their class and no field that is a container or an object of the user's.
    #[inline]
    pub fn examine(events: &'a Bound<'py, PyList>) -> Option<Self> {
        let (mut first_id, mut last, mut is_ordered, mut is_uniform) = (0, 0, true, true);
        let mut tagged = Vec::new();
        let mut plan = None;
        for (n, event) in events.iter().enumerate() {
            let former = plan;
            let message = native(&event, &mut plan)?;
            is_uniform &= former.is_none_or(|former| plan.is_some_and(|plan| ptr::eq(plan, former)));
            let id = id(message);
            // An event that the collector looks at may hold something that cannot be stored: the general way checks.
            if message.body().sequence.get() != UNSTAMPED || id <= last || message.is_tracked() {
                return None;
            }
            if last == 0 {
                first_id = id;
            }
            last = id;
            is_ordered &= ids::is_ordered(id);
            if message.body().rare().is_some() {
                if has_own_type(message) {
                    return None;
                }
                if let Some(tags) = tags(message) {
                    tagged.push((n, tags.extract().ok()?));
                }
            }
        }
        (last != 0).then_some(Fresh { events, first_id, is_ordered, is_uniform, tagged })
    }
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

/// The ids of a batch of our events.
#[inline]
pub fn all_ids(events: &Bound<'_, PyList>) -> impl Iterator<Item = u128> {
    let mut plan = None;
    events.iter().filter_map(move |event| native(&event, &mut plan).map(id))
}

/// The handle of an event of ours; `plan` is that of the event before, which is probably of the same class.
#[inline]
fn native<'a, 'py>(event: &'a Bound<'py, PyAny>, plan: &mut Option<&'static Plan>) -> Option<MessageRef<'a, 'py>> {
    if let Some(message) = plan.and_then(|plan| MessageRef::of_class(event, plan)) {
        return Some(message);
    }
    let message = MessageRef::event(event)?;
    *plan = message.plan();
    Some(message)
}

/// Stamps a batch of our events, the first one with these numbers, and hands each over with its id. Runs no Python code,
/// so it may be called under a lock.
#[inline]
pub fn stamped(
    events: &Bound<'_, PyList>,
    version: u32,
    position: u32,
) -> impl ExactSizeIterator<Item = (Py<PyAny>, u128)> {
    let (mut plan, mut n) = (None, 0);
    events.iter().map(move |event| {
        let message = native(&event, &mut plan).expect("events of ours stay that");
        builder::stamp(message, version + n, i64::from(position + n));
        n += 1;
        let id = id(message);
        (event.unbind(), id)
    })
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
