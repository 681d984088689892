//! The plan of a message class: its fields, where they lie, and what a call may pass. Made once, kept for ever.
use std::ffi::CString;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};

use super::event;
use super::metadata::{Kind, Meta};
use super::values;

/// What a field or metadata name gets when the call does not pass it.
pub enum Fallback {
    Required,
    Value(Py<PyAny>),
    Factory(Py<PyAny>),
    /// Neither required nor given a value (`field(init=False)` without a default).
    Unset,
}

impl Fallback {
    /// The value to use, None if there is none.
    pub fn make<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Fallback::Value(value) => Ok(Some(value.bind(py).clone())),
            Fallback::Factory(factory) => factory.bind(py).call0().map(Some),
            Fallback::Required | Fallback::Unset => Ok(None),
        }
    }
}

/// One declared field.
pub struct Field {
    pub name: Py<PyString>,
    /// Byte offset of its word from the start of the object.
    pub offset: usize,
    pub fallback: Fallback,
    /// Whether the constructor takes it.
    pub init: bool,
    /// Whether it counts for equality.
    pub compare: bool,
}

/// Everything the constructor, the codec and the stores need to know about one class.
pub struct Plan {
    pub(super) address: usize,
    pub class: Py<PyType>,
    pub kind: Kind,
    pub fields: Vec<Field>,
    /// Indexes of the fields that may be passed by position, in that order.
    pub positional: Vec<usize>,
    /// Whether unknown keywords become attributes.
    pub accepts_extra: bool,
    pub post_init: bool,
    /// Names of abstract methods; not empty means that the class cannot be constructed.
    pub abstract_methods: String,
    /// The default `event_type`.
    pub event_type: Py<PyString>,
    pub schema: u16,
    /// Metadata names with their interned spelling; names that the class uses for a field of its own are left out.
    pub meta_names: Vec<(Py<PyString>, Meta)>,
    pub meta_fallbacks: Vec<(Meta, Fallback)>,
    /// Objects of this class are always visible to the collector.
    pub always_tracked: bool,
    /// Nothing is to be done with a message beyond giving every field the value that the call passes for it.
    pub is_plain: bool,
    pub(super) allocator: usize,
    pub(super) size: usize,
    pub(super) words: u16,
}

impl Plan {
    /// A TypeError if the class is abstract.
    #[inline]
    pub fn require_concrete(&self, py: Python<'_>) -> PyResult<()> {
        if self.abstract_methods.is_empty() {
            return Ok(());
        }
        Err(self.abstract_error(py))
    }

    #[cold]
    fn abstract_error(&self, py: Python<'_>) -> PyErr {
        let name = self.name(py);
        let methods = &self.abstract_methods;
        PyTypeError::new_err(format!("Can't instantiate abstract class {name} without {methods}"))
    }

    /// The class name, for messages.
    pub fn name(&self, py: Python<'_>) -> String {
        self.class.bind(py).name().map_or_else(|_| "message".to_owned(), |name| name.to_string())
    }

    /// Whether the class uses this metadata name for a field of its own.
    pub fn shadows(&self, meta: Meta) -> bool {
        self.meta_names.iter().all(|(_, known)| *known != meta)
    }
}

static FINALIZER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Tells the core which Python function compiles a class at its first construction.
#[pyfunction]
pub fn install_finalizer(py: Python<'_>, finalizer: Py<PyAny>) {
    // A second call (a reloaded module) changes nothing: the first function keeps working.
    let _ = FINALIZER.set(py, finalizer);
}

/// Routes the first construction of `cls` through its finalization.
#[pyfunction]
pub fn arm(cls: &Bound<'_, PyType>) -> PyResult<()> {
    event::arm(cls)
}

/// The plan of a class, compiled now if this is the first use.
pub fn finalized(class: &Bound<'_, PyType>) -> PyResult<&'static Plan> {
    if let Some(plan) = event::known_plan(class) {
        return Ok(plan);
    }
    event::require_message_class(class)?;
    let finalizer = FINALIZER
        .get(class.py())
        .ok_or_else(|| PyRuntimeError::new_err("import lexigram.events.messages before using its core"))?;
    finalizer.bind(class.py()).call1((class,))?;
    event::known_plan(class).ok_or_else(|| PyTypeError::new_err(format!("{class} was not finalized")))
}

/// Whether `cls` has its plan already.
#[pyfunction]
pub fn is_compiled(cls: &Bound<'_, PyType>) -> bool {
    event::known_plan(cls).is_some()
}

/// Lays out the fields of `cls` and stores its plan. Called by the finalizer, once per class, under its lock.
#[pyfunction]
#[pyo3(signature = (
    cls, fields, metadata, *, positional, accepts_extra, post_init, event_type, schema_version, always_tracked,
    r#abstract
))]
#[allow(clippy::too_many_arguments)]
pub fn compile<'py>(
    cls: &Bound<'py, PyType>,
    fields: Vec<(Bound<'py, PyString>, Bound<'py, PyTuple>)>,
    metadata: Vec<(Bound<'py, PyString>, Option<Bound<'py, PyTuple>>)>,
    positional: Vec<usize>,
    accepts_extra: bool,
    post_init: bool,
    event_type: Bound<'py, PyString>,
    schema_version: u16,
    always_tracked: bool,
    r#abstract: String,
) -> PyResult<()> {
    let py = cls.py();
    let kind = event::require_message_class(cls)?;
    if event::known_plan(cls).is_some() {
        return Ok(());
    }
    let start = event::trailing_offset(cls);
    let mut end = start;
    let mut laid_out = Vec::with_capacity(fields.len());
    for (name, rest) in fields {
        let field = lay_out(cls, &name, &rest, &mut end)?;
        laid_out.push(field);
    }
    // Descriptors of a parent must find their word in every instance of a subclass.
    for parent in cls.mro().iter().skip(1) {
        if let Some(plan) = event::known_plan(parent.cast()?) {
            end = end.max(plan.size);
        }
    }
    let (meta_names, meta_fallbacks) = meta_tables(kind, metadata)?;
    let words = event::class_words((end - start) / size_of::<usize>());
    end = start + words * size_of::<usize>();
    let words = u16::try_from(words).map_err(|_| PyTypeError::new_err(format!("{cls} has too many fields")))?;
    let is_plain = laid_out.iter().all(|field| field.init) && meta_fallbacks.is_empty();
    event::store_plan(
        py,
        Plan {
            address: cls.as_ptr() as usize,
            class: cls.clone().unbind(),
            kind,
            positional: positional.into_iter().filter(|index| *index < laid_out.len()).collect(),
            fields: laid_out,
            accepts_extra,
            post_init,
            abstract_methods: r#abstract,
            event_type: event_type.unbind(),
            schema: schema_version,
            meta_names,
            meta_fallbacks,
            is_plain: !post_init && !always_tracked && is_plain,
            always_tracked,
            allocator: event::allocator_of(py, end)?,
            size: end,
            words,
        },
    )
}

