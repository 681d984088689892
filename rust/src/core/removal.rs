//! Taking the oldest events of a stream out of the log: compaction and eviction.

use super::log::{CHUNK, Log};

const SWEEP_AT_LEAST: usize = 1024;

impl<T> Log<T> {
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
}
