//! Pure data structures and algorithms. Nothing in here knows about Python.
pub mod clock;
