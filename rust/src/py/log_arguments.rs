//! Arguments of the log's short ways, where they need no further check.
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

const MAX_STREAM_ID_LENGTH: usize = 255;

/// Returns a stream id that needs no further check.
#[inline]
pub fn stream_name<'a>(stream_id: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    let stream = stream_id.cast_exact::<PyString>().ok()?.to_str().ok()?;
    let is_short = stream.len() <= MAX_STREAM_ID_LENGTH || stream.chars().count() <= MAX_STREAM_ID_LENGTH;
    let fits = !stream.is_empty() && is_short && !stream.as_bytes().contains(&0);
    fits.then_some(stream)
}

/// As `number`, of an argument that may be left out.
#[inline]
#[allow(clippy::option_option)]
pub fn given(value: Option<&Bound<'_, PyAny>>) -> Option<Option<u64>> {
    value.map_or(Some(None), number)
}

/// Returns an optional version or count that needs no further check.
#[inline]
#[allow(clippy::option_option)]
pub fn number(value: &Bound<'_, PyAny>) -> Option<Option<u64>> {
    if value.is_none() {
        return Some(None);
    }
    let number: i64 = value.cast_exact::<PyInt>().ok()?.extract().ok()?;
    u64::try_from(number).ok().map(Some)
}
