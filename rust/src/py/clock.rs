//! The clock and the id source of messages, and how tests stop them.
use pyo3::prelude::*;

use super::values;
use crate::core::clock;

/// The present time as new messages see it.
#[pyfunction]
pub fn now(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    values::datetime_from_us(py, clock::now_us())
}

/// Makes time stand still at a moment, or run again if there is none.
#[pyfunction]
#[pyo3(signature = (moment=None))]
pub fn freeze_clock(moment: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let us = moment.map(|moment| values::datetime_to_us(moment, "moment")).transpose()?;
    clock::freeze(us);
    Ok(())
}

/// Makes new ids count up from a number, or be random again if there is none.
#[pyfunction]
#[pyo3(signature = (first=None))]
pub fn number_ids(first: Option<u32>) {
    clock::number_ids(first.map(u64::from));
}

/// The number that the next id gets, None while ids are random.
#[pyfunction]
pub fn next_id_number() -> Option<u64> {
    clock::next_id_number()
}

/// Adds the functions of this file to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(now, module)?)?;
    module.add_function(wrap_pyfunction!(freeze_clock, module)?)?;
    module.add_function(wrap_pyfunction!(number_ids, module)?)?;
    module.add_function(wrap_pyfunction!(next_id_number, module)?)
}
