//! The in-memory event log: one global order, many streams, indexes by type and tag.
//!
//! Positions and versions are numbers given once; removing events leaves holes and never renumbers. The log is generic
//! over what it stores and never drops an item itself: whatever leaves it is handed to the caller, who can drop it
//! after releasing the lock around the log.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::ids::IdIndex;
use super::index::PositionIndex;
use super::partition::partition_hash;
use super::select::ItemNames;

pub(super) const CHUNK: usize = 1024;
const SWEEP_AT_LEAST: usize = 1024;

type Map<V> = HashMap<Arc<str>, V, ahash::RandomState>;

/// One stored item with its stream and kind, `None` once removed.
pub(super) struct Slot<T> {
    pub(super) item: Option<T>,
    pub(super) stream: u32,
    pub(super) kind: u32,
}

pub(super) struct Chunk<T> {
    pub(super) slots: Vec<Slot<T>>,
    live: usize,
    /// Some item was said to be of interest to `traced_items`.
    is_traced: bool,
}

/// The stored events of a stream are always its latest ones: `positions[i]` has version `first + i`.
pub(super) struct Stream {
    key: Arc<str>,
    pub(super) hash: u32,
    first: u32,
    positions: VecDeque<u32>,
}

impl Stream {
    fn version(&self) -> u32 {
        self.first + self.positions.len() as u32 - 1
    }
}

/// Names with a number each and a list of positions per number.
#[derive(Default)]
pub(super) struct NamedIndex {
    pub(super) numbers: Map<u32>,
    pub(super) lists: Vec<PositionIndex>,
}

impl NamedIndex {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.lists.len() as u32;
        self.lists.push(PositionIndex::default());
        self.numbers.insert(name.into(), number);
        number
    }
}

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

pub struct Log<T> {
    pub(super) chunks: Vec<Option<Box<Chunk<T>>>>,
    pub(super) head: u32,
    live: usize,
    removed_since_sweep: usize,
    stream_numbers: Map<u32>,
    pub(super) streams: Vec<Stream>,
    pub(super) kinds: NamedIndex,
    pub(super) tags: NamedIndex,
    ids: IdIndex,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            head: 0,
            live: 0,
            removed_since_sweep: 0,
            stream_numbers: Map::default(),
            streams: Vec::new(),
            kinds: NamedIndex::default(),
            tags: NamedIndex::default(),
            ids: IdIndex::default(),
        }
    }
}

impl<T> Log<T> {
    /// Returns the highest position given; 0 for a new log.
    #[inline]
    pub fn head(&self) -> u32 {
        self.head
    }

    /// Returns how many events are stored.
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Returns the number of a kind (type name), the same for ever.
    pub fn kind(&mut self, name: &str) -> u32 {
        self.kinds.number(name)
    }

    /// Returns a stream's number, if it has one, and its current version.
    #[inline]
    pub fn locate(&self, stream: &str) -> (Option<u32>, u32) {
        let number = self.stream_numbers.get(stream).copied();
        (number, number.map_or(0, |n| self.streams[n as usize].version()))
    }

    /// Tells whether an id is higher than every id seen, so that it cannot be stored already.
    #[inline]
    pub fn is_above_all(&self, id: u128) -> bool {
        self.ids.is_above_all(id)
    }

    /// Tells whether an event with this id is stored; `has_id` compares an item's own id.
    pub fn holds(&self, id: u128, has_id: impl Fn(&T, u128) -> bool) -> bool {
        self.find(id, has_id).is_some()
    }

    fn find(&self, id: u128, has_id: impl Fn(&T, u128) -> bool) -> Option<u32> {
        let item = |position| self.slot(position).and_then(|slot| slot.item.as_ref());
        let found = self.ids.find(id, |position| item(position).is_some_and(|item| has_id(item, id)));
        found.filter(|position| item(*position).is_some())
    }

    /// Tells whether there are positions left for this many events.
    #[inline]
    pub fn has_room(&self, count: usize) -> bool {
        count <= (u32::MAX - self.head) as usize
    }

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

    /// Returns the number of a stream, making it if it is new.
    #[inline]
    pub fn stream(&mut self, key: &str) -> u32 {
        if let Some(number) = self.stream_numbers.get(key) {
            return *number;
        }
        let number = self.streams.len() as u32;
        let key: Arc<str> = key.into();
        self.streams.push(Stream {
            hash: partition_hash(&key),
            key: key.clone(),
            first: 1,
            positions: VecDeque::new(),
        });
        self.stream_numbers.insert(key, number);
        number
    }

    /// Stores one item after `admit` allowed it, and returns its version and position. `has_id` tells whether the
    /// functions of that name can see the id in the item.
    #[inline]
    pub fn push(&mut self, stream: u32, item: T, id: u128, has_id: bool, kind: u32) -> Stored {
        self.head += 1;
        self.live += 1;
        let position = self.head;
        if ((position - 1) as usize).is_multiple_of(CHUNK) {
            let slots = Vec::with_capacity(CHUNK);
            self.chunks.push(Some(Box::new(Chunk { slots, live: 0, is_traced: false })));
        }
        // The last chunk is only dropped once it is full, so it is there.
        if let Some(Some(chunk)) = self.chunks.last_mut() {
            chunk.slots.push(Slot { item: Some(item), stream, kind });
            chunk.live += 1;
        }
        self.ids.push(id, has_id);
        self.kinds.lists[kind as usize].push(position);
        let stream = &mut self.streams[stream as usize];
        stream.positions.push_back(position);
        Stored { version: stream.version(), position }
    }

    /// Makes `traced_items` visit the item just pushed (and its neighbours in memory).
    pub fn trace_last(&mut self) {
        if let Some(Some(chunk)) = self.chunks.last_mut() {
            chunk.is_traced = true;
        }
    }

