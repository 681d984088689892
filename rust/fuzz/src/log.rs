//! The log against a list: appends, retries, conflicts, compaction, eviction, and every selection.
use crate::core::log::{Admission, Condition, Log, Refusal};
use crate::core::partition::partition_hash;
use crate::core::select::{ItemNames, Selection};

const STREAMS: [&str; 3] = ["a", "b", "c"];
const KINDS: [&str; 3] = ["K", "L", "M"];
const TAGS: [&str; 3] = ["t", "u", "v"];

struct Row {
    stream: usize,
    version: u32,
    kind: usize,
    tags: Vec<&'static str>,
    id: u128,
    live: bool,
}

#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    versions: [u32; 3],
}

impl Model {
    fn find(&self, id: u128) -> Option<usize> {
        self.rows.iter().position(|row| row.live && row.id == id)
    }

    fn selected(&self, selection: &Selection) -> Vec<u128> {
        let up_to = selection.up_to.unwrap_or(u32::MAX);
        let wanted = |row: &Row| {
            let query = selection.query.as_ref().is_none_or(|items| {
                items.iter().any(|item| {
                    item.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind == KINDS[row.kind]))
                        && item.tags.iter().all(|tag| row.tags.contains(&tag.as_str()))
                })
            });
            let partition = selection
                .partition
                .is_none_or(|(index, total)| u64::from(partition_hash(STREAMS[row.stream])) % total == index);
            row.live && query && partition
        };
        let numbered = self.rows.iter().zip(1_u32..);
        numbered
            .filter(|(row, at)| *at > selection.after && *at <= up_to && wanted(row))
            .map(|(row, _)| row.id)
            .collect()
    }
}

pub fn check(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let (mut log, mut model): (Log<u128>, Model) = (Log::default(), Model::default());
    for _ in 0..300 {
        let Some(operation) = bytes.next() else { break };
        let stream = usize::from(bytes.next().unwrap_or(0)) % 3;
        match operation % 8 {
            0..=3 => append(&mut log, &mut model, stream, &mut bytes),
            4 => remove(&mut log, &mut model, stream, u64::from(bytes.next().unwrap_or(0)), true),
            5 => remove(&mut log, &mut model, stream, u64::from(bytes.next().unwrap_or(0)), false),
            _ => select(&log, &model, &mut bytes),
        }
        compare(&log, &model, stream);
    }
}

fn item(byte: u8) -> ItemNames {
    let some = |names: [&str; 3], bits: u8| {
        names.into_iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, name)| name.to_owned()).collect()
    };
    ItemNames { kinds: (byte & 0x40 == 0).then(|| some(KINDS, byte)), tags: some(TAGS, byte >> 3) }
}

