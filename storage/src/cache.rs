//! The row cache: the newest record per key, never stale, without a read before a write.
//!
//! Keys hash to *stripes* (a lock and a table each) and, finer, to *slots* of a stripe. A slot counts the rows whose
//! commit has begun and those that are done, and holds the greatest version ever done (its *mark*).
//!
//! - A commit begins its rows ([`RowCache::begin`]), writes them to the engine, then finishes each
//!   ([`RowCache::finish`]): raises the mark and, under the stripe's lock, merges the row into the entry, if the key
//!   has one. An absent key gets an entry only from a register row above the mark while no other row of the slot is
//!   under way: that row is then provably the newest of its key, and it voids every cell of an actor.
//! - A reader that misses takes a [`Ticket`], reads the engine, and fills the cache only if no row of the slot was
//!   under way when it took the ticket and none has begun since. What it read is then exactly what the engine has.
//!
//! - Forgetting a key ([`crate::Store::forget`] deletes rows from the engine) begins and ends like a row, but begins
//!   only while no row of the slot is under way ([`RowCache::begin_alone`]), so that every row it deletes is finished;
//!   its end removes the entry ([`RowCache::remove`]). A reader that may have read the deleted rows took its ticket
//!   before the end, so while the forgetting was under way or before it had begun: its fill is refused. A row that is
//!   finished in between goes into the old entry, which is then removed with it. A deleted row that comes once more
//!   is not above the mark, so it makes no entry.
//!
//! - Sweeping a key ([`crate::Store::sweep`] puts a tombstone of the same version in the place of an expired row) goes
//!   the way of forgetting: what a reader was shown before and after is the same to it, an expired key. A row that is
//!   delivered once more may make the engine hold it unswept while the entry is swept, or the other way round, until it
//!   is swept again: no reader can tell.
//!
//! - The cache also knows which keys the engine may have rows of ([`presence`]). A row enters its key there when it
//!   begins, before it is written, so a key that is not there has no row that anybody can have seen: a reader that misses
//!   is told at once ([`Lookup::Absent`]). The first row of a key, of whatever cell, is all that the engine has of it, and
//!   makes an entry if no other row of the slot was under way when it began nor has begun since.
//!
//! So an entry always holds every finished row of its key, and a key with a row under way that a reader may already
//! have seen in the engine never gains an entry without that row: what readers see does not go back.
//!
//! Eviction is CLOCK per stripe, by bytes.

mod presence;
mod slot;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use parking_lot::{Mutex, MutexGuard};

use self::presence::Presence;
use self::slot::{Place, SLOTS_PER_STRIPE, STRIPES, Slot};
use crate::key::KeyRef;
use crate::record::{Record, RecordBuilder, Register};
use crate::row::{Cell, Row};
use crate::version::Version;

/// What an entry costs beside its bytes: the table's bucket at its usual load, and the allocation's header.
const ENTRY_OVERHEAD_BYTES: usize = 64;
/// An entry may take up this share of a stripe's budget.
const ENTRY_SHARE_MAX: usize = 8;
/// This share of the cache's bytes is for knowing which keys there are.
const PRESENCE_SHARE: usize = 16;

/// How many keys are touched at a time: about as many looks as a processor has under way at once.
pub const TOUCHED_MAX: usize = 16;

/// The newest record per key, in bounded memory.
pub(crate) struct RowCache {
    stripes: Box<[Mutex<Stripe>]>,
    /// By slot of stripe.
    slots: Box<[Slot]>,
    presence: Presence,
    absent: AtomicU64,
}

/// What is known of a row that has begun.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    /// The row is the first of its key, and this many rows of the slot had begun then, of which only it was not done.
    first_at: Option<u64>,
}

/// What a look into the cache gives.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The key's record.
    Hit(Record),
    /// The engine has no row of the key.
    Absent,
    /// Read the engine, then offer the result with this ticket.
    Miss(Ticket),
}

/// The state of a key's slot before the engine was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    /// Rows begun, if all were done.
    quiet_at: Option<u64>,
}

struct Stripe {
    table: HashTable<Entry>,
    bytes: usize,
    bytes_max: usize,
    /// The bucket that eviction looks at next.
    hand: usize,
    hits: u64,
    misses: u64,
}

/// A key (database, then key bytes) and, from `start` on, its encoded record, in one allocation.
struct Entry {
    hash: u64,
    bytes: Arc<[u8]>,
    start: u32,
    visited: bool,
}

