//! Memory of message objects: with `awaitable.rs` the only file with `unsafe`. Everything above it works through safe
//! handles.
//!
//! A message is one block: `Layout`, the slots a class declared itself (`__slots__`), then one trailing word per
//! field, exposed to Python as ordinary member descriptors. The number of trailing words is kept in the object, so
//! deallocation and traversal never depend on a table. All of it relies on the interpreter lock (`gil_used = true`).
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::mem::{offset_of, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple, PyType};
use smallvec::SmallVec;

use super::compare;
use super::construct;
use super::metadata::{self, Kind, Meta};
use super::plan::{self, Plan};
use crate::core::text;

/// A place that owns one Python object or none; the same size as a `PyObject *`.
pub type Slot = Cell<Option<Py<PyAny>>>;

/// Metadata that few messages carry, in a box of its own.
#[derive(Default)]
pub struct Rare {
    pub event_type: Slot,
    pub actor_id: Slot,
    pub schema_version: Slot,
    pub causation_id: Slot,
    pub tags: Slot,
    pub metadata: Slot,
}

impl Rare {
    fn slots(&self) -> [&Slot; 6] {
        [&self.event_type, &self.actor_id, &self.schema_version, &self.causation_id, &self.tags, &self.metadata]
    }
}

/// `sequence_number` of a message that no store has numbered.
pub const UNSTAMPED: i64 = i64::MIN;

/// The native part of a message, after the object header.
#[derive(Default)]
pub struct Body {
    pub id: Cell<[u8; 16]>,
    pub time_us: Cell<i64>,
    pub sequence: Cell<i64>,
    pub version: Cell<u32>,
    pub schema: Cell<u16>,
    words: Cell<u16>,
    pub aggregate_id: Slot,
    pub aggregate_type: Slot,
    pub correlation_id: Slot,
    rare: OnceCell<Box<Rare>>,
}

#[repr(C)]
struct Layout {
    head: ffi::PyObject,
    dict: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    body: Body,
}

const HEAD: usize = size_of::<Layout>();
const WORD: usize = size_of::<Slot>();

impl Body {
    pub fn rare(&self) -> Option<&Rare> {
        self.rare.get().map(|rare| &**rare)
    }

    pub fn rare_or_new(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let inline = [&self.aggregate_id, &self.aggregate_type, &self.correlation_id];
        inline.into_iter().chain(self.rare().into_iter().flat_map(Rare::slots))
    }
}

/// A new reference to what `slot` holds.
#[inline]
pub fn peek<'py, T>(py: Python<'py>, slot: &Cell<Option<Py<T>>>) -> Option<Bound<'py, T>> {
    // SAFETY: the interpreter lock is held, so nobody changes the slot while it is looked at: counting a reference up
    // runs no Python code.
    let held = unsafe { (*slot.as_ptr()).as_ref() };
    held.map(|value| value.bind(py).clone())
}

/// Puts `value` into `slot`, then lets go of what was there (which may run Python code).
#[inline]
pub fn put<'py>(py: Python<'py>, slot: &Slot, value: Option<Bound<'py, PyAny>>) {
    let old = slot.replace(value.map(Bound::unbind));
    drop(old.map(|old| old.into_bound(py)));
}

/// Shows the collector what `slot` holds.
pub fn visit_slot<T>(slot: &Cell<Option<Py<T>>>, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
    // SAFETY: the collector has the interpreter lock, and changes nothing while it looks.
    visit.call(unsafe { &*slot.as_ptr() })
}

/// The two base types, created once and never freed.
struct Bases {
    event: *mut ffi::PyTypeObject,
    message: *mut ffi::PyTypeObject,
}

// SAFETY: the pointers are to type objects that live until the process ends, and are only compared or used with
// the interpreter lock held.
unsafe impl Send for Bases {}
// SAFETY: as above.
unsafe impl Sync for Bases {}

static BASES: PyOnceLock<Bases> = PyOnceLock::new();

// ---------------------------------------------------------------------------------------------------------------
// Plans of classes

/// Direct-mapped cache in front of `PLANS`; plans are never freed and keep their class alive, so an entry whose
/// class matches is right for ever.
static RECENT: [AtomicPtr<Plan>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];
static PLANS: Mutex<Option<HashMap<usize, &'static Plan, ahash::RandomState>>> = Mutex::new(None);

#[inline]
fn cached_plan(class: *mut ffi::PyTypeObject) -> Option<&'static Plan> {
    let line = &RECENT[(class as usize >> 5) % RECENT.len()];
    // SAFETY: `line` is null or points to a leaked `Plan` (see `store_plan`), which lives for ever.
    let recent = unsafe { line.load(Ordering::Acquire).as_ref() };
    if let Some(plan) = recent
        && plan.address == class as usize
    {
        return Some(plan);
    }
    stored_plan(class)
}

#[cold]
fn stored_plan(class: *mut ffi::PyTypeObject) -> Option<&'static Plan> {
    // SAFETY: reading plain fields of a live type object. Every class of ours has its dictionary and its weak references
    // where `Layout` has them; hardly any other class does, and those need no look into the table.
    let (dict, weakrefs) = unsafe { ((*class).tp_dictoffset, (*class).tp_weaklistoffset) };
    if dict != offset_of!(Layout, dict) as isize || weakrefs != offset_of!(Layout, weakrefs) as isize {
        return None;
    }
    let line = &RECENT[(class as usize >> 5) % RECENT.len()];
    let plan = *PLANS.lock().as_ref()?.get(&(class as usize))?;
    line.store(ptr::from_ref(plan).cast_mut(), Ordering::Release);
    Some(plan)
}

