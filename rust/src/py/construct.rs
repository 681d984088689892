//! Making messages: from a call, from stored parts, and from another message.
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::context;
use super::event::{self, Arguments, MessageRef};
use super::metadata::{self, Kind, Meta};
use super::plan::{Fallback, Field, Plan};
use crate::core::clock::{self, Uuid7};

static IDS: std::sync::LazyLock<Uuid7> = std::sync::LazyLock::new(Uuid7::new);
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
    super::values::uuid_from_bytes(py, IDS.next(clock::now_us()))
}

/// What a keyword of a call stands for.
enum Target {
    Field(usize),
    Meta(Meta),
    Unknown,
}

fn target(plan: &Plan, name: &Bound<'_, PyString>, guess: usize) -> PyResult<Target> {
    // Keywords are almost always the interned names, in the order of declaration.
    if plan.fields.get(guess).is_some_and(|field| field.name.is(name)) {
        return Ok(Target::Field(guess));
    }
    if let Some(index) = plan.fields.iter().position(|field| field.name.is(name)) {
        return Ok(Target::Field(index));
    }
    if let Some((_, meta)) = plan.meta_names.iter().find(|(known, _)| known.is(name)) {
        return Ok(Target::Meta(*meta));
    }
    let py = name.py();
    for (index, field) in plan.fields.iter().enumerate() {
        if field.name.bind(py).as_any().eq(name)? {
            return Ok(Target::Field(index));
        }
    }
    for (known, meta) in &plan.meta_names {
        if known.bind(py).as_any().eq(name)? {
            return Ok(Target::Meta(*meta));
        }
    }
    Ok(Target::Unknown)
}

/// A new message from the arguments of a call.
pub fn construct<'py>(
    py: Python<'py>,
    plan: &'static Plan,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    plan.require_concrete(py)?;
    let object = event::allocate(py, plan)?;
    let message = event::fresh(&object, plan);
    fill(message, plan, arguments, true)?;
    Ok(object)
}

/// A new message with id and time only, for `__new__`.
pub fn empty<'py>(plan: &'static Plan, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
    plan.require_concrete(py)?;
    let object = event::allocate(py, plan)?;
    let message = event::fresh(&object, plan);
    identify(message, 0);
    // A user's `__init__` may put anything into it.
    message.track();
    Ok(object)
}

/// `__init__` of a message made by `empty`.
pub fn initialize(object: &Bound<'_, PyAny>, args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let py = object.py();
    let Some((message, plan)) = MessageRef::cast(object).and_then(|message| Some((message, message.plan()?))) else {
        return Err(PyTypeError::new_err("not a message"));
    };
    let (keys, values): (Vec<_>, Vec<_>) = kwargs.map(|kwargs| kwargs.iter().unzip()).unwrap_or_default();
    let names = PyTuple::new(py, keys)?;
    let named: Vec<_> = values.iter().map(Bound::as_borrowed).collect();
    let positional: Vec<_> = args.iter_borrowed().collect();
    let arguments = Arguments { positional: &positional, named: &named, names: Some(names.as_borrowed()) };
    fill(message, plan, &arguments, false)
}

/// Sets id and time unless they were `given`.
fn identify(message: MessageRef<'_, '_>, given: u32) {
    let both = Meta::EventId.bit() | Meta::OccurredAt.bit();
    if given & both == both {
        return;
    }
    let now = clock::now_us();
    if given & Meta::OccurredAt.bit() == 0 {
        message.body().time_us.set(now);
    }
    if given & Meta::EventId.bit() == 0 {
        message.body().id.set(IDS.next(now));
    }
}

