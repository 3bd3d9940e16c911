//! What two sides' answers about the same ranges come to: where to look closer, and which keys to send which way.

use std::cmp::Ordering;
use std::mem;

use gyre_storage::tree::{PrefixRange, RangeSum};

use super::work::{KEYS_MAX, KeyEntry, LISTS_MAX, PARTS_MAX, Place, SPLITS_MAX, Split, Want, parts_of};

/// Up to so many keys are listed rather than compared by further sums: a list entry costs as much as three sums.
const LIST_KEYS: u64 = 8;
/// Keys that a part should have after a range is cut, on average.
const PART_KEYS: u64 = 4;
/// Where one side has so many times the keys of the other, sums of parts would all differ.
const LOPSIDED: u64 = 4;
/// Keys of a part of a list that is too long for one step.
const CUT_KEYS: u64 = KEYS_MAX as u64 * 7 / 8;

/// What is to be done with a range that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Compare its parts.
    Split(Split),
    /// Compare its keys, about so many.
    List(PrefixRange, u64),
}

/// What to do with `range`, of which the sides have these sums; `None` if they agree.
pub(super) fn task(range: PrefixRange, mine: RangeSum, theirs: RangeSum) -> Option<Task> {
    if mine == theirs {
        return None;
    }
    let (few, many) = (mine.keys.min(theirs.keys), mine.keys.max(theirs.keys));
    let prefixes = range.end - range.from;
    if many <= LIST_KEYS || few.saturating_mul(LOPSIDED) < many || prefixes == 1 {
        return Some(Task::List(range, many));
    }
    let parts = (many / PART_KEYS).clamp(2, u64::from(PARTS_MAX)).min(prefixes);
    // Bounded by PARTS_MAX.
    Some(Task::Split(Split { range, parts: u8::try_from(parts).unwrap_or(PARTS_MAX) }))
}

/// Tasks of one kind, as many as fit one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Compare the parts of these ranges.
    Split(Vec<Split>),
    /// Compare the keys of these, about so many.
    List(Vec<PrefixRange>, u64),
}

/// `tasks` in batches, neighbours together. A list of more keys than a step takes is cut into parts.
pub(super) fn batches(tasks: impl Iterator<Item = Task>) -> Vec<Batch> {
    let (mut batches, mut splits) = (Vec::new(), Vec::new());
    let (mut lists, mut keys) = (Vec::new(), 0u64);
    for task in tasks.flat_map(in_steps) {
        match task {
            Task::Split(split) => {
                splits.push(split);
                if splits.len() == SPLITS_MAX {
                    batches.push(Batch::Split(mem::take(&mut splits)));
                }
            }
            Task::List(range, some) => {
                if lists.len() == LISTS_MAX
                    || keys.saturating_add(some) > KEYS_MAX as u64 && !lists.is_empty()
                {
                    batches.push(Batch::List(mem::take(&mut lists), mem::take(&mut keys)));
                }
                lists.push(range);
                keys = keys.saturating_add(some);
            }
        }
    }
    batches.extend((!splits.is_empty()).then_some(Batch::Split(splits)));
    batches.extend((!lists.is_empty()).then_some(Batch::List(lists, keys)));
    batches
}

fn in_steps(task: Task) -> Vec<Task> {
    match task {
        Task::List(range, keys) if keys > KEYS_MAX as u64 => {
            // Keys are spread about evenly, so most parts fit. The peer may say that it has keys without end.
            let parts = (keys / CUT_KEYS).min(LISTS_MAX as u64).min(range.end - range.from);
            parts_of(range, parts).map(|part| Task::List(part, keys / parts)).collect()
        }
        task => vec![task],
    }
}

/// Keys that differ: which to fetch from the other side, and which to send to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) pull: Vec<Want>,
    pub(super) push: Vec<Want>,
}

/// Compares what both sides list of `ranges`: lists ascending by hash.
pub(super) fn difference(
    ranges: &[PrefixRange],
    mine: &[Vec<KeyEntry>],
    theirs: &[Vec<KeyEntry>],
) -> Difference {
    let mut difference = Difference::default();
    for ((&range, mine), theirs) in ranges.iter().zip(mine).zip(theirs) {
        let (pull, push) = of_lists(mine, theirs);
        difference.pull.extend((!pull.is_empty()).then_some(Want { range, hashes: pull }));
        difference.push.extend((!push.is_empty()).then_some(Want { range, hashes: push }));
    }
    difference
}