/// The plan of a message class, or None while the class is not finalized.
pub fn known_plan(class: &Bound<'_, PyType>) -> Option<&'static Plan> {
    cached_plan(class.as_type_ptr())
}

/// Registers `plan` for ever and gives the class its fast constructor and destructor.
pub fn store_plan(py: Python<'_>, plan: Plan) -> PyResult<()> {
    let class = plan.class.bind(py).as_type_ptr();
    let start = trailing_offset(plan.class.bind(py));
    let fits = |offset: usize| offset >= HEAD && offset + WORD <= plan.size && offset.is_multiple_of(WORD);
    // `Planned` and `allocate` rely on this.
    let sound = plan.address == class as usize
        && plan.size == start + WORD * usize::from(plan.words)
        && plan.fields.iter().all(|field| fits(field.offset));
    if !sound {
        return Err(PyTypeError::new_err("the plan does not fit its class"));
    }
    let plan: &'static Plan = Box::leak(Box::new(plan));
    PLANS.lock().get_or_insert_default().insert(class as usize, plan);
    let free = FREE.get(free_index(usize::from(plan.words))).copied();
    // SAFETY: `class` is a live heap type derived from our base (checked by `plan::compile`). Its slots are written
    // with the lock held, before any instance exists. `dealloc`, `traverse` and `clear` cover everything such an
    // instance has, because a class with slots of its own (larger basicsize) keeps the interpreter's functions,
    // which call ours for the base.
    unsafe {
        (*class).tp_vectorcall = Some(vectorcall);
        (*class).tp_free = free;
        if (*class).tp_basicsize as usize == HEAD {
            (*class).tp_dealloc = Some(dealloc);
            (*class).tp_traverse = Some(traverse);
            (*class).tp_clear = Some(clear);
        }
    }
    Ok(())
}

/// The number of trailing words to give a class that needs at least this many: one of those that `FREE` tells apart.
pub fn class_words(needed: usize) -> usize {
    if needed <= EXACT { needed } else { needed.next_power_of_two() }
}

/// Up to this many, words are given as needed.
const EXACT: usize = 32;

fn free_index(words: usize) -> usize {
    if words <= EXACT { words } else { EXACT + (words / EXACT).ilog2() as usize }
}

/// `tp_free` of a class whose instances have `N` (or a power of two of) trailing words. Nobody calls it: `dealloc` frees
/// by itself. But Python lets `__class__` and `__bases__` be assigned only where it is the same function, so that no
/// object is ever seen through the descriptors of a class with more words than the object has.
unsafe extern "C" fn free_words<const N: usize>(object: *mut c_void) {
    // Makes each of these functions a different one, which no compiler may merge.
    std::hint::black_box(N);
    // SAFETY: the interpreter frees an object that was allocated by `allocate`, with a collector header.
    unsafe { ffi::PyObject_GC_Del(object) }
}

macro_rules! free_functions {
    ($($number:literal)*) => { [$(free_words::<$number>),*] };
}

/// By `free_index`: 0 to 32 words, then 64, 128 up to 32768.
static FREE: [ffi::freefunc; 43] = free_functions!(
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40
    41 42
);

/// Sends the first construction of `class` through its finalization.
pub fn arm(class: &Bound<'_, PyType>) -> PyResult<()> {
    require_message_class(class)?;
    // SAFETY: a heap type derived from our base; `vectorcall` accepts every such class, finalized or not.
    unsafe { (*class.as_type_ptr()).tp_vectorcall = Some(vectorcall) };
    Ok(())
}

/// Which kind of message `class` is, or a TypeError.
pub fn require_message_class(class: &Bound<'_, PyType>) -> PyResult<Kind> {
    let own = class.as_type_ptr();
    let bases = BASES.get(class.py());
    // SAFETY: all three are live type objects.
    let derives = |base| unsafe { own != base && ffi::PyType_IsSubtype(own, base) != 0 };
    match bases {
        Some(bases) if derives(bases.event) => Ok(Kind::Event),
        Some(bases) if derives(bases.message) => Ok(Kind::Message),
        _ => Err(PyTypeError::new_err(format!("{class} is not a message class"))),
    }
}

/// Byte offset of the first trailing word of instances of `class`.
pub fn trailing_offset(class: &Bound<'_, PyType>) -> usize {
    // SAFETY: reading a plain field of a live type object.
    unsafe { (*class.as_type_ptr()).tp_basicsize as usize }
}

/// Whether a class uses our own `__new__` and `__init__`, so that the compiled constructor may be used.
fn native(class: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: reading plain fields of a live type object.
    let (new, init) = unsafe { ((*class).tp_new, (*class).tp_init) };
    new.map(|f| f as usize) == Some(tp_new as *const () as usize)
        && init.map(|f| f as usize) == Some(tp_init as *const () as usize)
}

/// A member descriptor for an object: its offset, and whether it is a slot rather than a trailing word.
pub struct Member {
    pub offset: usize,
    pub is_slot: bool,
}

/// The member descriptor `name` as seen from `class`, if that is what the name leads to.
pub fn member(class: &Bound<'_, PyType>, name: &Bound<'_, PyString>) -> PyResult<Option<Member>> {
    let Some(found) = class.getattr_opt(name)? else {
        return Ok(None);
    };
    // SAFETY: the type check makes the cast valid; `d_member` of a member descriptor is never null.
    unsafe {
        if ffi::Py_TYPE(found.as_ptr()) != &raw mut ffi::PyMemberDescr_Type {
            return Ok(None);
        }
        let descriptor = found.as_ptr().cast::<ffi::PyMemberDescrObject>();
        let member = (*descriptor).d_member;
        if (*member).type_code != ffi::Py_T_OBJECT_EX {
            return Ok(None);
        }
        let offset = (*member).offset as usize;
        let owner = (*descriptor).d_common.d_type;
        let is_slot = offset < (*owner).tp_basicsize as usize;
        Ok(Some(Member { offset, is_slot }))
    }
}

/// Sets `class.name` to a member descriptor for the word at `offset`.
pub fn install_member(class: &Bound<'_, PyType>, name: &'static CStr, offset: usize) -> PyResult<()> {
    // Kept for ever, like the plan: descriptors point to it.
    let member = Box::leak(Box::new(ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_OBJECT_EX,
        offset: offset as ffi::Py_ssize_t,
        flags: 0,
        doc: ptr::null(),
    }));
    // SAFETY: `member` and its name live for ever, and every instance of `class` is at least `offset` + one word
    // long because `plan::compile` gives a class no fewer words than any of its parents.
    let descriptor = unsafe {
        let raw = ffi::PyDescr_NewMember(class.as_type_ptr(), member);
        Bound::from_owned_ptr_or_err(class.py(), raw)?
    };
    // SAFETY: `name` is a live, NUL-terminated UTF-8 string.
    let status = unsafe { ffi::PyObject_SetAttrString(class.as_ptr(), name.as_ptr(), descriptor.as_ptr()) };
    if status < 0 { Err(PyErr::fetch(class.py())) } else { Ok(()) }
}

