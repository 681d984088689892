//! The in-memory event log for Python: `core::log` behind a lock that is never held while Python code can run.
//!
//! Making or dropping a Python object can start the collector, whose finalizers may call back into the same log. So
//! references are cloned out under the lock (a counter each), and lists are made and objects dropped after it.
use std::ffi::CStr;
use std::sync::Arc;

use hashbrown::HashMap;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};

use super::awaitable::{Held, Method, release};
use super::event::ListBuilder;
use super::facts::{self, Fresh};
use super::log_arguments::{given, stream_name};
use super::log_batch::{Batch, BatchArgument, Names, admit, clamp, items, refused};
use crate::core::log::{Admission, Log, Refusal};
use crate::core::select::Selection;

const PAGE: usize = 1000;

#[derive(Default)]
pub(super) struct Inner {
    pub(super) log: Log<Py<PyAny>>,
    /// Number of each class's stored name; the class is kept alive so that its address stays its own.
    kinds: HashMap<usize, (Py<PyType>, u32), ahash::RandomState>,
    last_kind: (usize, u32),
}

impl Inner {
    #[inline]
    fn kind(&mut self, class: usize) -> Option<u32> {
        if self.last_kind.0 != class {
            self.last_kind = (class, self.kinds.get(&class)?.1);
        }
        Some(self.last_kind.1)
    }

    /// Adds the first `limit` (at least 1) selected events to those there, none, and tells `visit` the number of each
    /// one's stream; returns the position to go on from.
    #[inline]
    fn fetch(
        &self,
        py: Python<'_>,
        selection: &Selection,
        limit: usize,
        events: &mut Vec<Py<PyAny>>,
        mut visit: impl FnMut(u32),
    ) -> u32 {
        events.reserve(limit.min(PAGE));
        let mut last = 0;
        self.log.select(selection, |position, stream, event| {
            events.push(event.clone_ref(py));
            visit(stream);
            last = position;
            events.len() < limit
        });
        let head = self.log.head();
        if events.len() < limit { selection.up_to.map_or(head, |up_to| up_to.min(head)) } else { last }
    }
}

/// An append-only log of event objects with stream, type and tag indexes. Safe to use from several threads.
#[pyclass(frozen, module = "lexigram.events._core")]
pub struct EventLog {
    pub(super) inner: Held<Inner>,
    pub(super) stamp: Py<PyAny>,
    max_events_per_stream: usize,
}

#[pymethods]
impl EventLog {
    /// Makes an empty log. `stamp(event, version, position)` is called for events that are not native;
    /// `max_events_per_stream` 0 keeps everything.
    #[new]
    fn new(stamp: Py<PyAny>, max_events_per_stream: usize) -> Self {
        Self { inner: Held::default(), stamp, max_events_per_stream }
    }

    /// Tells under which name all events of a class are stored; `append` refuses classes it has not been told of.
    fn learn(&self, py: Python<'_>, class_: Bound<'_, PyType>, type_name: &str) {
        let mut inner = self.inner.lock(py);
        let kind = inner.log.kind(type_name);
        let former = inner.kinds.insert(class_.as_ptr() as usize, (class_.unbind(), kind));
        inner.last_kind = (0, 0);
        drop(inner);
        drop(former);
    }

    /// Appends batches of checked, unstamped events, all or none; returns (version, position) of the last of each.
    ///
    /// A batch is (stream id, events, stored type names, expected version, (query, position) or None).
    fn store(&self, py: Python<'_>, batches: Vec<BatchArgument<'_>>) -> PyResult<Vec<(u32, u32)>> {
        self.store_all(py, batches)
    }

    /// Says where a batch is stored already, or None if it may be stored; raises if it may not. Changes nothing.
    fn check(&self, py: Python<'_>, batch: BatchArgument<'_>) -> PyResult<Option<(u32, u32)>> {
        let batch = Batch::new(batch)?;
        let admission = admit(py, &self.inner.lock(py).log, &batch);
        match admission {
            Ok(Admission::Fresh { .. }) => Ok(None),
            Ok(Admission::Retry(stored)) => Ok(Some((stored.version, stored.position))),
            Err(refusal) => Err(refused(&batch.stream, batch.expected, refusal)),
        }
    }

