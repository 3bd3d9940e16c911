//! An engine in memory, on a disk that can be made to fail and to forget: for tests and simulation.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use crate::batch::changes;
use crate::engine::{Cursor, Engine, Tier, Visit, Walk, walk};
use crate::error::StorageError;
use crate::family::Family;
use crate::horizon::Horizons;
use crate::stats::EngineStats;
use crate::superseded::Superseded;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A pretended disk. Cheap to clone: every clone is the same disk, and outlives the store opened on it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<RwLock<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    families: [Entries; Family::ALL.len()],
    /// What each batch since the last sync replaced, oldest batch first.
    unsynced: Vec<Vec<Replaced>>,
    writes: u64,
    syncs: u64,
    write_fault: bool,
    sync_fault: bool,
    /// How many more bytes fit; `None` is without end.
    room: Option<u64>,
    /// Reads of [`Tier::Memory`] answer as if everything were on disk.
    cold: bool,
}

#[derive(Debug)]
struct Replaced {
    family: Family,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Power fails: of the batches written since the last sync only the first `kept` survive.
    pub fn crash(&self, kept: usize) {
        let mut disk = self.0.write();
        while disk.unsynced.len() > kept {
            let batch = disk.unsynced.pop().unwrap_or_default();
            for replaced in batch.into_iter().rev() {
                disk.put(replaced.family, replaced.key, replaced.value);
            }
        }
        disk.unsynced.clear();
        disk.write_fault = false;
        disk.sync_fault = false;
    }

    /// How many batches a crash could forget now.
    #[must_use]
    pub fn unsynced_batches(&self) -> usize {
        self.0.read().unsynced.len()
    }

    /// From now on every write fails (or no longer does).
    pub fn fail_writes(&self, failing: bool) {
        self.0.write().write_fault = failing;
    }

    /// From now on every sync fails (or no longer does).
    pub fn fail_syncs(&self, failing: bool) {
        self.0.write().sync_fault = failing;
    }

    /// From now on the disk takes `bytes` more and is then full, so that what does not fit fails. `None`: it has room
    /// without end again.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.0.write().room = bytes;
    }

    /// Forgets which segments of the trees are dirty, as if that had been kept in memory only: for tests that break
    /// things on purpose.
    pub fn lose_dirty_marks(&self) {
        self.0.write().entries_mut(Family::Dirty).clear();
    }

    /// Makes reads that may not touch the disk answer that they would have to (or no longer).
    pub fn set_cold(&self, cold: bool) {
        self.0.write().cold = cold;
    }
}

impl Disk {
    /// Takes room for `bytes`.
    ///
    /// # Errors
    /// [`StorageError::Failed`] if they do not fit; the room is left as it was.
    fn take_room(&mut self, bytes: u64) -> Result<(), StorageError> {
        let Some(room) = &mut self.room else { return Ok(()) };
        let left = room.checked_sub(bytes);
        *room = left.ok_or_else(|| StorageError::Failed { what: "injected fault: no space left".into() })?;
        Ok(())
    }

    fn entries(&self, family: Family) -> &Entries {
        let [rows, expiry, meta, hints, tree, dirty] = &self.families;
        match family {
            Family::Rows => rows,
            Family::Expiry => expiry,
            Family::Meta => meta,
            Family::Hints => hints,
            Family::Tree => tree,
            Family::Dirty => dirty,
        }
    }

    fn entries_mut(&mut self, family: Family) -> &mut Entries {
        let [rows, expiry, meta, hints, tree, dirty] = &mut self.families;
        match family {
            Family::Rows => rows,
            Family::Expiry => expiry,
            Family::Meta => meta,
            Family::Hints => hints,
            Family::Tree => tree,
            Family::Dirty => dirty,
        }
    }

    /// Sets or removes an entry; gives what was there.
    fn put(&mut self, family: Family, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let entries = self.entries_mut(family);
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        }
    }
}

/// The engine on a [`MemoryDisk`].
#[derive(Debug)]
pub(crate) struct Memory {
    disk: MemoryDisk,
    horizons: Horizons,
}

