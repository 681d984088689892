//! Whether a batch may be appended to the log: the expected version, a condition, and batches stored already.

use super::log::Log;
use super::select::ItemNames;

/// Where a batch is stored: version and position of its last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub version: u32,
    pub position: u32,
}

/// What `admit` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Push the events; the stream is at this version now.
    Fresh { version: u32 },
    /// Exactly these events are stored already.
    Retry(Stored),
}

/// Why an append is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Version { actual: u32 },
    Condition { position: u32 },
    PartlyStored,
    Full,
}

/// What an append requires: a query, and the last position that was taken into account.
#[derive(Clone, Debug)]
pub struct Condition {
    pub query: Vec<ItemNames>,
    pub after: u32,
}

impl<T> Log<T> {
    /// Decides whether a batch with these ids may be appended. Changes nothing.
    #[inline]
    pub fn admit(
        &self,
        stream: &str,
        ids: &[u128],
        expected: Option<u64>,
        condition: Option<&Condition>,
        has_id: impl Fn(&T, u128) -> bool,
    ) -> Result<Admission, Refusal> {
        let (number, version) = self.locate(stream);
        if !ids.iter().all(|id| self.ids.is_above_all(*id))
            && let Some(stored) = self.find_batch(number, ids, has_id)?
        {
            return Ok(Admission::Retry(stored));
        }
        if expected.is_some_and(|expected| expected != u64::from(version)) {
            return Err(Refusal::Version { actual: version });
        }
        if let Some(position) = condition.and_then(|condition| self.first_match(condition)) {
            return Err(Refusal::Condition { position });
        }
        if !self.has_room(ids.len()) {
            return Err(Refusal::Full);
        }
        Ok(Admission::Fresh { version })
    }

    /// Finds a batch that is stored already: Some if all of it is, in this stream and order; None if nothing is.
    #[cold]
    fn find_batch(
        &self,
        stream: Option<u32>,
        ids: &[u128],
        has_id: impl Fn(&T, u128) -> bool,
    ) -> Result<Option<Stored>, Refusal> {
        let found: Vec<Option<u32>> = ids.iter().map(|id| self.find(*id, &has_id)).collect();
        if found.iter().all(Option::is_none) {
            return Ok(None);
        }
        let first = found.first().copied().flatten().ok_or(Refusal::PartlyStored)?;
        let stream = stream.map(|n| &self.streams[n as usize]).ok_or(Refusal::PartlyStored)?;
        let offset = stream.positions.binary_search(&first).map_err(|_| Refusal::PartlyStored)?;
        let stored = stream.positions.range(offset..).map(|p| Some(*p)).take(ids.len());
        if !stored.eq(found.iter().copied()) {
            return Err(Refusal::PartlyStored);
        }
        let last = offset + ids.len() - 1;
        Ok(Some(Stored { version: stream.first + last as u32, position: stream.positions[last] }))
    }
}