/// The `__slots__` of one class that are read and written without the attribute machinery.
pub struct SlotTable {
    class: Py<PyType>,
    offsets: Vec<usize>,
}

impl SlotTable {
    /// The places of these attributes, None unless every one is a slot and the class looks attributes up as usual.
    pub fn of<'py>(class: &Bound<'py, PyType>, names: &[Bound<'py, PyString>]) -> PyResult<Option<Self>> {
        // SAFETY: reading plain fields of a live type object.
        let (size, lookup) =
            unsafe { ((*class.as_type_ptr()).tp_basicsize as usize, (*class.as_type_ptr()).tp_getattro) };
        if lookup.map(|f| f as usize) != Some(ffi::PyObject_GenericGetAttr as *const () as usize) {
            return Ok(None);
        }
        let mut offsets = Vec::with_capacity(names.len());
        for name in names {
            match member(class, name)? {
                Some(found) if found.is_slot && found.offset + WORD <= size && found.offset.is_multiple_of(WORD) => {
                    offsets.push(found.offset);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(Self { class: class.clone().unbind(), offsets }))
    }

    fn place<'a>(&self, object: &'a Bound<'_, PyAny>, index: usize) -> Option<&'a Slot> {
        let offset = *self.offsets.get(index)?;
        let address = object.as_ptr();
        // SAFETY: the object is exactly of the class whose member descriptors gave the offsets, so that each place
        // lies in it, aligned, and holds null or an owned reference.
        unsafe {
            let fits = ffi::Py_TYPE(address).cast::<ffi::PyObject>() == self.class.as_ptr();
            fits.then(|| &*address.cast::<u8>().add(offset).cast::<Slot>())
        }
    }

    /// The value of a slot, None if it is unset or the object is not exactly of the class.
    #[inline]
    pub fn get<'py>(&self, object: &Bound<'py, PyAny>, index: usize) -> Option<Bound<'py, PyAny>> {
        peek(object.py(), self.place(object, index)?)
    }

    /// Sets a slot; false if the object is not exactly of the class.
    #[inline]
    pub fn put<'py>(&self, object: &Bound<'py, PyAny>, index: usize, value: Bound<'py, PyAny>) -> bool {
        let Some(place) = self.place(object, index) else { return false };
        put(object.py(), place, Some(value));
        true
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Handles

/// A borrowed object that is known to be one of ours.
#[derive(Clone, Copy)]
pub struct MessageRef<'a, 'py>(Borrowed<'a, 'py, PyAny>);

impl<'a, 'py> MessageRef<'a, 'py> {
    /// The handle of `object` if it is an event of ours.
    pub fn event(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: `object` is alive for 'a.
        let plan = cached_plan(unsafe { ffi::Py_TYPE(object.as_ptr()) })?;
        (plan.kind == Kind::Event).then_some(MessageRef(object.as_borrowed()))
    }

    /// The handle of `object` if it is exactly of the class of this plan.
    #[inline]
    pub fn of_class(object: &'a Bound<'py, PyAny>, plan: &'static Plan) -> Option<Self> {
        // SAFETY: `object` is alive for 'a.
        let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
        (class as usize == plan.address).then(|| MessageRef(object.as_borrowed()))
    }

    /// The handle of `object` if it is an event, command or query of ours.
    pub fn cast(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: `object` is alive for 'a.
        let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
        // Only classes of ours have plans, and an instance exists only once its class has one.
        cached_plan(class).map(|_| MessageRef(object.as_borrowed()))
    }

    pub fn py(self) -> Python<'py> {
        self.0.py()
    }

    pub fn object(self) -> Borrowed<'a, 'py, PyAny> {
        self.0
    }

    /// The plan of the object's class.
    pub fn plan(self) -> Option<&'static Plan> {
        // SAFETY: the object is alive for 'a.
        cached_plan(unsafe { ffi::Py_TYPE(self.0.as_ptr()) })
    }

    pub fn body(self) -> &'a Body {
        // SAFETY: the handle's promise is that the object starts with `Layout`, whose body `allocate` initialised.
        // It only changes through cells, so shared references are sound.
        unsafe { &(*self.0.as_ptr().cast::<Layout>()).body }
    }

    /// The attribute dictionary, if there is one.
    pub fn extra(self) -> Option<Bound<'py, PyDict>> {
        // SAFETY: `dict` is null or a dictionary the object owns.
        unsafe {
            let dict = (*self.0.as_ptr().cast::<Layout>()).dict;
            Bound::from_borrowed_ptr_or_opt(self.py(), dict)?.cast_into().ok()
        }
    }

    /// The attribute dictionary, created on demand.
    pub fn extra_or_new(self) -> PyResult<Bound<'py, PyDict>> {
        // SAFETY: our type has a dictionary offset; a new reference or null with an error comes back.
        let dict = unsafe {
            let raw = ffi::PyObject_GenericGetDict(self.0.as_ptr(), ptr::null_mut());
            Bound::from_owned_ptr_or_err(self.py(), raw)?
        };
        Ok(dict.cast_into()?)
    }

    /// The metadata values that are Python objects.
    pub fn metadata(self) -> impl Iterator<Item = Bound<'py, PyAny>> {
        self.body().slots().filter_map(move |slot| peek(self.py(), slot))
    }

    pub fn is_tracked(self) -> bool {
        // SAFETY: the object is alive and of a collected type.
        unsafe { ffi::PyObject_GC_IsTracked(self.0.as_ptr()) != 0 }
    }

    /// Makes the cyclic collector visit this object from now on.
    pub fn track(self) {
        if !self.is_tracked() {
            // SAFETY: the object was allocated by `PyObject_GC_New`, is completely initialised and not tracked.
            unsafe { ffi::PyObject_GC_Track(self.0.as_ptr().cast()) };
        }
    }

    /// Starts tracking if `value`, about to be stored in this object, could be part of a cycle.
    pub fn track_if_container(self, value: &Bound<'py, PyAny>) {
        if is_container(value) {
            self.track();
        }
    }

    /// Bytes of the object without the collector's header.
    pub fn size(self) -> usize {
        let body = self.body();
        // SAFETY: `Py_TYPE` of a live object.
        let fixed = unsafe { (*ffi::Py_TYPE(self.0.as_ptr())).tp_basicsize as usize };
        let rare = body.rare().map_or(0, |_| size_of::<Rare>());
        fixed + WORD * usize::from(body.words.get()) + rare
    }

    #[inline]
    fn clear(self) {
        let py = self.py();
        let layout = self.0.as_ptr().cast::<Layout>();
        // SAFETY: the object is alive; each reference is taken out of the object before it is released, because
        // releasing it can run Python code that looks at the object.
        unsafe {
            let start = (*ffi::Py_TYPE(self.0.as_ptr())).tp_basicsize as usize;
            for word in 0..usize::from(self.body().words.get()) {
                let slot = &*layout.cast::<u8>().add(start + WORD * word).cast::<Slot>();
                put(py, slot, None);
            }
            let dict = ptr::replace(&raw mut (*layout).dict, ptr::null_mut());
            ffi::Py_XDECREF(dict);
        }
        let body = self.body();
        put(py, &body.aggregate_id, None);
        put(py, &body.aggregate_type, None);
        put(py, &body.correlation_id, None);
        for slot in body.rare().iter().flat_map(|rare| rare.slots()) {
            put(py, slot, None);
        }
    }
}

