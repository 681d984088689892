//! The in-memory event log: one global order, many streams, indexes by type and tag.
//!
//! Positions and versions are numbers given once; removing events leaves holes and never renumbers. The log is generic
//! over what it stores and never drops an item itself: whatever leaves it is handed to the caller, who can drop it
//! after releasing the lock around the log.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::ids::IdIndex;
use super::index::PositionIndex;
use super::partition::partition_hash;

pub use super::admit::{Admission, Condition, Refusal, Stored};

pub(super) const CHUNK: usize = 1024;

type Map<V> = HashMap<Arc<str>, V, ahash::RandomState>;

/// One stored item with its stream and kind, `None` once removed.
pub(super) struct Slot<T> {
    pub(super) item: Option<T>,
    pub(super) stream: u32,
    pub(super) kind: u32,
}

pub(super) struct Chunk<T> {
    pub(super) slots: Vec<Slot<T>>,
    pub(super) live: usize,
    /// Some item was said to be of interest to `traced_items`.
    is_traced: bool,
}

/// The stored events of a stream are always its latest ones: `positions[i]` has version `first + i`.
pub(super) struct Stream {
    key: Arc<str>,
    pub(super) hash: u32,
    pub(super) first: u32,
    pub(super) positions: VecDeque<u32>,
}

impl Stream {
    pub(super) fn version(&self) -> u32 {
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

pub struct Log<T> {
    pub(super) chunks: Vec<Option<Box<Chunk<T>>>>,
    pub(super) head: u32,
    pub(super) live: usize,
    pub(super) removed_since_sweep: usize,
    pub(super) stream_numbers: Map<u32>,
    pub(super) streams: Vec<Stream>,
    pub(super) kinds: NamedIndex,
    pub(super) tags: NamedIndex,
    pub(super) ids: IdIndex,
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

    pub(super) fn find(&self, id: u128, has_id: impl Fn(&T, u128) -> bool) -> Option<u32> {
        let item = |position| self.slot(position).and_then(|slot| slot.item.as_ref());
        let found = self.ids.find(id, |position| item(position).is_some_and(|item| has_id(item, id)));
        found.filter(|position| item(*position).is_some())
    }

    /// Tells whether there are positions left for this many events.
    #[inline]
    pub fn has_room(&self, count: usize) -> bool {
        count <= (u32::MAX - self.head) as usize
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
        let chunk = open_chunk(&mut self.chunks);
        chunk.slots.push(Slot { item: Some(item), stream, kind });
        chunk.live += 1;
        self.ids.push(id, has_id);
        self.index(stream, kind, 1)
    }

    /// Stores what `make` makes of each source, all of one kind, as that many calls of `push` would. The ids, which the
    /// items tell, are in order and above all others.
    #[inline]
    pub fn extend<S>(
        &mut self,
        stream: u32,
        kind: u32,
        sources: &[S],
        id: impl Fn(&S) -> u128,
        mut make: impl FnMut(&S) -> T,
    ) -> Stored {
        let mut rest = sources;
        while !rest.is_empty() {
            let chunk = open_chunk(&mut self.chunks);
            let (part, later) = rest.split_at(rest.len().min(CHUNK - chunk.slots.len()));
            chunk.slots.extend(part.iter().map(|source| Slot { item: Some(make(source)), stream, kind }));
            chunk.live += part.len();
            self.ids.extend_next(part.iter().map(&id));
            rest = later;
        }
        self.index(stream, kind, sources.len())
    }

    /// Numbers what was put into the chunks.
    #[inline]
    fn index(&mut self, stream: u32, kind: u32, count: usize) -> Stored {
        self.live += count;
        let first = self.head + 1;
        self.head += count as u32;
        self.kinds.lists[kind as usize].extend(first, self.head);
        let stream = &mut self.streams[stream as usize];
        stream.positions.extend(first..=self.head);
        Stored { version: stream.version(), position: self.head }
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

    /// Returns how many items of a stream have from <= version <= to.
    pub fn count(&self, stream: &str, from: u64, to: Option<u64>) -> usize {
        self.span(stream, from, to).1.len()
    }

    /// Visits the first `limit` of a stream's items with from <= version <= to.
    #[inline]
    pub fn read<'a>(&'a self, stream: &str, from: u64, to: Option<u64>, limit: usize, mut visit: impl FnMut(&'a T)) {
        let (positions, span) = self.span(stream, from, to);
        let (front, back) = positions.as_slices();
        let (low, high) = (span.start, span.end.min(span.start.saturating_add(limit)));
        let front_part = low.min(front.len())..high.min(front.len());
        let back_part = low.saturating_sub(front.len())..high.saturating_sub(front.len());
        for part in [&front[front_part], &back[back_part]] {
            // `remove_oldest` takes a position from its stream together with its item.
            self.visit_at(part, |_, _, item| {
                visit(item);
                true
            });
        }
    }

    /// Visits the items stored at ascending positions, as (position, stream number, item), until `visit` returns false;
    /// returns whether it never did.
    #[inline]
    pub(super) fn visit_at<'a>(&'a self, positions: &[u32], mut visit: impl FnMut(u32, u32, &'a T) -> bool) -> bool {
        // The chunk of the position before is usually that of the next one.
        let (mut slots, mut number) = (&[][..], usize::MAX);
        positions.iter().all(|position| {
            let index = *position as usize - 1;
            if index / CHUNK != number {
                number = index / CHUNK;
                slots = self.chunks[number].as_ref().map_or(&[], |chunk| &chunk.slots);
            }
            match slots.get(index % CHUNK) {
                Some(Slot { item: Some(item), stream, .. }) => visit(*position, *stream, item),
                _ => true,
            }
        })
    }

    /// The positions of a stream, and which of them have from <= version <= to.
    fn span(&self, stream: &str, from: u64, to: Option<u64>) -> (&VecDeque<u32>, Range<usize>) {
        static NOTHING: VecDeque<u32> = VecDeque::new();
        let Some(stream) = self.stream_numbers.get(stream).map(|n| &self.streams[*n as usize]) else {
            return (&NOTHING, 0..0);
        };
        let first = u64::from(stream.first);
        let length = stream.positions.len() as u64;
        let high = to.map_or(length, |to| to.saturating_add(1).saturating_sub(first).min(length));
        (&stream.positions, from.saturating_sub(first).min(high) as usize..high as usize)
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

    /// Visits at least the stored items for which `trace_last` was called.
    pub fn traced_items(&self) -> impl Iterator<Item = &T> {
        let traced = self.chunks.iter().flatten().filter(|chunk| chunk.is_traced);
        traced.flat_map(|chunk| chunk.slots.iter().filter_map(|slot| slot.item.as_ref()))
    }
}

/// The last chunk, or a new one if that is full.
#[inline]
fn open_chunk<T>(chunks: &mut Vec<Option<Box<Chunk<T>>>>) -> &mut Chunk<T> {
    // The last chunk is only dropped once it is full.
    if chunks.last().and_then(Option::as_ref).is_none_or(|chunk| chunk.slots.len() >= CHUNK) {
        add_chunk(chunks);
    }
    chunks.last_mut().and_then(Option::as_mut).expect("a chunk with room")
}

#[cold]
fn add_chunk<T>(chunks: &mut Vec<Option<Box<Chunk<T>>>>) {
    chunks.push(Some(Box::new(Chunk { slots: Vec::with_capacity(CHUNK), live: 0, is_traced: false })));
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