fn append(log: &mut Log<u128>, model: &mut Model, stream: usize, bytes: &mut impl Iterator<Item = u8>) {
    let count = usize::from(bytes.next().unwrap_or(0)) % 4;
    let ids: Vec<u128> = (0..count).map(|_| u128::from(bytes.next().unwrap_or(0)) << 64 | 7).collect();
    if (1..ids.len()).any(|n| ids[..n].contains(&ids[n])) {
        return; // refused before it comes here
    }
    let flags = bytes.next().unwrap_or(0);
    let expected = (flags & 1 == 1).then(|| u64::from(flags >> 4));
    let condition = (flags & 2 == 2).then(|| Condition { query: vec![item(flags)], after: u32::from(flags >> 3) });
    let admitted = log.admit(STREAMS[stream], &ids, expected, condition.as_ref(), |item, id| *item == id);
    let found: Vec<Option<usize>> = ids.iter().map(|id| model.find(*id)).collect();
    if found.iter().any(Option::is_some) {
        let in_order = found.iter().enumerate().all(|(n, at)| {
            at.is_some_and(|at| {
                let (row, first) = (&model.rows[at], &model.rows[found[0].unwrap_or(0)]);
                row.stream == stream && row.version == first.version + n as u32
            })
        });
        match admitted {
            Ok(Admission::Retry(stored)) => {
                assert!(in_order);
                assert_eq!(stored.position as usize, found[count - 1].expect("all are stored") + 1);
            }
            Err(Refusal::PartlyStored) => assert!(!in_order),
            other => panic!("{other:?}"),
        }
        return;
    }
    let version = model.versions[stream];
    if expected.is_some_and(|expected| expected != u64::from(version)) {
        assert_eq!(admitted, Err(Refusal::Version { actual: version }));
        return;
    }
    let blocks = condition.is_some_and(|condition| {
        let selection = Selection { after: condition.after, query: Some(condition.query), ..Selection::default() };
        !model.selected(&selection).is_empty()
    });
    if blocks {
        assert!(matches!(admitted, Err(Refusal::Condition { .. })));
        return;
    }
    assert_eq!(admitted, Ok(Admission::Fresh { version }));
    let number = log.stream(STREAMS[stream]);
    for id in ids {
        let kind = (id >> 64) as usize % 3;
        let tags: Vec<&str> =
            TAGS.into_iter().enumerate().filter(|(n, _)| flags >> (n + 2) & 1 == 1).map(|t| t.1).collect();
        let kind_number = log.kind(KINDS[kind]);
        let stored = log.push(number, id, id, true, kind_number);
        log.tag(stored.position, &tags);
        model.versions[stream] += 1;
        assert_eq!((stored.version, stored.position as usize), (model.versions[stream], model.rows.len() + 1));
        model.rows.push(Row { stream, version: stored.version, kind, tags, id, live: true });
    }
}

fn remove(log: &mut Log<u128>, model: &mut Model, stream: usize, number: u64, by_version: bool) {
    let mut removed = Vec::new();
    let oldest: Vec<usize> =
        (0..model.rows.len()).filter(|at| model.rows[*at].live && model.rows[*at].stream == stream).collect();
    let gone: Vec<usize> = if by_version {
        log.compact(STREAMS[stream], number, &mut removed);
        oldest.into_iter().filter(|at| u64::from(model.rows[*at].version) <= number).collect()
    } else {
        let known = log.stream(STREAMS[stream]);
        log.remove_oldest(known, number as usize, &mut removed);
        oldest.into_iter().take(number as usize).collect()
    };
    assert_eq!(removed, gone.iter().map(|at| model.rows[*at].id).collect::<Vec<_>>());
    gone.into_iter().for_each(|at| model.rows[at].live = false);
}

fn select(log: &Log<u128>, model: &Model, bytes: &mut impl Iterator<Item = u8>) {
    let mut next = || bytes.next().unwrap_or(0);
    let flags = next();
    let selection = Selection {
        after: u32::from(next()),
        up_to: (flags & 1 == 1).then(|| u32::from(next())),
        query: (flags & 2 == 2).then(|| (0..flags >> 6).map(|_| item(next())).collect()),
        partition: (flags & 4 == 4).then(|| (u64::from(flags >> 3 & 1), 2)),
    };
    let mut found = Vec::new();
    log.select(&selection, |_, _, id| {
        found.push(*id);
        true
    });
    assert_eq!(found, model.selected(&selection), "{selection:?}");
}

fn compare(log: &Log<u128>, model: &Model, stream: usize) {
    assert_eq!(log.len(), model.rows.iter().filter(|row| row.live).count());
    let live: Vec<u128> = model.rows.iter().filter(|row| row.live && row.stream == stream).map(|row| row.id).collect();
    let from = u64::from(model.versions[stream]).saturating_sub(5);
    let mut tail: Vec<u128> = Vec::new();
    log.read(STREAMS[stream], from, None, usize::MAX, |id| tail.push(*id));
    assert!(live.ends_with(&tail));
    assert_eq!(log.count(STREAMS[stream], 0, Some(u64::MAX)), live.len());
    assert_eq!(log.bounds(STREAMS[stream]).1, model.versions[stream]);
    assert_eq!(log.head() as usize, model.rows.len());
}
