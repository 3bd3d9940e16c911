//! Scans over the keys of the whole cluster, range by range of one replica set, and counts of them.

use std::collections::BTreeMap;

use gyre_storage::{KeyRef, Record, SLOTS, Slot};

use super::context::{Context, Event, Step};
use super::replicas::Replicas;
use super::shell::{PeerAnswer, Shell, Ticket};
use crate::level::Consistency;
use crate::message::{Message, ScanRange};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::ring::Ring;

/// The first position prefix past the ring.
pub const PREFIX_END: u64 = 1 << 32;
/// A position prefix is the slot and this many bits of hash.
const SLOT_SHIFT: u32 = 18;
/// A scan answers after this many pages, however few keys it has found.
const PAGES_MAX: usize = 64;
/// About how many bytes of keys and records a replica may send for one page.
const PAGE_BYTES_MAX: u32 = 4 << 20;
/// How many keys a replica looks at for one page of a count.
const COUNT_KEYS_MAX: u32 = 200_000;

/// A page of keys with their records, and the position prefix where the next page begins.
pub type ScannedPage = (Vec<(Vec<u8>, Record)>, Option<u64>);

/// Keys with their newest record.
type Entries = Vec<(Vec<u8>, Record)>;

/// What is known of one replica's page.
#[derive(Debug)]
enum Page {
    Idle,
    Asked,
    Read { entries: Entries, next: Option<u64> },
    Failed,
}

/// What the scan is for.
#[derive(Debug)]
enum Goal {
    /// Keys: at least about this many, if there are.
    Keys { keys_max: usize, entries: Entries },
    /// How many keys there are.
    Count { keys: u64 },
}

/// A scan in progress: one page at a time.
#[derive(Debug)]
pub(crate) struct ScanOp {
    goal: Goal,
    level: Consistency,
    db: u8,
    from: u64,
    end: u64,
    round: u8,
    pages_done: usize,
    replicas: Replicas,
    needed: usize,
    range: ScanRange,
    pages: Vec<Page>,
}

impl ScanOp {
    /// A scan for about `keys_max` keys.
    pub(crate) fn keys(db: u8, from: u64, end: u64, keys_max: usize, level: Consistency) -> ScanOp {
        ScanOp::new(Goal::Keys { keys_max: keys_max.max(1), entries: Vec::new() }, db, from, end, level)
    }

    /// A count of all keys, asking one replica of each range.
    pub(crate) fn count(db: u8) -> ScanOp {
        ScanOp::new(Goal::Count { keys: 0 }, db, 0, PREFIX_END, Consistency::One)
    }

    fn new(goal: Goal, db: u8, from: u64, end: u64, level: Consistency) -> ScanOp {
        let end = end.min(PREFIX_END);
        let range = ScanRange { db, from, end, keys_max: 0, bytes_max: PAGE_BYTES_MAX };
        ScanOp {
            goal,
            level,
            db,
            from,
            end,
            round: 0,
            pages_done: 0,
            replicas: Replicas::of(&[]),
            needed: 0,
            range,
            pages: Vec::new(),
        }
    }

