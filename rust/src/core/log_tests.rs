use super::*;
use crate::core::select::{ItemNames, Selection};

fn id_of(item: &u32) -> u128 {
    (u128::from(*item) + 1000) << 80 | 7 << 76
}

/// Every fifth item does not tell its id.
fn has_id(item: &u32, id: u128) -> bool {
    !item.is_multiple_of(5) && id_of(item) == id
}

/// Appends `items` with UUIDv7 ids in the order of the items; kind by remainder, tag `t<item % 3>`.
fn append(log: &mut Log<u32>, stream: &str, items: &[u32], expected: Option<u64>) -> Result<Stored, Refusal> {
    let ids: Vec<u128> = items.iter().map(id_of).collect();
    match log.admit(stream, &ids, expected, None, has_id)? {
        Admission::Retry(stored) => Ok(stored),
        Admission::Fresh { .. } => {
            let number = log.stream(stream);
            let mut stored = Stored { version: 0, position: 0 };
            for (item, id) in items.iter().zip(ids) {
                let kind = log.kind(if item % 2 == 0 { "even" } else { "odd" });
                stored = log.push(number, *item, id, item % 5 != 0, kind);
                log.tag(stored.position, &[format!("t{}", item % 3)]);
            }
            Ok(stored)
        }
    }
}

fn read(log: &Log<u32>, stream: &str) -> Vec<u32> {
    part(log, stream, 1, None)
}

fn part(log: &Log<u32>, stream: &str, from: u64, to: Option<u64>) -> Vec<u32> {
    let mut found = Vec::new();
    log.read(stream, from, to, usize::MAX, |item| found.push(*item));
    assert_eq!(found.len(), log.count(stream, from, to));
    found
}

fn query(kinds: Option<&[&str]>, tags: &[&str]) -> Vec<ItemNames> {
    let own = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    vec![ItemNames { kinds: kinds.map(own), tags: own(tags) }]
}

fn select(log: &Log<u32>, selection: &Selection) -> Vec<u32> {
    let mut found = Vec::new();
    log.select(selection, |_, _, item| {
        found.push(*item);
        true
    });
    found
}

#[test]
fn versions_count_per_stream_and_positions_globally() {
    let mut log = Log::default();
    assert_eq!(append(&mut log, "a", &[1, 2], Some(0)), Ok(Stored { version: 2, position: 2 }));
    assert_eq!(append(&mut log, "b", &[3], Some(0)), Ok(Stored { version: 1, position: 3 }));
    assert_eq!(append(&mut log, "a", &[4], Some(2)), Ok(Stored { version: 3, position: 4 }));
    assert_eq!(append(&mut log, "a", &[5], Some(2)), Err(Refusal::Version { actual: 3 }));
    assert_eq!((read(&log, "a"), log.bounds("a"), log.bounds("c")), (vec![1, 2, 4], (1, 3), (0, 0)));
}

#[test]
fn extend_stores_what_as_many_pushes_would() {
    let (mut at_once, mut one_by_one) = (Log::default(), Log::default());
    for (first, count) in [(1, 1), (2, 1000), (1002, 2100), (3102, 3)] {
        let items = first..first + count;
        let [(stream, kind), _] = [&mut at_once, &mut one_by_one].map(|log| (log.stream("a"), log.kind("kind")));
        let sources: Vec<u32> = items.clone().collect();
        let last = at_once.extend(stream, kind, &sources, id_of, |item| *item);
        for item in items {
            one_by_one.push(stream, item, id_of(&item), true, kind);
        }
        assert_eq!(last, Stored { version: first + count - 1, position: first + count - 1 });
    }
    assert_eq!(read(&at_once, "a"), read(&one_by_one, "a"));
    let all = Selection { query: Some(query(Some(&["kind"]), &[])), ..Selection::default() };
    assert_eq!(select(&at_once, &all), (1..3105).collect::<Vec<_>>());
    let same = |item: &u32, id: u128| id_of(item) == id;
    assert!((1..3105).all(|item| at_once.find(id_of(&item), same) == Some(item)));
    assert_eq!((at_once.len(), at_once.head()), (one_by_one.len(), one_by_one.head()));
}

#[test]
fn read_bounds_are_inclusive_and_clamped() {
    let mut log = Log::default();
    append(&mut log, "a", &(1..=10).collect::<Vec<_>>(), None).unwrap();
    let mut removed = Vec::new();
    log.compact("a", 3, &mut removed);
    let part = |from, to| part(&log, "a", from, to);
    assert_eq!(removed, [1, 2, 3]);
    assert_eq!(part(1, Some(5)), [4, 5]);
    assert_eq!(part(9, None), [9, 10]);
    assert_eq!(part(11, None), [] as [u32; 0]);
    assert_eq!(part(8, Some(7)), [] as [u32; 0]);
    assert_eq!(part(1, Some(u64::from(u32::MAX))).len(), 7);
}