impl Memory {
    /// Opens `disk`. Compactions look at `horizons`.
    pub(crate) fn new(disk: MemoryDisk, horizons: Horizons) -> Memory {
        Memory { disk, horizons }
    }
}

impl Engine for Memory {
    fn write(&self, batch: &[u8], sync: bool) -> Result<(), StorageError> {
        let changes = changes(batch).collect::<Result<Vec<_>, _>>()?;
        let mut disk = self.disk.0.write();
        if disk.write_fault {
            return Err(StorageError::Failed { what: "injected write fault".into() });
        }
        if sync && disk.sync_fault {
            return Err(StorageError::Failed { what: "injected sync fault".into() });
        }
        disk.take_room(batch.len() as u64)?;
        let mut replaced = Vec::with_capacity(changes.len());
        for change in changes {
            let value = disk.put(change.family, change.key.to_vec(), change.value.map(<[u8]>::to_vec));
            replaced.push(Replaced { family: change.family, key: change.key.to_vec(), value });
        }
        disk.writes += 1;
        if sync {
            disk.syncs += 1;
            disk.unsynced.clear();
        } else {
            disk.unsynced.push(replaced);
        }
        Ok(())
    }

    fn walk_key(&self, key: &[u8], tier: Tier, visit: &mut Visit<'_>) -> Result<Walk, StorageError> {
        let disk = self.disk.0.read();
        if tier == Tier::Memory && disk.cold {
            return Ok(Walk::Incomplete);
        }
        let mut cursor = MapCursor::new(&disk, Family::Rows);
        walk(&mut cursor, key, |at| at.starts_with(key), visit)?;
        Ok(Walk::Done)
    }

    fn walk_range(
        &self,
        family: Family,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let disk = self.disk.0.read();
        let mut cursor = MapCursor::new(&disk, family);
        walk(&mut cursor, start, |at| end.is_none_or(|end| at < end), visit)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.disk.0.read().entries(family).get(key).cloned())
    }

    fn release(&self) {}

    fn sync(&self) -> Result<(), StorageError> {
        let mut disk = self.disk.0.write();
        if disk.sync_fault {
            return Err(StorageError::Failed { what: "injected sync fault".into() });
        }
        disk.syncs += 1;
        disk.unsynced.clear();
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        let disk = self.disk.0.read();
        EngineStats {
            rows_estimated: disk.entries(Family::Rows).len() as u64,
            memtable_bytes: disk.entries(Family::Rows).iter().map(|(k, v)| (k.len() + v.len()) as u64).sum(),
            ..EngineStats::default()
        }
    }

    fn compact(&self) -> Result<(), StorageError> {
        let mut superseded = Superseded::new(self.horizons.all());
        let mut disk = self.disk.0.write();
        // What a compaction merges was flushed: a crash cannot take back the row that superseded another.
        disk.unsynced.clear();
        let [rows, ..] = &mut disk.families;
        rows.retain(|key, _| !superseded.drops(key));
        Ok(())
    }
}

struct MapCursor<'a> {
    entries: &'a Entries,
    here: Option<(&'a Vec<u8>, &'a Vec<u8>)>,
}

impl<'a> MapCursor<'a> {
    fn new(disk: &'a RwLockReadGuard<'_, Disk>, family: Family) -> MapCursor<'a> {
        MapCursor { entries: disk.entries(family), here: None }
    }

    fn first_from(&self, bound: Bound<&[u8]>) -> Option<(&'a Vec<u8>, &'a Vec<u8>)> {
        self.entries.range::<[u8], _>((bound, Bound::Unbounded)).next()
    }
}

impl Cursor for MapCursor<'_> {
    fn seek(&mut self, key: &[u8]) {
        self.here = self.first_from(Bound::Included(key));
    }

    fn advance(&mut self) {
        self.here = self.here.and_then(|(key, _)| self.first_from(Bound::Excluded(key)));
    }

    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.here.map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}
