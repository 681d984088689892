//! Making messages: from a call, from stored parts, and from another message.
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::context;
use super::event::{self, Arguments, MessageRef, Planned};
use super::metadata::{self, Kind, Meta};
use super::plan::{Fallback, Field, Plan};
use crate::core::clock::Uuid7;

static IDS: Uuid7 = Uuid7::unseeded();
static CONTEXT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Tells the core which context variable new messages inherit from; see `messages/context.py` for its value.
#[pyfunction]
pub fn install_context(py: Python<'_>, variable: Py<PyAny>) {
    let _ = CONTEXT.set(py, variable);
}

/// Draws new entropy for event ids; called in the child of a fork.
#[pyfunction]
pub fn reseed_ids() {
    IDS.reseed();
}

/// A new UUIDv7.
#[pyfunction]
pub fn new_id(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    super::values::uuid_from_bytes(py, IDS.next(event::now_us()))
}

/// What a keyword of a call stands for.
enum Meaning {
    Field(usize),
    Meta(Meta),
    Unknown,
}

#[inline]
fn meaning(plan: &Plan, name: &Bound<'_, PyString>, guess: usize) -> PyResult<Meaning> {
    // Keywords are almost always the interned names, in the order of declaration.
    if plan.fields.get(guess).is_some_and(|field| field.name.is(name)) {
        return Ok(Meaning::Field(guess));
    }
    searched_meaning(plan, name)
}

fn searched_meaning(plan: &Plan, name: &Bound<'_, PyString>) -> PyResult<Meaning> {
    if let Some(index) = plan.fields.iter().position(|field| field.name.is(name)) {
        return Ok(Meaning::Field(index));
    }
    if let Some((_, meta)) = plan.meta_names.iter().find(|(known, _)| known.is(name)) {
        return Ok(Meaning::Meta(*meta));
    }
    let py = name.py();
    for (index, field) in plan.fields.iter().enumerate() {
        if field.name.bind(py).as_any().eq(name)? {
            return Ok(Meaning::Field(index));
        }
    }
    for (known, meta) in &plan.meta_names {
        if known.bind(py).as_any().eq(name)? {
            return Ok(Meaning::Meta(*meta));
        }
    }
    Ok(Meaning::Unknown)
}

/// A new message from the arguments of a call.
pub fn construct<'py>(
    py: Python<'py>,
    plan: &'static Plan,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    plan.require_concrete(py)?;
    let object = event::allocate(py, plan)?;
    let target = planned(&object, plan)?;
    if !fill_plainly(target, arguments)? {
        fill(target, arguments, true)?;
    }
    Ok(object)
}

/// The usual call, which passes every field in the order of declaration, and nothing else; does nothing that `fill` would
/// not. False if `fill` has to do it (over).
#[inline]
fn fill_plainly<'py>(target: Planned<'_, 'py>, arguments: &Arguments<'_, 'py>) -> PyResult<bool> {
    let (message, plan) = (target.message(), target.plan());
    let names = arguments.names.as_ref().map_or(&[][..], |names| names.as_slice());
    if !plan.is_plain || names.len() != plan.fields.len() || !arguments.positional.is_empty() {
        return Ok(false);
    }
    let mut track = false;
    let given = names.iter().zip(arguments.named);
    for (index, (field, (name, value))) in plan.fields.iter().zip(given).enumerate() {
        if !field.name.is(name) {
            // What is set by now, `fill` sets once more.
            return Ok(false);
        }
        track |= event::is_container(value);
        target.put_first(index, Bound::clone(value));
    }
    inherit(message, plan, 0)?;
    identify(message, 0);
    if track {
        message.track();
    }
    Ok(true)
}

pub(super) fn planned<'a, 'py>(object: &'a Bound<'py, PyAny>, plan: &'static Plan) -> PyResult<Planned<'a, 'py>> {
    Planned::fresh(object, plan).ok_or_else(|| PyTypeError::new_err("not an instance of its class"))
}

/// A new message with id and time only, for `__new__`.
pub fn empty<'py>(plan: &'static Plan, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
    plan.require_concrete(py)?;
    let object = event::allocate(py, plan)?;
    let message = planned(&object, plan)?.message();
    identify(message, 0);
    // A user's `__init__` may put anything into it.
    message.track();
    Ok(object)
}

