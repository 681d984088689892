//! Finds stored events by id, cheaply when ids are made in order (UUIDv7) and correctly when they are not.

use hashbrown::HashMap;

const CHUNK: usize = 1024;

/// Ids of the events at positions 1, 2, 3, …
///
/// For each position it keeps the first half (time and counter) of the highest id so far, an ascending list that can
/// be searched by halving; the rest of the id is in the stored item, which has the last word. An id goes into a map
/// of strays instead if it is lower than an earlier one (made earlier but stored later), not in order by design (no
/// UUIDv7) or cannot be read from its item.
#[derive(Default)]
pub struct IdIndex {
    top: u128,
    chunks: Vec<Halves>,
    last: Vec<u64>,
    strays: HashMap<u128, u32, ahash::RandomState>,
}

/// The ascending first halves of the ids of one chunk.
enum Halves {
    /// As steps from the first one, because a chunk is usually filled within a minute.
    Near { first: u64, steps: Box<[u32]> },
    /// As they are. The highest one alone stands for a whole chunk that is gone.
    Far(Box<[u64]>),
}

impl Halves {
    fn of(halves: Vec<u64>) -> Self {
        let (first, last) = (halves[0], halves[halves.len() - 1]);
        if last - first > u64::from(u32::MAX) {
            return Self::Far(halves.into_boxed_slice());
        }
        Self::Near { first, steps: halves.iter().map(|half| (half - first) as u32).collect() }
    }

    fn at(&self, index: usize) -> u64 {
        match self {
            Self::Near { first, steps } => first + u64::from(steps[index]),
            Self::Far(halves) => halves[index.min(halves.len() - 1)],
        }
    }

    /// Returns the index of the first half that is not lower, within a chunk whose highest one is not.
    fn lower_bound(&self, half: u64) -> usize {
        match self {
            Self::Near { first, steps } => steps.partition_point(|step| first + u64::from(*step) < half),
            Self::Far(halves) => halves.partition_point(|known| *known < half),
        }
    }
}

impl IdIndex {
    /// Tells whether an id is in order and higher than all of those, and therefore new.
    #[inline]
    pub fn is_above_all(&self, id: u128) -> bool {
        id > self.top && is_ordered(id)
    }

    /// Records the id of the next position (1 for the first); `is_in_item` if `find` can ask for it.
    #[inline]
    pub fn push(&mut self, id: u128, is_in_item: bool) {
        let is_next = self.is_above_all(id);
        if is_next {
            self.top = id;
        }
        if !(is_next && is_in_item) {
            let position = (self.chunks.len() * CHUNK + self.last.len() + 1) as u32;
            self.strays.insert(id, position);
        }
        self.note(first_half(self.top));
    }

    /// Records the ids of the next positions up to the end of a chunk at most: each is above all and told by its item.
    #[inline]
    pub fn extend_next(&mut self, ids: impl ExactSizeIterator<Item = u128>) {
        debug_assert!(self.last.len() + ids.len() <= CHUNK);
        if self.last.capacity() == 0 {
            self.last.reserve_exact(CHUNK);
        }
        let mut top = self.top;
        self.last.extend(ids.map(|id| {
            debug_assert!(id > top && is_ordered(id));
            top = id;
            first_half(id)
        }));
        self.top = top;
        if self.last.len() == CHUNK {
            self.seal();
        }
    }

    #[inline]
    fn note(&mut self, half: u64) {
        if self.last.len() == self.last.capacity() {
            self.last.reserve_exact(CHUNK);
        }
        self.last.push(half);
        if self.last.len() == CHUNK {
            self.seal();
        }
    }

    #[cold]
    fn seal(&mut self) {
        self.chunks.push(Halves::of(std::mem::take(&mut self.last)));
    }

    /// Returns the position at which an id was recorded; `is_at` tells whether the item at a position has this id.
    ///
    /// Cost: one comparison for an id above all, otherwise logarithmic, plus a question for each position that has the
    /// same first half.
    pub fn find(&self, id: u128, is_at: impl Fn(u32) -> bool) -> Option<u32> {
        if self.is_above_all(id) {
            return None;
        }
        if let Some(position) = self.strays.get(&id) {
            return Some(*position);
        }
        let half = first_half(id);
        let n = self.chunks.partition_point(|chunk| chunk.at(CHUNK - 1) < half);
        let offset = self
            .chunks
            .get(n)
            .map_or_else(|| self.last.partition_point(|known| *known < half), |chunk| chunk.lower_bound(half));
        let candidates = (n * CHUNK + offset..).take_while(|index| self.half_at(*index) == Some(half));
        candidates.map(|index| (index + 1) as u32).find(|position| is_at(*position))
    }

    fn half_at(&self, index: usize) -> Option<u64> {
        let chunk = self.chunks.get(index / CHUNK).map(|chunk| chunk.at(index % CHUNK));
        chunk.or_else(|| self.last.get(index - self.chunks.len() * CHUNK).copied())
    }

