//! One exchange as its driver sees it: two nodes compare the slots they share and send each other what differs.
//!
//! The slots are taken in *portions*. Of a portion both sides tell the sums of ranges; what differs is cut and compared
//! again, depth first, down to ranges of a few keys, whose keys are listed; keys that differ are sent, the newer rows
//! first, one step of bounded size after the other. The steps of a level come in an order picked at random: another
//! exchange of one of the two nodes may have come to the same portion, and if both went through it alike, the node that
//! lacks something would get it from both. No range is compared again once its keys are sent and no key is sent
//! more than once each way, so rows that are written meanwhile cannot keep a portion from ending: it ends when what was
//! there at its beginning is on both sides. Then the slots count as verified as of that time, whatever becomes of the
//! next portion.

use gyre_storage::tree::{PrefixRange, RangeSum};
use gyre_storage::{Hlc, Slot};

use super::compare::{Batch, Task, batches, cut, difference, task};
use super::message::Refusal;
use super::pace::Pace;
use super::slots::{SlotRun, SlotSet};
use super::transfer::{Transfers, rest_of};
use super::turns::{BLOCK_SLOTS, Turns};
use super::work::{Answer, Entry, KEYS_MAX, KeyEntry, Split, Want, Work, keys_of, rows_of};
use crate::random::Random;
use crate::time::MonoMicros;

/// Slots of the first portion; any is of one block.
const PORTION_SLOTS_FIRST: usize = 256;
/// Keys of a portion, about: what both sides may have to hash anew in one step. Fewer when that takes too long.
pub(super) const PORTION_KEYS_MAX: u64 = 1 << 16;
pub(super) const PORTION_KEYS_MIN: u64 = 1 << 10;

/// Why an exchange ends before all its slots are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The peer is down, or has restarted.
    #[error("the peer is down or has restarted")]
    PeerLost,
    /// The peer did not answer in time.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    /// An answer did not fit its question.
    #[error("an answer of the peer does not fit its question")]
    Misbehaved,
    /// This node's store failed.
    #[error("the store of this node failed")]
    Storage,
    /// The ring has changed.
    #[error("the ring has changed")]
    RingChanged,
}

/// What an exchange has moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Rows that came from the peer.
    pub rows_pulled: u64,
    /// Rows that went to it.
    pub rows_pushed: u64,
    /// Keys that the peer listed.
    pub keys_listed: u64,
    /// Ranges whose sums were compared.
    pub ranges_compared: u64,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing before an answer comes.
    Wait,
    /// Nothing before there are tokens.
    Slow,
    /// On this side, on the other, or on both.
    Ask {
        /// What this node does.
        here: Option<Work>,
        /// What the peer does.
        there: Option<Work>,
    },
    /// These slots agree as of `clock`; the peer is to be told by its session.
    Verified {
        /// The slots.
        runs: Vec<SlotRun>,
        /// When both sides had not looked yet.
        clock: Hlc,
        /// The peer's process.
        session: u64,
    },
    /// All slots are done.
    Done,
}

/// What is waited for.
#[derive(Debug)]
enum Step {
    Idle,
    Sums {
        splits: Vec<Split>,
        mine: Option<Vec<RangeSum>>,
        theirs: Option<Vec<RangeSum>>,
    },
    /// This side lists first, so that the peer is asked for no more than can be compared.
    ListHere {
        ranges: Vec<PrefixRange>,
    },
    ListThere {
        ranges: Vec<PrefixRange>,
        mine: Vec<Vec<KeyEntry>>,
    },
    /// The peer listed less than this side.
    ListAgain {
        ranges: Vec<PrefixRange>,
        theirs: Vec<Vec<KeyEntry>>,
    },
    Fetch {
        wants: Vec<Want>,
        is_last: bool,
    },
    Store {
        entries: Vec<Entry>,
        is_last: bool,
    },
    Load {
        wants: Vec<Want>,
        is_last: bool,
    },
    Send {
        wants: Vec<Want>,
        is_last: bool,
    },
}