    /// Begins the next page, or ends. Every page has its own deadline.
    pub(crate) fn next_page<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        if let Some(outcome) = self.end() {
            return Step::Finish(outcome);
        }
        let slot = Slot::try_from(self.from >> SLOT_SHIFT).unwrap_or(SLOTS - 1);
        self.replicas = cx.env.replicas_of(slot);
        self.needed = self.level.needed(self.replicas.len());
        if let Some(failure) = cx.env.unavailable(&self.replicas, self.needed) {
            return Step::fail(failure);
        }
        let keys_max = match &self.goal {
            Goal::Keys { keys_max, entries } => u32::try_from(keys_max - entries.len()).unwrap_or(u32::MAX),
            Goal::Count { .. } => COUNT_KEYS_MAX,
        };
        let end = range_end(&cx.env.ring, slot).min(self.end);
        self.range = ScanRange { db: self.db, from: self.from, end, keys_max, bytes_max: PAGE_BYTES_MAX };
        self.round = self.round.wrapping_add(1);
        self.pages = self.replicas.iter().map(|_| Page::Idle).collect();
        // This node first, if it is a replica: no message.
        if let Some(here) = self.replicas.index_of(cx.env.config.node) {
            self.ask(cx, here);
        }
        self.ask_enough(cx)
    }

    fn end(&mut self) -> Option<Outcome> {
        let is_over = self.from >= self.end;
        match &mut self.goal {
            Goal::Count { keys } => is_over.then_some(Outcome::Counted(*keys)),
            Goal::Keys { keys_max, entries } => {
                let is_full = entries.len() >= *keys_max || self.pages_done >= PAGES_MAX;
                let next = (!is_over).then_some(self.from);
                (is_over || is_full).then(|| Outcome::Scanned { entries: std::mem::take(entries), next })
            }
        }
    }

    pub(crate) fn on_event<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: Event,
    ) -> Step {
        let Some(index) = self.replicas.index_of(node) else { return Step::Pending };
        let is_asked = matches!(self.pages.get(index), Some(Page::Asked));
        if !is_asked || (round != self.round && !matches!(event, Event::Lost)) {
            return Step::Pending;
        }
        let page = match event {
            Event::Scanned { entries, next } if self.is_ahead(next) => Page::Read { entries, next },
            Event::Counted { keys, next } if self.is_ahead(next) => {
                if let Goal::Count { keys: total } = &mut self.goal {
                    *total = total.saturating_add(keys);
                }
                Page::Read { entries: Vec::new(), next }
            }
            _ => Page::Failed,
        };
        self.set(index, page);
        self.ask_enough(cx)
    }

    /// A page must end past its beginning, or a scan would never end.
    fn is_ahead(&self, next: Option<u64>) -> bool {
        next.is_none_or(|next| next > self.range.from)
    }

    /// Asks replicas until as many as are needed have answered or may still; with enough answers, ends the page.
    fn ask_enough<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        let count = |pages: &[Page], is: fn(&Page) -> bool| pages.iter().filter(|page| is(page)).count();
        for (index, _) in self.replicas.iter() {
            let expected = count(&self.pages, |page| matches!(page, Page::Asked | Page::Read { .. }));
            if expected < self.needed && matches!(self.pages.get(index), Some(Page::Idle)) {
                self.ask(cx, index);
            }
        }
        let done = count(&self.pages, |page| matches!(page, Page::Read { .. }));
        if done >= self.needed {
            self.end_page();
            return self.next_page(cx);
        }
        if done + count(&self.pages, |page| matches!(page, Page::Asked)) < self.needed {
            return Step::time_out(self.needed, done);
        }
        Step::Pending
    }

    fn ask<S: Shell>(&mut self, cx: &mut Context<'_, S>, index: usize) {
        let Some((_, node)) = self.replicas.iter().find(|&(at, _)| at == index) else { return };
        let (request, range) = (cx.op.request(self.round), self.range);
        let is_count = matches!(self.goal, Goal::Count { .. });
        let sent = match (cx.is_self(node), is_count) {
            (true, false) => {
                cx.shell.scan(Ticket::Op(request), &range);
                true
            }
            (true, true) => {
                cx.shell.count(Ticket::Op(request), &range);
                true
            }
            (false, false) => cx.send(node, &Message::Scan { request, range }),
            (false, true) => cx.send(node, &Message::Count { request, range }),
        };
        self.set(index, if sent { Page::Asked } else { Page::Failed });
    }

    /// Merges the pages read, up to where the shortest ends, and goes on from there.
    fn end_page(&mut self) {
        let pages: Vec<(Entries, Option<u64>)> = self
            .pages
            .drain(..)
            .filter_map(
                |page| if let Page::Read { entries, next } = page { Some((entries, next)) } else { None },
            )
            .collect();
        let ends = pages.iter().filter_map(|(_, next)| *next);
        let cut = ends.fold(self.range.end, u64::min);
        let mut merged: BTreeMap<(u32, Vec<u8>), Record> = BTreeMap::new();
        for (key, record) in pages.into_iter().flat_map(|(entries, _)| entries) {
            let prefix = KeyRef::new(self.db, &key).prefix();
            if !(self.range.from..cut).contains(&u64::from(prefix)) {
                continue;
            }
            merged
                .entry((prefix, key))
                .and_modify(|newest| *newest = newest.merge(&record))
                .or_insert(record);
        }
        if let Goal::Keys { entries, .. } = &mut self.goal {
            entries.extend(merged.into_iter().map(|((_, key), record)| (key, record)));
        }
        self.from = cut;
        self.pages_done += 1;
    }

    /// How many pages are done: when it has changed, the scan has a new deadline.
    pub(crate) fn pages_done(&self) -> usize {
        self.pages_done
    }

    pub(crate) fn give_up(&self) -> Step {
        let acked = self.pages.iter().filter(|page| matches!(page, Page::Read { .. })).count();
        Step::fail(Failure::Timeout { needed: self.needed, acked })
    }

    fn set(&mut self, index: usize, page: Page) {
        if let Some(slot) = self.pages.get_mut(index) {
            *slot = page;
        }
    }
}

/// The first position prefix past the run of slots, from `slot` on, that have the same replicas in whatever order.
fn range_end(ring: &Ring, slot: Slot) -> u64 {
    let replicas = ring.replicas(slot);
    let is_same = |other: &Slot| ring.replicas(*other).iter().all(|node| replicas.contains(node));
    let end = (slot + 1..SLOTS).find(|other| !is_same(other)).unwrap_or(SLOTS);
    u64::from(end) << SLOT_SHIFT
}

/// Reads a page for a peer.
pub(crate) fn serve<S: Shell>(
    shell: &mut S,
    link: super::LinkId,
    request: crate::message::RequestId,
    range: &ScanRange,
    answer: PeerAnswer,
) {
    let bounded = ScanRange {
        end: range.end.min(PREFIX_END),
        keys_max: range.keys_max.clamp(1, COUNT_KEYS_MAX),
        bytes_max: range.bytes_max.clamp(1, PAGE_BYTES_MAX),
        ..*range
    };
    let ticket = Ticket::Peer { link, request, answer };
    match answer {
        PeerAnswer::Counted => shell.count(ticket, &bounded),
        _ => shell.scan(ticket, &bounded),
    }
}
