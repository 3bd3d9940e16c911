//! The store's part of mending: what was lost of a damaged file is neither read nor counted until it has come back.

use super::Store;
use super::handoff::QUIET_TRIES_MAX;
use crate::batch::Batch;
use crate::encode::{decode_row_key, decode_row_value, put_expiry_key, row_of};
use crate::engine::{Salvage, Step, Tier};
use crate::error::StorageError;
use crate::family::Family;
use crate::hints;
use crate::key::{KeyRef, SLOTS, Slot};
use crate::read;
use crate::record::Record;
use crate::row::Body;
use crate::stats::DamageStats;
use crate::tree::PrefixRange;
use crate::version::Hlc;

/// Rows of a gap that are looked at in one step, about: more than a few there are only if a whole file cannot be read.
const TIDY_ENTRIES: usize = 1 << 16;

/// What became of a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The number in its name.
    pub file: u64,
    /// Rows of it that could be read and were written anew.
    pub rows_saved: u64,
    /// What may have lost rows: to be compared with other replicas.
    pub slots: Vec<Slot>,
}

impl Store {
    /// Whether a file with damage in it is to be [mended](Store::mend).
    #[must_use]
    pub fn has_damage(&self) -> bool {
        self.engine.damaged_file().is_some()
    }

    /// What is known of damage on disk.
    #[must_use]
    pub fn damage(&self) -> DamageStats {
        DamageStats { unsound_ranges: self.unsound.all().len() as u64, ..self.engine.damage() }
    }

    /// Mends a file that a checksum mismatch was met in: whatever can be read of it is written anew, and the file dropped.
    /// Ranges of which rows could not be read are unsound from then on: reads fail there, and their slots are
    /// [marked](Store::marked_slots); once a mark is [cleared](Store::clear_marks), so are the unsound ranges of its slot.
    /// `is_replicated` tells of which slots other nodes hold rows. Reads and writes wait for some moments, in all about as
    /// long as opening the store takes. For a thread that may block, one call at a time.
    ///
    /// # Errors
    /// Of a file that holds other things than rows and trees, and whatever the disk says; the file then stays as it is
    /// and is not tried again before the store is opened anew.
    pub fn mend(&self, is_replicated: &dyn Fn(Slot) -> bool) -> Result<Option<Mended>, StorageError> {
        self.check_poison()?;
        let Some(file) = self.engine.damaged_file() else { return Ok(None) };
        self.mend_file(file, is_replicated).inspect_err(|_| self.engine.give_up(file))
    }

    fn mend_file(
        &self,
        file: u64,
        is_replicated: &dyn Fn(Slot) -> bool,
    ) -> Result<Option<Mended>, StorageError> {
        let file = self.engine.first_to_go(file)?;
        let Some(salvage) = self.engine.salvage(file)? else { return Ok(None) };
        let Salvage { path, family, gaps, entries } = salvage;
        // Slots that are stale from here on are hashed only when the file is gone.
        let _alone = self.mending.write();
        // Rows whose deletion was in the file may turn up.
        self.unlearn_keys();
        let slots = match family {
            Family::Rows => self.distrust(&gaps)?,
            Family::Tree | Family::Dirty => {
                let all: Vec<Slot> = (0..SLOTS).collect();
                self.tree.make_stale(&all, Batch::default(), |batch| self.write_document(batch))?;
                Vec::new()
            }
            Family::Expiry | Family::Meta | Family::Hints => {
                let what = format!("{path} holds entries of {family:?}, which are not mended");
                return Err(StorageError::damaged(what));
            }
        };
        for gap in &gaps {
            let mut left = Some(*gap);
            while let Some(gap) = left {
                left = self.tidy_gap(file, gap, is_replicated)?;
            }
        }
        // What fails from here on may leave the database closed.
        self.engine.drop_file(file).map_err(|error| self.fail(&error))?;
        Ok(Some(Mended { file, rows_saved: entries, slots }))
    }