impl Entry {
    fn is_of(&self, key: KeyRef<'_>) -> bool {
        self.bytes.get(..self.start as usize).and_then(<[u8]>::split_first) == Some((&key.db, key.key))
    }

    fn record(&self) -> Record {
        Record::shared(&self.bytes, self.start as usize)
    }

    fn weight(&self) -> usize {
        self.bytes.len() + ENTRY_OVERHEAD_BYTES
    }
}

#[expect(clippy::indexing_slicing, reason = "Place stays below the fixed numbers of stripes and slots")]
impl RowCache {
    /// A cache of about `bytes_max` bytes, for a store whose rows are all at or before `mark`.
    pub(crate) fn new(bytes_max: usize, mark: Version) -> RowCache {
        let stripe = || {
            Mutex::new(Stripe {
                table: HashTable::new(),
                bytes: 0,
                bytes_max: bytes_max / STRIPES,
                hand: 0,
                hits: 0,
                misses: 0,
            })
        };
        RowCache {
            stripes: std::iter::repeat_with(stripe).take(STRIPES).collect(),
            slots: std::iter::repeat_with(|| Slot::new(mark)).take(STRIPES * SLOTS_PER_STRIPE).collect(),
            presence: Presence::new(bytes_max / PRESENCE_SHARE),
            absent: AtomicU64::default(),
        }
    }

    /// Looks `key` up.
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Lookup {
        self.get_hashed(key, key.hash64())
    }

    fn get_hashed(&self, key: KeyRef<'_>, hash: u64) -> Lookup {
        let place = Place::of(hash);
        let mut stripe = self.stripes[place.stripe].lock();
        if let Some(entry) = stripe.table.find_mut(hash, |entry| entry.is_of(key)) {
            entry.visited = true;
            let record = entry.record();
            stripe.hits += 1;
            return Lookup::Hit(record);
        }
        if !self.presence.may_have(hash) {
            self.absent.fetch_add(1, Ordering::Relaxed);
            return Lookup::Absent;
        }
        stripe.misses += 1;
        let slot = &self.slots[place.slot];
        let begun = slot.begun.load(Ordering::SeqCst);
        Lookup::Miss(Ticket { quiet_at: (begun == slot.done.load(Ordering::SeqCst)).then_some(begun) })
    }

    /// The record of `key`, which hashes to `hash`, if it has an entry. Counts as no look.
    pub(crate) fn peek(&self, key: KeyRef<'_>, hash: u64) -> Option<Record> {
        let stripe = self.stripes[Place::of(hash).stripe].lock();
        stripe.table.find(hash, |entry| entry.is_of(key)).map(Entry::record)
    }

    /// Looks the entries of up to [`TOUCHED_MAX`] keys, by their hashes, up for nothing but to have them in the processor's
    /// cache: looks one after the other each wait for memory three times, these wait together. That takes their locks all at
    /// once before the first look, since a processor reads nothing ahead across the taking of a lock; those that are not free
    /// are left out, so nobody waits for anybody.
    pub(crate) fn touch(&self, hashes: impl Iterator<Item = u64> + Clone) {
        let mut stripes = [const { None }; TOUCHED_MAX];
        for (stripe, hash) in stripes.iter_mut().zip(hashes.clone()) {
            *stripe = self.stripes[Place::of(hash).stripe].try_lock();
        }
        let mut entries = [const { None }; TOUCHED_MAX];
        for ((entry, stripe), hash) in entries.iter_mut().zip(&stripes).zip(hashes.clone()) {
            let stripe: Option<&MutexGuard<'_, Stripe>> = stripe.as_ref();
            *entry = stripe.and_then(|stripe| stripe.table.find(hash, |entry| entry.hash == hash));
        }
        let ends = |bytes: &[u8]| bytes.first().copied().unwrap_or(0) ^ bytes.last().copied().unwrap_or(0);
        let touched = entries.iter().zip(hashes).fold(0, |sum, (entry, hash)| {
            // Of a key without an entry it will be asked whether it is there at all.
            sum ^ entry.map_or_else(|| u8::from(self.presence.has(hash)), |entry| ends(&entry.bytes))
        });
        std::hint::black_box(touched);
    }

    /// Offers what the engine holds of `key`, read after `ticket` was taken, and gives what a reader may be shown.
    ///
    /// That is the entry's record if another reader has filled it meanwhile: the engine's may already have a row
    /// under way that the entry lacks, and the next reader will be shown the entry.
    pub(crate) fn fill(&self, key: KeyRef<'_>, ticket: Ticket, record: Record) -> Record {
        self.fill_hashed(key, key.hash64(), ticket, record)
    }

