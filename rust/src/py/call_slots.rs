//! The slots of calls and of the methods that make them, and the memory of calls, which are made and dropped without the
//! allocator: what PyO3 has no name for, or does not do as cheaply. The classes are in `shortcut.rs` and `call.rs`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_ulong;
use std::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::call::{Call, Stage, refused, warn};
use super::event::guarded;
use super::shortcut::{Arguments, ShortcutMethod};

/// Calls a `ShortcutMethod`: keeps the arguments if there are as many as it takes, or lets its function refuse them.
pub unsafe extern "C" fn call_method(
    method: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: the interpreter calls with an instance of the type that has this slot, as many live objects as `flags`
        // says and then one for each name, all kept alive by the caller. `Borrowed` is transparent over an object pointer.
        let (method, count, given) = unsafe {
            let count = ffi::PyVectorcall_NARGS(flags) as usize;
            let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) as usize };
            let values = if values.is_null() { ptr::dangling() } else { values.cast::<Borrowed<'_, '_, PyAny>>() };
            let given = std::slice::from_raw_parts(values, count + named);
            (Borrowed::from_ptr(py, method).cast_unchecked::<ShortcutMethod>(), count, given)
        };
        let (positional, named) = given.split_at(count);
        // SAFETY: a live tuple of strings, or null where there is none.
        let keys = unsafe { Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>()) };
        match method.get().arguments(positional, named, keys) {
            Some(arguments) => make(&method, &arguments),
            // SAFETY: the arguments are passed on as they came; null comes with an error that stays set.
            None => Ok(unsafe { ffi::PyObject_Vectorcall(method.get().function.as_ptr(), values, flags, names) }),
        }
    })
}

/// Calls that were used up, ready to be used again: dead for the interpreter, alive and empty for Rust.
struct Spare {
    calls: [Cell<*mut ffi::PyObject>; Spare::MOST],
    count: Cell<usize>,
    class: Cell<*mut ffi::PyTypeObject>,
    /// The destructor of PyO3.
    destroy: Cell<Option<ffi::destructor>>,
}

// SAFETY: the cells are only used with the interpreter's lock held (`gil_used = true`), each for moments in which no Python
// code runs, so that accesses of different threads follow one another.
unsafe impl Sync for Spare {}

impl Spare {
    const MOST: usize = 32;

    /// Keeps a dead call; false if there are enough.
    fn keep(&self, call: *mut ffi::PyObject) -> bool {
        let count = self.count.get();
        let has_room = count < Self::MOST;
        if has_room {
            self.calls[count].set(call);
            self.count.set(count + 1);
        }
        has_room
    }

    fn take(&self) -> Option<*mut ffi::PyObject> {
        let count = self.count.get().checked_sub(1)?;
        self.count.set(count);
        Some(self.calls[count].get())
    }
}

static SPARE: Spare = Spare {
    calls: [const { Cell::new(ptr::null_mut()) }; Spare::MOST],
    count: Cell::new(0),
    class: Cell::new(ptr::null_mut()),
    destroy: Cell::new(None),
};

/// A new reference to a call that has not begun.
#[inline]
fn make<'py>(method: &Bound<'py, ShortcutMethod>, arguments: &Arguments<'_, 'py>) -> PyResult<*mut ffi::PyObject> {
    let py = method.py();
    let object = match SPARE.take() {
        // SAFETY: an object that `dealloc` kept: untracked, without references, its contents empty but valid.
        Some(object) => unsafe { ffi::PyObject_Init(object, SPARE.class.get()) },
        None => {
            let object = Py::new(py, Call::default())?.into_ptr();
            // SAFETY: a live object with a collector header; it is tracked again below.
            unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
            object
        }
    };
    // SAFETY: the object is a `Call`, not tracked, and nobody else knows it.
    unsafe {
        content(py, object).fill(method, arguments);
        ffi::PyObject_GC_Track(object.cast());
    }
    Ok(object)
}

/// `am_await` of `Call`.
unsafe extern "C" fn awaited(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: the interpreter calls a slot with an instance of the type it belongs to, alive during the call.
        let call = unsafe { Borrowed::from_ptr(py, object).cast_unchecked::<Call>() };
        // The interpreter says so of coroutines.
        if call.get().of_later(py, "cr_await")?.is_some_and(|other| !other.is_none()) {
            return Err(PyRuntimeError::new_err("coroutine is being awaited already"));
        }
        Ok(call.to_owned().into_ptr())
    })
}

