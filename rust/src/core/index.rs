//! An ascending list of positions that grows without copying and gives memory back.

const CHUNK: usize = 512;

/// Positions of the events of one type or tag, in order. Entries of removed events stay until `retain`.
#[derive(Default)]
pub struct PositionIndex {
    chunks: Vec<Vec<u32>>,
    len: usize,
}

impl PositionIndex {
    /// Adds a position higher than all others.
    #[inline]
    pub fn push(&mut self, position: u32) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(position),
            _ => {
                // The first chunk grows step by step, because most tags mark only a few events.
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 4 } else { CHUNK });
                chunk.push(position);
                self.chunks.push(chunk);
            }
        }
        self.len += 1;
    }

    /// Adds the positions `first..=last`, all higher than those there.
    pub fn extend(&mut self, mut first: u32, last: u32) {
        while first <= last {
            // Makes room, or a new chunk.
            self.push(first);
            first += 1;
            if let Some(chunk) = self.chunks.last_mut() {
                let count = (CHUNK - chunk.len()).min((last + 1 - first) as usize) as u32;
                chunk.extend(first..first + count);
                self.len += count as usize;
                first += count;
            }
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the highest position, or 0.
    pub fn last(&self) -> u32 {
        self.chunks.last().and_then(|chunk| chunk.last()).copied().unwrap_or(0)
    }

    /// Tells whether a position is in the list. Cost: logarithmic.
    pub fn contains(&self, position: u32) -> bool {
        let chunk = self.chunks.partition_point(|chunk| chunk[0] <= position);
        chunk > 0 && self.chunks[chunk - 1].binary_search(&position).is_ok()
    }

    /// Iterates over the positions above `position`.
    pub fn after(&self, position: u32) -> impl Iterator<Item = u32> + '_ {
        self.parts_between(position, u32::MAX).flatten().copied()
    }

    /// Iterates over the positions above `position` and up to `up_to`, many at a time.
    pub fn parts_between(&self, position: u32, up_to: u32) -> impl Iterator<Item = &[u32]> {
        let first = self.chunks.partition_point(|chunk| chunk[chunk.len() - 1] <= position);
        let chunks = self.chunks[first..].iter().take_while(move |chunk| chunk[0] <= up_to);
        chunks.enumerate().map(move |(n, chunk)| {
            let low = if n == 0 { chunk.partition_point(|p| *p <= position) } else { 0 };
            let is_whole = chunk[chunk.len() - 1] <= up_to;
            let high = if is_whole { chunk.len() } else { chunk.partition_point(|p| *p <= up_to) };
            &chunk[low.min(high)..high]
        })
    }

    /// Drops the positions that are not `alive` and the memory they took.
    pub fn retain(&mut self, mut alive: impl FnMut(u32) -> bool) {
        let kept: Vec<u32> = self.after(0).filter(|position| alive(*position)).collect();
        if kept.len() == self.len {
            return;
        }
        *self = Self::default();
        for position in kept {
            self.push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odd_numbers() -> PositionIndex {
        let mut index = PositionIndex::default();
        (0..3000).for_each(|n| index.push(2 * n + 1));
        index
    }

    #[test]
    fn after_is_exclusive_at_every_chunk_border() {
        let index = odd_numbers();
        for position in [0, 1, 2, 1022, 1023, 1024, 1025, 5998, 5999, 6000] {
            let expected: Vec<u32> = (0..3000).map(|n| 2 * n + 1).filter(|p| *p > position).collect();
            assert_eq!(index.after(position).collect::<Vec<_>>(), expected, "after {position}");
        }
    }

    #[test]
    fn parts_are_those_between_the_borders() {
        let index = odd_numbers();
        for (low, high) in
            [(0, 0), (0, 1), (1, 1), (5, 3), (1021, 1025), (1022, 3000), (0, 5999), (5998, u32::MAX), (7000, 8000)]
        {
            let expected: Vec<u32> = (0..3000).map(|n| 2 * n + 1).filter(|p| low < *p && *p <= high).collect();
            assert_eq!(index.parts_between(low, high).collect::<Vec<_>>().concat(), expected, "{low} to {high}");
        }
        assert_eq!(PositionIndex::default().parts_between(0, u32::MAX).count(), 0);
    }

    #[test]
    fn extend_adds_what_as_many_pushes_would() {
        for (start, count) in [(1, 0), (1, 1), (7, 511), (7, 512), (7, 513), (600, 2000)] {
            let (mut at_once, mut one_by_one) = (odd_numbers(), odd_numbers());
            at_once.extend(6000 + start, 6000 + start + count - 1);
            (6000 + start..6000 + start + count).for_each(|position| one_by_one.push(position));
            assert_eq!(at_once.after(0).collect::<Vec<_>>(), one_by_one.after(0).collect::<Vec<_>>());
            assert_eq!((at_once.len(), at_once.last()), (one_by_one.len(), one_by_one.last()));
        }
    }

    #[test]
    fn contains_finds_exactly_what_was_pushed() {
        let index = odd_numbers();
        assert!((0..6002).all(|p| index.contains(p) == (p % 2 == 1 && p < 6000)));
    }

    #[test]
    fn retain_keeps_order_and_drops_the_rest() {
        let mut index = odd_numbers();
        index.retain(|position| position > 5990);
        assert_eq!(index.after(0).collect::<Vec<_>>(), [5991, 5993, 5995, 5997, 5999]);
        assert_eq!((index.len(), index.last(), index.chunks.len()), (5, 5999, 1));
    }
}