    /// Drops the strays whose position is not `alive`, and whole chunks of which `is_chunk_alive` says no.
    pub fn retain(&mut self, mut alive: impl FnMut(u32) -> bool, mut is_chunk_alive: impl FnMut(usize) -> bool) {
        self.strays.retain(|_, position| alive(*position));
        self.strays.shrink_to_fit();
        for (n, chunk) in self.chunks.iter_mut().enumerate() {
            if !is_chunk_alive(n) {
                // The highest one alone keeps the list searchable.
                *chunk = Halves::Far(Box::new([chunk.at(CHUNK - 1)]));
            }
        }
    }
}

#[inline]
fn first_half(id: u128) -> u64 {
    (id >> 64) as u64
}

/// Tells whether an id is a UUIDv7, which begins with its time.
#[inline]
pub fn is_ordered(id: u128) -> bool {
    (id >> 76) & 0xf == 7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v7(n: u128) -> u128 {
        n << 80 | 7 << 76
    }

    /// An index together with the ids that the items of a log would know.
    #[derive(Default)]
    struct Indexed {
        index: IdIndex,
        items: Vec<Option<u128>>,
    }

    impl Indexed {
        fn push(&mut self, id: u128, is_in_item: bool) {
            self.index.push(id, is_in_item);
            self.items.push(is_in_item.then_some(id));
        }

        fn find(&self, id: u128) -> Option<u32> {
            self.index.find(id, |position| self.items[position as usize - 1] == Some(id))
        }
    }

    #[test]
    fn random_ids_do_not_spoil_the_order() {
        let mut ids = Indexed::default();
        let random = (u128::MAX >> 80 << 80) | 4 << 76;
        ids.push(random, true);
        (1..=3000).for_each(|n| ids.push(v7(n), true));
        assert_eq!((ids.index.strays.len(), ids.find(random), ids.find(v7(3000))), (1, Some(1), Some(3001)));
        assert!(!ids.index.is_above_all(random + 1));
        assert_eq!(ids.find(random + 1), None);
    }

    #[test]
    fn finds_every_id_in_any_order() {
        // Steps of one counter, of one millisecond, and of minutes, so that chunks of both kinds are made.
        for shift in [64, 80, 100] {
            let mut ids = Indexed::default();
            let all: Vec<u128> =
                (0..5000u128).map(|n| 7 << 76 | ((n * 7919) % 5003 % 4096 * 3 + 10) << shift | n).collect();
            all.iter().enumerate().for_each(|(n, id)| ids.push(*id, n % 5 != 0));
            for (n, id) in all.iter().enumerate() {
                assert_eq!(ids.find(*id), Some(n as u32 + 1));
                assert_eq!(ids.find(*id + (1 << 40)), None);
            }
            assert_eq!(ids.find(0), None);
        }
    }

    #[test]
    fn ids_with_the_same_first_half_are_told_apart() {
        let mut ids = Indexed::default();
        (0..3000).for_each(|n| ids.push(v7(5) + n, n % 7 != 0));
        (0..3000).for_each(|n| assert_eq!(ids.find(v7(5) + n), Some(n as u32 + 1)));
        assert_eq!(ids.find(v7(5) + 3000), None);
    }

    #[test]
    fn ids_that_the_item_does_not_tell_are_found() {
        let mut ids = Indexed::default();
        (1..=2000).for_each(|n| ids.push(v7(n), false));
        assert_eq!((ids.find(v7(1)), ids.find(v7(2000)), ids.find(v7(2001))), (Some(1), Some(2000), None));
        assert!(!ids.index.is_above_all(v7(2000)));
    }

    #[test]
    fn ids_in_order_need_no_map() {
        let mut ids = Indexed::default();
        (1..=3000).for_each(|n| ids.push(v7(n), true));
        assert!(ids.index.strays.is_empty());
        assert_eq!((ids.find(v7(1)), ids.find(v7(3000)), ids.find(v7(3001))), (Some(1), Some(3000), None));
    }

    #[test]
    fn retain_returns_memory_and_keeps_the_rest_findable() {
        let mut ids = Indexed::default();
        (1..=4096).for_each(|n| ids.push(v7(n), true));
        ids.push(0, true);
        ids.index.retain(|_| false, |chunk| chunk == 2);
        (0..2048).for_each(|n| ids.items[n] = None);
        assert_eq!(
            (ids.find(v7(5)), ids.find(v7(1024)), ids.find(v7(2500)), ids.find(0)),
            (None, None, Some(2500), None)
        );
        assert!(ids.index.chunks.iter().enumerate().all(|(n, chunk)| match chunk {
            Halves::Far(halves) => n != 2 && halves.len() == 1,
            Halves::Near { .. } => n == 2,
        }));
        assert_eq!(ids.index.strays.len(), 0);
    }
}
