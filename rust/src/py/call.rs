//! What calling a method with a shortcut returns: to everybody a coroutine.
//!
//! Nothing happens before its first step. That tries the shortcut; where it says no, it makes the function's own coroutine,
//! which takes over, as it does when somebody asks for the frame. What a call holds, its slots and the memory of calls are in
//! `call_slots.rs`.
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::call_slots::{Stage, State};
use super::shortcut::{ShortcutMethod, Values};

/// A call of a `ShortcutMethod`. `isinstance(call, CoroutineType)` holds, too.
#[pyclass(frozen, weakref, module = "lexigram.events._core")]
#[derive(Default)]
pub struct Call {
    pub state: State,
}

impl Call {
    /// Begins if it has not begun. Returns the result if that was all; None if the coroutine is to go on.
    #[inline]
    pub fn begin<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = value.py();
        match self.state.stage(py) {
            Stage::Fresh if !value.is_none() => {
                Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine"))
            }
            Stage::Later => Ok(None),
            _ => self.state.begin(py, |method, this, values| {
                let result = (method.shortcut)(this, values);
                if matches!(result, Ok(None)) {
                    self.take_over(method, this, values)?;
                }
                result
            }),
        }
    }

    /// Makes the function's own coroutine, which goes on.
    #[cold]
    fn take_over<'py>(
        &self,
        method: &ShortcutMethod,
        this: &Bound<'py, PyAny>,
        values: &Values<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = method.coroutine(this, values)?;
        self.state.go_on_with(&coroutine);
        Ok(coroutine)
    }

    /// The function's own coroutine, which is made if nothing has been done yet; None if it is not needed any more.
    fn coroutine<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.state.stage(py) == Stage::Fresh {
            return self.state.begin(py, |method, this, values| self.take_over(method, this, values)).map(Some);
        }
        Ok(self.state.later(py))
    }

    /// An attribute of the function.
    fn of_function<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.state.method(py).map(|method| method.get().function.bind(py).getattr(name)).transpose()
    }

    /// An attribute of the function's own coroutine if that has taken over.
    pub fn of_later<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.state.later(py).map(|later| later.getattr(name)).transpose()
    }
}

/// The error of a step that cannot be taken.
#[cold]
pub fn refused(stage: Stage) -> PyErr {
    match stage {
        Stage::Busy => PyValueError::new_err("coroutine already executing"),
        _ => PyRuntimeError::new_err("cannot reuse already awaited coroutine"),
    }
}

/// Says that nobody has awaited a call.
#[cold]
pub fn warn(call: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = call.py();
    let text = format!("coroutine '{}' was never awaited", call.getattr(intern!(py, "__qualname__"))?);
    let category = py.get_type::<PyRuntimeWarning>();
    PyModule::import(py, "warnings")?.call_method1("warn", (text, category, 1, call)).map(drop)
}

#[pymethods]
impl Call {
    /// The iterator of the function's own coroutine; `await` does without.
    fn __await__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.coroutine(py)? {
            Some(coroutine) => coroutine.call_method0(intern!(py, "__await__")),
            None => Err(refused(self.state.stage(py))),
        }
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.send(&py.None().into_bound(py))
    }

    fn send<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        match self.begin(value)? {
            Some(result) => Err(PyStopIteration::new_err((result.unbind(),))),
            None => match self.state.later(py) {
                Some(later) => later.call_method1(intern!(py, "send"), (value,)),
                None => Err(refused(Stage::Done)),
            },
        }
    }

    #[pyo3(signature = (*error))]
    fn throw<'py>(&self, error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        match self.coroutine(error.py())? {
            Some(coroutine) => coroutine.call_method1(intern!(error.py(), "throw"), error),
            None => Err(refused(self.state.stage(error.py()))),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(later) = self.state.later(py) {
            return later.call_method0(intern!(py, "close")).map(drop);
        }
        match self.state.stage(py) {
            Stage::Fresh => self.state.begin(py, |_, _, _| Ok(())),
            Stage::Busy => Err(refused(Stage::Busy)),
            _ => Ok(()),
        }
    }

    #[getter(__class__)]
    fn class_of<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyType>> {
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        CLASS.import(py, "types", "CoroutineType")
    }

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_function(py, "__name__")
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_function(py, "__qualname__")
    }

    #[getter]
    fn cr_code<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_function(py, "__code__")
    }

    /// The frame; a call that has not begun has one from now on.
    #[getter]
    fn cr_frame<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.coroutine(py)?.map(|coroutine| coroutine.getattr("cr_frame")).transpose()
    }

    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_later(py, "cr_await")
    }

    #[getter]
    fn cr_origin<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.of_later(py, "cr_origin")
    }

    #[getter]
    fn cr_running(&self, py: Python<'_>) -> PyResult<bool> {
        match self.of_later(py, "cr_running")? {
            Some(running) => running.is_truthy(),
            None => Ok(self.state.stage(py) == Stage::Busy),
        }
    }

    #[getter]
    fn cr_suspended(&self, py: Python<'_>) -> PyResult<bool> {
        self.of_later(py, "cr_suspended")?.map_or(Ok(false), |suspended| suspended.is_truthy())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let name = slf.get().__qualname__(slf.py())?.map(|name| name.to_string()).unwrap_or_default();
        Ok(format!("<coroutine object {name} at {:p}>", slf.as_ptr()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.state.traverse(&visit)
    }

    fn __clear__(&self, py: Python<'_>) {
        self.state.clear(py);
    }
}
