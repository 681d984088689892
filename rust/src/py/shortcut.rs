//! An `async def` in a class, with a shortcut: its usual case needs no coroutine, so no frame, no evaluation loop and no
//! `StopIteration`. In everything but being called it acts as its function; what a call of it returns is in `call.rs`.
use std::iter;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use super::call_slots;

/// Most parameters of a shortened method, `self` aside.
pub const ROOM: usize = 4;

/// The arguments of a call by parameter; None: not given, so that the default counts.
pub type Values<'a, 'py> = [Option<Borrowed<'a, 'py, PyAny>>; ROOM];

/// The usual case of a method, from `self` and arguments: the method's result, or None with nothing done where the case is
/// not the usual one. Nothing of type `Py` may be dropped in it: PyO3 puts that off.
pub type Shortcut = for<'a, 'py> fn(&'a Bound<'py, PyAny>, &Values<'a, 'py>) -> PyResult<Option<Bound<'py, PyAny>>>;

/// `function`, an `async def`, with a shortcut; `function` itself on Python versions that make coroutines cheaply, unless
/// `always`.
pub fn shortened<'py>(function: Bound<'py, PyAny>, shortcut: Shortcut, always: bool) -> PyResult<Bound<'py, PyAny>> {
    if function.py().version_info() >= (3, 12) && !always {
        return Ok(function);
    }
    Ok(Bound::new(function.py(), ShortcutMethod::new(&function, shortcut)?)?.into_any())
}

/// `self`, and the arguments of a call by parameter.
pub type Arguments<'a, 'py> = [Option<Borrowed<'a, 'py, PyAny>>; ROOM + 1];

/// An `async def` function in a class, with a shortcut. Attributes are the function's.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct ShortcutMethod {
    /// What the interpreter calls; it finds it by its place.
    pub entry: ffi::vectorcallfunc,
    pub function: Py<PyAny>,
    pub shortcut: Shortcut,
    /// The parameters after `self`, by position or keyword; the first `required` have no default.
    names: Vec<Py<PyString>>,
    required: usize,
    defaults: Vec<Py<PyAny>>,
}

impl ShortcutMethod {
    pub fn new(function: &Bound<'_, PyAny>, shortcut: Shortcut) -> PyResult<Self> {
        let py = function.py();
        let code = function.getattr(intern!(py, "__code__"))?;
        let count: usize = code.getattr(intern!(py, "co_argcount"))?.extract()?;
        let names: Vec<Py<PyString>> = code.getattr(intern!(py, "co_varnames"))?.extract()?;
        let names: Vec<_> = names.into_iter().take(count).skip(1).collect();
        let defaults: Option<Vec<Py<PyAny>>> = function.getattr(intern!(py, "__defaults__"))?.extract()?;
        let defaults = defaults.unwrap_or_default();
        let positional: usize = code.getattr(intern!(py, "co_posonlyargcount"))?.extract()?;
        if count == 0 || names.len() > ROOM || positional > 0 {
            return Err(PyTypeError::new_err("a shortcut takes `self` and up to 4 parameters, by position or name"));
        }
        let required = names.len().saturating_sub(defaults.len());
        Ok(Self {
            entry: call_slots::call_method,
            function: function.clone().unbind(),
            shortcut,
            names,
            required,
            defaults,
        })
    }

    /// The function's own coroutine.
    #[cold]
    pub fn coroutine<'py>(&self, this: &Bound<'py, PyAny>, values: &Values<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let given = values.iter().take(self.names.len()).enumerate().map(|(n, value)| match value {
            Some(value) => &**value,
            None => self.defaults[n - self.required].bind(py),
        });
        let all: Vec<_> = iter::once(this).chain(given).collect();
        self.function.bind(py).call1(PyTuple::new(py, all)?)
    }

    /// Whether so many arguments by position, `self` included, are as many as the function takes.
    #[inline]
    pub fn takes(&self, count: usize) -> bool {
        (self.required + 1..=self.names.len() + 1).contains(&count)
    }

    /// `self` and the arguments by parameter; None where the function would refuse them.
    #[inline]
    pub fn arguments<'a, 'py>(
        &self,
        positional: &[Borrowed<'a, 'py, PyAny>],
        named: &[Borrowed<'a, 'py, PyAny>],
        keys: Option<Borrowed<'_, 'py, PyTuple>>,
    ) -> Option<Arguments<'a, 'py>> {
        let mut found = [None; ROOM + 1];
        if positional.len() > self.names.len() + 1 {
            return None;
        }
        for (place, value) in found.iter_mut().zip(positional) {
            *place = Some(*value);
        }
        if let Some(keys) = keys {
            for (key, value) in keys.iter_borrowed().zip(named) {
                // Names in calls are interned, as those of parameters are.
                let n = self.names.iter().position(|name| name.is(key))?;
                if found[n + 1].replace(*value).is_some() {
                    return None;
                }
            }
        }
        found[..=self.required].iter().all(Option::is_some).then_some(found)
    }
}

#[pymethods]
impl ShortcutMethod {
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(py).call(values, named)
    }

    fn __get__<'py>(
        slf: Bound<'py, Self>,
        instance: Bound<'py, PyAny>,
        _class: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if instance.is_none() {
            return Ok(slf.into_any());
        }
        static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        METHOD.import(slf.py(), "types", "MethodType")?.call1((slf, instance))
    }

    fn __getattribute__<'py>(slf: &Bound<'py, Self>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        if name.to_str()? == "__reduce_ex__" {
            return slf.get_type().getattr(name)?.call_method1(intern!(slf.py(), "__get__"), (slf,));
        }
        slf.get().function.bind(slf.py()).getattr(name)
    }

    /// Functions are pickled and copied by name.
    fn __reduce_ex__<'py>(&self, py: Python<'py>, _protocol: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(py).getattr(intern!(py, "__qualname__"))
    }

    fn __setattr__(&self, py: Python<'_>, name: &Bound<'_, PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.function.bind(py).setattr(name, value)
    }

    fn __delattr__(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<()> {
        self.function.bind(py).delattr(name)
    }

    fn __repr__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.function.bind(py).repr()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        self.defaults.iter().try_for_each(|value| visit.call(value))
    }
}