    fn fill_hashed(&self, key: KeyRef<'_>, hash: u64, ticket: Ticket, record: Record) -> Record {
        let place = Place::of(hash);
        let mut stripe = self.stripes[place.stripe].lock();
        if let Some(entry) = stripe.table.find(hash, |entry| entry.is_of(key)) {
            return entry.record();
        }
        let begun = self.slots[place.slot].begun.load(Ordering::SeqCst);
        if ticket.quiet_at != Some(begun) || !stripe.has_room_for(key, record.encoded().len()) {
            return record;
        }
        let mut bytes = Vec::with_capacity(1 + key.key.len() + record.encoded().len());
        put_entry_key(&mut bytes, key);
        bytes.extend_from_slice(record.encoded());
        stripe.insert_absent(hash, key, &bytes);
        record
    }

    /// A row of a key with `hash` is about to be written to the engine. `is_known` as [`RowCache::knows`] said.
    pub(crate) fn begin(&self, hash: u64, is_known: bool) -> Begun {
        let slot = &self.slots[Place::of(hash).slot];
        let at = slot.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let is_alone = slot.done.load(Ordering::SeqCst) + 1 == at;
        let is_first = !is_known && !self.presence.insert(hash) && self.presence.is_complete();
        Begun { first_at: (is_first && is_alone).then_some(at) }
    }

    /// Whether a key with `hash` has had a row already, for [`RowCache::begin`]. To be asked for all rows of a batch before
    /// the first begins: looks that nothing comes between wait for memory together.
    pub(crate) fn knows(&self, hash: u64) -> bool {
        // What `begin` will change comes along.
        std::hint::black_box(self.slots[Place::of(hash).slot].begun.load(Ordering::Relaxed));
        self.presence.has(hash)
    }

    /// `row`, which was `begun`, has been written to the engine. `scratch` is working memory.
    pub(crate) fn finish(&self, hash: u64, begun: Begun, row: &Row<'_>, scratch: &mut Vec<u8>) {
        let place = Place::of(hash);
        let slot = &self.slots[place.slot];
        let mut stripe = self.stripes[place.stripe].lock();
        let done = slot.done.fetch_add(1, Ordering::SeqCst) + 1;
        let is_above_mark = slot.raise_mark(row.version);
        let all = slot.begun.load(Ordering::SeqCst);
        let newest = is_above_mark && all == done && row.cell == Cell::Register;
        stripe.merge(hash, row, newest || begun.first_at == Some(all), scratch);
    }

    /// Enters a key with `hash` that the engine has rows of.
    pub(crate) fn learn(&self, hash: u64) {
        self.presence.insert(hash);
    }

    /// Says whether every key of the engine was entered.
    pub(crate) fn set_all_learnt(&self, are_all: bool) {
        self.presence.set_complete(are_all);
    }

    /// Whether every key of the engine was entered.
    pub(crate) fn are_all_learnt(&self) -> bool {
        self.presence.is_complete()
    }

    /// How many keys are worth entering.
    pub(crate) fn learnt_max(&self) -> usize {
        self.presence.keys_max()
    }

    /// Where keys with `hash` are counted: keys of one place wait for each other in [`RowCache::begin_alone`].
    pub(crate) fn place(&self, hash: u64) -> usize {
        Place::of(hash).slot
    }