/// A message together with the plan of its class: fields by index, without looking anything up.
#[derive(Clone, Copy)]
pub struct Planned<'a, 'py> {
    message: MessageRef<'a, 'py>,
    plan: &'static Plan,
}

impl<'a, 'py> Planned<'a, 'py> {
    /// The handle of `object` if it is an event, command or query of ours.
    pub fn cast(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: `object` is alive for 'a.
        let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
        // Only classes of ours have plans, and an instance exists only once its class has one.
        cached_plan(class).map(|plan| Planned { message: MessageRef(object.as_borrowed()), plan })
    }

    /// A handle on an object that `allocate` made; None if its class is not that of the plan.
    pub fn fresh(object: &'a Bound<'py, PyAny>, plan: &'static Plan) -> Option<Self> {
        // SAFETY: the object is alive for 'a.
        let class = unsafe { ffi::Py_TYPE(object.as_ptr()) };
        (class as usize == plan.address).then(|| Planned { message: MessageRef(object.as_borrowed()), plan })
    }

    pub fn message(self) -> MessageRef<'a, 'py> {
        self.message
    }

    pub fn plan(self) -> &'static Plan {
        self.plan
    }

    #[inline]
    fn place(self, index: usize) -> &'a Slot {
        let offset = self.plan.fields[index].offset;
        // SAFETY: the object is an instance of the plan's class (both constructors check it), so it is `plan.size`
        // bytes long, and `store_plan` checked that the offset is that of an aligned word in it.
        unsafe { &*self.message.0.as_ptr().cast::<u8>().add(offset).cast::<Slot>() }
    }

    /// The value of the field at an index of `plan.fields`, None if it was deleted or never set.
    #[inline]
    pub fn get(self, index: usize) -> Option<Bound<'py, PyAny>> {
        peek(self.message.py(), self.place(index))
    }

    /// Puts a value into a field; the caller sees to tracking (`MessageRef::track_if_container`).
    #[inline]
    pub fn put(self, index: usize, value: Bound<'py, PyAny>) {
        put(self.message.py(), self.place(index), Some(value));
    }

    /// As `put`, for a field of a new message that has no value yet: one that it had would never be released.
    #[inline]
    pub fn put_first(self, index: usize, value: Bound<'py, PyAny>) {
        // SAFETY: `place` gives a valid, aligned slot that only the holder of the interpreter lock looks at.
        unsafe { self.place(index).as_ptr().write(Some(value.unbind())) };
    }

    #[inline]
    pub fn is_set(self, index: usize) -> bool {
        // SAFETY: the interpreter lock is held, so nobody changes the slot while it is looked at.
        unsafe { (*self.place(index).as_ptr()).is_some() }
    }
}

/// Whether a value can take part in a reference cycle. Errs on the side of yes.
#[inline]
pub fn is_container(value: &Bound<'_, PyAny>) -> bool {
    // SAFETY: `value` is alive; its type's flags are a plain field.
    let collected = unsafe {
        let class = ffi::Py_TYPE(value.as_ptr());
        ffi::PyType_HasFeature(class, ffi::Py_TPFLAGS_HAVE_GC) != 0
    };
    collected && is_collected_container(value)
}

#[inline(never)]
fn is_collected_container(value: &Bound<'_, PyAny>) -> bool {
    let object = value.as_ptr();
    // SAFETY: `object` is alive.
    unsafe {
        let class = ffi::Py_TYPE(object);
        if cached_plan(class).is_some() {
            return ffi::PyObject_GC_IsTracked(object) != 0;
        }
        if class == &raw mut ffi::PyTuple_Type {
            return ffi::PyObject_GC_IsTracked(object) != 0 && !plan::is_flat_tuple(value);
        }
    }
    !plan::is_atomic(value)
}

/// A value array and the names of its last entries, as vectorcall passes them.
pub struct Arguments<'a, 'py> {
    pub positional: &'a [Borrowed<'a, 'py, PyAny>],
    pub named: &'a [Borrowed<'a, 'py, PyAny>],
    pub names: Option<Borrowed<'a, 'py, PyTuple>>,
}

