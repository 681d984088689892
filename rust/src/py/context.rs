//! What a message takes from the message being handled.
//!
//! The context variable of `messages/context.py` holds the handled message itself, or a `MessageContext`; nothing is
//! computed until a message is constructed, and for commands and queries not before their metadata is read.
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use super::event::MessageRef;
use super::metadata::{self, Kind, Meta};

/// Custom metadata keys that pass from the handled message to what is emitted.
const INHERITED_KEYS: [&str; 3] = ["tenant_id", "user_id", "traceparent"];

fn context_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "lexigram.events.messages.context", "MessageContext")
}

/// A `MessageMetadata` without content.
pub fn empty_metadata(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "lexigram.contracts.events.messages", "MessageMetadata")?.call0()
}

/// Whether the metadata place of a command holds what its metadata is still to be made from.
pub fn is_pending(value: &Bound<'_, PyAny>) -> bool {
    MessageRef::cast(value).is_some() || context_class(value.py()).is_ok_and(|class| value.is_exact_instance(class))
}

/// Keeps the handled message in a new command or query until its metadata is read.
pub fn leave_for_later<'py>(message: MessageRef<'_, 'py>, handled: &Bound<'py, PyAny>) -> PyResult<()> {
    let pending = if is_pending(handled) { handled.clone() } else { context_of(handled)? };
    metadata::store(message, Meta::Metadata, Some(pending));
    Ok(())
}

/// The `MessageContext` that handling `message` establishes.
fn context_of<'py>(message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    context_class(message.py())?.call_method1(intern!(message.py(), "of"), (message,))
}

/// The `MessageMetadata` of a command constructed while `handled` was handled.
pub fn message_metadata<'py>(handled: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = handled.py();
    static FUNCTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FUNCTION.import(py, "lexigram.events.messages.context", "inherited_metadata")?.call1((handled,))
}

/// What an event takes over.
#[derive(Default)]
struct Inherited<'py> {
    correlation: Option<Bound<'py, PyAny>>,
    causation: Option<Bound<'py, PyAny>>,
    actor: Option<Bound<'py, PyAny>>,
    custom: Option<Bound<'py, PyDict>>,
}

/// Gives an event what it has not been `given` and the handled message passes on.
pub fn inherit<'py>(event: MessageRef<'_, 'py>, given: u32, handled: &Bound<'py, PyAny>) -> PyResult<()> {
    let inherited = match MessageRef::cast(handled) {
        Some(message) => of_message(message)?,
        None if is_pending(handled) => of_context(handled)?,
        None => of_context(&context_of(handled)?)?,
    };
    let ids = [
        (Meta::CorrelationId, inherited.correlation),
        (Meta::CausationId, inherited.causation),
        (Meta::ActorId, inherited.actor),
    ];
    for (meta, value) in ids {
        if given & meta.bit() == 0 && value.is_some() {
            metadata::store(event, meta, value);
        }
    }
    let Some(custom) = inherited.custom else {
        return Ok(());
    };
    if let Some(own) = metadata::stored(event, Meta::Metadata) {
        custom.update(own.cast()?)?;
    }
    metadata::store(event, Meta::Metadata, Some(custom.into_any()));
    Ok(())
}

fn of_message<'py>(handled: MessageRef<'_, 'py>) -> PyResult<Inherited<'py>> {
    let id = metadata::get(handled, Meta::EventId)?;
    if handled.plan().is_some_and(|plan| plan.kind == Kind::Event) {
        let custom = metadata::stored(handled, Meta::Metadata);
        let correlation = metadata::stored(handled, Meta::CorrelationId);
        return Ok(Inherited {
            correlation: correlation.or_else(|| Some(id.clone())),
            causation: Some(id),
            actor: metadata::stored(handled, Meta::ActorId),
            custom: custom.map(|custom| passed_on(custom.cast()?)).transpose()?.flatten(),
        });
    }
    if metadata::stored(handled, Meta::Metadata).is_none() {
        return Ok(Inherited { correlation: Some(id.clone()), causation: Some(id), ..Inherited::default() });
    }
    let mut inherited = of_context(&context_of(&handled.object())?)?;
    inherited.causation = Some(id);
    Ok(inherited)
}

/// The inherited keys of an event's custom metadata, None if it has none of them.
fn passed_on<'py>(custom: &Bound<'py, PyDict>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let chosen = PyDict::new(custom.py());
    for key in INHERITED_KEYS {
        if let Some(value) = custom.get_item(key)? {
            chosen.set_item(key, value)?;
        }
    }
    Ok((!chosen.is_empty()).then_some(chosen))
}

fn of_context<'py>(context: &Bound<'py, PyAny>) -> PyResult<Inherited<'py>> {
    let py = context.py();
    let read = |name| PyResult::Ok(Some(context.getattr(name)?).filter(|value| !value.is_none()));
    let causation = read(intern!(py, "message_id"))?;
    let custom = PyDict::new(py);
    for key in INHERITED_KEYS {
        let value = context.getattr(key)?;
        if !value.is_none() {
            custom.set_item(key, value)?;
        }
    }
    Ok(Inherited {
        correlation: read(intern!(py, "correlation_id"))?.or_else(|| causation.clone()),
        causation,
        actor: read(intern!(py, "user_id"))?,
        custom: (!custom.is_empty()).then_some(custom),
    })
}
