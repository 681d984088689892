//! Python classes over `core`, one per file.
use pyo3::prelude::*;

/// Adds every class and function of this crate to the extension module.
pub fn register(_m: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