/// Slots that are compared together.
#[derive(Debug)]
struct Portion {
    slots: SlotSet,
    /// This node's clock, and the peer's, before either looked.
    clock: Hlc,
    peer_clock: Option<Hlc>,
    /// The last is next.
    todo: Vec<Batch>,
    pulls: Transfers,
    pushes: Transfers,
    keys: u64,
}

/// An exchange under way.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Slots that are in no portion yet.
    left: SlotSet,
    turns: Turns,
    random: Random,
    total: usize,
    portion: Option<Portion>,
    portion_slots: usize,
    portion_keys_max: u64,
    step: Step,
    session: Option<u64>,
    pub(super) moved: Moved,
    pub(super) started: MonoMicros,
}

impl Exchange {
    /// Compares `slots` in the order of `turns`, about `portion_keys_max` keys at a time, and of these in an order that is
    /// `random`.
    pub(super) fn new(
        slots: SlotSet,
        turns: Turns,
        random: Random,
        portion_keys_max: u64,
        now: MonoMicros,
    ) -> Exchange {
        Exchange {
            total: slots.len(),
            left: slots,
            turns,
            random,
            portion: None,
            portion_slots: PORTION_SLOTS_FIRST,
            portion_keys_max,
            step: Step::Idle,
            session: None,
            moved: Moved::default(),
            started: now,
        }
    }

    /// How many slots are done, and of how many.
    pub(super) fn progress(&self) -> (usize, usize) {
        let open = self.portion.as_ref().map_or(0, |portion| portion.slots.len());
        (self.total - self.left.len() - open, self.total)
    }

    /// Whether `slot` is still to be compared.
    pub(super) fn covers(&self, slot: Slot) -> bool {
        self.left.contains(slot) || self.portion.as_ref().is_some_and(|portion| portion.slots.contains(slot))
    }

    /// The slots that are in no portion yet: what is there now is compared.
    pub(super) fn left(&self) -> &SlotSet {
        &self.left
    }

    /// The slots that are not compared to the end.
    pub(super) fn into_rest(self) -> SlotSet {
        let mut rest = self.left;
        if let Some(portion) = &self.portion {
            rest.add(&portion.slots);
        }
        rest
    }

    /// Goes on, if nothing is waited for. `clock` is this node's.
    pub(super) fn next(&mut self, now: MonoMicros, clock: Hlc, pace: &mut Pace) -> Next {
        if !matches!(self.step, Step::Idle) {
            return Next::Wait;
        }
        if !pace.is_free(now) {
            return Next::Slow;
        }
        if self.portion.is_none() {
            self.portion = self.next_portion(clock);
        }
        let Some(portion) = &mut self.portion else { return Next::Done };
        if let Some((wants, is_last)) = portion.pulls.take() {
            pace.pay_records(keys_of(&wants));
            let there = Some(Work::Fetch(wants.clone()));
            self.step = Step::Fetch { wants, is_last };
            return Next::Ask { here: None, there };
        }
        if let Some((wants, is_last)) = portion.pushes.take() {
            pace.pay_records(keys_of(&wants));
            let here = Some(Work::Fetch(wants.clone()));
            self.step = Step::Load { wants, is_last };
            return Next::Ask { here, there: None };
        }
        match portion.todo.pop() {
            Some(Batch::Split(splits)) => self.compare(splits, pace),
            Some(Batch::List(ranges, keys)) => self.list(ranges, keys, pace),
            None => self.end_portion(),
        }
    }

    /// `None` when all slots are done.
    fn next_portion(&mut self, clock: Hlc) -> Option<Portion> {
        let slots = self.turns.take(&mut self.left, self.portion_slots);
        if slots.is_empty() {
            return None;
        }
        let whole = |run: SlotRun| Task::Split(Split { range: run.prefixes(), parts: 1 });
        let todo = batches(slots.runs().into_iter().map(whole));
        let (pulls, pushes) = (Transfers::default(), Transfers::default());
        Some(Portion { slots, clock, peer_clock: None, todo, pulls, pushes, keys: 0 })
    }

