//! The one place that knows the Python exceptions: they are declared in `exceptions.py` and imported here.
use pyo3::prelude::*;

pyo3::import_exception!(lexigram.events.exceptions, ConcurrencyError);
pyo3::import_exception!(lexigram.events.exceptions, EventPersistenceError);
pyo3::import_exception!(lexigram.events.exceptions, EventValidationError);
pyo3::import_exception!(lexigram.events.exceptions, SerializationError);

/// A stream is not at the version that an append expected.
#[cold]
pub fn version_conflict(stream: &str, expected: Option<u64>, actual: u32) -> PyErr {
    let message = match expected {
        Some(0) => format!("stream {stream:?} already exists, at version {actual}; nothing was written"),
        Some(n) => format!("stream {stream:?} is at version {actual}, expected {n}; nothing was written"),
        None => format!("stream {stream:?} is at version {actual}; nothing was written"),
    };
    ConcurrencyError::new_err((message, expected, actual))
}

/// Something that an append's condition selects was appended meanwhile.
#[cold]
pub fn condition_failed(stream: &str, position: u32) -> PyErr {
    ConcurrencyError::new_err(format!(
        "the condition of the append to {stream:?} fails: a matching event is at position {position}; nothing was written"
    ))
}

/// A batch is stored in part, elsewhere, or in another order.
#[cold]
pub fn partly_stored(stream: &str) -> PyErr {
    EventPersistenceError::new_err(format!(
        "some of these event ids are already stored and do not match a retry of one append to {stream:?}; \
         nothing was written"
    ))
}

/// The in-memory log has given all its positions.
#[cold]
pub fn log_full() -> PyErr {
    EventPersistenceError::new_err(format!(
        "an in-memory store has {} positions and all are used up; use a durable store",
        u32::MAX
    ))
}
