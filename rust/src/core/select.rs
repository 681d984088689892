//! Which events of the global log a reader or an append condition wants.

/// One alternative of a query in names: any of `kinds` (None: every kind) and all of `tags`.
#[derive(Clone, Debug)]
pub struct ItemNames {
    pub kinds: Option<Vec<String>>,
    pub tags: Vec<String>,
}

/// One alternative with the names replaced by the log's numbers.
#[derive(Clone, Debug)]
pub struct Item {
    pub kinds: Option<Vec<u32>>,
    pub tags: Vec<u32>,
}

/// A selection from the global log.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only positions above this one.
    pub after: u32,
    /// Only positions up to this one.
    pub up_to: Option<u32>,
    /// Alternatives joined by OR; None selects everything.
    pub query: Option<Vec<ItemNames>>,
    /// (index, total): only streams of this partition.
    pub partition: Option<(u64, u64)>,
}

/// Merges ascending lists into one without repetitions.
pub struct Merge<I: Iterator<Item = u32>> {
    heads: Vec<(u32, I)>,
}

impl<I: Iterator<Item = u32>> Merge<I> {
    pub fn new(lists: impl IntoIterator<Item = I>) -> Self {
        let heads = lists.into_iter().filter_map(|mut list| list.next().map(|first| (first, list))).collect();
        Self { heads }
    }
}

impl<I: Iterator<Item = u32>> Iterator for Merge<I> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let lowest = match self.heads.as_slice() {
            [] => return None,
            [(only, _)] => *only,
            heads => heads.iter().map(|(head, _)| *head).min()?,
        };
        let mut n = 0;
        while n < self.heads.len() {
            if self.heads[n].0 == lowest {
                match self.heads[n].1.next() {
                    Some(following) => self.heads[n].0 = following,
                    None => {
                        self.heads.swap_remove(n);
                        continue;
                    }
                }
            }
            n += 1;
        }
        Some(lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_is_ascending_and_without_repetitions() {
        let lists = [vec![1, 4, 9], vec![], vec![2, 4, 5], vec![9]];
        let merged: Vec<u32> = Merge::new(lists.into_iter().map(Vec::into_iter)).collect();
        assert_eq!(merged, [1, 2, 4, 5, 9]);
    }
}
