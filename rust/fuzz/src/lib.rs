//! What must hold for any input, one file per target. The modules under test are compiled from the main crate's files.
#![allow(dead_code)]

pub mod binary;
pub mod json;
pub mod log;
pub mod texts;

#[path = "../../src/core/mod.rs"]
mod core;