#[test]
fn removal_keeps_versions_positions_and_the_counter() {
    let mut log = Log::default();
    append(&mut log, "a", &[1, 2, 3], None).unwrap();
    let mut removed = Vec::new();
    log.compact("a", 99, &mut removed);
    assert_eq!((removed.len(), log.bounds("a"), log.len()), (3, (0, 3), 0));
    assert_eq!(append(&mut log, "a", &[4], Some(3)), Ok(Stored { version: 4, position: 4 }));
    assert_eq!((read(&log, "a"), log.bounds("a")), (vec![4], (4, 4)));
}

#[test]
fn a_repeated_batch_is_recognised_and_a_partial_one_refused() {
    let mut log = Log::default();
    append(&mut log, "a", &[1, 2], Some(0)).unwrap();
    append(&mut log, "b", &[0], None).unwrap();
    assert_eq!(append(&mut log, "a", &[1, 2], Some(0)), Ok(Stored { version: 2, position: 2 }));
    assert_eq!(append(&mut log, "a", &[1], Some(7)), Ok(Stored { version: 1, position: 1 }));
    assert_eq!(append(&mut log, "b", &[0], Some(9)), Ok(Stored { version: 1, position: 3 }));
    for (stream, items) in [("a", &[2, 3][..]), ("a", &[2, 1]), ("b", &[1]), ("c", &[1]), ("a", &[3, 1])] {
        assert_eq!(append(&mut log, stream, items, None), Err(Refusal::PartlyStored), "{stream} {items:?}");
    }
    assert_eq!(log.len(), 3);
}

#[test]
fn selection_by_kind_tag_range_and_partition() {
    let mut log = Log::default();
    for item in 0..3000 {
        append(&mut log, &format!("s{}", item % 50), &[item], None).unwrap();
    }
    let by = |query, after| Selection { after, query: Some(query), ..Selection::default() };
    let expect = |f: fn(u32) -> bool| (0..3000).filter(|n| f(*n)).collect::<Vec<u32>>();
    assert_eq!(select(&log, &by(query(Some(&["even"]), &[]), 0)), expect(|n| n % 2 == 0));
    assert_eq!(select(&log, &by(query(Some(&["even", "none"]), &["t1"]), 0)), expect(|n| n % 6 == 4));
    assert_eq!(select(&log, &by(query(None, &["t1", "t2"]), 0)), [] as [u32; 0]);
    assert_eq!(select(&log, &by(query(Some(&["none"]), &[]), 0)), [] as [u32; 0]);
    assert_eq!(select(&log, &by(query(None, &[]), 2990)).len(), 10);
    let either = [query(Some(&["even"]), &["t0"]), query(None, &["t0"])].concat();
    assert_eq!(select(&log, &by(either, 0)), expect(|n| n % 3 == 0));
    let part = |index| Selection { partition: Some((index, 3)), up_to: Some(2500), ..Selection::default() };
    let mut all: Vec<u32> = (0..3).flat_map(|index| select(&log, &part(index))).collect();
    all.sort_unstable();
    assert_eq!(all, (0..2500).collect::<Vec<_>>());
}

#[test]
fn a_condition_sees_only_what_came_after() {
    let mut log = Log::default();
    append(&mut log, "a", &[1, 2], None).unwrap();
    let condition = |kinds: &[&str], after| Condition { query: query(Some(kinds), &[]), after };
    let admit = |condition: Condition| log.admit("b", &[9999], None, Some(&condition), has_id);
    assert_eq!(admit(condition(&["odd"], 1)), Ok(Admission::Fresh { version: 0 }));
    assert_eq!(admit(condition(&["even"], 1)), Err(Refusal::Condition { position: 2 }));
    assert_eq!(admit(condition(&["odd"], 0)), Err(Refusal::Condition { position: 1 }));
    assert_eq!(admit(condition(&["other"], 0)), Ok(Admission::Fresh { version: 0 }));
}

#[test]
fn eviction_returns_chunks_and_index_entries() {
    let mut log = Log::default();
    let mut removed = Vec::new();
    for item in 0..20_000 {
        append(&mut log, "a", &[item], None).unwrap();
        let stream = log.stream("a");
        let surplus = log.stream_len(stream).saturating_sub(10);
        log.remove_oldest(stream, surplus, &mut removed);
    }
    assert_eq!((removed.len(), log.len(), log.head()), (19_990, 10, 20_000));
    assert_eq!(log.bounds("a"), (19_991, 20_000));
    assert!(log.chunks.iter().flatten().count() <= 2);
    assert!(log.kinds.lists.iter().map(PositionIndex::len).sum::<usize>() < 3000);
    assert_eq!(select(&log, &Selection::default()), (19_990..20_000).collect::<Vec<_>>());
    assert_eq!(select(&log, &Selection { after: 19_995, ..Selection::default() }).len(), 5);
}
