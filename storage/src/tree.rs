//! Merkle trees over ring positions: what anti-entropy compares.
//!
//! The hash of a range of the ring is the wrapping *sum* of one 64-bit hash for each key in it, of the key and its state
//! ([`Record::state_digest`](crate::Record::state_digest): the newest version of each cell, and the expiry; values are
//! not read, a version names its row). A Merkle tree hashes its children's hashes; with sums a parent is the sum of its
//! children, so that nodes compare any range at any granularity whatever depth each keeps its leaves at, and a leaf can be
//! hashed anew alone. Sums are as good at telling ranges apart as long as nobody crafts hashes, and who stamps versions
//! is a node of the cluster.
//!
//! Each slot has its own leaves ([`leaves`]), kept in a column family; their total is in memory. Commits mark what
//! they change ([`marks`]); whoever wants a sum has marked leaves hashed anew first. Nothing hashes in the background: what
//! is written often would be hashed again and again between two exchanges, and marked each time.
//!
//! Where marks are not enough, because there is no tree (a directory of format 1), because part of it is damaged, or
//! because a deletion horizon rose and keys under it count no more, slots are *stale*: their set is a document, and every
//! segment of a stale slot counts as marked.
//!
//! ```text
//! "storage.tree" = version u8 | [2,048 bytes: one bit per stale slot, lowest first]     in the meta family
//! ```

use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::batch::Batch;
use crate::engine::{Engine, Step};
use crate::error::StorageError;
use crate::family::Family;
use crate::key::{SLOTS, Slot};
use crate::record::Record;
use crate::scan::PREFIX_END;
use crate::tree::leaves::{HEADS_END, Head, slot_of_head};
use crate::tree::marks::{Entered, Marks, Mask, decode_mark, mark_key, place_of, segment_of};
use crate::version::Version;

pub(crate) mod hashing;
pub(crate) mod leaves;
pub(crate) mod marks;

/// What is written below says how; another number, and trees are built anew.
const VERSION: u8 = 1;
const META_TREE: &str = "storage.tree";
const STALE_BYTES: usize = SLOTS as usize / 8;
/// Bits of a position prefix below its slot.
const SLOT_SHIFT: u32 = 18;

/// A half-open range of 32-bit position prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixRange {
    /// The first prefix.
    pub from: u64,
    /// One past the last prefix, at most [`PREFIX_END`].
    pub end: u64,
}

impl PrefixRange {
    /// The whole ring.
    pub const ALL: PrefixRange = PrefixRange { from: 0, end: PREFIX_END };

    /// The prefixes of `slot`.
    #[must_use]
    pub fn of_slot(slot: Slot) -> PrefixRange {
        let from = u64::from(slot) << SLOT_SHIFT;
        PrefixRange { from, end: from + (1 << SLOT_SHIFT) }
    }

    /// Whether there is no prefix in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from >= self.end.min(PREFIX_END)
    }

    /// The slots that have a part in it, with that part as offsets from the slot's first prefix.
    pub(crate) fn slots(self) -> impl Iterator<Item = (Slot, u32, u32)> {
        let end = self.end.min(PREFIX_END);
        let slots =
            if self.is_empty() { 0..0 } else { self.from >> SLOT_SHIFT..((end - 1) >> SLOT_SHIFT) + 1 };
        slots.filter_map(move |slot| {
            let first = slot << SLOT_SHIFT;
            let from = u32::try_from(self.from.max(first) - first).ok()?;
            let until = u32::try_from(end.min(first + (1 << SLOT_SHIFT)) - first).ok()?;
            Some((Slot::try_from(slot).ok()?, from, until))
        })
    }
}

/// The sum of a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeSum {
    /// The wrapping sum of the hashes of its keys.
    pub sum: u64,
    /// How many keys count in it, deleted ones included.
    pub keys: u64,
}

impl AddAssign for RangeSum {
    fn add_assign(&mut self, other: RangeSum) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.keys += other.keys;
    }
}

impl Sum for RangeSum {
    fn sum<I: Iterator<Item = RangeSum>>(sums: I) -> RangeSum {
        sums.fold(RangeSum::default(), |mut total, sum| {
            total += sum;
            total
        })
    }
}

/// What anti-entropy compares of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// [`KeyRef::hash64`](crate::KeyRef::hash64) of the key.
    pub hash: u64,
    /// [`Record::state_digest`](crate::Record::state_digest) of its record.
    pub digest: u64,
    /// The greatest version in its record.
    pub newest: Version,
    /// Whether it has a value, expired or not: false of a deleted key.
    pub is_live: bool,
}