    /// Returns (events, position to go on from, stream ids if asked for) of a selection from the global log.
    #[allow(clippy::too_many_arguments)]
    fn page<'py>(
        &self,
        py: Python<'py>,
        after: u64,
        limit: Option<usize>,
        up_to: Option<u64>,
        query: Option<Names>,
        partition: Option<(u64, u64)>,
        with_stream_ids: bool,
    ) -> PyResult<(Bound<'py, PyList>, u64, Vec<String>)> {
        let limit = limit.unwrap_or(usize::MAX);
        let selection = selection(after, up_to, query, partition)?;
        if limit == 0 {
            return Ok((PyList::empty(py), after, Vec::new()));
        }
        let (mut events, mut streams) = (Vec::new(), Vec::new());
        let inner = self.inner.lock(py);
        let position = if with_stream_ids {
            let add = |stream| streams.push(inner.log.stream_key(stream).to_owned());
            inner.fetch(py, &selection, limit, &mut events, add)
        } else {
            inner.fetch(py, &selection, limit, &mut events, |_| ())
        };
        drop(inner);
        Ok((PyList::new(py, events)?, after.max(u64::from(position)), streams))
    }

    /// Returns how many events a selection has.
    fn count(
        &self,
        py: Python<'_>,
        after: u64,
        up_to: Option<u64>,
        query: Option<Names>,
        partition: Option<(u64, u64)>,
    ) -> PyResult<usize> {
        let selection = selection(after, up_to, query, partition)?;
        let inner = self.inner.lock(py);
        if after == 0 && up_to.is_none() && selection.query.is_none() && partition.is_none() {
            return Ok(inner.log.len());
        }
        let mut count = 0;
        inner.log.select(&selection, |_, _, _| {
            count += 1;
            true
        });
        Ok(count)
    }

    /// Returns (first stored version or 0, current version) of a stream.
    fn bounds(&self, py: Python<'_>, stream_id: &str) -> (u32, u32) {
        self.inner.lock(py).log.bounds(stream_id)
    }

    /// Returns the highest position given.
    fn head(&self, py: Python<'_>) -> u32 {
        self.inner.lock(py).log.head()
    }

    /// Removes a stream's events up to a version and returns how many.
    fn compact(&self, py: Python<'_>, stream_id: &str, up_to_version: u64) -> usize {
        let mut removed = Vec::new();
        self.inner.lock(py).log.compact(stream_id, up_to_version, &mut removed);
        removed.len()
    }

    /// Returns the ids of the streams that hold events, sorted.
    fn stream_ids(&self, py: Python<'_>) -> Vec<String> {
        let keys: Vec<Arc<str>> = self.inner.lock(py).log.stream_keys();
        keys.iter().map(|key| key.to_string()).collect()
    }

    /// Returns the highest removed version of each stream from which events were removed.
    fn removals(&self, py: Python<'_>) -> Vec<(String, u32)> {
        let found = self.inner.lock(py).log.removals();
        found.into_iter().map(|(key, version)| (key.to_string(), version)).collect()
    }

    /// Forgets everything, positions included.
    fn clear(&self, py: Python<'_>) {
        let old = std::mem::take(&mut *self.inner.lock(py));
        drop(old);
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.inner.lock(py).log.len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.stamp)?;
        // Events that the collector does not track hold nothing that could lead back here, so only the others are
        // visited: a full collection does not touch millions of plain events. The lock is free, because the collector
        // never starts while it is held.
        if let Some(inner) = self.inner.try_lock() {
            inner.kinds.values().try_for_each(|(class, _)| visit.call(class))?;
            inner.log.traced_items().try_for_each(|event| visit.call(event))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        // The collector holds the interpreter's lock.
        drop(self.inner.try_lock().map(|mut inner| std::mem::take(&mut *inner)));
    }
}

/// `EventLog.append(stream_id, events, expected_version)`: appends fresh native events and returns the new version;
/// None, with nothing done, if anything is unusual.
pub(super) struct Append;

impl Method<3> for Append {
    type Class = EventLog;
    const NAME: &'static CStr = c"append";
    const DOC: &'static CStr = c"append($self, stream_id, events, expected_version, /)\n--\n\n";

    #[inline]
    fn call<'py>(log: &Bound<'py, EventLog>, values: [Borrowed<'_, 'py, PyAny>; 3]) -> PyResult<Bound<'py, PyAny>> {
        let [stream_id, events, expected_version] = values;
        Ok(log.get().append(&stream_id, &events, Some(&*expected_version))?.into_pyobject(log.py())?)
    }
}

/// `EventLog.read(stream_id, from_version, to_version, limit)`: returns a stream's events with from_version <= version
/// <= to_version, at most `limit`; None if an argument is unusual or wrong.
pub(super) struct Read;

impl Method<4> for Read {
    type Class = EventLog;
    const NAME: &'static CStr = c"read";
    const DOC: &'static CStr = c"read($self, stream_id, from_version, to_version, limit, /)\n--\n\n";

    fn call<'py>(log: &Bound<'py, EventLog>, values: [Borrowed<'_, 'py, PyAny>; 4]) -> PyResult<Bound<'py, PyAny>> {
        let py = log.py();
        let [stream_id, others @ ..] = values;
        let others = others.each_ref().map(|value| Some(&**value));
        Ok(log.get().read(&stream_id, others)?.map_or_else(|| py.None().into_bound(py), Bound::into_any))
    }
}

impl EventLog {
    /// Fills an empty batch with the first `limit` (at least 1) selected events; returns the position to go on from.
    pub(super) fn fetch(
        &self,
        py: Python<'_>,
        selection: &Selection,
        limit: usize,
        events: &mut Vec<Py<PyAny>>,
    ) -> u32 {
        self.inner.lock(py).fetch(py, selection, limit, events, |_| ())
    }

