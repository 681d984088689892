//! Reading a selection from the log batch by batch, as the reader of a stream goes on.
use std::ffi::CStr;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::awaitable::{EventStream, Method};
use super::log::{EventLog, selection};
use super::log_arguments::number;
use crate::core::select::Selection;

/// What a stream has still to give. Nothing of it runs Python code: a batch is references counted up, no list.
#[derive(Default)]
pub struct Rest {
    /// None once the stream was closed.
    log: Option<Py<EventLog>>,
    selection: Selection,
    batch_size: usize,
    /// What is left of the present batch, the next event last.
    events: Vec<Py<PyAny>>,
    /// The present batch was not full, so that nothing comes after it.
    is_last: bool,
}

impl Rest {
    /// The next event of the present batch.
    #[inline]
    pub fn pop(&mut self) -> Option<Py<PyAny>> {
        self.events.pop()
    }

    /// The first event of the next batch, None at the end.
    #[cold]
    pub fn turn(&mut self, py: Python<'_>) -> Option<Py<PyAny>> {
        if self.is_last {
            return None;
        }
        self.selection.after = self.log.as_ref()?.get().fetch(py, &self.selection, self.batch_size, &mut self.events);
        self.is_last = self.events.len() < self.batch_size;
        self.events.reverse();
        self.events.pop()
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.log)?;
        self.events.iter().try_for_each(|event| visit.call(event))
    }
}

/// `EventLog.stream(after, batch_size, up_to, query, partition)`: a stream of a selection; None if a number is unusual or
/// wrong.
pub(super) struct Stream;

impl Method<5> for Stream {
    type Class = EventLog;
    const NAME: &'static CStr = c"stream";
    const DOC: &'static CStr = c"stream($self, after, batch_size, up_to, query, partition, /)\n--\n\n";

    fn call<'py>(log: &Bound<'py, EventLog>, values: [Borrowed<'_, 'py, PyAny>; 5]) -> PyResult<Bound<'py, PyAny>> {
        let [after, batch_size, up_to, query, partition] = values;
        let py = log.py();
        let (Some(Some(after)), Some(Some(batch_size @ 1..)), Some(up_to)) =
            (number(&after), number(&batch_size), number(&up_to))
        else {
            return Ok(py.None().into_bound(py));
        };
        let selection = selection(after, up_to, query.extract()?, partition.extract()?)?;
        let log = Some(log.clone().unbind());
        let rest = Rest { log, selection, batch_size: batch_size as usize, ..Rest::default() };
        Ok(EventStream::new(py, rest)?.into_any())
    }
}
