//! Which segments of the ring have rows that their tree does not count yet, durably, at next to no cost for a commit.
//!
//! ```text
//! mark   segment u32 BE | generation u64 BE      in the dirty family, written blindly, value empty
//! ```
//! A *segment* is a sixteenth of a slot. A commit puts a mark for each segment of its rows into its own batch, so that
//! row and mark survive a crash together, but only if the segment is not marked already: a bitmap in memory says so,
//! and its bit is set only once a batch with the mark is written. So what relies on a bit comes after the mark in the
//! log, and there is no crash that keeps the one and loses the other.
//!
//! Whoever hashes a segment anew must know which rows it has seen. Commits run in *generations*, counted by parity. To
//! take segments ([`Marks::take`]), the generation is ended: the bitmap of the next one begins without them (and with
//! all others, whose marks stay), and the commits of the ended one are waited for. Their rows can then be read; commits
//! of the next generation mark the taken segments anew, under its number. So the marks to delete, together with the
//! new sums, are those of the taken segments up to the ended generation.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::error::StorageError;
use crate::key::{SLOTS, Slot};

/// How many segments a slot is cut into: one bit each of a [`Mask`].
pub(crate) const SEGMENTS_PER_SLOT: u32 = 16;
/// How many bits of a position prefix are below its segment.
pub(crate) const SEGMENT_SHIFT: u32 = 14;
/// Segments of one slot, the lowest in the lowest bit.
pub(crate) type Mask = u16;

const SEGMENT_BITS_OF_SLOT: u32 = 4;

/// The marked segments of every slot.
type Bitmap = Box<[AtomicU16]>;

/// The segments that are marked, and the commits under way that may mark more.
pub(crate) struct Marks {
    generation: AtomicU64,
    /// Commits under way of generations of even and of odd number.
    under_way: [AtomicU64; 2],
    /// What is marked, as commits of even and of odd generations see it.
    marked: [Bitmap; 2],
    is_awaited: AtomicBool,
    waiting: Mutex<()>,
    ended: Condvar,
}

/// A commit under way.
pub(crate) struct Entered<'a> {
    marks: &'a Marks,
    generation: u64,
}

/// The key of a mark.
pub(crate) fn mark_key(segment: u32, generation: u64) -> [u8; 12] {
    let mut key = [0; 12];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&segment.to_be_bytes());
    tail.copy_from_slice(&generation.to_be_bytes());
    key
}

/// Takes the key of a mark apart: segment and generation.
pub(crate) fn decode_mark(key: &[u8]) -> Result<(u32, u64), StorageError> {
    let parts = key.split_first_chunk::<4>().and_then(|(segment, generation)| {
        let segment = u32::from_be_bytes(*segment);
        let is_segment = segment >> SEGMENT_BITS_OF_SLOT < u32::from(SLOTS);
        is_segment.then_some((segment, u64::from_be_bytes(generation.try_into().ok()?)))
    });
    parts.ok_or_else(|| StorageError::damaged("a dirty mark does not parse"))
}

/// The segment of a position prefix.
pub(crate) fn segment_of(prefix: u32) -> u32 {
    prefix >> SEGMENT_SHIFT
}

/// Slot and bit of a segment.
pub(crate) fn place_of(segment: u32) -> (Slot, Mask) {
    let slot = Slot::try_from(segment >> SEGMENT_BITS_OF_SLOT).unwrap_or(Slot::MAX);
    (slot, 1 << (segment % SEGMENTS_PER_SLOT))
}

impl Marks {
    /// Nothing is marked, and the next mark is of `generation`.
    pub(crate) fn new(generation: u64) -> Marks {
        let bitmap = || std::iter::repeat_with(AtomicU16::default).take(usize::from(SLOTS)).collect();
        Marks {
            generation: AtomicU64::new(generation),
            under_way: Default::default(),
            marked: [bitmap(), bitmap()],
            is_awaited: AtomicBool::default(),
            waiting: Mutex::default(),
            ended: Condvar::default(),
        }
    }

