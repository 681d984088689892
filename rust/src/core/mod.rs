//! Pure data structures and algorithms. Nothing in here knows about Python.

mod admit;
pub mod binary;
pub mod calendar;
pub mod channel;
pub mod clock;
pub mod ids;
pub mod index;
pub mod json;
pub mod json_text;
pub mod log;
pub mod partition;
mod removal;
mod scan;
pub mod select;
pub mod shapes;
pub mod text;
pub mod transcode;
pub mod wire;