/// Gives one field its word: a slot that the class declared, the word its parent uses, or the next trailing one.
fn lay_out<'py>(
    cls: &Bound<'py, PyType>,
    name: &Bound<'py, PyString>,
    rest: &Bound<'py, PyTuple>,
    end: &mut usize,
) -> PyResult<Field> {
    let py = cls.py();
    let (fallback, init, compare, visible): (Option<Bound<'py, PyTuple>>, bool, bool, bool) = rest.extract()?;
    let interned = PyString::intern(py, name.to_str()?);
    let found = event::member(cls, &interned)?;
    let offset = match &found {
        Some(member) if member.is_slot => member.offset,
        _ => {
            let offset = *end;
            *end += size_of::<usize>();
            if visible && found.is_none_or(|member| member.offset != offset) {
                let text = CString::new(name.to_str()?)?;
                event::install_member(cls, Box::leak(text.into_boxed_c_str()), offset)?;
            }
            offset
        }
    };
    let fallback = match read_fallback(fallback)? {
        Fallback::Required if !init => Fallback::Unset,
        other => other,
    };
    Ok(Field { name: interned.unbind(), offset, fallback, init, compare })
}

/// `()` = required, `(value,)` = value, `(None, factory)` = factory; None = nothing.
fn read_fallback(given: Option<Bound<'_, PyTuple>>) -> PyResult<Fallback> {
    let Some(given) = given else {
        return Ok(Fallback::Unset);
    };
    match given.len() {
        0 => Ok(Fallback::Required),
        1 => Ok(Fallback::Value(given.get_item(0)?.unbind())),
        _ => Ok(Fallback::Factory(given.get_item(1)?.unbind())),
    }
}

type MetaTables = (Vec<(Py<PyString>, Meta)>, Vec<(Meta, Fallback)>);

fn meta_tables<'py>(
    kind: Kind,
    metadata: Vec<(Bound<'py, PyString>, Option<Bound<'py, PyTuple>>)>,
) -> PyResult<MetaTables> {
    let mut names = Vec::new();
    let mut fallbacks = Vec::new();
    for (name, fallback) in metadata {
        let text = name.to_str()?;
        let Some((meta, _)) = kind.names().iter().find(|(_, known)| known.to_str() == Ok(text)) else {
            return Err(PyTypeError::new_err(format!("{text} is not metadata of this kind of message")));
        };
        names.push((PyString::intern(name.py(), text).unbind(), *meta));
        if let Some(fallback) = fallback {
            fallbacks.push((*meta, read_fallback(Some(fallback))?));
        }
    }
    Ok((names, fallbacks))
}

/// Whether a tuple holds nothing that could be part of a cycle; looks one level deep.
pub fn is_flat_tuple(value: &Bound<'_, PyAny>) -> bool {
    value.cast::<PyTuple>().is_ok_and(|tuple| {
        tuple.len() <= 16
            && tuple.iter_borrowed().all(|item| !item.is_instance_of::<PyTuple>() && !event::is_container(&item))
    })
}

/// Whether a collected object is of a type whose instances never lead back to a message.
pub fn is_atomic(value: &Bound<'_, PyAny>) -> bool {
    static DECIMAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static ENUM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    if values::is_uuid(value) {
        return true;
    }
    let class = value.get_type();
    let decimal = DECIMAL.get_or_try_init(py, || PyResult::Ok(py.import("decimal")?.getattr("Decimal")?.unbind()));
    if decimal.is_ok_and(|decimal| class.is(decimal)) {
        return true;
    }
    // Members of an enumeration live as long as their class.
    let metaclass = ENUM.get_or_try_init(py, || PyResult::Ok(py.import("enum")?.getattr("EnumMeta")?.unbind()));
    metaclass.is_ok_and(|metaclass| class.get_type().is(metaclass))
}

/// The names of the fields, for the Python side.
#[pyfunction]
pub fn field_names<'py>(cls: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyTuple>> {
    let plan = finalized(cls)?;
    PyTuple::new(cls.py(), plan.fields.iter().map(|field| field.name.bind(cls.py())))
}

/// Adds the functions of this file to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(install_finalizer, module)?)?;
    module.add_function(wrap_pyfunction!(arm, module)?)?;
    module.add_function(wrap_pyfunction!(is_compiled, module)?)?;
    module.add_function(wrap_pyfunction!(compile, module)?)?;
    module.add_function(wrap_pyfunction!(field_names, module)?)?;
    Ok(())
}