    /// Deletions of rows may be lost, too, so that what they deleted will show again when `file` is gone. (This comes
    /// before that, so that no crash comes between.) Expired values are entered in the expiry index once more. Rows that
    /// were purged must not come back: at or before the purge horizon all replicas have every row that is left, so that
    /// here they can go, if there are others to send them. Answers what is left of the gap after a bounded step.
    fn tidy_gap(
        &self,
        file: u64,
        gap: PrefixRange,
        is_replicated: &dyn Fn(Slot) -> bool,
    ) -> Result<Option<PrefixRange>, StorageError> {
        let (mut batch, mut purged) = (Batch::default(), Vec::new());
        let (mut entries, mut prefix, mut left) = (0, 0, None);
        self.engine.walk_without(file, gap, &mut |row_key, value| {
            let parts = decode_row_key(row_key)?;
            let value = decode_row_value(value)?;
            if entries >= TIDY_ENTRIES && parts.prefix != prefix {
                left = Some(PrefixRange { from: u64::from(parts.prefix), ..gap });
                return Ok(Step::Stop);
            }
            (entries, prefix) = (entries + 1, parts.prefix);
            let key = KeyRef { db: parts.db, key: parts.key, position: u64::from(parts.prefix) << 32 };
            if parts.version.hlc <= self.purge.of(key.slot()).purged && is_replicated(key.slot()) {
                batch.delete(Family::Rows, row_key);
                purged.push((parts.db, parts.key.to_vec()));
            } else if let (Some(at), Body::Value(_)) = (value.expiry, value.body) {
                let mut entry = Vec::new();
                put_expiry_key(&mut entry, at, &row_of(key, &parts, &value));
                batch.put(Family::Expiry, &entry, &[]);
            }
            Ok(Step::Next)
        })?;
        self.write_row_removal(&mut batch)?;
        for (db, key) in purged {
            // An entry of the cache may have been newer than these rows; anti-entropy brings that again, if so.
            let key = KeyRef::new(db, &key);
            if self.begin_alone(key.hash64(), QUIET_TRIES_MAX) {
                self.cache.remove(key.hash64(), key);
            }
        }
        Ok(left)
    }

    /// Makes ranges unsound, durably: their slots are marked, and their trees are hashed anew. Answers the slots.
    pub(super) fn distrust(&self, gaps: &[PrefixRange]) -> Result<Vec<Slot>, StorageError> {
        let _order = self.hints.order.write();
        let added = crate::unsound::Ranges::default().with(gaps);
        let ranges = self.unsound.all().with(gaps);
        let slots = added.slots();
        let mut batch = Batch::default();
        ranges.put(&mut batch);
        for slot in &slots {
            let present = self.engine.get(Family::Meta, hints::mark_name(*slot).as_bytes())?;
            let clock = self.clock_mark();
            // A mark that is as it was listed is cleared after an exchange; this one waits for another.
            let is_taken = present.as_deref() == Some(&clock.0.to_be_bytes()[..]);
            batch.mark(*slot, if is_taken { Hlc(clock.0 + 1) } else { clock });
        }
        self.tree.make_stale(&slots, batch, |batch| {
            self.write_document(batch)?;
            self.unsound.store(ranges);
            Ok(())
        })?;
        Ok(slots)
    }

