//! What calling a method with a shortcut returns: to everybody a coroutine.
//!
//! Nothing happens before its first step. That tries the shortcut; where it says no, it makes the function's own coroutine,
//! which takes over, as it does when somebody asks for the frame. The slots and the memory of calls are in `call_slots.rs`.
use std::mem;

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::awaitable::Held;
use super::shortcut::{Arguments, ROOM, ShortcutMethod, Values};

#[derive(Clone, Copy, Default, PartialEq)]
pub enum Stage {
    /// Nothing has been done.
    Fresh,
    /// The shortcut is being tried, or the coroutine made.
    Busy,
    /// The function's own coroutine has taken over.
    Later,
    #[default]
    Done,
}

#[derive(Default)]
struct State {
    stage: Stage,
    /// None in a call that is kept for later use.
    method: Option<Py<ShortcutMethod>>,
    /// `self` and the arguments by parameter, until the call begins.
    arguments: [Option<Py<PyAny>>; ROOM + 1],
    /// The function's own coroutine.
    later: Option<Py<PyAny>>,
}

/// A call of a `ShortcutMethod`. `isinstance(call, CoroutineType)` holds, too.
#[pyclass(frozen, weakref, module = "lexigram.events._core")]
#[derive(Default)]
pub struct Call {
    state: Held<State>,
}

/// Method, `self` and arguments of a call that begins.
struct Begun<'py> {
    method: Bound<'py, ShortcutMethod>,
    arguments: [Option<Bound<'py, PyAny>>; ROOM + 1],
}

impl<'py> Begun<'py> {
    /// Hands `self` and the arguments to `act`.
    #[inline]
    fn with<T>(
        &self,
        act: impl for<'a> FnOnce(&'a ShortcutMethod, &'a Bound<'py, PyAny>, &Values<'a, 'py>) -> PyResult<T>,
    ) -> PyResult<T> {
        let [this, values @ ..] = self.arguments.each_ref().map(Option::as_ref);
        this.map_or_else(|| Err(refused(Stage::Done)), |this| act(self.method.get(), this, &values))
    }
}

impl Call {
    /// Makes an empty call one that has not begun.
    #[inline]
    pub fn fill<'py>(&self, method: &Bound<'py, ShortcutMethod>, arguments: &Arguments<'_, 'py>) {
        let mut state = self.state.lock(method.py());
        state.stage = Stage::Fresh;
        state.method = Some(method.clone().unbind());
        for (place, value) in state.arguments.iter_mut().zip(arguments) {
            *place = value.map(|value| value.to_owned().unbind());
        }
    }

    /// Lets go of everything.
    #[inline]
    pub fn empty(&self, py: Python<'_>) {
        let mut state = self.state.lock(py);
        let arguments = (state.stage == Stage::Fresh).then(|| mem::take(&mut state.arguments));
        let held = (state.method.take(), state.later.take());
        state.stage = Stage::Done;
        drop(state);
        // Bound, they are let go at once wherever this is called.
        drop((held.0.map(|method| method.into_bound(py)), held.1.map(|later| later.into_bound(py))));
        drop(arguments.map(|arguments| arguments.map(|value| value.map(|value| value.into_bound(py)))));
    }

    #[inline]
    pub fn stage(&self, py: Python<'_>) -> Stage {
        self.state.lock(py).stage
    }

    /// The function's own coroutine if that has taken over.
    #[inline]
    pub fn later<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state.lock(py).later.as_ref().map(|later| later.bind(py).clone())
    }

    /// Begins if it has not begun. Returns the result if that was all; None if the coroutine is to go on.
    #[inline]
    pub fn begin<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = value.py();
        match self.stage(py) {
            Stage::Fresh if value.is_none() => {}
            Stage::Fresh => return Err(PyTypeError::new_err("can't send non-None value to a just-started coroutine")),
            Stage::Later => return Ok(None),
            stage => return Err(refused(stage)),
        }
        let begun = self.take(py, Stage::Busy)?;
        let result = begun.with(|method, this, values| (method.shortcut)(this, values));
        if matches!(result, Ok(None)) {
            return self.hand_over(&begun).map(|_| None);
        }
        self.state.lock(py).stage = Stage::Done;
        result
    }

    /// Takes method and arguments and goes to the next stage.
    #[inline]
    fn take<'py>(&self, py: Python<'py>, next: Stage) -> PyResult<Begun<'py>> {
        let mut state = self.state.lock(py);
        state.stage = next;
        let method = state.method.as_ref().map(|method| method.bind(py).clone());
        let arguments = mem::take(&mut state.arguments).map(|value| value.map(|value| value.into_bound(py)));
        method.map(|method| Begun { method, arguments }).ok_or_else(|| refused(Stage::Done))
    }

    /// Makes the function's own coroutine, which takes over.
    #[cold]
    fn hand_over<'py>(&self, begun: &Begun<'py>) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = begun.with(|method, this, values| method.coroutine(this, values));
        let mut state = self.state.lock(begun.method.py());
        state.stage = if coroutine.is_ok() { Stage::Later } else { Stage::Done };
        state.later = coroutine.as_ref().ok().map(|coroutine| coroutine.clone().unbind());
        coroutine
    }

    /// The function's own coroutine, which is made if nothing has been done yet; None if it is not needed any more.
    fn coroutine<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.stage(py) == Stage::Fresh {
            let begun = self.take(py, Stage::Busy)?;
            return self.hand_over(&begun).map(Some);
        }
        Ok(self.later(py))
    }

    /// An attribute of the function.
    fn of_function<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let method = self.state.lock(py).method.as_ref().map(|method| method.bind(py).clone());
        method.map(|method| method.get().function.bind(py).getattr(name)).transpose()
    }

    /// An attribute of the function's own coroutine if that has taken over.
    #[inline]
    pub fn of_later<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.later(py).map(|later| later.getattr(name)).transpose()
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
            None => Err(refused(self.stage(py))),
        }
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.send(&py.None().into_bound(py))
    }

    fn send<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = value.py();
        match self.begin(value)? {
            Some(result) => Err(PyStopIteration::new_err((result.unbind(),))),
            None => match self.later(py) {
                Some(later) => later.call_method1(intern!(py, "send"), (value,)),
                None => Err(refused(Stage::Done)),
            },
        }
    }

    #[pyo3(signature = (*error))]
    fn throw<'py>(&self, error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        match self.coroutine(error.py())? {
            Some(coroutine) => coroutine.call_method1(intern!(error.py(), "throw"), error),
            None => Err(refused(self.stage(error.py()))),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(later) = self.later(py) {
            return later.call_method0(intern!(py, "close")).map(drop);
        }
        match self.stage(py) {
            Stage::Busy => Err(refused(Stage::Busy)),
            _ => {
                drop(self.take(py, Stage::Done));
                Ok(())
            }
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
            None => Ok(self.stage(py) == Stage::Busy),
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
        // The collector never starts while the state is held.
        if let Some(state) = self.state.try_lock() {
            visit.call(&state.method)?;
            state.arguments.iter().chain([&state.later]).try_for_each(|value| visit.call(value))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(self.state.try_lock().map(|mut state| std::mem::take(&mut *state)));
    }
}
