//! Finds stored events by id, cheaply when ids are made in order (UUIDv7) and correctly when they are not.

use hashbrown::HashMap;

const CHUNK: usize = 1024;

/// Ids of the events at positions 1, 2, 3, …
///
/// For each position it keeps the highest id so far, an ascending list that can be searched by halving. An id that
/// is lower than an earlier one (made earlier but stored later) or not in order by design (no UUIDv7) goes into a map
/// of strays instead.
#[derive(Default)]
pub struct IdIndex {
    top: u128,
    chunks: Vec<Box<[u128]>>,
    last: Vec<u128>,
    strays: HashMap<u128, u32, ahash::RandomState>,
}

impl IdIndex {
    /// Tells whether an id is in order and higher than all of those, and therefore new.
    #[inline]
    pub fn is_above_all(&self, id: u128) -> bool {
        id > self.top && is_ordered(id)
    }

    /// Records the id of the next position (1 for the first).
    #[inline]
    pub fn push(&mut self, id: u128) {
        if self.is_above_all(id) {
            self.top = id;
        } else {
            let position = (self.chunks.len() * CHUNK + self.last.len() + 1) as u32;
            self.strays.insert(id, position);
        }
        if self.last.capacity() == 0 {
            self.last.reserve_exact(CHUNK);
        }
        self.last.push(self.top);
        if self.last.len() == CHUNK {
            self.chunks.push(std::mem::take(&mut self.last).into_boxed_slice());
        }
    }

    /// Returns the position at which an id was recorded. Cost: logarithmic, or one comparison for an id above all.
    pub fn find(&self, id: u128) -> Option<u32> {
        if self.is_above_all(id) {
            return None;
        }
        if let Some(position) = self.strays.get(&id) {
            return Some(*position);
        }
        let n = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1] < id);
        let chunk: &[u128] = self.chunks.get(n).map_or(&self.last, |chunk| chunk);
        let offset = chunk.partition_point(|top| *top < id);
        (chunk.get(offset) == Some(&id)).then(|| (n * CHUNK + offset + 1) as u32)
    }

    /// Drops the strays whose position is not `alive`, and whole chunks of which `is_chunk_alive` says no.
    pub fn retain(&mut self, mut alive: impl FnMut(u32) -> bool, mut is_chunk_alive: impl FnMut(usize) -> bool) {
        self.strays.retain(|_, position| alive(*position));
        self.strays.shrink_to_fit();
        for (n, chunk) in self.chunks.iter_mut().enumerate() {
            if chunk.len() > 1 && !is_chunk_alive(n) {
                // The highest id alone keeps the list searchable.
                *chunk = Box::new([chunk[chunk.len() - 1]]);
            }
        }
    }
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

    #[test]
    fn random_ids_do_not_spoil_the_order() {
        let mut index = IdIndex::default();
        let random = (u128::MAX >> 80 << 80) | 4 << 76;
        index.push(random);
        (1..=3000).for_each(|n| index.push(v7(n)));
        assert_eq!((index.strays.len(), index.find(random), index.find(v7(3000))), (1, Some(1), Some(3001)));
        assert!(!index.is_above_all(random + 1));
        assert_eq!(index.find(random + 1), None);
    }

    #[test]
    fn finds_every_id_in_any_order() {
        let mut index = IdIndex::default();
        let ids: Vec<u128> = (0..5000u128).map(|n| v7((n * 7919) % 5003 * 3 + 10)).collect();
        ids.iter().for_each(|id| index.push(*id));
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(index.find(*id), Some(n as u32 + 1));
            assert_eq!(index.find(*id + 1), None);
        }
        assert_eq!(index.find(0), None);
    }

    #[test]
    fn ids_in_order_need_no_map() {
        let mut index = IdIndex::default();
        (1..=3000).for_each(|n| index.push(v7(n)));
        assert!(index.strays.is_empty());
        assert_eq!((index.find(v7(1)), index.find(v7(3000)), index.find(v7(3001))), (Some(1), Some(3000), None));
    }

    #[test]
    fn retain_returns_memory_and_keeps_the_rest_findable() {
        let mut index = IdIndex::default();
        (1..=4096).for_each(|n| index.push(v7(n)));
        index.push(0);
        index.retain(|_| false, |chunk| chunk == 2);
        assert_eq!((index.find(v7(5)), index.find(v7(2500)), index.find(v7(4097))), (None, Some(2500), None));
        assert_eq!(index.strays.len(), 0);
    }
}
