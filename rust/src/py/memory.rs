//! What the store in memory looks at before its usual case, kept where looking costs nothing, and that case itself.
use std::ffi::CStr;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::awaitable::{Held, Method, add_method};
use super::event::{SlotTable, context_value, small_int};
use super::log::EventLog;
use super::shortcut::{Values, shortened};

#[derive(Default)]
struct State {
    log: Option<Py<EventLog>>,
    inline: Option<Py<PyAny>>,
    hooks: Option<Py<PyAny>>,
    evolution: Option<Py<PyAny>>,
    wakeup: Option<Py<PyAny>>,
    /// Where the wakeup has its number of readers.
    readers: Option<SlotTable>,
}

/// Attributes of a store in memory. Subclassed once, by `InMemoryEventStore`.
#[pyclass(frozen, subclass, module = "lexigram.events._core")]
#[derive(Default)]
pub struct MemoryStoreBase {
    state: Held<State>,
}

#[pymethods]
impl MemoryStoreBase {
    #[new]
    #[pyo3(signature = (*_values, **_named))]
    fn new(_values: &Bound<'_, PyTuple>, _named: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[getter]
    fn log(&self, py: Python<'_>) -> Option<Py<EventLog>> {
        self.state.lock(py).log.as_ref().map(|log| log.clone_ref(py))
    }

    #[setter]
    fn set_log(&self, py: Python<'_>, value: Py<EventLog>) {
        let former = self.state.lock(py).log.replace(value);
        drop(former);
    }

    #[getter(_inline)]
    fn inline(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state.lock(py).inline)
    }

    #[setter(_inline)]
    fn set_inline(&self, py: Python<'_>, value: Option<Py<PyAny>>) {
        let former = std::mem::replace(&mut self.state.lock(py).inline, value);
        drop(former);
    }

    #[getter(_hooks)]
    fn hooks(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state.lock(py).hooks)
    }

    #[setter(_hooks)]
    fn set_hooks(&self, py: Python<'_>, value: Option<Py<PyAny>>) {
        let former = std::mem::replace(&mut self.state.lock(py).hooks, value);
        drop(former);
    }

    #[getter(_schema_evolution)]
    fn schema_evolution(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state.lock(py).evolution)
    }

    #[setter(_schema_evolution)]
    fn set_schema_evolution(&self, py: Python<'_>, value: Option<Py<PyAny>>) {
        let former = std::mem::replace(&mut self.state.lock(py).evolution, value);
        drop(former);
    }

    #[getter(_wakeup)]
    fn wakeup(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        copy(py, &self.state.lock(py).wakeup)
    }

    #[setter(_wakeup)]
    fn set_wakeup(&self, value: Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        let readers = SlotTable::of(&value.get_type(), &[intern!(py, "readers").clone()])?;
        let mut state = self.state.lock(py);
        let former = (state.wakeup.replace(value.unbind()), std::mem::replace(&mut state.readers, readers));
        drop(state);
        drop(former);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector never starts while the state is held.
        if let Some(state) = self.state.try_lock() {
            visit.call(&state.log)?;
            [&state.inline, &state.hooks, &state.evolution, &state.wakeup]
                .into_iter()
                .try_for_each(|value| visit.call(value))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(self.state.try_lock().map(|mut state| std::mem::take(&mut *state)));
    }
}

fn copy(py: Python<'_>, value: &Option<Py<PyAny>>) -> Option<Py<PyAny>> {
    value.as_ref().map(|value| value.clone_ref(py))
}

