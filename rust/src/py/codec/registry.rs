//! What the codec remembers of the type registry: names of classes, classes of names.
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::enums::EnumPlan;
use super::known::Known;
use super::record::{RecordPlan, Style};

/// Counts changes of any registry; what was looked up before the last change is looked up again.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Tells the codecs that a registry has changed.
#[pyfunction]
pub fn registry_changed() {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}

/// What instances of a class are to the codec, and the name they are stored under.
pub enum Entry {
    Enum(Arc<EnumPlan>, Py<PyString>),
    Record(Py<RecordPlan>, Py<PyString>),
    /// Something that `rare.py` may know.
    Other,
}

impl Entry {
    fn copy(&self, py: Python<'_>) -> Self {
        match self {
            Entry::Enum(plan, name) => Entry::Enum(plan.clone(), name.clone_ref(py)),
            Entry::Record(plan, name) => Entry::Record(plan.clone_ref(py), name.clone_ref(py)),
            Entry::Other => Entry::Other,
        }
    }
}

#[derive(Default)]
struct Tables {
    changes: u64,
    /// By address; the class beside it keeps the address taken.
    classes: HashMap<usize, (Py<PyType>, Entry), RandomState>,
    named: HashMap<String, Entry, RandomState>,
    events: HashMap<String, Option<Py<RecordPlan>>, RandomState>,
}

/// A class of events of ours that this thread has encoded, so that no lock is needed for the next event of it.
struct Recent {
    names: u64,
    changes: u64,
    class: Py<PyType>,
    plan: Py<RecordPlan>,
    type_name: Py<PyString>,
}

thread_local! {
    static RECENT: RefCell<[Option<Recent>; 16]> = const { RefCell::new([const { None }; 16]) };
}

fn line(class: usize) -> usize {
    (class >> 6) % 16
}

/// One registry with what was looked up in it.
pub struct Names {
    pub registry: Py<PyAny>,
    /// Its own among all.
    number: u64,
    tables: Mutex<Tables>,
}

impl Names {
    pub fn new(registry: Py<PyAny>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { registry, number, tables: Mutex::new(Tables::default()) }
    }