    /// Adds tags to the event just pushed; repeated tags count once.
    pub fn tag(&mut self, position: u32, tags: &[impl AsRef<str>]) {
        for tag in tags {
            let number = self.tags.number(tag.as_ref());
            let list = &mut self.tags.lists[number as usize];
            if list.last() != position {
                list.push(position);
            }
        }
    }

    /// Returns (first stored version or 0, current version).
    pub fn bounds(&self, stream: &str) -> (u32, u32) {
        let Some(stream) = self.stream_numbers.get(stream).map(|n| &self.streams[*n as usize]) else {
            return (0, 0);
        };
        (if stream.positions.is_empty() { 0 } else { stream.first }, stream.version())
    }

    /// Iterates over a stream's items with from <= version <= to.
    pub fn read(&self, stream: &str, from: u64, to: Option<u64>) -> impl ExactSizeIterator<Item = &T> {
        let stream = self.stream_numbers.get(stream).map(|n| &self.streams[*n as usize]);
        let (low, high) = stream.map_or((0, 0), |stream| {
            let first = u64::from(stream.first);
            let length = stream.positions.len() as u64;
            let high = to.map_or(length, |to| to.saturating_add(1).saturating_sub(first).min(length));
            (from.saturating_sub(first).min(high) as usize, high as usize)
        });
        static NOTHING: VecDeque<u32> = VecDeque::new();
        let positions = stream.map_or(&NOTHING, |stream| &stream.positions);
        positions.range(low..high).map(|position| self.item(*position))
    }

    #[inline]
    fn item(&self, position: u32) -> &T {
        let index = position as usize - 1;
        let chunk = self.chunks[index / CHUNK].as_ref();
        // `remove_oldest` takes a position from its stream together with its item.
        chunk.and_then(|chunk| chunk.slots[index % CHUNK].item.as_ref()).expect("a stream holds only live positions")
    }

    #[inline]
    pub(super) fn slot(&self, position: u32) -> Option<&Slot<T>> {
        let index = position as usize - 1;
        let slot = self.chunks.get(index / CHUNK)?.as_ref()?.slots.get(index % CHUNK)?;
        slot.item.is_some().then_some(slot)
    }

    /// Returns a stream's id by its number.
    pub fn stream_key(&self, number: u32) -> &str {
        &self.streams[number as usize].key
    }

    /// Returns the ids of the streams that hold events, sorted.
    pub fn stream_keys(&self) -> Vec<Arc<str>> {
        let holding = self.streams.iter().filter(|stream| !stream.positions.is_empty());
        let mut keys: Vec<Arc<str>> = holding.map(|stream| stream.key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Returns the streams from which events were removed, each with the highest version removed.
    pub fn removals(&self) -> Vec<(Arc<str>, u32)> {
        let reduced = self.streams.iter().filter(|stream| stream.first > 1);
        reduced.map(|stream| (stream.key.clone(), stream.first - 1)).collect()
    }

    /// Returns how many events a stream holds.
    pub fn stream_len(&self, number: u32) -> usize {
        self.streams[number as usize].positions.len()
    }

    /// Removes a stream's events with version <= up_to and adds them to `removed`.
    pub fn compact(&mut self, stream: &str, up_to: u64, removed: &mut Vec<T>) {
        let Some(number) = self.stream_numbers.get(stream).copied() else {
            return;
        };
        let stream = &self.streams[number as usize];
        let count = up_to.saturating_add(1).saturating_sub(u64::from(stream.first)).min(stream.positions.len() as u64);
        self.remove_oldest(number, count as usize, removed);
    }

    /// Removes the oldest events of a stream and adds them to `removed`. Amortised cost: constant per event.
    pub fn remove_oldest(&mut self, stream: u32, count: usize, removed: &mut Vec<T>) {
        for _ in 0..count {
            let stream = &mut self.streams[stream as usize];
            let Some(position) = stream.positions.pop_front() else {
                break;
            };
            stream.first += 1;
            let index = position as usize - 1;
            let Some(Some(chunk)) = self.chunks.get_mut(index / CHUNK) else {
                continue;
            };
            removed.extend(chunk.slots[index % CHUNK].item.take());
            chunk.live -= 1;
            self.live -= 1;
            self.removed_since_sweep += 1;
            if chunk.live == 0 && chunk.slots.len() == CHUNK {
                self.chunks[index / CHUNK] = None;
            }
        }
        let stream = &mut self.streams[stream as usize];
        if stream.positions.capacity() > 4 * stream.positions.len() + 16 {
            stream.positions.shrink_to_fit();
        }
        if self.removed_since_sweep >= SWEEP_AT_LEAST.max(self.live) {
            self.sweep();
        }
    }

    /// Takes removed events out of the indexes.
    fn sweep(&mut self) {
        self.removed_since_sweep = 0;
        let chunks = &self.chunks;
        let alive = |position: u32| {
            let index = position as usize - 1;
            chunks[index / CHUNK].as_ref().is_some_and(|chunk| chunk.slots[index % CHUNK].item.is_some())
        };
        for list in self.kinds.lists.iter_mut().chain(&mut self.tags.lists) {
            list.retain(alive);
        }
        self.ids.retain(alive, |n| chunks[n].is_some());
    }

    /// Visits at least the stored items for which `trace_last` was called.
    pub fn traced_items(&self) -> impl Iterator<Item = &T> {
        let traced = self.chunks.iter().flatten().filter(|chunk| chunk.is_traced);
        traced.flat_map(|chunk| chunk.slots.iter().filter_map(|slot| slot.item.as_ref()))
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