    /// The record of `key` as far as it is left, also where rows were lost: for anti-entropy, which brings them back. May
    /// touch the disk.
    pub fn read_held(&self, key: KeyRef<'_>) -> Result<Record, StorageError> {
        let prefix = u64::from(key.prefix());
        if self.unsound.check(prefix, prefix + 1).is_ok() {
            return self.read(key);
        }
        let record = read::newest(self.engine.as_ref(), key, Tier::Disk)?.unwrap_or_default();
        Ok(self.under_horizon(key.db, self.hide_dead(key, record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::StoreOptions;
    use crate::row::{Cell, Row};
    use crate::version::{UnixMillis, Version};
    use crate::{MemoryDisk, PurgeHorizon};

    fn row(key: &[u8], hlc: u64) -> Row<'_> {
        let version = Version { hlc: Hlc(hlc), node: 1 };
        Row { key: KeyRef::new(0, key), cell: Cell::Register, version, expiry: None, body: Body::Value(b"v") }
    }

    fn commit(store: &Store, rows: &[Row<'_>]) {
        let mut batch = store.batch();
        rows.iter().for_each(|row| batch.push(row));
        store.commit(&mut batch).unwrap();
    }

    fn gap_of(key: &[u8]) -> PrefixRange {
        let prefix = u64::from(KeyRef::new(0, key).prefix());
        PrefixRange { from: prefix, end: prefix + 1 }
    }

    fn without_cache(disk: &MemoryDisk) -> Store {
        Store::open_memory(disk, &StoreOptions { row_cache_bytes: 0, ..StoreOptions::new("") }).unwrap()
    }

    #[test]
    fn unsound_range_is_read_again_once_its_mark_is_cleared() {
        let disk = MemoryDisk::new();
        let store = without_cache(&disk);
        commit(&store, &[row(b"a", 1), row(b"b", 1)]);
        let slots = store.distrust(&[gap_of(b"a")]).unwrap();
        assert_eq!(slots, [KeyRef::new(0, b"a").slot()]);
        drop(store);
        disk.crash(0);
        let store = without_cache(&disk);
        let (a, b) = (KeyRef::new(0, b"a"), KeyRef::new(0, b"b"));
        assert!(store.read(a).is_err() && store.try_read(a).is_err());
        assert!(store.read(b).is_ok() && store.read_held(a).is_ok());
        assert!(store.scan(None, 0, 1 << 32, 10, 1_000, true).is_err());
        assert!(store.count_keys(0, 0, 1 << 32, UnixMillis(0)).is_err());
        let marks = store.marked_slots().unwrap();
        // Distrusted once more before the marks are cleared: what was listed before is not good enough.
        store.distrust(&[gap_of(b"a")]).unwrap();
        store.clear_marks(&marks).unwrap();
        assert!(store.read(a).is_err());
        store.clear_marks(&store.marked_slots().unwrap()).unwrap();
        assert!(store.read(a).is_ok() && store.marked_slots().unwrap().is_empty());
        assert_eq!(store.damage().unsound_ranges, 0);
    }

    #[test]
    fn what_was_purged_does_not_come_back_with_a_lost_deletion() {
        for is_replicated in [true, false] {
            let store = Store::in_memory();
            commit(&store, &[row(b"old", 5), row(b"new", 50)]);
            let horizon = Hlc(9);
            let horizon = PurgeHorizon { hidden: horizon, counted: horizon, purged: horizon };
            for key in [&b"old"[..], b"new"] {
                store.raise_purge_horizons(&[(KeyRef::new(0, key).slot(), horizon)]).unwrap();
                store.tidy_gap(0, gap_of(key), &|_| is_replicated).unwrap();
            }
            assert_eq!(store.read(KeyRef::new(0, b"old")).unwrap().is_absent(), is_replicated);
            assert!(!store.read(KeyRef::new(0, b"new")).unwrap().is_absent());
        }
    }

    #[test]
    fn expired_values_are_swept_even_if_their_tombstones_were_lost() {
        let store = Store::in_memory();
        let expiring = Row { expiry: Some(UnixMillis(7)), ..row(b"a", 5) };
        commit(&store, &[expiring]);
        store.sweep(crate::SweepPass::default(), UnixMillis(8), 10).unwrap();
        assert!(store.expired(UnixMillis(8), 10).unwrap().is_empty());
        commit(&store, &[expiring]);
        let mut batch = Batch::default();
        let mut entry = Vec::new();
        put_expiry_key(&mut entry, UnixMillis(7), &expiring);
        batch.delete(Family::Expiry, &entry);
        store.write_removal(&mut batch).unwrap();
        store.tidy_gap(0, gap_of(b"a"), &|_| true).unwrap();
        assert_eq!(store.expired(UnixMillis(8), 10).unwrap().len(), 1);
    }
}