fn fill<'py>(
    message: MessageRef<'_, 'py>,
    plan: &'static Plan,
    arguments: &Arguments<'_, 'py>,
    fresh: bool,
) -> PyResult<()> {
    let py = message.py();
    let mut filled = arguments.positional.len();
    let Some(by_position) = plan.positional.get(..filled) else {
        return Err(too_many(py, plan, filled));
    };
    let mut track = plan.always_tracked;
    for (index, value) in by_position.iter().zip(arguments.positional) {
        track |= event::is_container(value);
        message.put(&plan.fields[*index], Bound::clone(value));
    }
    let mut given = 0;
    let mut guess = filled;
    let names = arguments.names.as_ref().map_or(&[][..], |names| names.as_slice());
    for (name, value) in names.iter().zip(arguments.named) {
        let name = name.cast::<PyString>()?;
        match target(plan, name, guess)? {
            Target::Field(index) if by_position.contains(&index) => {
                return Err(PyTypeError::new_err(format!("{}() got multiple values for argument {name:?}", plan.name(py))));
            }
            Target::Field(index) if plan.fields[index].init => {
                track |= event::is_container(value);
                message.put(&plan.fields[index], Bound::clone(value));
                filled += 1;
                guess = index + 1;
            }
            Target::Meta(meta) => {
                given |= meta.bit();
                metadata::set(message, meta, value)?;
            }
            Target::Unknown if plan.accepts_extra => {
                require_free_name(plan, name)?;
                message.extra_or_new()?.set_item(name, value)?;
                track = true;
            }
            Target::Field(_) | Target::Unknown => return Err(misfit(py, plan, arguments)),
        }
    }
    if filled < plan.fields.len() {
        track |= apply_fallbacks(message, plan, |_| misfit(py, plan, arguments))?;
    }
    for (meta, fallback) in &plan.meta_fallbacks {
        if given & meta.bit() == 0 {
            match fallback.make(py)? {
                Some(value) => metadata::set(message, *meta, &value)?,
                None => return Err(misfit(py, plan, arguments)),
            }
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
        track_contents(message, plan);
    }
    Ok(())
}

/// Gives unset fields their defaults; whether one of them is a container.
fn apply_fallbacks<'py>(
    message: MessageRef<'_, 'py>,
    plan: &'static Plan,
    missing: impl Fn(&Field) -> PyErr,
) -> PyResult<bool> {
    let mut track = false;
    for field in &plan.fields {
        if message.is_set(field) {
            continue;
        }
        if let Some(value) = field.fallback.make(message.py())? {
            track |= event::is_container(&value);
            message.put(field, value);
        } else if matches!(field.fallback, Fallback::Required) {
            return Err(missing(field));
        }
    }
    Ok(track)
}

/// Starts tracking if any field holds a container by now.
fn track_contents(message: MessageRef<'_, '_>, plan: &'static Plan) {
    if message.is_tracked() {
        return;
    }
    let contents = plan.fields.iter().filter_map(|field| message.get(field));
    if message.extra().is_some() || contents.into_iter().any(|value| event::is_container(&value)) {
        message.track();
    }
}

/// Takes correlation, causation, actor and custom metadata from the message being handled, where not given.
fn inherit<'py>(message: MessageRef<'_, 'py>, plan: &Plan, given: u32) -> PyResult<()> {
    let py = message.py();
    let Some(variable) = CONTEXT.get(py) else {
        return Ok(());
    };
    let Some(handled) = event::context_value(variable.bind(py))?.filter(|value| !value.is_none()) else {
        return Ok(());
    };
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
        return Err(PyTypeError::new_err(format!("{class}() cannot take {name:?}: the class has an attribute of that name")));
    }
    Ok(())
}