    /// Appends fresh native events and returns the new version; None, with nothing done, if anything is unusual.
    #[inline]
    pub(super) fn append(
        &self,
        stream_id: &Bound<'_, PyAny>,
        events: &Bound<'_, PyAny>,
        expected_version: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<u32>> {
        let (Some(stream), Some(expected)) = (stream_name(stream_id), given(expected_version)) else {
            return Ok(None);
        };
        let Ok(events) = events.cast_exact::<PyList>() else { return Ok(None) };
        match Fresh::examine(events) {
            Some(fresh) => self.append_fresh(stream_id.py(), stream, &fresh, expected),
            None => Ok(None),
        }
    }

    /// A stream's events from a version to another (both included), at most so many; None if an argument is unusual.
    #[inline]
    pub(super) fn read<'py>(
        &self,
        stream_id: &Bound<'py, PyAny>,
        [from_version, to_version, limit]: [Option<&Bound<'py, PyAny>>; 3],
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let py = stream_id.py();
        let (Some(stream), Some(from), Some(to), Some(limit)) =
            (stream_name(stream_id), given(from_version), given(to_version), given(limit))
        else {
            return Ok(None);
        };
        if from.is_none() && from_version.is_some() {
            return Ok(None);
        }
        let (from, limit) = (from.unwrap_or(0), limit.map_or(usize::MAX, |limit| limit as usize));
        loop {
            let count = self.inner.lock(py).log.count(stream, from, to).min(limit);
            // Making the list may run Python code, which may append.
            let mut list = ListBuilder::with_room(py, count)?;
            let guard = self.inner.lock(py);
            if guard.log.count(stream, from, to).min(limit) == count {
                guard.log.read(stream, from, to, count, |event| list.push(event));
                drop(guard);
                return list.finish().map(Some);
            }
        }
    }

    #[inline]
    fn append_fresh(
        &self,
        py: Python<'_>,
        stream: &str,
        fresh: &Fresh<'_>,
        expected: Option<u64>,
    ) -> PyResult<Option<u32>> {
        let events = &fresh.events[..];
        let mut evicted = Vec::new();
        let mut guard = self.inner.lock(py);
        let inner = &mut *guard;
        let classes = if fresh.is_uniform { 1 } else { events.len() };
        let is_known = events[..classes].iter().all(|event| inner.kind(event.get_type_ptr() as usize).is_some());
        if !is_known || !inner.log.has_room(events.len()) {
            return Ok(None);
        }
        let is_new = fresh.is_ordered && inner.log.is_above_all(fresh.first_id);
        if !is_new && events.iter().any(|event| inner.log.holds(fresh.id(event), facts::has_id(py))) {
            return Ok(None);
        }
        let (number, version) = inner.log.locate(stream);
        if expected.is_some_and(|expected| expected != u64::from(version)) {
            drop(guard);
            return Err(refused(stream, expected, Refusal::Version { actual: version }));
        }
        let number = number.unwrap_or_else(|| inner.log.stream(stream));
        let (first, position) = (version + 1, inner.log.head() + 1);
        // The classes were seen above, and nothing has run since.
        if is_new && fresh.is_uniform && !fresh.is_tracked {
            let mut n = 0;
            let stamped = |event: &_| {
                n += 1;
                fresh.stamped(event, version + n, position + n - 1)
            };
            inner.log.extend(number, inner.last_kind.1, events, |event| fresh.id(event), stamped);
        } else {
            for (event, n) in events.iter().zip(0..) {
                let kind = inner.kind(event.get_type_ptr() as usize).unwrap_or_default();
                let stamped = fresh.stamped(event, first + n, position + n);
                inner.log.push(number, stamped, fresh.id(event), true, kind);
                if fresh.is_tracked {
                    inner.log.trace_last();
                }
            }
        }
        for (n, tags) in &fresh.tagged {
            inner.log.tag(position + *n as u32, tags);
        }
        self.evict(&mut inner.log, number, &mut evicted);
        drop(guard);
        // Dropping an event may run Python code, so it comes last.
        if !evicted.is_empty() {
            release(evicted);
        }
        Ok(Some(version + events.len() as u32))
    }

    #[inline]
    pub(super) fn evict(&self, log: &mut Log<Py<PyAny>>, stream: u32, evicted: &mut Vec<Py<PyAny>>) {
        if self.max_events_per_stream > 0 {
            let surplus = log.stream_len(stream).saturating_sub(self.max_events_per_stream);
            if surplus > 0 {
                log.remove_oldest(stream, surplus, evicted);
            }
        }
    }
}

pub(super) fn selection(
    after: u64,
    up_to: Option<u64>,
    query: Option<Names>,
    partition: Option<(u64, u64)>,
) -> PyResult<Selection> {
    if let Some((index, total)) = partition
        && index >= total
    {
        return Err(PyValueError::new_err(format!("there is no partition {index} of {total}")));
    }
    Ok(Selection { after: clamp(after), up_to: up_to.map(clamp), query: query.map(items), partition })
}