/// A page of key states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyStates {
    /// In the order of their rows, hence by prefix.
    pub states: Vec<KeyState>,
    /// The prefix to go on from; `None` when the range is done.
    pub next: Option<u64>,
}

/// A page of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// Database, key and record, in the order of their rows.
    pub entries: Vec<(u8, Vec<u8>, Record)>,
    /// The prefix to go on from; `None` when the range is done.
    pub next: Option<u64>,
}

/// What the trees of a store consist of, and what was done for them since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStats {
    /// Keys that count, as of the last hashing.
    pub keys: u64,
    /// Leaves of all slots.
    pub leaves: u64,
    /// Bytes that the trees take on disk, before compression and old versions.
    pub bytes: u64,
    /// Segments (sixteenths of slots) to be hashed anew.
    pub dirty_segments: u64,
    /// Slots to be hashed as a whole, because they have no tree, a damaged one, or a horizon rose.
    pub stale_slots: u64,
    /// Marks that commits have written.
    pub marks_written: u64,
    /// Segments hashed anew.
    pub segments_hashed: u64,
    /// Keys hashed for that.
    pub keys_hashed: u64,
}

/// What is known in memory of the trees.
pub(crate) struct Tree {
    pub(crate) marks: Marks,
    heads: Mutex<Box<[Head]>>,
    /// Held while the document is written. Slots are added before their segments are marked in memory.
    pub(crate) stale: Mutex<StaleSlots>,
    /// Held by whoever hashes.
    pub(crate) hashing: Mutex<()>,
    /// Where the background task goes on: a slot.
    pub(crate) hand: AtomicU32,
    marks_written: AtomicU64,
    segments_hashed: AtomicU64,
    keys_hashed: AtomicU64,
}

/// A set of slots, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaleSlots(Box<[u8]>);

impl StaleSlots {
    pub(crate) fn none() -> StaleSlots {
        StaleSlots(vec![0; STALE_BYTES].into())
    }

    fn all() -> StaleSlots {
        StaleSlots(vec![0xff; STALE_BYTES].into())
    }

    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.0.get(usize::from(slot / 8)).is_some_and(|bits| bits & (1 << (slot % 8)) != 0)
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        if let Some(bits) = self.0.get_mut(usize::from(slot / 8)) {
            *bits |= 1 << (slot % 8);
        }
    }

    /// Answers whether it was there.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        let was_there = self.has(slot);
        if let Some(bits) = self.0.get_mut(usize::from(slot / 8)) {
            *bits &= !(1 << (slot % 8));
        }
        was_there
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..SLOTS).filter(|slot| self.has(*slot))
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// Adds the document to `batch`.
    pub(crate) fn put(&self, batch: &mut Batch) {
        let mut out = vec![VERSION];
        if self.0.iter().any(|bits| *bits != 0) {
            out.extend_from_slice(&self.0);
        }
        batch.put_meta(META_TREE, &out);
    }

    /// Reads the document; every slot is stale where there is none that this program can use.
    fn decode(bytes: Option<&[u8]>) -> StaleSlots {
        match bytes {
            Some([VERSION]) => StaleSlots::none(),
            Some([VERSION, bits @ ..]) if bits.len() == STALE_BYTES => StaleSlots(bits.into()),
            _ => StaleSlots::all(),
        }
    }
}