/// Appends if no unit of work, no inline projection and, unless `hooks_later`, no hook takes part and the log takes the
/// events as they are, and wakes those who wait for events. Returns the new version; None, with nothing done, otherwise.
#[inline]
fn append_now<'py>(
    store: &Bound<'py, MemoryStoreBase>,
    stream_id: &Bound<'py, PyAny>,
    events: &Bound<'py, PyAny>,
    expected_version: Option<&Bound<'py, PyAny>>,
    hooks_later: bool,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static UNIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = store.py();
    let state = store.get().state.lock(py);
    let State { log: Some(log), inline: None, hooks, wakeup, readers, .. } = &*state else { return Ok(None) };
    if !hooks_later && hooks.is_some() {
        return Ok(None);
    }
    let log = log.bind(py).clone();
    let readers = readers.as_ref().zip(wakeup.as_ref()).and_then(|(place, wakeup)| place.get(wakeup.bind(py), 0));
    let is_quiet = readers.is_some_and(|readers| small_int(&readers) == Some(0));
    let wakeup = wakeup.as_ref().filter(|_| !is_quiet).map(|wakeup| wakeup.bind(py).clone());
    drop(state);
    let unit = UNIT.import(py, "lexigram.events.stores.unit_of_work", "_current")?;
    if context_value(unit)?.is_some_and(|unit| !unit.is_none()) {
        return Ok(None);
    }
    let Some(version) = log.get().append(stream_id, events, expected_version)? else { return Ok(None) };
    if let Some(wakeup) = wakeup {
        Python::attach(|_| wakeup.call_method0(intern!(py, "notify")).map(drop))?;
    }
    Ok(Some(version.into_pyobject(py)?.into_any()))
}

/// `MemoryStoreBase._append_now(stream_id, events, expected_version)`: see `append_now`.
struct AppendNow;

impl Method<3> for AppendNow {
    type Class = MemoryStoreBase;
    const NAME: &'static CStr = c"_append_now";
    const DOC: &'static CStr = c"_append_now($self, stream_id, events, expected_version, /)\n--\n\n";

    fn call<'py>(
        store: &Bound<'py, MemoryStoreBase>,
        [stream_id, events, expected_version]: [Borrowed<'_, 'py, PyAny>; 3],
    ) -> PyResult<Bound<'py, PyAny>> {
        let version = append_now(store, &stream_id, &events, Some(&*expected_version), true)?;
        Ok(version.unwrap_or_else(|| store.py().None().into_bound(store.py())))
    }
}

/// The usual case of `InMemoryEventStore.append`: `append_now`, and nobody is to be told.
fn append<'py>(store: &Bound<'py, PyAny>, values: &Values<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (Ok(store), [Some(stream_id), Some(events), expected, _]) = (store.cast::<MemoryStoreBase>(), values) else {
        return Ok(None);
    };
    append_now(store, stream_id, events, expected.as_deref(), false)
}

/// The usual case of `InMemoryEventStore.read`: events are returned as they are stored.
fn read<'py>(store: &Bound<'py, PyAny>, values: &Values<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = store.py();
    let (Ok(store), [Some(stream_id), others @ ..]) = (store.cast::<MemoryStoreBase>(), values) else {
        return Ok(None);
    };
    let state = store.get().state.lock(py);
    let State { log: Some(log), evolution: None, .. } = &*state else { return Ok(None) };
    let log = log.bind(py).clone();
    drop(state);
    Ok(log.get().read(stream_id, others.each_ref().map(Option::as_deref))?.map(Bound::into_any))
}

/// Gives `InMemoryEventStore.append` its shortcut.
#[pyfunction]
#[pyo3(signature = (function, /, *, always = false))]
fn append_shortcut(function: Bound<'_, PyAny>, always: bool) -> PyResult<Bound<'_, PyAny>> {
    shortened(function, append, always)
}

/// Gives `InMemoryEventStore.read` its shortcut.
#[pyfunction]
#[pyo3(signature = (function, /, *, always = false))]
fn read_shortcut(function: Bound<'_, PyAny>, always: bool) -> PyResult<Bound<'_, PyAny>> {
    shortened(function, read, always)
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<MemoryStoreBase>()?;
    m.add_function(wrap_pyfunction!(append_shortcut, m)?)?;
    m.add_function(wrap_pyfunction!(read_shortcut, m)?)?;
    add_method::<3, AppendNow>(m.py())
}