    /// Returns the plan and the stored name of a class of events, None if it is no such class.
    #[inline]
    pub fn of_event_class<'py>(
        &self,
        class: &Bound<'py, PyType>,
        known: &Known,
    ) -> PyResult<Option<(Bound<'py, RecordPlan>, Py<PyString>)>> {
        let (py, address) = (class.py(), class.as_ptr());
        let changes = CHANGES.load(Ordering::Relaxed);
        let found = RECENT.with(|recent| {
            let recent = recent.try_borrow().ok()?;
            let recent = recent[line(address as usize)].as_ref()?;
            let is_it = recent.class.as_ptr() == address && recent.names == self.number && recent.changes == changes;
            is_it.then(|| (recent.plan.bind(py).clone(), recent.type_name.clone_ref(py)))
        });
        if found.is_some() { Ok(found) } else { self.find_event_class(class, changes, known) }
    }

    #[cold]
    fn find_event_class<'py>(
        &self,
        class: &Bound<'py, PyType>,
        changes: u64,
        known: &Known,
    ) -> PyResult<Option<(Bound<'py, RecordPlan>, Py<PyString>)>> {
        let py = class.py();
        let Entry::Record(plan, type_name) = self.of_class(class, known)? else { return Ok(None) };
        match plan.get().style {
            Style::Event => {}
            // A class that need not live for ever is not kept here, where the collector does not look.
            Style::Contract => return Ok(Some((plan.into_bound(py), type_name))),
            _ => return Ok(None),
        }
        let (class, kept_plan, kept_name) = (class.clone().unbind(), plan.clone_ref(py), type_name.clone_ref(py));
        let kept = Recent { names: self.number, changes, class, plan: kept_plan, type_name: kept_name };
        let place = line(kept.class.as_ptr() as usize);
        let former =
            RECENT.with(|recent| recent.try_borrow_mut().ok().and_then(|mut recent| recent[place].replace(kept)));
        drop(former);
        Ok(Some((plan.into_bound(py), type_name)))
    }

    /// Shows the collector what is held here. The lock is free: the collector never starts while it is held.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.registry)?;
        if let Some(tables) = self.tables.try_lock() {
            tables.classes.values().try_for_each(|(class, _)| visit.call(class))?;
        }
        Ok(())
    }

    /// Reads or changes the tables, emptied if a registry changed since. Nothing in here may run Python code.
    fn with<T>(&self, work: impl FnOnce(&mut Tables) -> T) -> T {
        let changes = CHANGES.load(Ordering::Relaxed);
        let mut stale = None;
        let result = {
            let mut tables = self.tables.lock();
            if tables.changes != changes {
                stale = Some(std::mem::take(&mut *tables));
                tables.changes = changes;
            }
            work(&mut tables)
        };
        // Dropping objects may run their finalizers, so never under the lock.
        drop(stale);
        result
    }

    /// Adds what was looked up to the tables, unless a registry has changed since: then it may be out of date already.
    fn keep<T>(&self, seen: u64, insert: impl FnOnce(&mut Tables) -> T) -> Option<T> {
        (CHANGES.load(Ordering::Relaxed) == seen).then(|| self.with(insert))
    }

    /// Returns what the instances of a class are, registering the class if it is not.
    pub fn of_class(&self, class: &Bound<'_, PyType>, known: &Known) -> PyResult<Entry> {
        let py = class.py();
        let address = class.as_ptr() as usize;
        if let Some(entry) = self.with(|tables| tables.classes.get(&address).map(|(_, entry)| entry.copy(py))) {
            return Ok(entry);
        }
        let seen = CHANGES.load(Ordering::Relaxed);
        let entry = self.find(class, known)?;
        let kept = (class.clone().unbind(), entry.copy(py));
        let replaced = self.keep(seen, |tables| tables.classes.insert(address, kept));
        drop(replaced);
        Ok(entry)
    }

    fn find(&self, class: &Bound<'_, PyType>, known: &Known) -> PyResult<Entry> {
        let py = class.py();
        let name = || {
            let name = self.registry.bind(py).call_method1(intern!(py, "type_name"), (class,))?;
            PyResult::Ok(name.cast_into::<PyString>()?.unbind())
        };
        if class.is_subclass(known.enumeration.bind(py))? {
            return Ok(Entry::Enum(Arc::new(EnumPlan::new(class)?), name()?));
        }
        let record = known.record_for.bind(py).call1((class,))?;
        if record.is_none() {
            return Ok(Entry::Other);
        }
        Ok(Entry::Record(RecordPlan::of(&record)?, name()?))
    }

    /// Returns what instances of the class with a stored name are, None if there is no such class of plain data.
    pub fn of_name(&self, py: Python<'_>, name: &str, known: &Known) -> PyResult<Option<Entry>> {
        if let Some(entry) = self.with(|tables| tables.named.get(name).map(|entry| entry.copy(py))) {
            return Ok(Some(entry));
        }
        let seen = CHANGES.load(Ordering::Relaxed);
        let class = known.find_class.bind(py).call1((self.registry.bind(py), name))?;
        let Ok(class) = class.cast::<PyType>() else { return Ok(None) };
        let entry = self.find(class, known)?;
        let kept = entry.copy(py);
        let replaced = self.keep(seen, |tables| tables.named.insert(name.to_owned(), kept));
        drop(replaced);
        Ok(Some(entry))
    }

    /// Whether the plan of a stored event type stays known until a registry changes.
    pub fn keeps(&self, type_name: &str) -> bool {
        self.with(|tables| tables.events.contains_key(type_name))
    }

    /// Returns the plan of a stored event type, None if it is not registered.
    pub fn of_event(
        &self,
        py: Python<'_>,
        type_name: &str,
        event_type: &str,
        known: &Known,
    ) -> PyResult<Option<Py<RecordPlan>>> {
        let copied = |plan: &Option<Py<RecordPlan>>| plan.as_ref().map(|plan| plan.clone_ref(py));
        if let Some(found) = self.with(|tables| tables.events.get(type_name).map(copied)) {
            return Ok(found);
        }
        let seen = CHANGES.load(Ordering::Relaxed);
        let class = self.registry.bind(py).call_method1(intern!(py, "resolve"), (type_name, event_type))?;
        if class.is_none() {
            return Ok(None);
        }
        let record = known.record_for.bind(py).call1((&class,))?;
        if record.is_none() {
            return Ok(None);
        }
        let plan = RecordPlan::of(&record)?;
        if !matches!(plan.get().style, Style::Event | Style::Contract) {
            return Ok(None);
        }
        // A name that was only guessed warns each time, so it is not kept.
        let exact = self.registry.bind(py).call_method1(intern!(py, "knows"), (type_name,))?.extract::<bool>()?;
        if exact {
            let kept = Some(plan.clone_ref(py));
            let replaced = self.keep(seen, |tables| tables.events.insert(type_name.to_owned(), kept));
            drop(replaced);
        }
        Ok(Some(plan))
    }
}