fn too_many(py: Python<'_>, plan: &Plan, count: usize) -> PyErr {
    let name = plan.name(py);
    if plan.positional.is_empty() {
        return PyTypeError::new_err(format!("{name}() takes keyword arguments only, {count} positional given"));
    }
    PyTypeError::new_err(format!("{name}() takes at most {} positional arguments, {count} given", plan.positional.len()))
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
        let fits = match target(plan, name, 0) {
            Ok(Target::Field(index)) => plan.fields[index].init,
            Ok(Target::Meta(_)) => true,
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

fn quoted(name: &Bound<'_, PyString>) -> String {
    format!("'{}'", name.to_string_lossy())
}

/// Makes a message from stored parts, without running any user code of its class.
pub struct Builder<'py> {
    object: Bound<'py, PyAny>,
    plan: &'static Plan,
}

impl<'py> Builder<'py> {
    pub fn new(py: Python<'py>, plan: &'static Plan) -> PyResult<Self> {
        let object = event::allocate(py, plan)?;
        let builder = Builder { object, plan };
        if plan.always_tracked {
            builder.message().track();
        }
        Ok(builder)
    }

    /// The unfinished message, for direct access to its metadata.
    pub fn message(&self) -> MessageRef<'_, 'py> {
        event::fresh(&self.object, self.plan)
    }

    /// Sets the field at an index of `plan.fields`.
    pub fn set_field(&self, index: usize, value: Bound<'py, PyAny>) {
        let message = self.message();
        message.track_if_container(&value);
        if let Some(field) = self.plan.fields.get(index) {
            message.put(field, value);
        }
    }

    /// Sets metadata from a Python value, with the checks of the constructor.
    pub fn set_meta(&self, meta: Meta, value: &Bound<'py, PyAny>) -> PyResult<()> {
        metadata::set(self.message(), meta, value)
    }

    pub fn set_id(&self, id: [u8; 16]) {
        self.message().body().id.set(id);
    }

    pub fn set_time_us(&self, us: i64) {
        self.message().body().time_us.set(us);
    }

    pub fn stamp(&self, version: u32, sequence: i64) {
        stamp(self.message(), version, sequence);
    }

    /// Gives the message a new id and the present time, where the stored parts had none.
    pub fn identify(&self, has_id: bool, has_time: bool) {
        let id = if has_id { Meta::EventId.bit() } else { 0 };
        let time = if has_time { Meta::OccurredAt.bit() } else { 0 };
        identify(self.message(), id | time);
    }

    /// Attributes that are not declared fields.
    pub fn set_extra(&self, extra: &Bound<'py, PyDict>) -> PyResult<()> {
        if !extra.is_empty() {
            self.message().extra_or_new()?.update(extra.as_mapping())?;
            self.message().track();
        }
        Ok(())
    }

    /// The finished message; unset fields get their defaults.
    ///
    /// Fails with a TypeError that names the first required field without a value.
    pub fn finish(self) -> PyResult<Bound<'py, PyAny>> {
        let plan = self.plan;
        let py = self.object.py();
        let missing = |field: &Field| {
            let name = quoted(field.name.bind(py));
            PyTypeError::new_err(format!("{}() missing required keyword argument: {name}", plan.name(py)))
        };
        if apply_fallbacks(self.message(), plan, missing)? {
            self.message().track();
        }
        Ok(self.object)
    }
}

/// Marks an event as stored at a version of its stream and a global position.
pub fn stamp(message: MessageRef<'_, '_>, version: u32, sequence: i64) {
    message.body().version.set(version);
    message.body().sequence.set(sequence);
}

/// A new message of the same class with the same content.
pub fn duplicate<'py>(message: MessageRef<'_, 'py>, plan: &'static Plan) -> PyResult<Builder<'py>> {
    let py = message.py();
    let builder = Builder::new(py, plan)?;
    let copy = builder.message();
    let (from, to) = (message.body(), copy.body());
    to.id.set(from.id.get());
    to.time_us.set(from.time_us.get());
    to.sequence.set(from.sequence.get());
    to.version.set(from.version.get());
    to.schema.set(from.schema.get());
    for (meta, _) in plan.kind.names() {
        if let Some(value) = metadata::stored(message, *meta) {
            metadata::store(copy, *meta, Some(value));
        }
    }
    for field in &plan.fields {
        if let Some(value) = message.get(field) {
            copy.track_if_container(&value);
            copy.put(field, value);
        }
    }
    if let Some(extra) = message.extra() {
        builder.set_extra(&extra)?;
    }
    Ok(builder)
}

/// Whether two messages of one class say the same; `sequence_number` and `version` do not count.
pub fn equal(left: MessageRef<'_, '_>, right: MessageRef<'_, '_>) -> PyResult<bool> {
    if left.object().is(&right.object()) {
        return Ok(true);
    }
    let Some(plan) = left.plan() else {
        return Ok(false);
    };
    let (a, b) = (left.body(), right.body());
    if a.id.get() != b.id.get() || a.time_us.get() != b.time_us.get() {
        return Ok(false);
    }
    for (meta, _) in plan.kind.names() {
        let native = matches!(meta, Meta::EventId | Meta::OccurredAt | Meta::SequenceNumber | Meta::Version);
        if !native && !metadata::get(left, *meta)?.eq(metadata::get(right, *meta)?)? {
            return Ok(false);
        }
    }
    for field in plan.fields.iter().filter(|field| field.compare) {
        let same = match (left.get(field), right.get(field)) {
            (Some(one), Some(other)) => one.is(&other) || one.eq(other)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    let filled = |message: MessageRef<'_, '_>| message.extra().is_some_and(|extra| !extra.is_empty());
    match (filled(left), filled(right)) {
        (false, false) => Ok(true),
        (true, true) => left.extra_or_new()?.eq(right.extra_or_new()?),
        _ => Ok(false),
    }
}
