//! Equality of messages.
use pyo3::prelude::*;

use super::event::{MessageRef, Planned};
use super::metadata::{self, Meta};

/// Whether two messages of one class say the same; `sequence_number` and `version` do not count.
pub fn equal(one: Planned<'_, '_>, other: Planned<'_, '_>) -> PyResult<bool> {
    let (left, right, plan) = (one.message(), other.message(), one.plan());
    if left.object().is(right.object()) {
        return Ok(true);
    }
    let (a, b) = (left.body(), right.body());
    if a.id.get() != b.id.get() || a.time_us.get() != b.time_us.get() {
        return Ok(false);
    }
    for (meta, _) in plan.kind.names() {
        let native = matches!(meta, Meta::EventId | Meta::OccurredAt | Meta::SequenceNumber | Meta::Version);
        if !native && !metadata::get(left, *meta)?.eq(metadata::get(right, *meta)?)? {
            return Ok(false);
        }
    }
    for (index, field) in plan.fields.iter().enumerate() {
        if !field.compare {
            continue;
        }
        let same = match (one.get(index), other.get(index)) {
            (Some(a), Some(b)) => a.is(&b) || a.eq(b)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    let filled = |message: MessageRef<'_, '_>| message.extra().is_some_and(|extra| !extra.is_empty());
    match (filled(left), filled(right)) {
        (false, false) => Ok(true),
        (true, true) => left.extra_or_new()?.eq(right.extra_or_new()?),
        _ => Ok(false),
    }
}
