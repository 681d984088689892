//! Telling an event whose it is: what an aggregate does to every event it applies.
use pyo3::prelude::*;

use super::event::MessageRef;
use super::metadata::{self, Meta};

/// Fills in aggregate and causal ids where the event has none, in place; false if it is not an event of ours.
///
/// A name that the class uses for a field of its own is left alone.
#[pyfunction]
pub fn address_event<'py>(
    event: &Bound<'py, PyAny>,
    aggregate_id: &Bound<'py, PyAny>,
    aggregate_type: &Bound<'py, PyAny>,
    correlation_id: &Bound<'py, PyAny>,
    causation_id: &Bound<'py, PyAny>,
) -> bool {
    let Some(message) = MessageRef::event(event) else {
        return false;
    };
    let Some(plan) = message.plan() else {
        return false;
    };
    for (meta, value) in [
        (Meta::AggregateId, aggregate_id),
        (Meta::AggregateType, aggregate_type),
        (Meta::CorrelationId, correlation_id),
        (Meta::CausationId, causation_id),
    ] {
        if !value.is_none() && !plan.shadows(meta) && metadata::stored(message, meta).is_none() {
            metadata::store(message, meta, Some(value.clone()));
        }
    }
    true
}

/// Adds the functions of this file to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(address_event, module)?)
}