/// A new object of `plan`'s class with nothing set: no id, no time, no fields; not tracked.
#[inline]
pub fn allocate<'py>(py: Python<'py>, plan: &'static Plan) -> PyResult<Bound<'py, PyAny>> {
    let class = plan.address as *mut ffi::PyTypeObject;
    // SAFETY: `plan.allocator` is a type of ours whose basicsize is that of `class` plus the trailing words, with
    // the same collector header, so the block fits an instance of `class`; nothing else has seen the block when it
    // gets its real type. Every byte behind the header is initialised before the object is used: words and slots
    // with null (which is `None` of a `Slot`), the body with a `Body`.
    unsafe {
        let allocator = plan.allocator as *mut ffi::PyTypeObject;
        let raw = ffi::PyObject_GC_New::<Layout>(allocator);
        if raw.is_null() {
            return Err(PyErr::fetch(py));
        }
        ffi::Py_INCREF(class.cast());
        (*raw).head.ob_type = class;
        ffi::Py_DECREF(allocator.cast());
        (*raw).dict = ptr::null_mut();
        (*raw).weakrefs = ptr::null_mut();
        (&raw mut (*raw).body).write(Body::default());
        // A loop rather than a call: there are few.
        let words = raw.cast::<u8>().add(HEAD).cast::<*mut ffi::PyObject>();
        (0..(plan.size - HEAD) / WORD).for_each(|word| words.add(word).write(ptr::null_mut()));
        let body = &(*raw).body;
        body.sequence.set(UNSTAMPED);
        body.words.set(plan.words);
        body.schema.set(plan.schema);
        Ok(Bound::from_owned_ptr(py, raw.cast()))
    }
}

/// A private type whose instances are `size` bytes long, for `allocate`.
pub fn allocator_of(py: Python<'_>, size: usize) -> PyResult<usize> {
    static ALLOCATORS: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);
    if let Some(known) = ALLOCATORS.lock().get_or_insert_default().get(&size) {
        return Ok(*known);
    }
    let new = new_type(py, c"lexigram.events._core._Block", size, 0, &mut Vec::new())? as usize;
    // Another thread may have been faster: either type serves.
    ALLOCATORS.lock().get_or_insert_default().insert(size, new);
    Ok(new)
}

/// Microseconds since 1970-01-01 UTC, as `core::clock::now_us` but without the detour through a checked difference.
#[cfg(unix)]
#[allow(clippy::useless_conversion)] // both numbers are narrower on some systems
#[inline]
pub fn now_us() -> i64 {
    if let Some(frozen) = crate::core::clock::frozen_us() {
        return frozen;
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock number and a valid place for the result; this clock cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    i64::from(now.tv_sec) * 1_000_000 + i64::from(now.tv_nsec) / 1000
}

#[cfg(not(unix))]
pub use crate::core::clock::now_us;

/// The value of a context variable, None when it has none and no default.
#[inline]
pub fn context_value<'py>(variable: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let mut value = ptr::null_mut();
    // SAFETY: `PyContextVar_Get` checks the type of `variable` and writes a new reference or null.
    unsafe {
        if ffi::PyContextVar_Get(variable.as_ptr(), ptr::null_mut(), &raw mut value) < 0 {
            return Err(PyErr::fetch(variable.py()));
        }
        Ok(Bound::from_owned_ptr_or_opt(variable.py(), value))
    }
}

/// `object.__setattr__(object, name, value)`, past the `__setattr__` of the class.
pub fn generic_setattr(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyString>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    // SAFETY: three live objects; -1 means that an error is set.
    let status = unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if status < 0 { Err(PyErr::fetch(object.py())) } else { Ok(()) }
}

/// The dictionary that holds the attributes of an object, past a `__dict__` that its class may define.
pub fn instance_dict<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live object; a new reference, or null with an error (also for an object without attributes), comes back.
    unsafe {
        let dict = ffi::PyObject_GenericGetDict(object.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(object.py(), dict)
    }
}

/// The value of the next item of a dictionary if its key is this very name; `place` is 0 for the first item. Items in
/// another order are for the caller to look up.
#[inline]
pub fn next_value<'py>(
    dict: &Bound<'py, PyDict>,
    place: &mut ffi::Py_ssize_t,
    name: &Py<PyString>,
) -> Option<Bound<'py, PyAny>> {
    let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: a live dictionary. The place is checked against its size, whatever has happened to it since the last call;
    // key and value are borrowed from it, and nothing happens to it before the value's references are counted up.
    unsafe {
        let more = ffi::PyDict_Next(dict.as_ptr(), place, &raw mut key, &raw mut value) != 0;
        (more && key == name.as_ptr()).then(|| Bound::from_borrowed_ptr(dict.py(), value))
    }
}

/// An instance of `class` that no `__init__` has seen, for a class of slots only.
pub fn bare_instance<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `class` is a live, ready type; a new reference or null with an error comes back.
    unsafe { Bound::from_owned_ptr_or_err(class.py(), ffi::PyType_GenericAlloc(class.as_type_ptr(), 0)) }
}

/// What `object.__new__(class)` gives, for a class of which that is known to work: with room for attributes in the
/// object itself, where this Python keeps them there.
pub fn new_object<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    let none = PyTuple::empty(py);
    // SAFETY: `object` has a constructor, which gets a live, ready type and no arguments; a new reference or null with an
    // error comes back.
    unsafe {
        let Some(new) = ffi::PyBaseObject_Type.tp_new else { return bare_instance(class) };
        Bound::from_owned_ptr_or_err(py, new(class.as_type_ptr(), none.as_ptr(), ptr::null_mut()))
    }
}

/// The items of a list, with references of their own, so that they stay whatever becomes of the list.
pub type Items<'py> = SmallVec<[Bound<'py, PyAny>; 1]>;

/// The items of a list.
#[inline]
pub fn items<'py>(list: &Bound<'py, PyList>) -> Items<'py> {
    // SAFETY: a list has so many live objects at that place, and nothing happens to it before their references are
    // counted up; `Borrowed` is transparent over a non-null object pointer.
    unsafe {
        let first = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
        slice(first.cast::<Borrowed<'_, 'py, PyAny>>(), list.len()).iter().map(|item| Bound::clone(item)).collect()
    }
}

/// A list of known length in the making. Python code does not see it before it is finished.
pub struct ListBuilder<'py> {
    list: Bound<'py, PyList>,
    /// The places that are still empty.
    next: *mut *mut ffi::PyObject,
    end: *mut *mut ffi::PyObject,
}

