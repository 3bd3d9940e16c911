//! Reading ahead for scans of small pages.
//!
//! `SCAN` asks for ten keys at a time, and the beginning of an ordered walk, over every memtable and file, costs as
//! much as dozens of keys. So a walk goes on past a small page, and the rest is kept for the pages that follow, as long as
//! nothing is written: a page never lacks what was committed before it was asked for.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::key::KeyRef;
use crate::record::Record;
use crate::scan::{Range, ScanPage};

/// How many keys a walk passes at least.
pub(crate) const KEYS: usize = 1_000;
/// At how many bytes it ends.
pub(crate) const BYTES: usize = 1 << 20;
/// A page with more than this in it (a huge value) is not kept.
const KEPT_BYTES_MAX: usize = 2 * BYTES;
/// How many scans may be under way without driving each other out.
const PAGES_KEPT: usize = 4;

/// The last pages that were read ahead.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    range: Range,
    /// How many writes there had been, all of them done, when the walk began.
    writes: u64,
    page: ScanPage,
}

impl Ahead {
    /// The page that `range` asks for, if it was read ahead and there have been `writes` writes until now.
    pub(crate) fn page(
        &self,
        range: Range,
        keys_max: usize,
        bytes_max: usize,
        writes: u64,
    ) -> Option<ScanPage> {
        let mut kept = self.0.lock();
        kept.retain(|kept| kept.writes == writes);
        let ahead = kept.iter().find(|kept| kept.covers(range))?;
        Some(cut(&ahead.page, range.from, keys_max, bytes_max))
    }

    /// Keeps `page`, what a walk over `range` gave that began after `writes` writes.
    pub(crate) fn keep(&self, range: Range, writes: u64, page: ScanPage) {
        let bytes: usize = page.entries.iter().map(bytes_of).sum();
        if bytes > KEPT_BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock();
        kept.truncate(PAGES_KEPT - 1);
        kept.push_front(Kept { range, writes, page });
    }
}

impl Kept {
    /// Whether the page holds what `range` begins with.
    fn covers(&self, range: Range) -> bool {
        let end = self.page.next.unwrap_or(self.range.end);
        range.db == self.range.db
            && range.with_values == self.range.with_values
            && range.end == self.range.end
            && (self.range.from..end).contains(&range.from)
    }
}

/// The part of `page` from prefix `from` on, to the end of the prefix in which a bound is reached.
pub(crate) fn cut(page: &ScanPage, from: u64, keys_max: usize, bytes_max: usize) -> ScanPage {
    let start = page.entries.partition_point(|entry| prefix_of(entry) < from);
    let mut cut = ScanPage { entries: Vec::new(), next: page.next };
    let mut bytes = 0;
    let mut last = None;
    for entry in page.entries.iter().skip(start) {
        let prefix = prefix_of(entry);
        if (cut.entries.len() >= keys_max || bytes >= bytes_max) && last.is_some_and(|last| last != prefix) {
            cut.next = Some(prefix);
            break;
        }
        last = Some(prefix);
        bytes += bytes_of(entry);
        cut.entries.push(entry.clone());
    }
    cut
}

fn prefix_of((db, key, _): &(u8, Vec<u8>, Record)) -> u64 {
    u64::from(KeyRef::new(*db, key).prefix())
}

fn bytes_of((_, key, record): &(u8, Vec<u8>, Record)) -> usize {
    key.len() + record.encoded().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::PREFIX_END;
    use crate::version::{Hlc, Version};

    const RANGE: Range = Range { db: None, from: 0, end: PREFIX_END, with_values: true };

    fn page_of(keys: u64) -> ScanPage {
        let record = Record::of_register(Version { hlc: Hlc(1), node: 1 }, None, Some(b"v"));
        let mut entries: Vec<_> =
            (0..keys).map(|number| (0, number.to_string().into_bytes(), record.clone())).collect();
        entries.sort_by_key(prefix_of);
        ScanPage { entries, next: None }
    }

    #[test]
    fn pages_cut_one_after_the_other_make_the_whole() {
        let whole = page_of(100);
        let (mut from, mut entries, mut pages) = (Some(0), Vec::new(), 0);
        while let Some(at) = from {
            let page = cut(&whole, at, 7, 1_000);
            assert!(page.entries.len() >= 7 || page.next.is_none());
            entries.extend(page.entries);
            from = page.next;
            pages += 1;
        }
        assert_eq!(entries, whole.entries);
        assert_eq!(pages, 15);
        assert_eq!(cut(&whole, 0, 1_000, 1).entries.len(), 1);
    }

    #[test]
    fn prefix_is_never_cut_through() {
        let mut whole = page_of(1);
        let (_, key, record) = whole.entries[0].clone();
        whole.entries.extend((1..9).map(|db| (db, key.clone(), record.clone())));
        assert_eq!(cut(&whole, 0, 2, 1_000).entries.len(), 9);
    }

    #[test]
    fn page_is_forgotten_after_a_write() {
        let ahead = Ahead::default();
        ahead.keep(RANGE, 5, page_of(10));
        assert!(ahead.page(RANGE, 3, 1_000, 5).is_some());
        assert!(ahead.page(Range { db: Some(0), ..RANGE }, 3, 1_000, 5).is_none());
        assert!(ahead.page(Range { with_values: false, ..RANGE }, 3, 1_000, 5).is_none());
        assert!(ahead.page(Range { end: 9, ..RANGE }, 3, 1_000, 5).is_none());
        assert!(ahead.page(RANGE, 3, 1_000, 6).is_none());
        assert!(ahead.page(RANGE, 3, 1_000, 5).is_none());
    }

    #[test]
    fn what_lies_behind_the_page_is_not_answered_from_it() {
        let ahead = Ahead::default();
        let page = ScanPage { next: Some(1 << 20), ..ScanPage::default() };
        ahead.keep(Range { from: 100, ..RANGE }, 1, page);
        let asked = |from| ahead.page(Range { from, ..RANGE }, 3, 1_000, 1);
        assert_eq!(asked(100).map(|page| page.next), Some(Some(1 << 20)));
        assert!(asked(99).is_none());
        assert!(asked(1 << 20).is_none());
    }
}