    /// A commit begins. Its segments are marked in the generation that this puts it into.
    pub(crate) fn enter(&self) -> Entered<'_> {
        loop {
            let generation = self.generation.load(Ordering::SeqCst);
            by_parity(&self.under_way, generation).fetch_add(1, Ordering::SeqCst);
            let entered = Entered { marks: self, generation };
            if self.generation.load(Ordering::SeqCst) == generation {
                return entered;
            }
        }
    }

    /// Ends the generation and takes `wanted`, which ascends, out of what is marked. On return every commit of the ended
    /// generation, whose number this gives, is done. Not to be called by two threads at once.
    pub(crate) fn take(&self, wanted: &[(Slot, Mask)]) -> u64 {
        let ended = self.end_generation(wanted);
        self.await_commits_of(ended);
        self.carry_over(ended, wanted);
        ended
    }

    /// The first step: new commits are of the next generation, to which nothing of `wanted` is marked.
    pub(crate) fn end_generation(&self, wanted: &[(Slot, Mask)]) -> u64 {
        let ended = self.generation.load(Ordering::SeqCst);
        let new = by_parity(&self.marked, ended + 1);
        self.for_each_rest(ended, wanted, |slot, rest| {
            if let Some(bits) = new.get(slot) {
                bits.store(rest, Ordering::Release);
            }
        });
        self.generation.store(ended + 1, Ordering::SeqCst);
        ended
    }

    /// The second step: waits for the commits of the ended generation.
    fn await_commits_of(&self, generation: u64) {
        if self.is_quiet(generation) {
            return;
        }
        let mut waiting = self.waiting.lock();
        self.is_awaited.store(true, Ordering::SeqCst);
        while !self.is_quiet(generation) {
            self.ended.wait(&mut waiting);
        }
        self.is_awaited.store(false, Ordering::SeqCst);
    }

    /// Whether no commit of `generation` is under way.
    pub(crate) fn is_quiet(&self, generation: u64) -> bool {
        by_parity(&self.under_way, generation).load(Ordering::SeqCst) == 0
    }

    /// The last step: what these commits have marked beside `wanted` is marked to the next generation, too.
    pub(crate) fn carry_over(&self, ended: u64, wanted: &[(Slot, Mask)]) {
        let new = by_parity(&self.marked, ended + 1);
        self.for_each_rest(ended, wanted, |slot, rest| {
            if let Some(bits) = new.get(slot).filter(|_| rest != 0) {
                bits.fetch_or(rest, Ordering::AcqRel);
            }
        });
    }

    /// Shows what is marked to `generation` of each slot beside `wanted`.
    fn for_each_rest(&self, generation: u64, wanted: &[(Slot, Mask)], mut visit: impl FnMut(usize, Mask)) {
        let mut wanted = wanted.iter().copied().peekable();
        for (slot, bits) in by_parity(&self.marked, generation).iter().enumerate() {
            let taken = wanted.next_if(|&(next, _)| usize::from(next) == slot).map_or(0, |(_, mask)| mask);
            visit(slot, bits.load(Ordering::Acquire) & !taken);
        }
    }

    /// Marks segments of slots in memory: their marks are durable.
    pub(crate) fn set(&self, segments: impl IntoIterator<Item = (Slot, Mask)>) {
        let entered = self.enter();
        for (slot, mask) in segments {
            entered.set(slot, mask);
        }
    }

    /// What is marked of `slot`.
    pub(crate) fn of(&self, slot: Slot) -> Mask {
        let marked = by_parity(&self.marked, self.generation.load(Ordering::SeqCst));
        marked.get(usize::from(slot)).map_or(0, |bits| bits.load(Ordering::Acquire))
    }

    /// How many segments are marked.
    pub(crate) fn count(&self) -> u64 {
        let marked = by_parity(&self.marked, self.generation.load(Ordering::SeqCst));
        marked.iter().map(|bits| u64::from(bits.load(Ordering::Relaxed).count_ones())).sum()
    }
}

impl Entered<'_> {
    /// The generation that the commit's marks are of.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a durable mark of `segment` is known.
    pub(crate) fn has(&self, segment: u32) -> bool {
        let (slot, bit) = place_of(segment);
        self.bits(slot).is_some_and(|bits| bits.load(Ordering::Acquire) & bit != 0)
    }

    /// Marks of `mask` in `slot` are durable.
    pub(crate) fn set(&self, slot: Slot, mask: Mask) {
        if let Some(bits) = self.bits(slot) {
            bits.fetch_or(mask, Ordering::AcqRel);
        }
    }

    fn bits(&self, slot: Slot) -> Option<&AtomicU16> {
        by_parity(&self.marks.marked, self.generation).get(usize::from(slot))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let before = by_parity(&self.marks.under_way, self.generation).fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.marks.is_awaited.load(Ordering::SeqCst) {
            let _waiting = self.marks.waiting.lock();
            self.marks.ended.notify_all();
        }
    }
}

fn by_parity<T>(pair: &[T; 2], generation: u64) -> &T {
    let [even, odd] = pair;
    if generation.is_multiple_of(2) { even } else { odd }
}
