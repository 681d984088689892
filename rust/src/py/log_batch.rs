//! The general way into the log: several batches at once, conditions, retries, events that are not ours.
use hashbrown::HashMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::facts::{self, Facts};
use super::log::{EventLog, Inner};
use crate::core::log::{Admission, Condition, Log, Refusal, Stored};
use crate::core::select::ItemNames;
use crate::errors;

pub type Names = Vec<(Option<Vec<String>>, Vec<String>)>;
type ConditionArgument = (Names, u64);
pub type BatchArgument<'py> = (String, Bound<'py, PyList>, Vec<String>, Option<u64>, Option<ConditionArgument>);

/// Events for one stream with what they require.
pub struct Batch {
    pub stream: String,
    events: Vec<Facts>,
    names: Vec<String>,
    pub ids: Vec<u128>,
    pub expected: Option<u64>,
    pub condition: Option<Condition>,
}

impl Batch {
    pub fn new((stream, events, names, expected, condition): BatchArgument<'_>) -> PyResult<Self> {
        let events = events.iter().map(|event| Facts::read(&event)).collect::<PyResult<Vec<_>>>()?;
        // Counted now: reading an event that is not ours can run code that changes the list.
        if events.len() != names.len() {
            return Err(PyValueError::new_err(format!("{} events with {} type names", events.len(), names.len())));
        }
        let ids = events.iter().map(|facts| facts.id).collect();
        let condition = condition.map(|(query, after)| Condition { query: items(query), after: clamp(after) });
        Ok(Self { stream, events, names, ids, expected, condition })
    }
}

impl EventLog {
    /// Appends batches, all or none; see `EventLog.store`.
    pub fn store_all(&self, py: Python<'_>, batches: Vec<BatchArgument<'_>>) -> PyResult<Vec<(u32, u32)>> {
        let batches = batches.into_iter().map(Batch::new).collect::<PyResult<Vec<_>>>()?;
        let mut stamped_at = None;
        loop {
            let mut inner = self.inner.lock(py);
            let admissions = match admit_all(py, &inner.log, &batches) {
                Ok(admissions) => admissions,
                Err((batch, refusal)) => {
                    drop(inner);
                    return Err(refused(&batches[batch].stream, batches[batch].expected, refusal));
                }
            };
            let head = inner.log.head();
            let is_native = batches.iter().flat_map(|batch| &batch.events).all(|facts| facts.is_native);
            if !is_native && stamped_at != Some(head) {
                drop(inner);
                // Stamping runs Python code: done outside the lock, and again if the log has moved meanwhile.
                self.stamp_foreign(py, &batches, &admissions, head)?;
                stamped_at = Some(head);
                continue;
            }
            let mut evicted = Vec::new();
            let stored = self.push_all(py, &mut inner, batches, &admissions, &mut evicted);
            drop(inner);
            return Ok(stored);
        }
    }

    /// Stores what `admit_all` has admitted.
    fn push_all(
        &self,
        py: Python<'_>,
        inner: &mut Inner,
        batches: Vec<Batch>,
        admissions: &[Admission],
        evicted: &mut Vec<Py<PyAny>>,
    ) -> Vec<(u32, u32)> {
        let mut all = Vec::with_capacity(batches.len());
        let mut touched = Vec::with_capacity(batches.len());
        for (batch, admission) in batches.into_iter().zip(admissions) {
            let mut stored = Stored { version: 0, position: 0 };
            match admission {
                Admission::Retry(earlier) => {
                    stored = *earlier;
                    let count = batch.events.len() as u32;
                    for (facts, n) in batch.events.iter().zip(1..) {
                        facts.stamp(py, stored.version + n - count, stored.position + n - count);
                    }
                    // Dropped with the evicted ones, after the lock.
                    evicted.extend(batch.events.into_iter().map(|facts| facts.event));
                }
                Admission::Fresh { .. } => {
                    let number = inner.log.stream(&batch.stream);
                    touched.push(number);
                    for (facts, name) in batch.events.into_iter().zip(&batch.names) {
                        let kind = inner.log.kind(name);
                        stored = push(py, &mut inner.log, number, kind, facts);
                    }
                }
            }
            all.push((stored.version, stored.position));
        }
        touched.into_iter().for_each(|number| self.evict(&mut inner.log, number, evicted));
        all
    }

    /// Gives the events that are not native the numbers that they will get if nothing else is appended before.
    fn stamp_foreign(&self, py: Python<'_>, batches: &[Batch], admissions: &[Admission], head: u32) -> PyResult<()> {
        let mut versions: HashMap<&str, u32> = HashMap::new();
        let mut position = head;
        for (batch, admission) in batches.iter().zip(admissions) {
            let count = batch.events.len() as u32;
            let (mut version, mut at) = match admission {
                Admission::Fresh { version } => {
                    let version = versions.entry(&batch.stream).or_insert(*version);
                    let before = (*version, position);
                    *version += count;
                    position += count;
                    before
                }
                Admission::Retry(stored) => (stored.version - count, stored.position - count),
            };
            for facts in &batch.events {
                version += 1;
                at += 1;
                if !facts.is_native {
                    self.stamp.bind(py).call1((&facts.event, version, at))?;
                }
            }
        }
        Ok(())
    }
}

/// Stores one event and stamps it if it is native. Runs no Python code.
#[inline]
fn push(py: Python<'_>, log: &mut Log<Py<PyAny>>, stream: u32, kind: u32, facts: Facts) -> Stored {
    let Facts { event, id, tags, is_native, is_tracked } = facts;
    let handle = is_native.then(|| event.clone_ref(py));
    let stored = log.push(stream, event, id, is_native, kind);
    if is_tracked {
        log.trace_last();
    }
    if let Some(event) = handle {
        facts::stamp(event.bind(py), stored.version, stored.position);
    }
    if !tags.is_empty() {
        log.tag(stored.position, &tags);
    }
    stored
}

/// Decides on all batches or says which one is refused.
fn admit_all(py: Python<'_>, log: &Log<Py<PyAny>>, batches: &[Batch]) -> Result<Vec<Admission>, (usize, Refusal)> {
    let admit = |(n, batch)| admit(py, log, batch).map_err(|refusal| (n, refusal));
    batches.iter().enumerate().map(admit).collect()
}

/// Decides on one batch.
pub fn admit(py: Python<'_>, log: &Log<Py<PyAny>>, batch: &Batch) -> Result<Admission, Refusal> {
    log.admit(&batch.stream, &batch.ids, batch.expected, batch.condition.as_ref(), facts::has_id(py))
}

pub fn clamp(position: u64) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

pub fn items(query: Names) -> Vec<ItemNames> {
    query.into_iter().map(|(kinds, tags)| ItemNames { kinds, tags }).collect()
}

pub fn refused(stream: &str, expected: Option<u64>, refusal: Refusal) -> PyErr {
    match refusal {
        Refusal::Version { actual } => errors::version_conflict(stream, expected, actual),
        Refusal::Condition { position } => errors::condition_failed(stream, position),
        Refusal::PartlyStored => errors::partly_stored(stream),
        Refusal::Full => errors::log_full(),
    }
}