/// `am_send` of `Call`.
unsafe extern "C" fn send(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    let (status, answer) = guarded((ffi::PySendResult::PYGEN_ERROR, ptr::null_mut()), |py| {
        // SAFETY: as in `awaited`; the value is alive during the call, too.
        let (call, value) = unsafe { (content(py, object), Bound::ref_from_ptr(py, &value)) };
        if let Some(result) = call.begin(value)? {
            return Ok((ffi::PySendResult::PYGEN_RETURN, result.into_ptr()));
        }
        let Some(later) = call.later(py) else { return Err(refused(Stage::Done)) };
        let mut answer = ptr::null_mut();
        // SAFETY: a coroutine and a value, both alive; `answer` gets a new reference, or null with an error set.
        let status = unsafe { ffi::PyIter_Send(later.as_ptr(), value.as_ptr(), &raw mut answer) };
        Ok((status, answer))
    });
    // SAFETY: `result` is a valid place for one pointer. It gets a new reference, or null with an error set.
    unsafe { *result = answer };
    status
}

/// `tp_finalize` of `Call`: says that nobody has awaited it.
#[allow(deprecated)] // since 3.12 there are others, which 3.11 has not
unsafe extern "C" fn finalize(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls a slot with an instance of the type it belongs to, with its lock held.
    let is_fresh = unsafe {
        let py = Python::assume_attached();
        content(py, object).stage(py) == Stage::Fresh
    };
    if !is_fresh {
        return;
    }
    let (mut class, mut value, mut traceback) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: an error that is on its way is put aside and set again; nulls mean that there is none.
    unsafe { ffi::PyErr_Fetch(&raw mut class, &raw mut value, &raw mut traceback) };
    guarded((), |py| {
        Python::attach(|_| {
            // SAFETY: the object is kept alive by the interpreter while its finalizer runs.
            let object = unsafe { Bound::from_borrowed_ptr(py, object) };
            if let Err(error) = warn(&object) {
                error.write_unraisable(py, Some(&object));
            }
        });
        Ok(())
    });
    // SAFETY: as above.
    unsafe { ffi::PyErr_Restore(class, value, traceback) };
}

/// `tp_dealloc` of `Call`: keeps the memory for the next one.
unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: the interpreter passes an instance of the type without references, with its lock held. It is not tracked
    // while it is taken apart. What `keep` takes is empty and has given back the reference to its class, as PyO3's
    // destructor does with what it destroys; that untracks and clears again, which does nothing then.
    unsafe {
        let py = Python::assume_attached();
        let call = content(py, object);
        if call.stage(py) == Stage::Fresh && ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return; // somebody holds it again
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        ffi::PyObject_ClearWeakRefs(object);
        call.empty(py);
        // One that was finalized would not be finalized again.
        if ffi::PyObject_GC_IsFinalized(object) == 0 && SPARE.keep(object) {
            ffi::Py_DECREF(SPARE.class.get().cast());
        } else if let Some(destroy) = SPARE.destroy.get() {
            destroy(object);
        }
    }
}

/// The content of a call.
///
/// # Safety
/// `object` is a `Call` whose memory lives for 'a.
#[inline]
unsafe fn content<'a>(py: Python<'a>, object: *mut ffi::PyObject) -> &'a Call {
    // SAFETY: see above; the content of a frozen class is only shared.
    unsafe { &*ptr::from_ref(Borrowed::from_ptr(py, object).cast_unchecked::<Call>().get()) }
}

/// Gives both classes the slots that make them cheap.
pub fn register(py: Python<'_>) -> PyResult<()> {
    let function = py.eval(c"(lambda: lambda self: 0)()", None, None)?;
    let sample = Bound::new(py, ShortcutMethod::new(&function, |_, _| Ok(None))?)?;
    let offset = ptr::from_ref(&sample.get().entry) as usize - sample.as_ptr() as usize;
    let (method, call) = (py.get_type::<ShortcutMethod>().as_type_ptr(), py.get_type::<Call>().as_type_ptr());
    // SAFETY: both are heap types, whose `tp_as_async` points into the type object and lives as long. Nobody else has an
    // instance yet. The functions have the signatures of their slots; those of PyO3 that they replace do the same.
    unsafe {
        (*method).tp_vectorcall_offset = offset as ffi::Py_ssize_t;
        // An atomic number on free-threaded interpreters, as large; specialised calls need a class that does not change.
        let flags = (&raw mut (*method).tp_flags).cast::<c_ulong>();
        *flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR | ffi::Py_TPFLAGS_IMMUTABLETYPE;
        ffi::PyType_Modified(method);
        let slots = (*call).tp_as_async;
        (*slots).am_await = Some(awaited);
        (*slots).am_send = Some(send);
        (*call).tp_finalize = Some(finalize);
        SPARE.destroy.set((*call).tp_dealloc);
        SPARE.class.set(call);
        (*call).tp_dealloc = Some(dealloc);
    }
    Ok(())
}