    fn compare(&mut self, splits: Vec<Split>, pace: &mut Pace) -> Next {
        let parts = splits.iter().map(|split| usize::from(split.parts)).sum();
        pace.pay_parts(parts);
        self.moved.ranges_compared += parts as u64;
        let work = Work::Sums(splits.clone());
        self.step = Step::Sums { splits, mine: None, theirs: None };
        Next::Ask { here: Some(work.clone()), there: Some(work) }
    }

    fn list(&mut self, ranges: Vec<PrefixRange>, keys: u64, pace: &mut Pace) -> Next {
        pace.pay_keys(KEYS_MAX.min(usize::try_from(keys).unwrap_or(KEYS_MAX)));
        let here = Some(Work::Keys(ranges.clone()));
        self.step = Step::ListHere { ranges };
        Next::Ask { here, there: None }
    }

    fn end_portion(&mut self) -> Next {
        let (Some(portion), Some(session)) = (self.portion.take(), self.session) else { return Next::Wait };
        let keys = (portion.keys / portion.slots.len() as u64).max(1);
        let slots = usize::try_from(self.portion_keys_max / keys).unwrap_or(BLOCK_SLOTS);
        self.portion_slots = slots.clamp(1, BLOCK_SLOTS);
        let clock = portion.peer_clock.unwrap_or_default().min(portion.clock);
        Next::Verified { runs: portion.slots.runs(), clock, session }
    }

    /// The peer has answered. `clock` is its clock before it looked, `session` its process.
    pub(super) fn answered_there(
        &mut self,
        session: u64,
        clock: Hlc,
        answer: Answer,
    ) -> Result<Option<Next>, Trouble> {
        if *self.session.get_or_insert(session) != session {
            return Err(Trouble::PeerLost);
        }
        if let Some(portion) = &mut self.portion {
            portion.peer_clock.get_or_insert(clock);
        }
        match (std::mem::replace(&mut self.step, Step::Idle), answer) {
            (Step::Sums { splits, mine, .. }, Answer::Sums(theirs)) => {
                self.take_sums(splits, mine, Some(theirs))
            }
            (Step::ListThere { ranges, mine }, Answer::Keys { lists, next }) => {
                self.moved.keys_listed += lists.iter().map(Vec::len).sum::<usize>() as u64;
                let (covered, rest) = cut(&ranges, next);
                self.put_back(rest);
                if lists.len() < covered.len() {
                    return Err(Trouble::Misbehaved);
                }
                if next.is_none() {
                    self.take_difference(&ranges, &mine, &lists);
                    return Ok(None);
                }
                let here = Some(Work::Keys(covered.clone()));
                self.step = Step::ListAgain { ranges: covered, theirs: lists };
                Ok(Some(Next::Ask { here, there: None }))
            }
            (Step::Fetch { wants, is_last }, Answer::Records { entries, next }) => {
                let Some(portion) = &mut self.portion else { return Ok(None) };
                portion.pulls.put_back(rest_of(&wants, next, &entries), is_last);
                if !entries.iter().all(|entry| portion.slots.contains(entry.key().slot())) {
                    return Err(Trouble::Misbehaved);
                }
                if entries.is_empty() {
                    return Ok(None);
                }
                self.moved.rows_pulled += rows_of(&entries);
                let here = Some(Work::Merge(entries.clone()));
                self.step = Step::Store { entries, is_last };
                Ok(Some(Next::Ask { here, there: None }))
            }
            (Step::Send { wants, is_last }, Answer::Merged(surplus)) => {
                if let (Some(portion), false) = (&mut self.portion, is_last) {
                    let more = |index: u16| wants.get(usize::from(index)).cloned();
                    portion.pulls.add_last(surplus.into_iter().filter_map(more));
                }
                Ok(None)
            }
            _ => Err(Trouble::Misbehaved),
        }
    }

