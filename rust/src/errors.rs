//! The one place that knows the Python exceptions: they are declared in `exceptions.py` and imported here.
pyo3::import_exception!(lexigram.events.exceptions, EventValidationError);
