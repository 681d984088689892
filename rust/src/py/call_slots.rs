//! What calls hold, their slots and those of the methods that make them, and the memory of calls, which are made and dropped
//! without the allocator: what PyO3 has no name for, or does not do as cheaply. The classes are in `shortcut.rs` and `call.rs`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_ulong;
use std::{mem, ptr};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::call::{Call, refused, warn};
use super::event::{Slot, guarded, peek, put, visit_slot};
use super::shortcut::{ROOM, ShortcutMethod, Values};

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

/// What a call holds.
#[derive(Default)]
pub struct State {
    stage: Cell<Stage>,
    /// The interpreter finalizes an object once.
    is_finalized: Cell<bool>,
    /// None in a call that is kept for later use.
    method: Cell<Option<Py<ShortcutMethod>>>,
    /// `self` and the arguments by parameter, until the call has begun. They do not change while it is busy.
    arguments: [Slot; ROOM + 1],
    /// The function's own coroutine.
    later: Slot,
}

// SAFETY: the cells are only used with the interpreter's lock held (`gil_used = true`), so that accesses of different
// threads follow one another.
unsafe impl Sync for State {}

impl State {
    #[inline]
    pub fn stage(&self, _py: Python<'_>) -> Stage {
        self.stage.get()
    }

    pub fn method<'py>(&self, py: Python<'py>) -> Option<Bound<'py, ShortcutMethod>> {
        peek(py, &self.method)
    }

    /// The function's own coroutine if that has taken over.
    pub fn later<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        peek(py, &self.later)
    }

    /// Makes an empty call one that has not begun, with `self` and as many arguments as there are.
    #[inline]
    fn fill<'a, 'py: 'a>(
        &self,
        method: &Bound<'py, ShortcutMethod>,
        arguments: impl Iterator<Item = Option<Borrowed<'a, 'py, PyAny>>>,
    ) {
        self.stage.set(Stage::Fresh);
        // The places are empty, so there is nothing to let go of.
        mem::forget(self.method.replace(Some(method.clone().unbind())));
        for (place, value) in self.arguments.iter().zip(arguments) {
            if let Some(value) = value {
                mem::forget(place.replace(Some(value.to_owned().unbind())));
            }
        }
    }

    /// Lets a fresh call begin: calls `act` with method, `self` and arguments, then lets go of the last two.
    #[inline]
    pub fn begin<'py, T>(
        &self,
        py: Python<'py>,
        act: impl for<'a> FnOnce(&'a ShortcutMethod, &'a Bound<'py, PyAny>, &Values<'a, 'py>) -> PyResult<T>,
    ) -> PyResult<T> {
        if self.stage.get() != Stage::Fresh {
            return Err(refused(self.stage.get()));
        }
        self.stage.set(Stage::Busy);
        // SAFETY: nobody changes these places before `act` has returned: a busy call refuses to begin and to be cleared, and
        // is not freed while somebody calls this. `Borrowed` is transparent over a non-null object pointer, as `Py` is.
        let (method, arguments) = unsafe {
            let arguments = (&raw const self.arguments).cast::<[Option<Borrowed<'_, 'py, PyAny>>; ROOM + 1]>();
            ((*self.method.as_ptr()).as_ref(), &*arguments)
        };
        let (Some(method), [Some(this), values @ ..]) = (method, arguments) else { return Err(refused(Stage::Done)) };
        let result = act(method.get(), this, values);
        if self.stage.get() == Stage::Busy {
            self.stage.set(Stage::Done);
        }
        self.arguments.iter().for_each(|place| put(py, place, None));
        result
    }

    /// The function's own coroutine takes over from a busy call.
    pub fn go_on_with(&self, coroutine: &Bound<'_, PyAny>) {
        put(coroutine.py(), &self.later, Some(coroutine.clone()));
        self.stage.set(Stage::Later);
    }

    /// Lets go of everything.
    #[inline]
    fn empty(&self, py: Python<'_>) {
        if self.stage.replace(Stage::Done) != Stage::Done {
            self.arguments.iter().chain([&self.later]).for_each(|place| put(py, place, None));
        }
        drop(self.method.take().map(|method| method.into_bound(py)));
    }

    /// Lets go of everything for the collector.
    pub fn clear(&self, py: Python<'_>) {
        if self.stage.get() != Stage::Busy {
            self.empty(py);
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit_slot(&self.method, visit)?;
        self.arguments.iter().chain([&self.later]).try_for_each(|place| visit_slot(place, visit))
    }
}

