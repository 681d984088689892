//! An asynchronous iterator whose steps never suspend: events of one batch after the other, for `async for`.
//!
//! An async generator costs two objects and two frames per event. Here one `Step` serves all of them: the stream's
//! `__anext__` returns it, and each await of it takes the next event through the `am_send` slot, which returns a value
//! without a `StopIteration`. The slots that PyO3 has no name for are set here, which is the only `unsafe` part.
#![allow(unsafe_code)]

use std::ptr;

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyType};

use super::event::guarded;

/// Where lists come from.
#[derive(Default)]
enum Source {
    /// An iterator of lists.
    Ready(Py<PyAny>),
    /// It is running just now.
    Busy,
    /// It has ended or failed, or the stream was closed.
    #[default]
    Gone,
}

#[derive(Default)]
struct State {
    source: Source,
    /// What is left of the present list.
    rest: std::vec::IntoIter<Py<PyAny>>,
}

/// The awaitable of every step of one stream.
#[pyclass(frozen, module = "lexigram.events._core")]
struct Step {
    state: Mutex<State>,
}

impl Step {
    /// The next event; None at the end.
    #[inline]
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let mut state = self.state.lock();
            if let Some(event) = state.rest.next() {
                return Ok(Some(event.into_bound(py)));
            }
            let batches = match std::mem::replace(&mut state.source, Source::Busy) {
                Source::Ready(batches) => batches.into_bound(py),
                Source::Busy => return Err(PyRuntimeError::new_err("this stream is already being read")),
                Source::Gone => {
                    state.source = Source::Gone;
                    return Ok(None);
                }
            };
            drop(state);
            // Attached once more, so that PyO3 releases at once what is dropped: see `event::restore`.
            if !Python::attach(|_| self.fetch(batches))? {
                return Ok(None);
            }
        }
    }

    /// Gets the next list; false at the end. Runs Python code, so the lock is free meanwhile and old objects are
    /// dropped after it.
    #[cold]
    fn fetch(&self, batches: Bound<'_, PyAny>) -> PyResult<bool> {
        let fetched = batches.cast::<PyIterator>().map_err(PyErr::from).and_then(|batches| {
            let list = batches.clone().next().transpose()?;
            Ok(list.map(|list| list.cast_into::<PyList>()).transpose()?)
        });
        let list = fetched.as_ref().ok().and_then(Option::as_ref);
        let items: Vec<Py<PyAny>> = list.map_or_else(Vec::new, |list| list.iter().map(Bound::unbind).collect());
        let mut state = self.state.lock();
        if matches!(state.source, Source::Gone) {
            drop(state);
            return Ok(false); // closed meanwhile
        }
        let goes_on = matches!(fetched, Ok(Some(_)));
        state.source = if goes_on { Source::Ready(batches.clone().unbind()) } else { Source::Gone };
        let former = std::mem::replace(&mut state.rest, items.into_iter());
        drop(state);
        drop((former, batches));
        fetched.map(|_| goes_on)
    }

    fn close(&self) {
        let former = std::mem::take(&mut *self.state.lock());
        drop(former);
    }
}

#[pymethods]
impl Step {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.take(py)? {
            Some(event) => Err(PyStopIteration::new_err((event.unbind(),))),
            None => Err(PyStopAsyncIteration::new_err(())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector never starts while the lock is held.
        if let Some(state) = self.state.try_lock() {
            if let Source::Ready(batches) = &state.source {
                visit.call(batches)?;
            }
            state.rest.as_slice().iter().try_for_each(|event| visit.call(event))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.close();
    }
}

/// Yields the items of lists, one by one; made from an iterator of lists. Stands in for an async generator.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct EventStream {
    step: Py<Step>,
}

#[pymethods]
impl EventStream {
    #[new]
    fn new(batches: &Bound<'_, PyAny>) -> PyResult<Self> {
        let state = State { source: Source::Ready(batches.try_iter()?.into_any().unbind()), ..State::default() };
        Ok(Self { step: Py::new(batches.py(), Step { state: Mutex::new(state) })? })
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self, py: Python<'_>) -> Py<Step> {
        self.step.clone_ref(py)
    }

