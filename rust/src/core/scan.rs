//! Finding events in the global log: by range, partition, type and tag.

use super::index::PositionIndex;
use super::log::{CHUNK, Condition, Log};
use super::select::{Item, ItemNames, Merge, Selection};

impl<T> Log<T> {
    /// Returns the position of the first event that fails a condition.
    pub(super) fn first_match(&self, condition: &Condition) -> Option<u32> {
        if condition.after >= self.head {
            return None;
        }
        let selection =
            Selection { after: condition.after, query: Some(condition.query.clone()), ..Selection::default() };
        let mut found = None;
        self.select(&selection, |position, _, _| {
            found = Some(position);
            false
        });
        found
    }

    /// Visits the selected items in order as (position, stream number, item) until `visit` returns false.
    pub fn select(&self, selection: &Selection, mut visit: impl FnMut(u32, u32, &T) -> bool) {
        let up_to = selection.up_to.unwrap_or(self.head).min(self.head);
        if selection.query.is_none() && selection.partition.is_none() {
            self.visit_all(selection.after, up_to, visit);
            return;
        }
        if selection.partition.is_none()
            && let Some([ItemNames { kinds: Some(kinds), tags }]) = selection.query.as_deref()
            && let ([kind], []) = (kinds.as_slice(), tags.as_slice())
        {
            // The events of one type, which its list names and nothing else.
            let list = self.kinds.numbers.get(kind.as_str()).map(|kind| &self.kinds.lists[*kind as usize]);
            let mut parts = list.into_iter().flat_map(|list| list.parts_between(selection.after, up_to));
            parts.all(|part| self.visit_at(part, &mut visit));
            return;
        }
        let items: Option<Vec<Item>> =
            selection.query.as_ref().map(|query| query.iter().filter_map(|item| self.numbered(item)).collect());
        let mut step = |position: u32| {
            let Some(slot) = self.slot(position) else {
                return true;
            };
            let Some(item) = &slot.item else { return true };
            if let Some((index, total)) = selection.partition
                && u64::from(self.streams[slot.stream as usize].hash) % total != index
            {
                return true;
            }
            if items.as_ref().is_some_and(|items| !items.iter().any(|i| self.matches(i, position, slot.kind))) {
                return true;
            }
            visit(position, slot.stream, item)
        };
        match &items {
            Some(items) if items.iter().all(|item| item.kinds.is_some() || !item.tags.is_empty()) => {
                let lists = items.iter().flat_map(|item| self.candidates(item));
                Merge::new(lists.map(|list| list.after(selection.after))).take_while(|p| *p <= up_to).all(&mut step);
            }
            _ => self.scan(selection.after, up_to, step),
        }
    }

    /// Visits everything in a range, chunk by chunk.
    fn visit_all(&self, after: u32, up_to: u32, mut visit: impl FnMut(u32, u32, &T) -> bool) {
        let (mut low, high) = (after as usize, up_to as usize);
        while low < high {
            let end = high.min((low / CHUNK + 1) * CHUNK);
            if let Some(chunk) = &self.chunks[low / CHUNK] {
                let offset = low % CHUNK;
                for (n, slot) in chunk.slots[offset..offset + end - low].iter().enumerate() {
                    if let Some(item) = &slot.item
                        && !visit((low + n + 1) as u32, slot.stream, item)
                    {
                        return;
                    }
                }
            }
            low = end;
        }
    }

    /// Steps through the positions of a range, jumping over chunks that are gone.
    fn scan(&self, after: u32, up_to: u32, mut step: impl FnMut(u32) -> bool) {
        let mut position = after.saturating_add(1);
        while position <= up_to && position > after {
            let index = position as usize - 1;
            if self.chunks[index / CHUNK].is_none() {
                position = ((index / CHUNK + 1) * CHUNK + 1) as u32;
                continue;
            }
            if !step(position) {
                return;
            }
            position = position.wrapping_add(1);
        }
    }

    /// Replaces names by numbers; None if the item can match nothing stored.
    fn numbered(&self, item: &ItemNames) -> Option<Item> {
        let tags = item.tags.iter().map(|tag| self.tags.numbers.get(tag.as_str()).copied()).collect::<Option<_>>()?;
        let kinds = item.kinds.as_ref().map(|names| {
            let known = names.iter().filter_map(|name| self.kinds.numbers.get(name.as_str()));
            known.copied().collect::<Vec<u32>>()
        });
        if kinds.as_ref().is_some_and(Vec::is_empty) { None } else { Some(Item { kinds, tags }) }
    }

    fn matches(&self, item: &Item, position: u32, kind: u32) -> bool {
        item.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
            && item.tags.iter().all(|tag| self.tags.lists[*tag as usize].contains(position))
    }

    /// Returns index lists that together hold every match: the rarest tag's, or those of all kinds.
    fn candidates<'a>(&'a self, item: &Item) -> Vec<&'a PositionIndex> {
        let rarest = item.tags.iter().map(|tag| &self.tags.lists[*tag as usize]).min_by_key(|list| list.len());
        match (rarest, &item.kinds) {
            (Some(rarest), _) => vec![rarest],
            (None, Some(kinds)) => kinds.iter().map(|kind| &self.kinds.lists[*kind as usize]).collect(),
            (None, None) => Vec::new(),
        }
    }
}
