//! The one place that knows the Python exceptions: they are declared in `exceptions.py` and imported here.