impl<'py> ListBuilder<'py> {
    /// A list with room for `count` items. Like every new object, it may start the collector.
    pub fn with_room(py: Python<'py>, count: usize) -> PyResult<Self> {
        // SAFETY: a new list, with `count` places that hold null, or null with an error comes back.
        unsafe {
            let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(count as ffi::Py_ssize_t))?;
            let next = (*list.as_ptr().cast::<ffi::PyListObject>()).ob_item;
            Ok(Self { list: list.cast_into()?, next, end: next.wrapping_add(count) })
        }
    }

    /// Adds an item, which is ignored if there is no room. Runs no Python code and allocates nothing, so it may be called
    /// under a lock.
    #[inline]
    pub fn push(&mut self, item: &Py<PyAny>) {
        if self.next < self.end {
            // SAFETY: a place of the list, which nobody else has changed since it was made; it holds null and gets a new
            // reference.
            unsafe { self.next.write(ffi::Py_NewRef(item.as_ptr())) };
            self.next = self.next.wrapping_add(1);
        }
    }

    /// The list of what was added.
    pub fn finish(self) -> PyResult<Bound<'py, PyList>> {
        if self.next < self.end {
            let length = self.list.len();
            // SAFETY: both point into the places of the list, or behind the last one.
            let empty = unsafe { self.end.offset_from(self.next) } as usize;
            self.list.del_slice(length - empty, length)?;
        }
        Ok(self.list)
    }
}

/// A text of its UTF-8 bytes, which are usually ASCII.
#[inline]
pub fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match ascii_text(py, bytes) {
        Some(text) => Ok(text),
        None => PyString::from_bytes(py, bytes),
    }
}

/// The same, None for what is not ASCII or cannot be made.
#[inline]
pub fn ascii_text<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyString>> {
    if !text::is_ascii(bytes) {
        return None;
    }
    // SAFETY: a new text has room for that many characters below 128, one byte each, and nobody else has seen it yet.
    // Texts of no or one character are shared by the interpreter, which fills them itself. Null means that an error is
    // set, which goes away with what was not made.
    unsafe {
        let made = match bytes {
            [one] => ffi::PyUnicode_FromOrdinal(c_int::from(*one)),
            _ => ffi::PyUnicode_New(bytes.len() as ffi::Py_ssize_t, 127),
        };
        if made.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        if bytes.len() > 1 {
            ptr::copy_nonoverlapping(bytes.as_ptr(), ffi::PyUnicode_DATA(made).cast(), bytes.len());
        }
        Some(Bound::from_owned_ptr(py, made).cast_into_unchecked())
    }
}

/// The characters of a text that is ASCII, without asking the interpreter for them.
#[cfg(Py_3_14)]
#[inline]
pub fn ascii<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    // From 3.14 on PyO3 does not read the interpreter's flags. What it gives is in the text itself if that is ASCII.
    text.to_str().ok().filter(|found| found.is_ascii())
}

/// The characters of a text that is ASCII, without asking the interpreter for them.
#[cfg(not(Py_3_14))]
#[inline]
pub fn ascii<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    let object = text.as_ptr();
    // SAFETY: a compact text of ASCII has as many bytes as characters, all below 128, behind its header, and does not
    // change while it lives.
    unsafe {
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) == 0 {
            return None;
        }
        let start = ffi::PyUnicode_DATA(object).cast::<u8>();
        let length = ffi::PyUnicode_GET_LENGTH(object) as usize;
        Some(std::str::from_utf8_unchecked(std::slice::from_raw_parts(start, length)))
    }
}

/// The value of an integer that is exactly an `int` of at most 64 bits.
#[inline]
pub fn small_int(value: &Bound<'_, PyAny>) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: a live object. For an exact integer the call runs no Python code and sets no error.
    unsafe {
        if ffi::PyLong_CheckExact(value.as_ptr()) == 0 {
            return None;
        }
        let number = ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow);
        (overflow == 0).then_some(number)
    }
}

/// A tuple of items that are made one after the other. Its memory is asked for at once: bound the count.
///
/// The collector gets to know it when it is complete, and only if an item is of a type that the collector looks at.
#[inline]
pub fn tuple_of<'py, E: From<PyErr>>(
    py: Python<'py>,
    count: usize,
    mut make: impl FnMut(usize) -> Result<Bound<'py, PyAny>, E>,
) -> Result<Bound<'py, PyTuple>, E> {
    if count == 0 {
        return Ok(PyTuple::empty(py));
    }
    // SAFETY: a new tuple with `count` empty places, which its destructor accepts; nobody sees it, not even the
    // collector, before each place has got the one reference that it owns.
    unsafe {
        let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(count as ffi::Py_ssize_t))?;
        ffi::PyObject_GC_UnTrack(tuple.as_ptr().cast());
        let mut collected = false;
        for index in 0..count {
            let item = make(index)?;
            collected |= ffi::PyType_HasFeature(ffi::Py_TYPE(item.as_ptr()), ffi::Py_TPFLAGS_HAVE_GC) != 0;
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index as ffi::Py_ssize_t, item.into_ptr());
        }
        if collected {
            ffi::PyObject_GC_Track(tuple.as_ptr().cast());
        }
        Ok(tuple.cast_into_unchecked())
    }
}

// ---------------------------------------------------------------------------------------------------------------
// What the interpreter calls

/// Runs `call`, turning an error or a panic into a raised exception and `failed`.
pub(super) fn guarded<'py, T>(failed: T, call: impl FnOnce(Python<'py>) -> PyResult<T>) -> T {
    // SAFETY: the interpreter calls slot functions with the lock held, and 'py ends before they return.
    let py = unsafe { Python::assume_attached() };
    let result = catch_unwind(AssertUnwindSafe(|| call(py).map_err(restore).ok()));
    match result {
        Ok(Some(value)) => value,
        Ok(None) => failed,
        Err(_) => {
            restore(PanicException::new_err("a bug in lexigram.events._core; please report it"));
            failed
        }
    }
}

/// Raises `error` in the interpreter.
#[cold]
fn restore(error: PyErr) {
    // PyO3 counts attachments and puts off releasing references while it counts none, as in the functions below,
    // which the interpreter calls directly. Attaching once more releases the error's parts now.
    Python::attach(|py| error.restore(py));
}