/// Hashes to pull and hashes to push. Where both have rows of a key that differ, the newer ones go over first; whoever
/// takes them in says whether it has more.
fn of_lists(mine: &[KeyEntry], theirs: &[KeyEntry]) -> (Vec<u64>, Vec<u64>) {
    let (mut pull, mut push) = (Vec::new(), Vec::new());
    let (mut mine, mut theirs) = (mine.iter().peekable(), theirs.iter().peekable());
    loop {
        match (mine.peek(), theirs.peek()) {
            (None, None) => return (pull, push),
            (Some(own), other) if other.is_none_or(|other| own.hash < other.hash) => {
                push.push(own.hash);
                mine.next();
            }
            (own, Some(other)) if own.is_none_or(|own| other.hash < own.hash) => {
                pull.push(other.hash);
                theirs.next();
            }
            (own, other) => {
                if let (Some(own), Some(other)) = (own, other)
                    && own.digest != other.digest
                {
                    if own.newest > other.newest { &mut push } else { &mut pull }.push(own.hash);
                }
                mine.next();
                theirs.next();
            }
        }
    }
}

/// The part of `ranges` that a page covers which ends at `next`, and the rest.
pub(super) fn cut(ranges: &[PrefixRange], next: Option<Place>) -> (Vec<PrefixRange>, Vec<PrefixRange>) {
    let Some(next) = next else { return (ranges.to_vec(), Vec::new()) };
    let (mut covered, mut rest) = (Vec::new(), Vec::new());
    for (index, &range) in (0u16..).zip(ranges) {
        let border = match index.cmp(&next.index) {
            Ordering::Less => range.end,
            Ordering::Equal => next.prefix.clamp(range.from, range.end),
            Ordering::Greater => range.from,
        };
        covered.extend((range.from < border).then_some(PrefixRange { from: range.from, end: border }));
        rest.extend((border < range.end).then_some(PrefixRange { from: border, end: range.end }));
    }
    (covered, rest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gyre_storage::{Hlc, Version};
    use proptest::prelude::*;

    use super::*;

    const RANGE: PrefixRange = PrefixRange { from: 100, end: 1_100 };

    fn sum(sum: u64, keys: u64) -> RangeSum {
        RangeSum { sum, keys }
    }

    fn list(keys: &BTreeMap<u64, u64>) -> Vec<KeyEntry> {
        let newest = |clock: &u64| Version { hlc: Hlc(*clock), node: 1 };
        keys.iter().map(|(&hash, clock)| KeyEntry { hash, digest: *clock, newest: newest(clock) }).collect()
    }

    proptest! {
        #[test]
        fn every_key_that_differs_goes_one_way_and_no_other(
            mine in prop::collection::btree_map(0u64..40, 1u64..4, 0..30),
            theirs in prop::collection::btree_map(0u64..40, 1u64..4, 0..30),
        ) {
            let (pull, push) = of_lists(&list(&mine), &list(&theirs));
            for hash in 0..40 {
                let (own, other) = (mine.get(&hash).copied().unwrap_or(0), theirs.get(&hash).copied().unwrap_or(0));
                prop_assert_eq!(push.contains(&hash), own > other);
                prop_assert_eq!(pull.contains(&hash), own < other);
            }
            prop_assert!(pull.is_sorted_by(|a, b| a < b) && push.is_sorted_by(|a, b| a < b));
        }

        #[test]
        fn a_cut_loses_nothing(
            borders in prop::collection::btree_set(0u64..1_000, 2..12),
            index in 0u16..8,
            prefix in 0u64..1_100,
        ) {
            let borders: Vec<u64> = borders.into_iter().collect();
            let ranges: Vec<PrefixRange> =
                borders.chunks_exact(2).map(|pair| PrefixRange { from: pair[0], end: pair[1] }).collect();
            let (covered, rest) = cut(&ranges, Some(Place { index, prefix }));
            let prefixes = |ranges: &[PrefixRange]| -> Vec<u64> { ranges.iter().flat_map(|r| r.from..r.end).collect() };
            prop_assert_eq!([prefixes(&covered), prefixes(&rest)].concat(), prefixes(&ranges));
        }
    }

    #[test]
    fn equal_sums_are_looked_at_no_closer_and_others_in_as_many_parts_as_there_are_keys_for() {
        assert_eq!(task(RANGE, sum(7, 9), sum(7, 9)), None);
        let parts = |keys| match task(RANGE, sum(1, keys), sum(2, keys)) {
            Some(Task::Split(split)) => split.parts,
            _ => 0,
        };
        assert_eq!([1, 8, 9, 40, 64, 1_000_000].map(parts), [0, 0, 2, 10, 16, 16]);
    }

    #[test]
    fn what_one_side_lacks_almost_wholly_is_listed_at_once() {
        assert_eq!(task(RANGE, sum(0, 0), sum(2, 50_000)), Some(Task::List(RANGE, 50_000)));
        assert_eq!(task(RANGE, sum(5, 100), sum(2, 20)), Some(Task::List(RANGE, 100)));
        let one = PrefixRange { from: 3, end: 4 };
        assert_eq!(task(one, sum(5, 100), sum(2, 100)), Some(Task::List(one, 100)), "cannot be cut");
    }

    fn tasks() -> impl Strategy<Value = Vec<Task>> {
        let keys = prop_oneof![0u64..20, 100u64..2_000, Just(u64::MAX)];
        let task = (any::<bool>(), 1u64..500, keys);
        prop::collection::vec(task, 0..400).prop_map(|tasks| {
            let mut from = 0;
            let task = |(is_list, length, keys): (bool, u64, u64)| {
                let range = PrefixRange { from, end: from + length };
                from = range.end;
                if is_list { Task::List(range, keys) } else { Task::Split(Split { range, parts: 2 }) }
            };
            tasks.into_iter().map(task).collect()
        })
    }

    proptest! {
        #[test]
        fn batches_lose_nothing_and_fit_a_step(tasks in tasks()) {
            let (mut splits, mut lists) = (Vec::new(), Vec::new());
            for batch in batches(tasks.iter().copied()) {
                match batch {
                    Batch::Split(some) => {
                        prop_assert!((1..=SPLITS_MAX).contains(&some.len()));
                        splits.extend(some.into_iter().map(Task::Split));
                    }
                    Batch::List(ranges, keys) => {
                        prop_assert!((1..=LISTS_MAX).contains(&ranges.len()));
                        prop_assert!(keys <= KEYS_MAX as u64 || ranges.len() == 1, "{keys} keys of {ranges:?}");
                        lists.extend(ranges.iter().flat_map(|range| range.from..range.end));
                    }
                }
            }
            let (all_lists, all_splits): (Vec<Task>, Vec<Task>) =
                tasks.into_iter().partition(|task| matches!(task, Task::List(..)));
            prop_assert_eq!(splits, all_splits);
            let prefixes = |task: &Task| match task {
                Task::List(range, _) => range.from..range.end,
                Task::Split(_) => 0..0,
            };
            prop_assert_eq!(lists, all_lists.iter().flat_map(prefixes).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_long_list_is_cut_into_parts_that_fit() {
        let of = |keys| batches([Task::List(RANGE, keys)].into_iter());
        assert_eq!(of(512), [Batch::List(vec![RANGE], 512)]);
        let batches = of(10_000);
        assert_eq!(batches.len(), 22);
        assert!(batches.iter().all(|batch| matches!(batch, Batch::List(_, 454))), "{batches:?}");
    }

    #[test]
    fn parts_cover_their_range() {
        for (from, end, parts) in [(0, 1 << 32, 16), (5, 12, 7), (5, 13, 3)] {
            let split = Split { range: PrefixRange { from, end }, parts };
            let borders: Vec<u64> = split.iter().flat_map(|part| [part.from, part.end]).collect();
            assert_eq!((borders.first(), borders.last()), (Some(&from), Some(&end)));
            assert!(borders.chunks(2).all(|pair| pair[0] < pair[1]));
            assert!(borders[1..].chunks_exact(2).all(|pair| pair[0] == pair[1]));
        }
    }
}