/// `__init__` of a message made by `empty`.
pub fn initialize(
    object: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let py = object.py();
    let message = Planned::cast(object).ok_or_else(|| PyTypeError::new_err("not a message"))?;
    let (keys, values): (Vec<_>, Vec<_>) = kwargs.map(|kwargs| kwargs.iter().unzip()).unwrap_or_default();
    let names = PyTuple::new(py, keys)?;
    let named: Vec<_> = values.iter().map(Bound::as_borrowed).collect();
    let positional: Vec<_> = args.iter_borrowed().collect();
    let arguments = Arguments { positional: &positional, named: &named, names: Some(names.as_borrowed()) };
    fill(message, &arguments, false)
}

/// Sets id and time unless they were `given`.
#[inline]
pub(super) fn identify(message: MessageRef<'_, '_>, given: u32) {
    let both = Meta::EventId.bit() | Meta::OccurredAt.bit();
    if given & both == both {
        return;
    }
    let now = event::now_us();
    if given & Meta::OccurredAt.bit() == 0 {
        message.body().time_us.set(now);
    }
    if given & Meta::EventId.bit() == 0 {
        message.body().id.set(IDS.next(now));
    }
}

fn fill<'py>(target: Planned<'_, 'py>, arguments: &Arguments<'_, 'py>, fresh: bool) -> PyResult<()> {
    let (message, plan) = (target.message(), target.plan());
    let py = message.py();
    let mut filled = arguments.positional.len();
    let Some(by_position) = plan.positional.get(..filled) else {
        return Err(too_many(py, plan, filled));
    };
    let mut track = plan.always_tracked;
    for (index, value) in by_position.iter().zip(arguments.positional) {
        track |= event::is_container(value);
        target.put(*index, Bound::clone(value));
    }
    let mut given = 0;
    let names = arguments.names.as_ref().map_or(&[][..], |names| names.as_slice());
    let mut guess = filled;
    for (name, value) in names.iter().zip(arguments.named) {
        match meaning(plan, name.cast()?, guess)? {
            Meaning::Field(index) if by_position.contains(&index) => {
                let class = plan.name(py);
                return Err(PyTypeError::new_err(format!("{class}() got multiple values for argument {name:?}")));
            }
            Meaning::Field(index) if plan.fields[index].init => {
                track |= event::is_container(value);
                target.put(index, Bound::clone(value));
                filled += 1;
                guess = index + 1;
            }
            Meaning::Meta(meta) => {
                given |= meta.bit();
                metadata::set(message, meta, value)?;
            }
            Meaning::Unknown if plan.accepts_extra => {
                require_free_name(plan, name.cast()?)?;
                message.extra_or_new()?.set_item(name, value)?;
                track = true;
            }
            Meaning::Field(_) | Meaning::Unknown => return Err(misfit(py, plan, arguments)),
        }
    }
    if filled < plan.fields.len() {
        track |= apply_fallbacks(target, |_| misfit(py, plan, arguments))?;
    }
    for (meta, fallback) in &plan.meta_fallbacks {
        if given & meta.bit() == 0 {
            let value = fallback.make(py)?.ok_or_else(|| misfit(py, plan, arguments))?;
            metadata::set(message, *meta, &value)?;
            given |= meta.bit();
        }
    }
    inherit(message, plan, given)?;
    if fresh {
        identify(message, given);
    }
    if track {
        message.track();
    }
    if plan.post_init {
        message.object().call_method0(intern!(py, "__post_init__"))?;
        track_contents(target);
    }
    Ok(())
}

/// Gives unset fields their defaults; whether one of them is a container.
#[inline]
pub(super) fn apply_fallbacks(target: Planned<'_, '_>, missing: impl Fn(&Field) -> PyErr) -> PyResult<bool> {
    let mut track = false;
    for (index, field) in target.plan().fields.iter().enumerate() {
        if target.is_set(index) {
            continue;
        }
        if let Some(value) = field.fallback.make(target.message().py())? {
            track |= event::is_container(&value);
            target.put(index, value);
        } else if matches!(field.fallback, Fallback::Required) {
            return Err(missing(field));
        }
    }
    Ok(track)
}

