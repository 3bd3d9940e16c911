//! Keys that are to be sent one way, in steps of bounded size.

use std::collections::{BTreeSet, VecDeque};

use gyre_storage::tree::PrefixRange;

use super::compare::cut;
use super::work::{Entry, Place, RECORDS_MAX, Want};

/// Keys to send one way. Those of the second round go because the receiver of their newer rows had others; nobody asks
/// for a third.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    wants: VecDeque<(Want, bool)>,
}

impl Transfers {
    /// Adds keys of the first round.
    pub(super) fn add(&mut self, wants: impl IntoIterator<Item = Want>) {
        self.wants.extend(wants.into_iter().map(|want| (want, false)));
    }

    /// Adds keys of the second round.
    pub(super) fn add_last(&mut self, wants: impl IntoIterator<Item = Want>) {
        self.wants.extend(wants.into_iter().map(|want| (want, true)));
    }

    /// Puts keys back that a step had no room for.
    pub(super) fn put_back(&mut self, wants: Vec<Want>, is_last: bool) {
        wants.into_iter().rev().for_each(|want| self.wants.push_front((want, is_last)));
    }

    /// The keys of the next step, all of one round; and whether that is the second.
    pub(super) fn take(&mut self) -> Option<(Vec<Want>, bool)> {
        let &(_, is_last) = self.wants.front()?;
        let (mut taken, mut room) = (Vec::new(), RECORDS_MAX);
        while let Some((mut want, _)) = self.wants.pop_front_if(|(_, last)| *last == is_last && room > 0) {
            if want.hashes.len() > room {
                let rest = Want { range: want.range, hashes: want.hashes.split_off(room) };
                self.wants.push_front((rest, is_last));
            }
            room -= want.hashes.len();
            taken.push(want);
        }
        Some((taken, is_last))
    }
}

/// What is left of `wants` after a page that ends at `next` has brought `entries`.
pub(super) fn rest_of(wants: &[Want], next: Option<Place>, entries: &[Entry]) -> Vec<Want> {
    if next.is_none() {
        return Vec::new();
    }
    let found: BTreeSet<u64> = entries.iter().map(|entry| entry.key().hash64()).collect();
    let (_, ranges) = cut(&wants.iter().map(|want| want.range).collect::<Vec<PrefixRange>>(), next);
    // Ranges may not overlap, but several keys of one range may be wanted one after the other.
    let rest = wants.iter().flat_map(|want| {
        let left: Vec<u64> = want.hashes.iter().copied().filter(|hash| !found.contains(hash)).collect();
        let is_within = |range: &&PrefixRange| want.range.from <= range.from && range.end == want.range.end;
        let range = ranges.iter().find(is_within).copied();
        range.filter(|_| !left.is_empty()).map(|range| Want { range, hashes: left })
    });
    rest.collect()
}
