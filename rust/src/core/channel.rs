//! A bounded first-in-first-out channel: who may put, who gets what, whom to wake.
//!
//! Nothing waits here. Whoever has to wait is a `W` in line; the caller wakes those that an operation names. An item
//! for a waiting getter is set aside for it, and room for a waiting putter is kept for it, so that nobody who comes
//! later overtakes. Whoever stops waiting gives back what it was given, and the next in line gets it.

use std::collections::VecDeque;

/// Items, and those who wait for items or for room.
pub struct Channel<T, W> {
    capacity: usize,
    closed: bool,
    items: VecDeque<T>,
    getters: VecDeque<W>,
    putters: VecDeque<W>,
    /// Set aside for getters that were woken and have not come back yet.
    handed: Vec<(W, T)>,
    /// Putters that were woken and have not come back yet; each has its room.
    admitted: usize,
}

/// What became of an item.
#[derive(Debug, PartialEq)]
pub enum Put<T, W> {
    Stored,
    /// It is set aside for this getter, which is to be woken.
    Handed(W),
    Full(T),
    Closed(T),
}

impl<T, W: Clone + PartialEq> Channel<T, W> {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            closed: false,
            items: VecDeque::new(),
            getters: VecDeque::new(),
            putters: VecDeque::new(),
            handed: Vec::new(),
            admitted: 0,
        }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Items that nobody has been given yet.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Puts an item if there is room and nobody waits for it.
    #[inline(always)]
    pub fn put(&mut self, item: T) -> Put<T, W> {
        if self.closed {
            Put::Closed(item)
        } else if self.admitted > 0 || !self.putters.is_empty() || self.items.len() >= self.capacity {
            Put::Full(item)
        } else {
            self.store(item)
        }
    }

    /// Takes the oldest item, and names the putter that gets its room. None if there is no item.
    #[inline]
    pub fn get(&mut self) -> Option<(T, Option<W>)> {
        let item = self.items.pop_front()?;
        Some((item, self.admit()))
    }

    /// Takes up to `limit` of the oldest items, and names the putters that get their room.
    pub fn drain(&mut self, limit: usize) -> (Vec<T>, Vec<W>) {
        let taken = self.items.drain(..limit.min(self.items.len())).collect();
        let mut woken = Vec::new();
        while let Some(putter) = self.admit() {
            woken.push(putter);
        }
        (taken, woken)
    }

    /// Puts a getter in line. There is no item now, and the channel is open.
    pub fn wait_for_item(&mut self, getter: W) {
        self.getters.push_back(getter);
    }

    /// Puts a putter in line. There is no room now, and the channel is open.
    pub fn wait_for_room(&mut self, putter: W) {
        self.putters.push_back(putter);
    }

    /// What was set aside for a getter that was woken; None if the channel was closed instead.
    pub fn collect(&mut self, getter: &W) -> Option<T> {
        let place = self.handed.iter().position(|(owner, _)| owner == getter)?;
        Some(self.handed.remove(place).1)
    }

    /// A getter stops waiting. What was set aside for it goes to the next one, which is to be woken, or back to its place.
    pub fn leave_items(&mut self, getter: &W) -> Option<W> {
        if let Some(place) = self.getters.iter().position(|waiting| waiting == getter) {
            self.getters.remove(place);
            return None;
        }
        let item = self.collect(getter)?;
        match self.getters.pop_front() {
            Some(next) => {
                self.handed.push((next.clone(), item));
                Some(next)
            }
            None => {
                self.items.push_front(item);
                None
            }
        }
    }

    /// A putter that was woken puts its item. The second one is the next putter to wake.
    pub fn enter(&mut self, item: T) -> (Put<T, W>, Option<W>) {
        if self.admitted == 0 {
            return (Put::Closed(item), None);
        }
        self.admitted -= 1;
        let put = self.store(item);
        (put, self.admit())
    }

    /// A putter stops waiting. Room that was kept for it goes to the next one, which is to be woken.
    pub fn leave_room(&mut self, putter: &W) -> Option<W> {
        if let Some(place) = self.putters.iter().position(|waiting| waiting == putter) {
            self.putters.remove(place);
            return None;
        }
        self.admitted = self.admitted.saturating_sub(1);
        self.admit()
    }

    /// Accepts nothing more; what is there can still be taken. Everybody in line is to be woken.
    pub fn close(&mut self) -> Vec<W> {
        self.closed = true;
        self.getters.drain(..).chain(self.putters.drain(..)).collect()
    }

    /// Every waiter and item, for the garbage collector.
    pub fn contents(&self) -> (impl Iterator<Item = &T>, impl Iterator<Item = &W>) {
        let items = self.items.iter().chain(self.handed.iter().map(|(_, item)| item));
        let waiters = self.getters.iter().chain(&self.putters).chain(self.handed.iter().map(|(owner, _)| owner));
        (items, waiters)
    }

    #[inline(always)]
    fn store(&mut self, item: T) -> Put<T, W> {
        match self.getters.pop_front() {
            None => {
                self.items.push_back(item);
                Put::Stored
            }
            Some(getter) => {
                self.handed.push((getter.clone(), item));
                Put::Handed(getter)
            }
        }
    }

    #[inline]
    fn admit(&mut self) -> Option<W> {
        if self.putters.is_empty() || self.items.len() + self.admitted >= self.capacity {
            return None;
        }
        self.admitted += 1;
        self.putters.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn items_come_out_in_the_order_they_went_in() {
        let mut channel: Channel<u32, u32> = Channel::new(3);
        for item in 0..3 {
            assert_eq!(channel.put(item), Put::Stored);
        }
        assert_eq!(channel.put(3), Put::Full(3));
        assert_eq!(channel.get(), Some((0, None)));
        assert_eq!(channel.drain(9), (vec![1, 2], vec![]));
        assert_eq!(channel.get(), None);
    }

    #[test]
    fn nobody_overtakes_a_putter_that_was_woken() {
        let mut channel: Channel<u32, &str> = Channel::new(1);
        assert_eq!(channel.put(1), Put::Stored);
        channel.wait_for_room("a");
        assert_eq!(channel.get(), Some((1, Some("a"))));
        assert_eq!(channel.put(9), Put::Full(9));
        assert_eq!(channel.enter(2), (Put::Stored, None));
        assert_eq!(channel.get(), Some((2, None)));
    }

    #[test]
    fn what_a_leaving_getter_was_given_goes_to_the_next() {
        let mut channel: Channel<u32, &str> = Channel::new(1);
        channel.wait_for_item("a");
        channel.wait_for_item("b");
        assert_eq!(channel.put(1), Put::Handed("a"));
        assert_eq!(channel.leave_items(&"a"), Some("b"));
        assert_eq!(channel.collect(&"b"), Some(1));
        channel.wait_for_item("c");
        assert_eq!(channel.put(2), Put::Handed("c"));
        assert_eq!(channel.leave_items(&"c"), None);
        assert_eq!(channel.get(), Some((2, None)));
    }

    #[test]
    fn room_of_a_leaving_putter_goes_to_the_next() {
        let mut channel: Channel<u32, &str> = Channel::new(1);
        channel.put(1);
        channel.wait_for_room("a");
        channel.wait_for_room("b");
        assert_eq!(channel.get(), Some((1, Some("a"))));
        assert_eq!(channel.leave_room(&"a"), Some("b"));
        assert_eq!(channel.enter(2), (Put::Stored, None));
    }

    #[test]
    fn closing_wakes_everybody_and_keeps_what_is_there() {
        let mut channel: Channel<u32, &str> = Channel::new(1);
        channel.put(1);
        channel.wait_for_room("a");
        assert_eq!(channel.close(), vec!["a"]);
        assert_eq!(channel.enter(2), (Put::Closed(2), None));
        assert_eq!(channel.put(3), Put::Closed(3));
        assert_eq!(channel.get(), Some((1, None)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put,
        Get,
        Drain(usize),
        Return(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Put),
            4 => Just(Step::Get),
            1 => (1..4usize).prop_map(Step::Drain),
            3 => any::<usize>().prop_map(Step::Return),
            2 => any::<usize>().prop_map(Step::Leave),
        ]
    }

    /// Tasks that wait: those in line, and those woken that have not come back.
    #[derive(Default)]
    struct Tasks {
        waiting: Vec<(u32, Option<u32>)>,
        woken: Vec<u32>,
    }

    impl Tasks {
        fn wake(&mut self, tasks: impl IntoIterator<Item = u32>) {
            self.woken.extend(tasks);
        }

        fn take(&mut self, number: usize, only_woken: bool) -> Option<(u32, Option<u32>)> {
            let ids: Vec<u32> =
                if only_woken { self.woken.clone() } else { self.waiting.iter().map(|task| task.0).collect() };
            let id = *ids.get(number.checked_rem(ids.len())?)?;
            self.woken.retain(|task| *task != id);
            let place = self.waiting.iter().position(|task| task.0 == id)?;
            Some(self.waiting.remove(place))
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled_and_the_bound_holds(
            capacity in 1..4usize, steps in prop::collection::vec(step(), 1..200)
        ) {
            let mut channel: Channel<u32, u32> = Channel::new(capacity);
            let mut tasks = Tasks::default();
            let (mut number, mut given_back, mut accepted, mut received) = (0u32, 0, Vec::new(), Vec::new());
            for step in steps {
                number += 1;
                match step {
                    Step::Put => match channel.put(number) {
                        Put::Stored => accepted.push(number),
                        Put::Handed(getter) => { accepted.push(number); tasks.wake([getter]); }
                        Put::Full(item) => { channel.wait_for_room(number); tasks.waiting.push((number, Some(item))); }
                        Put::Closed(_) => unreachable!(),
                    },
                    Step::Get => match channel.get() {
                        Some((item, woken)) => { received.push(item); tasks.wake(woken); }
                        None => { channel.wait_for_item(number); tasks.waiting.push((number, None)); }
                    },
                    Step::Drain(limit) => {
                        let (items, woken) = channel.drain(limit);
                        received.extend(items);
                        tasks.wake(woken);
                    }
                    Step::Return(which) => match tasks.take(which, true) {
                        Some((_, Some(item))) => {
                            let (put, next) = channel.enter(item);
                            tasks.wake(next);
                            accepted.push(item);
                            if let Put::Handed(getter) = put { tasks.wake([getter]); }
                            prop_assert!(!matches!(put, Put::Full(_) | Put::Closed(_)));
                        }
                        Some((getter, None)) => received.push(channel.collect(&getter).expect("woken for nothing")),
                        None => {}
                    },
                    Step::Leave(which) => match tasks.take(which, false) {
                        Some((putter, Some(_))) => tasks.wake(channel.leave_room(&putter)),
                        Some((getter, None)) => {
                            given_back += 1;
                            tasks.wake(channel.leave_items(&getter));
                        }
                        None => {}
                    },
                }
                // One more than the capacity per getter that gave its item back.
                prop_assert!(channel.len() <= capacity + given_back);
            }
            // Let everybody who was woken come back, then take the rest: somebody waits only if there is nothing for it.
            while let Some((id, item)) = tasks.take(0, true) {
                match item {
                    Some(item) => {
                        let (put, next) = channel.enter(item);
                        accepted.push(item);
                        if let Put::Handed(getter) = put { tasks.wake([getter]); }
                        tasks.wake(next);
                    }
                    None => received.push(channel.collect(&id).expect("woken for nothing")),
                }
            }
            let getters = tasks.waiting.iter().filter(|task| task.1.is_none()).count();
            let putters = tasks.waiting.len() - getters;
            prop_assert!(getters == 0 || channel.is_empty(), "a getter waits although there is an item");
            prop_assert!(putters == 0 || channel.len() >= capacity, "a putter waits although there is room");
            received.extend(channel.drain(usize::MAX).0);
            received.sort_unstable();
            accepted.sort_unstable();
            prop_assert_eq!(received, accepted);
        }
    }
}
