//! An asynchronous iterator whose steps never suspend: events of one batch after the other, for `async for`.
//!
//! An async generator costs two objects and two frames per event. Here one `Step` serves all of them: the stream's
//! `__anext__` returns it, and each await of it takes the next event through the `am_send` slot, which returns a value
//! without a `StopIteration`. The slots that PyO3 has no name for are set here, which is the only `unsafe` part.
#![allow(unsafe_code)]

use std::cell::{RefCell, RefMut};
use std::ffi::CStr;
use std::ptr;

use pyo3::PyClass;
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::event::guarded;
use super::log_stream::Rest;

/// State that only the holder of the interpreter's lock touches: a mutex without the cost of one, for a module that
/// relies on that lock anyway (`gil_used = true`). Whoever has it must not run Python code, which might want it too.
#[derive(Default)]
pub struct Held<T>(RefCell<T>);

// SAFETY: every access needs the interpreter's lock, which `lock` asks proof of and the collector has, so that accesses of
// different threads follow one another, those of the flag inside the `RefCell` included. A guard cannot leave its thread.
unsafe impl<T: Send> Sync for Held<T> {}

impl<T> Held<T> {
    pub const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// The state. Panics if this or another thread has it already.
    #[inline]
    pub fn lock<'a>(&'a self, _py: Python<'a>) -> RefMut<'a, T> {
        self.0.borrow_mut()
    }

    /// The state for the collector, None while somebody has it.
    pub fn try_lock(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}

/// A method that the interpreter calls with its `N` positional arguments as they are, without the handling of PyO3, which
/// costs more than a short method itself. Nothing of type `Py` may be dropped in it: PyO3 puts that off.
pub trait Method<const N: usize> {
    type Class: PyClass;
    const NAME: &'static CStr;
    /// The signature as C functions tell it.
    const DOC: &'static CStr;

    fn call<'py>(this: &Bound<'py, Self::Class>, values: [Borrowed<'_, 'py, PyAny>; N]) -> PyResult<Bound<'py, PyAny>>;
}

unsafe extern "C" fn call_method<const N: usize, M: Method<N>>(
    this: *mut ffi::PyObject,
    values: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        if count as usize != N {
            let name = M::NAME.to_string_lossy();
            return Err(PyTypeError::new_err(format!("{name}() takes exactly {N} arguments ({count} given)")));
        }
        // SAFETY: a method descriptor calls with an instance of its type and with `count` live objects, which the caller
        // keeps alive; `Borrowed` is transparent over a non-null object pointer.
        let (this, values) = unsafe {
            let values = values.cast::<[Borrowed<'_, '_, PyAny>; N]>();
            (Borrowed::from_ptr(py, this).cast_unchecked::<M::Class>(), *values)
        };
        M::call(&this, values).map(Bound::into_ptr)
    })
}

/// Gives the class of `M` that method.
pub fn add_method<const N: usize, M: Method<N>>(py: Python<'_>) -> PyResult<()> {
    const { assert!(N > 0, "without arguments there is no array to read") };
    let class = py.get_type::<M::Class>();
    // Kept for ever: the descriptor points to it.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: call_method::<N, M> },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: M::DOC.as_ptr(),
    }));
    // SAFETY: a live type and a definition that lives for ever, whose function has the signature that its flags tell; a new
    // reference or null with an error comes back.
    let method = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), definition))? };
    class.setattr(M::NAME.to_string_lossy(), method)
}

/// Releases objects now, also where PyO3 would put it off.
#[cold]
pub fn release<T>(objects: T) {
    Python::attach(|_| drop(objects));
}

/// The awaitable of every step of one stream.
#[pyclass(frozen, module = "lexigram.events._core")]
struct Step {
    rest: Held<Rest>,
}

impl Step {
    /// The next event; None at the end.
    fn take<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut rest = self.rest.lock(py);
        let event = rest.pop().or_else(|| rest.turn(py));
        event.map(|event| event.into_bound(py))
    }

    fn close(&self, py: Python<'_>) {
        let former = std::mem::take(&mut *self.rest.lock(py));
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
        match self.take(py) {
            Some(event) => Err(PyStopIteration::new_err((event.unbind(),))),
            None => Err(PyStopAsyncIteration::new_err(())),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector never starts while it is held.
        self.rest.try_lock().map_or(Ok(()), |rest| rest.traverse(&visit))
    }

    fn __clear__(&self) {
        drop(self.rest.try_lock().map(|mut rest| std::mem::take(&mut *rest)));
    }
}

/// Yields the events of a selection from the log, one by one. Stands in for an async generator.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct EventStream {
    step: Py<Step>,
}

impl EventStream {
    pub fn new(py: Python<'_>, rest: Rest) -> PyResult<Bound<'_, Self>> {
        Bound::new(py, Self { step: Py::new(py, Step { rest: Held::new(rest) })? })
    }
}

#[pymethods]
impl EventStream {
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
        self.step.get().close(py);
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
    // SAFETY: the interpreter calls a slot with its lock held and with an instance of the type it belongs to, alive during
    // the call.
    let step = unsafe { Borrowed::from_ptr(Python::assume_attached(), step).cast_unchecked::<Step>() };
    // Most steps need no more than this, which cannot panic.
    let event = step.get().rest.try_lock().and_then(|mut rest| rest.pop());
    let event = event.map_or_else(|| turn(&step), Py::into_ptr);
    // SAFETY: `result` is a valid place for one pointer. It gets a new reference, or null with an error set.
    unsafe { *result = event };
    if event.is_null() { ffi::PySendResult::PYGEN_ERROR } else { ffi::PySendResult::PYGEN_RETURN }
}

/// A new reference to the first event of the next batch; null with an error set at the end.
#[cold]
fn turn(step: &Bound<'_, Step>) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        let event = step.get().take(py).map_or(ptr::null_mut(), Bound::into_ptr);
        if event.is_null() {
            // SAFETY: the interpreter's lock is held, and the class of the exception lives for ever.
            unsafe { ffi::PyErr_SetNone(ffi::PyExc_StopAsyncIteration) };
        }
        Ok(event)
    })
}

/// `am_anext` of `EventStream`.
unsafe extern "C" fn next_step(stream: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: as in `send`, with the interpreter's lock held; counting a reference up cannot fail.
    unsafe {
        let py = Python::assume_attached();
        let stream = Borrowed::from_ptr(py, stream).cast_unchecked::<EventStream>();
        stream.get().step.clone_ref(py).into_ptr()
    }
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