unsafe extern "C" fn vectorcall(
    class: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let class_type = class.cast::<ffi::PyTypeObject>();
    guarded(ptr::null_mut(), |py| {
        let plan = match cached_plan(class_type) {
            Some(plan) => plan,
            // SAFETY: the interpreter passes the class that is being called.
            None => plan::finalized(&unsafe { Bound::from_borrowed_ptr(py, class) }.cast_into()?)?,
        };
        if !native(class_type) {
            // SAFETY: without its own vectorcall the class is called by `type.__call__`; the arguments are passed on.
            return unsafe {
                (*class_type).tp_vectorcall = None;
                Ok(ffi::PyObject_Vectorcall(class, values, count, names))
            };
        }
        // SAFETY: vectorcall passes `positional` values followed by one value per name; `Borrowed` is transparent
        // over a non-null object pointer, and the caller keeps all of them alive during the call.
        let arguments = unsafe {
            let positional = ffi::PyVectorcall_NARGS(count) as usize;
            let names = Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
            let named = names.map_or(0, |names| names.len());
            let values = values.cast::<Borrowed<'_, '_, PyAny>>();
            Arguments {
                positional: slice(values, positional),
                named: slice(values.wrapping_add(positional), named),
                names,
            }
        };
        construct::construct(py, plan, &arguments).map(Bound::into_ptr)
    })
}

/// # Safety
/// `start` must point to `length` live values, or `length` be zero.
unsafe fn slice<'a, T>(start: *const T, length: usize) -> &'a [T] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, length) }
}

unsafe extern "C" fn tp_new(
    class: *mut ffi::PyTypeObject,
    _args: *mut ffi::PyObject,
    _kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: the interpreter passes a live type.
        let class = unsafe { Bound::from_borrowed_ptr(py, class.cast()) }.cast_into()?;
        construct::empty(plan::finalized(&class)?, py).map(Bound::into_ptr)
    })
}

unsafe extern "C" fn tp_init(
    object: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> c_int {
    guarded(-1, |py| {
        // SAFETY: slot functions get live objects: an instance, a tuple, and a dictionary or null.
        let (object, args, kwargs) = unsafe {
            (
                Bound::from_borrowed_ptr(py, object),
                Bound::from_borrowed_ptr(py, args).cast_into_unchecked::<PyTuple>(),
                Bound::from_borrowed_ptr_or_opt(py, kwargs).map(|kwargs| kwargs.cast_into_unchecked::<PyDict>()),
            )
        };
        construct::initialize(&object, &args, kwargs.as_ref()).map(|()| 0)
    })
}

thread_local! {
    /// How many deallocations of messages are nested in this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The messages that wait for the outermost one, chained through their (no longer needed) weak reference list.
    static WAITING: Cell<*mut ffi::PyObject> = const { Cell::new(ptr::null_mut()) };
}

/// Nested deallocations before the rest is put off, so that a long chain of messages cannot overflow the stack.
const MAX_DEPTH: u32 = 100;

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: called once, with the lock held, for an object whose reference count dropped to zero.
    unsafe {
        let class = ffi::Py_TYPE(object);
        // Classes with slots of their own come here from the interpreter's destructor, which ran the finalizer.
        let own = (*class).tp_dealloc.map(|f| f as usize) == Some(dealloc as *const () as usize);
        if own && (*class).tp_finalize.is_some() {
            // The interpreter expects that what a finalizer may bring back is tracked; this one may be newer than the plan.
            MessageRef(Borrowed::from_ptr(Python::assume_attached(), object)).track();
            if ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
                return;
            }
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*object.cast::<Layout>()).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        let depth = DEPTH.get();
        if depth >= MAX_DEPTH {
            (*object.cast::<Layout>()).weakrefs = WAITING.replace(object);
            return;
        }
        DEPTH.set(depth + 1);
        free(object);
        if depth == 0 {
            while !WAITING.get().is_null() {
                let next = WAITING.get();
                WAITING.set(ptr::replace(&raw mut (*next.cast::<Layout>()).weakrefs, ptr::null_mut()));
                free(next);
            }
        }
        DEPTH.set(depth);
    }
}

/// # Safety
/// `object` must be an untracked message without references to it; it is gone afterwards.
unsafe fn free(object: *mut ffi::PyObject) {
    // SAFETY: the caller's promise; `clear` leaves no reference in the body, so dropping it frees memory only.
    unsafe {
        let py = Python::assume_attached();
        let class = ffi::Py_TYPE(object);
        MessageRef(Borrowed::from_ptr(py, object)).clear();
        ptr::drop_in_place(&raw mut (*object.cast::<Layout>()).body);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse(object: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector passes a live, initialised object. No reference count changes and nothing is allocated:
    // slots are read as the pointers they are.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let layout = object.cast::<Layout>();
        let body = &(*layout).body;
        let words = object.cast::<u8>().add((*class).tp_basicsize as usize).cast::<*mut ffi::PyObject>();
        let visit = |target: *mut ffi::PyObject| if target.is_null() { 0 } else { visit(target, arg) };
        let fixed = [class.cast(), (*layout).dict];
        let trailing = (0..usize::from(body.words.get())).map(|word| *words.add(word));
        let inner = body.slots().map(|slot| *slot.as_ptr().cast::<*mut ffi::PyObject>());
        for target in fixed.into_iter().chain(trailing).chain(inner) {
            let status = visit(target);
            if status != 0 {
                return status;
            }
        }
        0
    }
}

unsafe extern "C" fn clear(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector passes a live object of ours with the lock held.
    unsafe { MessageRef(Borrowed::from_ptr(Python::assume_attached(), object)).clear() };
    0
}

unsafe extern "C" fn get_meta(object: *mut ffi::PyObject, meta: *mut c_void) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: a getter gets an instance of the type it belongs to, which is one of ours.
        let message = MessageRef(unsafe { Borrowed::from_ptr(py, object) });
        metadata::get(message, Meta::from_index(meta as usize)).map(Bound::into_ptr)
    })
}

unsafe extern "C" fn set_meta(object: *mut ffi::PyObject, value: *mut ffi::PyObject, meta: *mut c_void) -> c_int {
    guarded(-1, |py| {
        // SAFETY: as in `get_meta`; `value` is live, or null for deletion.
        let (message, value) =
            unsafe { (MessageRef(Borrowed::from_ptr(py, object)), Bound::from_borrowed_ptr_or_opt(py, value)) };
        let value = value.ok_or_else(|| PyAttributeError::new_err("message metadata cannot be deleted"))?;
        metadata::set(message, Meta::from_index(meta as usize), &value).map(|()| 0)
    })
}