/// Starts tracking if any field holds a container by now.
fn track_contents(target: Planned<'_, '_>) {
    let message = target.message();
    if message.is_tracked() {
        return;
    }
    let mut contents = (0..target.plan().fields.len()).filter_map(|index| target.get(index));
    if message.extra().is_some() || contents.any(|value| event::is_container(&value)) {
        message.track();
    }
}

/// Takes correlation, causation, actor and custom metadata from the message being handled, where not given.
#[inline]
fn inherit<'py>(message: MessageRef<'_, 'py>, plan: &Plan, given: u32) -> PyResult<()> {
    let py = message.py();
    let Some(variable) = CONTEXT.get(py) else {
        return Ok(());
    };
    match event::context_value(variable.bind(py))? {
        Some(handled) if !handled.is_none() => inherit_from(message, plan, given, handled),
        _ => Ok(()),
    }
}

#[cold]
fn inherit_from<'py>(
    message: MessageRef<'_, 'py>,
    plan: &Plan,
    given: u32,
    handled: Bound<'py, PyAny>,
) -> PyResult<()> {
    if plan.kind == Kind::Event {
        return context::inherit(message, given, &handled);
    }
    if given & Meta::Metadata.bit() == 0 {
        context::leave_for_later(message, &handled)?;
    }
    Ok(())
}

/// An ad-hoc keyword must not hide a method or property of the class.
fn require_free_name(plan: &Plan, name: &Bound<'_, PyString>) -> PyResult<()> {
    if plan.class.bind(name.py()).hasattr(name)? {
        let class = plan.name(name.py());
        return Err(PyTypeError::new_err(format!(
            "{class}() cannot take {name:?}: the class has an attribute of that name"
        )));
    }
    Ok(())
}

fn too_many(py: Python<'_>, plan: &Plan, count: usize) -> PyErr {
    let name = plan.name(py);
    if plan.positional.is_empty() {
        return PyTypeError::new_err(format!("{name}() takes keyword arguments only, {count} positional given"));
    }
    PyTypeError::new_err(format!(
        "{name}() takes at most {} positional arguments, {count} given",
        plan.positional.len()
    ))
}

/// The TypeError of a call that does not fit the plan: it names every missing and every unknown argument.
fn misfit<'py>(py: Python<'py>, plan: &Plan, arguments: &Arguments<'_, 'py>) -> PyErr {
    let passed = arguments.names.as_ref().map_or(&[][..], |names| names.as_slice());
    let passes = |wanted: &Py<PyString>| passed.iter().any(|name| name.as_any().eq(wanted.bind(py)).unwrap_or(false));
    let by_position = plan.positional.get(..arguments.positional.len()).unwrap_or_default();
    let mut missing = Vec::new();
    for (index, field) in plan.fields.iter().enumerate() {
        let required = matches!(field.fallback, Fallback::Required) && !by_position.contains(&index);
        if required && !passes(&field.name) {
            missing.push(quoted(field.name.bind(py)));
        }
    }
    for (meta, fallback) in &plan.meta_fallbacks {
        let name = plan.meta_names.iter().find(|(_, known)| known == meta).map(|(name, _)| name);
        if let (Fallback::Required, Some(name)) = (fallback, name)
            && !passes(name)
        {
            missing.push(quoted(name.bind(py)));
        }
    }
    let mut unknown = Vec::new();
    for name in passed.iter().filter_map(|name| name.cast::<PyString>().ok()) {
        let fits = match meaning(plan, name, 0) {
            Ok(Meaning::Field(index)) => plan.fields[index].init,
            Ok(Meaning::Meta(_)) => true,
            _ => plan.accepts_extra,
        };
        if !fits {
            unknown.push(quoted(name));
        }
    }
    let mut parts = Vec::new();
    for (what, names) in [("missing required", missing), ("got unexpected", unknown)] {
        if !names.is_empty() {
            let plural = if names.len() == 1 { "" } else { "s" };
            parts.push(format!("{what} keyword argument{plural}: {}", names.join(", ")));
        }
    }
    PyTypeError::new_err(format!("{}() {}", plan.name(py), parts.join("; ")))
}

pub(super) fn quoted(name: &Bound<'_, PyString>) -> String {
    format!("'{}'", name.to_string_lossy())
}