    /// Returns what `__anext__` returns: there is nobody to send a value to.
    fn asend(&self, py: Python<'_>, _value: &Bound<'_, PyAny>) -> Py<Step> {
        self.step.clone_ref(py)
    }

    /// Returns an awaitable that ends the stream; nothing is read after it.
    fn aclose(&self, py: Python<'_>) -> Closing {
        Closing { step: self.step.clone_ref(py), error: None }
    }

    /// Returns an awaitable that ends the stream and raises `typ` (an exception or its class, then with `val`).
    #[pyo3(signature = (typ, val = None, _tb = None, /))]
    fn athrow(
        &self,
        typ: &Bound<'_, PyAny>,
        val: Option<&Bound<'_, PyAny>>,
        _tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Closing> {
        let error = match (typ.cast::<PyType>(), val) {
            (Ok(class), None) => class.call0()?,
            (Ok(class), Some(value)) if value.is_instance(class)? => value.clone(),
            (Ok(class), Some(value)) => class.call1((value,))?,
            (Err(_), _) => typ.clone(),
        };
        if !error.is_instance_of::<pyo3::exceptions::PyBaseException>() {
            return Err(PyTypeError::new_err("exceptions must be classes or instances deriving from BaseException"));
        }
        Ok(Closing { step: self.step.clone_ref(typ.py()), error: Some(error.unbind()) })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.step)
    }
}

/// What `aclose` and `athrow` return: the stream ends when it is awaited.
#[pyclass(frozen, module = "lexigram.events._core")]
struct Closing {
    step: Py<Step>,
    error: Option<Py<PyAny>>,
}

#[pymethods]
impl Closing {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step.get().close();
        match &self.error {
            Some(error) => Err(PyErr::from_value(error.bind(py).clone())),
            None => Ok(None),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.step)?;
        visit.call(&self.error)
    }
}

/// `am_send` of `Step`.
unsafe extern "C" fn send(
    step: *mut ffi::PyObject,
    _value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let event = guarded(ptr::null_mut(), |py| {
        // SAFETY: the interpreter calls a slot with an instance of the type it belongs to, alive during the call.
        let step = unsafe { Borrowed::from_ptr(py, step).cast_unchecked::<Step>() };
        step.get().take(py)?.map(Bound::into_ptr).ok_or_else(|| PyStopAsyncIteration::new_err(()))
    });
    // SAFETY: `result` is a valid place for one pointer. It gets a new reference, or null with an error set.
    unsafe { *result = event };
    if event.is_null() { ffi::PySendResult::PYGEN_ERROR } else { ffi::PySendResult::PYGEN_RETURN }
}

/// `am_anext` of `EventStream`.
unsafe extern "C" fn next_step(stream: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: as in `send`.
        let stream = unsafe { Borrowed::from_ptr(py, stream).cast_unchecked::<EventStream>() };
        Ok(stream.get().step.clone_ref(py).into_ptr())
    })
}

/// `am_await` of `Step`, `am_aiter` of `EventStream`: the object itself.
unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter passes a live object; a new reference to it is returned.
    unsafe { ffi::Py_NewRef(object) }
}

/// Adds the classes to the module and gives their steps the slots that make them cheap.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<EventStream>()?;
    let (step, stream) = (py.get_type::<Step>(), py.get_type::<EventStream>());
    // SAFETY: both are heap types, whose `tp_as_async` points into the type object and lives as long. No instance
    // exists yet. The functions have the signatures of their slots and do what the PyO3 methods do that they replace.
    unsafe {
        let step = (*step.as_type_ptr()).tp_as_async;
        (*step).am_send = Some(send);
        (*step).am_await = Some(itself);
        let stream = (*stream.as_type_ptr()).tp_as_async;
        (*stream).am_aiter = Some(itself);
        (*stream).am_anext = Some(next_step);
    }
    Ok(())
}