    /// This node's own store has answered.
    pub(super) fn answered_here(&mut self, answer: Answer) -> Result<Option<Next>, Trouble> {
        match (std::mem::replace(&mut self.step, Step::Idle), answer) {
            (Step::Sums { splits, theirs, .. }, Answer::Sums(mine)) => {
                self.take_sums(splits, Some(mine), theirs)
            }
            (Step::ListHere { ranges }, Answer::Keys { lists, next }) => {
                let (covered, rest) = cut(&ranges, next);
                self.put_back(rest);
                let there = Some(Work::Keys(covered.clone()));
                self.step = Step::ListThere { ranges: covered, mine: lists };
                Ok(Some(Next::Ask { here: None, there }))
            }
            (Step::ListAgain { ranges, theirs }, Answer::Keys { lists, next }) => {
                if let Some(next) = next {
                    // So much was written meanwhile that it no longer fits a page: smaller ones do.
                    let (covered, rest) = cut(&ranges, Some(next));
                    self.put_back(rest);
                    self.put_back(covered);
                } else {
                    self.take_difference(&ranges, &lists, &theirs);
                }
                Ok(None)
            }
            (Step::Store { entries, is_last }, Answer::Merged(surplus)) => {
                if let (Some(portion), false) = (&mut self.portion, is_last) {
                    let more = |index: u16| entries.get(usize::from(index)).map(Entry::want);
                    portion.pushes.add_last(surplus.into_iter().filter_map(more));
                }
                Ok(None)
            }
            (Step::Load { wants, is_last }, Answer::Records { entries, next }) => {
                if let Some(portion) = &mut self.portion {
                    portion.pushes.put_back(rest_of(&wants, next, &entries), is_last);
                }
                if entries.is_empty() {
                    return Ok(None);
                }
                self.moved.rows_pushed += rows_of(&entries);
                self.step = Step::Send { wants: entries.iter().map(Entry::want).collect(), is_last };
                Ok(Some(Next::Ask { here: None, there: Some(Work::Merge(entries)) }))
            }
            _ => Err(Trouble::Misbehaved),
        }
    }

    fn take_sums(
        &mut self,
        splits: Vec<Split>,
        mine: Option<Vec<RangeSum>>,
        theirs: Option<Vec<RangeSum>>,
    ) -> Result<Option<Next>, Trouble> {
        let (Some(mine), Some(theirs)) = (&mine, &theirs) else {
            self.step = Step::Sums { splits, mine, theirs };
            return Ok(None);
        };
        let parts: Vec<PrefixRange> = splits.iter().flat_map(|split| split.iter()).collect();
        if mine.len() != parts.len() || theirs.len() != parts.len() {
            return Err(Trouble::Misbehaved);
        }
        let Some(portion) = &mut self.portion else { return Ok(None) };
        let is_whole = |split: &Split| split.parts == 1;
        if splits.iter().all(is_whole) {
            let keys = mine.iter().zip(theirs).map(|(mine, theirs)| mine.keys.max(theirs.keys));
            portion.keys = keys.fold(portion.keys, u64::saturating_add);
        }
        let tasks = parts.into_iter().zip(mine).zip(theirs);
        let tasks = tasks.filter_map(|((range, &mine), &theirs)| task(range, mine, theirs));
        let mut batches = batches(tasks);
        self.random.shuffle(&mut batches);
        portion.todo.extend(batches);
        Ok(None)
    }

    fn take_difference(&mut self, ranges: &[PrefixRange], mine: &[Vec<KeyEntry>], theirs: &[Vec<KeyEntry>]) {
        let difference = difference(ranges, mine, theirs);
        if let Some(portion) = &mut self.portion {
            portion.pulls.add(difference.pull);
            portion.pushes.add(difference.push);
        }
    }

    /// Ranges that a page had no room for are listed next.
    fn put_back(&mut self, ranges: Vec<PrefixRange>) {
        if let Some(portion) = &mut self.portion {
            let tasks = ranges.into_iter().map(|range| Task::List(range, KEYS_MAX as u64));
            portion.todo.extend(batches(tasks).into_iter().rev());
        }
    }
}
