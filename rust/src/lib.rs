//! `lexigram.events._core`: the performance-critical core. This file is its table of contents.
use pyo3::prelude::*;

pub mod core;
pub mod errors;
mod py;

#[pymodule(gil_used = true)]
fn _core(m: &Bound<'_, PyModule>) -> PyResult<()> {
    py::register(m)
}