    /// As [`RowCache::begin`], for rows to be deleted. `false`, and nothing has begun, while a row of the slot is under
    /// way.
    pub(crate) fn begin_alone(&self, hash: u64) -> bool {
        let place = Place::of(hash);
        let _stripe = self.stripes[place.stripe].lock();
        let Slot { begun, done, .. } = &self.slots[place.slot];
        let done = done.load(Ordering::SeqCst);
        begun.compare_exchange(done, done + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Rows of `key`, which was begun as one row, have been deleted from the engine: removes its entry.
    pub(crate) fn remove(&self, hash: u64, key: KeyRef<'_>) {
        let place = Place::of(hash);
        let mut stripe = self.stripes[place.stripe].lock();
        self.slots[place.slot].done.fetch_add(1, Ordering::SeqCst);
        stripe.remove(hash, key);
    }

    /// Hits, keys known to be absent, misses, entries and bytes.
    pub(crate) fn counts(&self) -> [u64; 5] {
        let absent = self.absent.load(Ordering::Relaxed);
        self.stripes.iter().fold([0, absent, 0, 0, 0], |[hits, absent, misses, entries, bytes], stripe| {
            let stripe = stripe.lock();
            [
                hits + stripe.hits,
                absent,
                misses + stripe.misses,
                entries + stripe.table.len() as u64,
                bytes + stripe.bytes as u64,
            ]
        })
    }
}

impl Stripe {
    /// Takes `row` into the key's entry; makes one if the row is provably the `newest` of its key.
    fn merge(&mut self, hash: u64, row: &Row<'_>, newest: bool, scratch: &mut Vec<u8>) {
        scratch.clear();
        let Some(entry) = self.table.find_mut(hash, |entry| entry.is_of(row.key)) else {
            if newest && self.has_room_for(row.key, row.bytes()) {
                put_entry_key(scratch, row.key);
                encode_row(row, scratch);
                self.insert_absent(hash, row.key, scratch);
            }
            return;
        };
        let old = entry.weight();
        if !merge_into(entry, row, scratch) {
            return;
        }
        let new = scratch.len() + ENTRY_OVERHEAD_BYTES;
        if new > self.bytes_max / ENTRY_SHARE_MAX {
            self.remove(hash, row.key);
            return;
        }
        match Arc::get_mut(&mut entry.bytes) {
            Some(bytes) if bytes.len() == scratch.len() => bytes.copy_from_slice(scratch),
            _ => entry.bytes = Arc::from(scratch.as_slice()),
        }
        self.bytes = self.bytes - old + new;
        self.evict();
    }

    fn has_room_for(&self, key: KeyRef<'_>, record_bytes: usize) -> bool {
        1 + key.key.len() + record_bytes + ENTRY_OVERHEAD_BYTES <= self.bytes_max / ENTRY_SHARE_MAX
    }

    /// Adds an entry of `bytes`, unless the key has one.
    fn insert_absent(&mut self, hash: u64, key: KeyRef<'_>, bytes: &[u8]) {
        let weight = bytes.len() + ENTRY_OVERHEAD_BYTES;
        let Ok(start) = u32::try_from(1 + key.key.len()) else { return };
        if let TableEntry::Vacant(vacant) =
            self.table.entry(hash, |entry| entry.is_of(key), |entry| entry.hash)
        {
            vacant.insert(Entry { hash, bytes: Arc::from(bytes), start, visited: false });
            self.bytes += weight;
            self.evict();
        }
    }

    fn remove(&mut self, hash: u64, key: KeyRef<'_>) {
        if let Ok(occupied) = self.table.find_entry(hash, |entry| entry.is_of(key)) {
            let (entry, _) = occupied.remove();
            self.bytes -= entry.weight();
        }
    }

    /// Removes entries that were not looked up since the hand last passed, until the rest fits.
    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            self.hand = if self.hand + 1 < self.table.num_buckets() { self.hand + 1 } else { 0 };
            match self.table.get_bucket_mut(self.hand) {
                Some(entry) if entry.visited => entry.visited = false,
                Some(entry) => {
                    self.bytes -= entry.weight();
                    if let Ok(occupied) = self.table.get_bucket_entry(self.hand) {
                        occupied.remove();
                    }
                }
                None => {}
            }
        }
    }
}

/// Puts the entry that results from `row` into `scratch`; false if the row changes nothing.
fn merge_into(entry: &Entry, row: &Row<'_>, scratch: &mut Vec<u8>) -> bool {
    let record = entry.record();
    put_entry_key(scratch, row.key);
    if row.cell == Cell::Register && record.is_plain() {
        let Some(new) = Register::of(row) else { return false };
        if record.register().is_some_and(|own| !own.yields_to(&new)) {
            return false;
        }
        encode_row(row, scratch);
        return true;
    }
    let mut builder = RecordBuilder::from(&record);
    builder.add(row);
    builder.encode_into(scratch);
    scratch.get(entry.start as usize..) != Some(record.encoded())
}

fn put_entry_key(out: &mut Vec<u8>, key: KeyRef<'_>) {
    out.push(key.db);
    out.extend_from_slice(key.key);
}

/// Appends the record that consists of just `row`. Does not allocate for a register row.
fn encode_row(row: &Row<'_>, out: &mut Vec<u8>) {
    let mut builder = RecordBuilder::default();
    builder.add(row);
    builder.encode_into(out);
}

#[cfg(test)]
mod tests;