impl Tree {
    /// The trees that `engine` holds. Of each slot its head is read, not its leaves. All slots are stale if heads or marks
    /// cannot be read.
    pub(crate) fn open(engine: &dyn Engine) -> Result<Tree, StorageError> {
        let stored = StaleSlots::decode(engine.get(Family::Meta, META_TREE.as_bytes())?.as_deref());
        let mut stale = stored.clone();
        let mut heads = vec![Head::default(); usize::from(SLOTS)].into_boxed_slice();
        let walked = engine.walk_range(Family::Tree, &[], Some(HEADS_END), &mut |key, value| {
            let Some(slot) = slot_of_head(key) else { return Ok(Step::Next) };
            match (heads.get_mut(usize::from(slot)), Head::decode(value)) {
                (Some(head), Some(stored)) => *head = stored,
                _ => stale.insert(slot),
            }
            Ok(Step::Next)
        });
        let mut marked: Vec<(Slot, Mask)> = Vec::new();
        let mut newest = 0;
        let walked = walked.and_then(|()| {
            engine.walk_range(Family::Dirty, &[], None, &mut |key, _| {
                let (segment, generation) = decode_mark(key)?;
                marked.push(place_of(segment));
                newest = newest.max(generation);
                Ok(Step::Next)
            })
        });
        match walked {
            Err(StorageError::Damaged { .. }) => stale = StaleSlots::all(),
            walked => walked?,
        }
        if stale != stored {
            let mut batch = Batch::default();
            stale.put(&mut batch);
            engine.write(batch.encoded(), false)?;
        }
        let marks = Marks::new(newest + 1);
        marks.set(marked.into_iter().chain(stale.iter().map(|slot| (slot, Mask::MAX))));
        Ok(Tree {
            marks,
            heads: Mutex::new(heads),
            stale: Mutex::new(stale),
            hashing: Mutex::default(),
            hand: AtomicU32::default(),
            marks_written: AtomicU64::default(),
            segments_hashed: AtomicU64::default(),
            keys_hashed: AtomicU64::default(),
        })
    }

    /// Adds to `batch` that no slot is stale: for a new directory, which has no row.
    pub(crate) fn begin_empty(batch: &mut Batch) {
        StaleSlots::none().put(batch);
    }

    /// A commit of `batch` begins: marks of what it changes are added to it, where they are not durable yet.
    pub(crate) fn begin(&self, batch: &mut Batch) -> Marking<'_> {
        let entered = self.marks.enter();
        let mut fresh: Vec<u32> =
            batch.prefixes().map(segment_of).filter(|segment| !entered.has(*segment)).collect();
        if !fresh.is_empty() {
            fresh.sort_unstable();
            fresh.dedup();
            for segment in &fresh {
                batch.put(Family::Dirty, &mark_key(*segment, entered.generation()), &[]);
            }
            self.marks_written.fetch_add(fresh.len() as u64, Ordering::Relaxed);
        }
        Marking { entered, fresh }
    }

    pub(crate) fn head(&self, slot: Slot) -> Head {
        self.heads.lock().get(usize::from(slot)).copied().unwrap_or_default()
    }

    pub(crate) fn set_heads(&self, fresh: impl IntoIterator<Item = (Slot, Head)>) {
        let mut heads = self.heads.lock();
        for (slot, head) in fresh {
            if let Some(own) = heads.get_mut(usize::from(slot)) {
                *own = head;
            }
        }
    }

    /// The slots whose trees have keys.
    pub(crate) fn slots_with_keys(&self) -> Vec<Slot> {
        let heads = self.heads.lock();
        (0..SLOTS).zip(heads.iter()).filter(|(_, head)| head.sum.keys > 0).map(|(slot, _)| slot).collect()
    }

    /// Makes `slots` stale in the document, with what else is in `batch`, through `write`. Their segments are marked
    /// on return.
    pub(crate) fn make_stale(
        &self,
        slots: &[Slot],
        mut batch: Batch,
        write: impl FnOnce(&mut Batch) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let entered = self.marks.enter();
        let mut stale = self.stale.lock();
        let mut grown = stale.clone();
        for slot in slots {
            grown.insert(*slot);
        }
        grown.put(&mut batch);
        write(&mut batch)?;
        *stale = grown;
        for slot in slots {
            entered.set(*slot, Mask::MAX);
        }
        Ok(())
    }

    pub(crate) fn note_hashed(&self, segments: u64, keys: u64) {
        self.segments_hashed.fetch_add(segments, Ordering::Relaxed);
        self.keys_hashed.fetch_add(keys, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> TreeStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = TreeStats {
            dirty_segments: self.marks.count(),
            stale_slots: self.stale.lock().len(),
            marks_written: load(&self.marks_written),
            segments_hashed: load(&self.segments_hashed),
            keys_hashed: load(&self.keys_hashed),
            ..TreeStats::default()
        };
        for head in self.heads.lock().iter() {
            stats.keys += head.sum.keys;
            stats.leaves += head.leaves();
            stats.bytes += head.bytes();
        }
        stats
    }
}

/// A commit whose marks are in its batch.
pub(crate) struct Marking<'a> {
    entered: Entered<'a>,
    fresh: Vec<u32>,
}

impl Marking<'_> {
    /// The batch is written: its marks are durable with its rows.
    pub(crate) fn written(self) {
        for segment in &self.fresh {
            let (slot, bit) = place_of(*segment);
            self.entered.set(slot, bit);
        }
    }
}