/// Whoever asks for the dictionary may put something into it that leads back to the message (`cached_property` does).
unsafe extern "C" fn get_dict(object: *mut ffi::PyObject, context: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a getter gets a live instance of the type it belongs to, which has a dictionary offset.
    unsafe {
        MessageRef(Borrowed::from_ptr(Python::assume_attached(), object)).track();
        ffi::PyObject_GenericGetDict(object, context)
    }
}

unsafe extern "C" fn set_dict(object: *mut ffi::PyObject, value: *mut ffi::PyObject, context: *mut c_void) -> c_int {
    // SAFETY: as in `get_dict`.
    unsafe {
        MessageRef(Borrowed::from_ptr(Python::assume_attached(), object)).track();
        ffi::PyObject_GenericSetDict(object, value, context)
    }
}

unsafe extern "C" fn get_class(object: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: a live object; its type is returned as a new reference.
    unsafe { ffi::Py_NewRef(ffi::Py_TYPE(object).cast()) }
}

unsafe extern "C" fn rich_compare(
    left: *mut ffi::PyObject,
    right: *mut ffi::PyObject,
    op: c_int,
) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: `left` is an instance of the type this slot belongs to; a class is compared before `right` is used
        // as one. `NotImplemented` is returned as a new reference.
        let (left, right) = unsafe {
            if !matches!(op, ffi::Py_EQ | ffi::Py_NE) || ffi::Py_TYPE(left) != ffi::Py_TYPE(right) {
                return Ok(ffi::Py_NewRef(ffi::Py_NotImplemented()));
            }
            (Bound::from_borrowed_ptr(py, left), Bound::from_borrowed_ptr(py, right))
        };
        let equal = match (Planned::cast(&left), Planned::cast(&right)) {
            (Some(left), Some(right)) => compare::equal(left, right)?,
            _ => false,
        };
        let result = (equal == (op == ffi::Py_EQ)).into_pyobject(py)?;
        Ok(result.to_owned().into_any().into_ptr())
    })
}

unsafe extern "C" fn hash(object: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: an instance of ours.
    let id = u128::from_be_bytes(unsafe { (*object.cast::<Layout>()).body.id.get() });
    let mixed = ((id ^ (id >> 64)) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as ffi::Py_hash_t;
    if mixed == -1 { -2 } else { mixed }
}

unsafe extern "C" fn size_of_object(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guarded(ptr::null_mut(), |py| {
        // SAFETY: a method gets an instance of the type it belongs to.
        let message = MessageRef(unsafe { Borrowed::from_ptr(py, object) });
        Ok(message.size().into_pyobject(py)?.into_any().into_ptr())
    })
}

// ---------------------------------------------------------------------------------------------------------------
// Making the types

fn leak<T>(values: Vec<T>) -> *mut c_void {
    Box::leak(values.into_boxed_slice()).as_mut_ptr().cast()
}

fn new_type(
    py: Python<'_>,
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    slots: &mut Vec<ffi::PyType_Slot>,
) -> PyResult<*mut ffi::PyTypeObject> {
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    slots.push(slot(ffi::Py_tp_dealloc, dealloc as *mut c_void));
    slots.push(slot(ffi::Py_tp_traverse, traverse as *mut c_void));
    slots.push(slot(ffi::Py_tp_clear, clear as *mut c_void));
    slots.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | flags) as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is complete and the tables it points to are leaked, so they outlive the type; the slot
    // functions have the signatures that their numbers call for. The new reference is kept for ever.
    let class = unsafe { ffi::PyType_FromSpec(&raw mut spec) };
    if class.is_null() { Err(PyErr::fetch(py)) } else { Ok(class.cast()) }
}

fn new_base(py: Python<'_>, name: &'static CStr, kind: Kind) -> PyResult<*mut ffi::PyTypeObject> {
    let property = |name: &'static CStr, get, set, closure: usize| ffi::PyGetSetDef {
        name: name.as_ptr(),
        get,
        set,
        doc: ptr::null(),
        closure: closure as *mut c_void,
    };
    let mut properties = Vec::new();
    for (meta, name) in kind.names() {
        properties.push(property(name, Some(get_meta as ffi::getter), Some(set_meta as ffi::setter), *meta as usize));
    }
    properties.push(property(c"__dict__", Some(get_dict), Some(set_dict), 0));
    // Without a setter: an object of another class has another number of words.
    properties.push(property(c"__class__", Some(get_class), None, 0));
    properties.push(ffi::PyGetSetDef::default());
    let member = |name: &'static CStr, offset: usize| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let members = vec![
        member(c"__dictoffset__", offset_of!(Layout, dict)),
        member(c"__weaklistoffset__", offset_of!(Layout, weakrefs)),
        ffi::PyMemberDef::default(),
    ];
    let size_method = ffi::PyMethodDef {
        ml_name: c"__sizeof__".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: size_of_object },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: ptr::null(),
    };
    let slot = |slot, pfunc| ffi::PyType_Slot { slot, pfunc };
    let mut slots = vec![
        slot(ffi::Py_tp_members, leak(members)),
        slot(ffi::Py_tp_getset, leak(properties)),
        slot(ffi::Py_tp_methods, leak(vec![size_method, ffi::PyMethodDef::zeroed()])),
        slot(ffi::Py_tp_new, tp_new as *mut c_void),
        slot(ffi::Py_tp_init, tp_init as *mut c_void),
        slot(ffi::Py_tp_richcompare, rich_compare as *mut c_void),
        slot(ffi::Py_tp_hash, hash as *mut c_void),
    ];
    new_type(py, name, HEAD, ffi::Py_TPFLAGS_BASETYPE, &mut slots)
}

/// Adds `EventBase` and `MessageBase` to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let bases = BASES.get_or_try_init(py, || {
        PyResult::Ok(Bases {
            event: new_base(py, c"lexigram.events._core.EventBase", Kind::Event)?,
            message: new_base(py, c"lexigram.events._core.MessageBase", Kind::Message)?,
        })
    })?;
    for (name, class) in [("EventBase", bases.event), ("MessageBase", bases.message)] {
        // SAFETY: a live type object that is never freed.
        module.add(name, unsafe { Bound::from_borrowed_ptr(py, class.cast()) })?;
    }
    Ok(())
}
