//! Python classes over `core`, one per file.
use pyo3::prelude::*;

pub mod address;
mod awaitable;
pub mod builder;
mod call;
mod call_slots;
mod channel;
pub mod clock;
pub mod codec;
pub mod compare;
pub mod construct;
pub mod context;
pub mod event;
mod facts;
mod log;
mod log_arguments;
mod log_batch;
mod log_stream;
mod memory;
pub mod messages;
pub mod metadata;
mod numbers;
pub mod plan;
mod shortcut;
mod storable;
pub mod values;

/// Adds every class and function of this crate to the extension module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    codec::register(m)?;
    event::register(m)?;
    plan::register(m)?;
    messages::register(m)?;
    address::register(m)?;
    clock::register(m)?;
    call_slots::register(m.py())?;
    channel::register(m)?;
    awaitable::register(m)?;
    m.add_class::<log::EventLog>()?;
    memory::register(m)?;
    awaitable::add_method::<3, log::Append>(m.py())?;
    awaitable::add_method::<4, log::Read>(m.py())?;
    awaitable::add_method::<5, log_stream::Stream>(m.py())?;
    Ok(())
}