/// Calls a `ShortcutMethod`: keeps the arguments if there are as many as it takes, or lets its function refuse them.
pub unsafe extern "C" fn call_method(
    method: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls with its lock held, with an instance of the type that has this slot, as many live objects
    // as `flags` says and then one for each name, all kept alive by the caller. `Borrowed` is transparent over an object
    // pointer.
    let (method, count, given) = unsafe {
        let py = Python::assume_attached();
        let count = ffi::PyVectorcall_NARGS(flags) as usize;
        let named = if names.is_null() { 0 } else { ffi::PyTuple_GET_SIZE(names) as usize };
        let values = if values.is_null() { ptr::dangling() } else { values.cast::<Borrowed<'_, '_, PyAny>>() };
        let given = std::slice::from_raw_parts(values, count + named);
        (Borrowed::from_ptr(py, method).cast_unchecked::<ShortcutMethod>(), count, given)
    };
    if names.is_null()
        && method.get().takes(count)
        && let Some(object) = SPARE.take()
    {
        // Most calls need no more than this, which cannot panic.
        return again(object, &method, given.iter().copied().map(Some));
    }
    guarded(ptr::null_mut(), |py| {
        let (positional, named) = given.split_at(count);
        // SAFETY: a live tuple of strings, or null where there is none.
        let keys = unsafe { Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>()) };
        match method.get().arguments(positional, named, keys) {
            Some(arguments) => Ok(again(spare_or_new(py)?, &method, arguments.into_iter())),
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
    /// Where a call has its weak references.
    weakrefs: Cell<usize>,
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

    /// Whether somebody has a weak reference to a call.
    ///
    /// # Safety
    /// `call` is one.
    unsafe fn is_watched(&self, call: *mut ffi::PyObject) -> bool {
        // SAFETY: the place of a pointer in the call; see `register`.
        unsafe { !call.byte_add(self.weakrefs.get()).cast::<*mut ffi::PyObject>().read().is_null() }
    }
}

static SPARE: Spare = Spare {
    calls: [const { Cell::new(ptr::null_mut()) }; Spare::MOST],
    count: Cell::new(0),
    class: Cell::new(ptr::null_mut()),
    weakrefs: Cell::new(0),
    destroy: Cell::new(None),
};

/// A call as `dealloc` keeps them.
fn spare_or_new(py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
    if let Some(object) = SPARE.take() {
        return Ok(object);
    }
    let object = Py::new(py, Call::default())?.into_ptr();
    // SAFETY: a live object with a collector header, of a class that lives for ever, which nobody else knows.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        ffi::Py_DECREF(SPARE.class.get().cast());
    }
    Ok(object)
}

/// A new reference to a call that has not begun, made of an ended one.
#[inline]
fn again<'a, 'py: 'a>(
    object: *mut ffi::PyObject,
    method: &Bound<'py, ShortcutMethod>,
    arguments: impl Iterator<Item = Option<Borrowed<'a, 'py, PyAny>>>,
) -> *mut ffi::PyObject {
    // SAFETY: an object that `dealloc` kept: untracked, without references, its contents empty but valid, known to nobody.
    unsafe {
        ffi::PyObject_Init(object, SPARE.class.get());
        content(method.py(), object).state.fill(method, arguments);
        ffi::PyObject_GC_Track(object.cast());
    }
    object
}

/// `am_await` of `Call`.
unsafe extern "C" fn awaited(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls a slot with an instance of the type it belongs to, alive during the call, and with its
    // lock held.
    let is_later = unsafe {
        let py = Python::assume_attached();
        content(py, object).state.stage(py) == Stage::Later
    };
    if is_later && !may_be_awaited(object) {
        return ptr::null_mut();
    }
    // SAFETY: as above.
    unsafe { ffi::Py_NewRef(object) }
}

/// Refuses a second one who awaits a call, as the interpreter does for coroutines.
#[cold]
fn may_be_awaited(object: *mut ffi::PyObject) -> bool {
    guarded(false, |py| {
        // SAFETY: as in `awaited`.
        let call = unsafe { content(py, object) };
        match call.of_later(py, "cr_await")? {
            Some(other) if !other.is_none() => Err(PyRuntimeError::new_err("coroutine is being awaited already")),
            _ => Ok(true),
        }
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
        let Some(later) = call.state.later(py) else { return Err(refused(Stage::Done)) };
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
        let state = &content(py, object).state;
        state.is_finalized.set(true);
        state.stage(py) == Stage::Fresh
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
        let state = &content(py, object).state;
        if state.stage(py) == Stage::Fresh && ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return; // somebody holds it again
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        if SPARE.is_watched(object) {
            ffi::PyObject_ClearWeakRefs(object);
        }
        state.empty(py);
        if !state.is_finalized.get() && SPARE.keep(object) {
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
    // SAFETY: a live type.
    let places = usize::try_from(unsafe { (*call).tp_weaklistoffset })?;
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
        SPARE.weakrefs.set(places);
        (*call).tp_dealloc = Some(dealloc);
    }
    Ok(())
}
