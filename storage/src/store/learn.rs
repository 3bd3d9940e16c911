//! Learning which keys there are, after a start on an engine that has some, so that reads of others need not ask it.

use super::Store;
use crate::encode::decode_row_key;
use crate::engine::Step;
use crate::error::StorageError;
use crate::family::Family;
use crate::key::KeyRef;

/// How far the pass over all keys has come.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// The position prefix to go on from; `None` when nothing is left, or there are too many keys to know them all.
    next: Option<u32>,
    keys: usize,
}

impl Learning {
    /// A pass over all keys.
    pub(super) fn anew() -> Learning {
        Learning { next: Some(0), keys: 0 }
    }
}

impl Store {
    /// Takes a step of the pass over all keys: `keys_max` of them, and then those of the same position. Answers whether
    /// any are left; once none are, the row cache tells which keys are not there. For a thread that may block; begin after
    /// a start, and again after a file was mended.
    ///
    /// Gives up (and reads go on to ask the engine) if there are more keys than are worth knowing: one for every eight bytes
    /// of the row cache.
    ///
    /// # Errors
    /// [`StorageError::Failed`] or [`StorageError::Damaged`] from the engine; the next step tries again.
    pub fn learn_keys(&self, keys_max: usize) -> Result<bool, StorageError> {
        // Held all the while: a file that is mended makes all begin anew.
        let mut learning = self.learning.lock();
        let Some(from) = learning.next else { return Ok(false) };
        let (mut keys, mut next, mut at) = (0, None, (from, Vec::new()));
        self.engine.walk_range(Family::Rows, &from.to_be_bytes(), None, &mut |row_key, _| {
            let parts = decode_row_key(row_key)?;
            let shared = row_key.get(..parts.key_bytes).unwrap_or_default();
            if at.1 != shared {
                if keys >= keys_max && parts.prefix != at.0 {
                    next = Some(parts.prefix);
                    return Ok(Step::Stop);
                }
                keys += 1;
                at.0 = parts.prefix;
                at.1.clear();
                at.1.extend_from_slice(shared);
                self.cache.learn(KeyRef::new(parts.db, parts.key).hash64());
            }
            Ok(Step::NextCell)
        })?;
        learning.keys += keys;
        learning.next = next.filter(|_| learning.keys <= self.cache.learnt_max());
        if next.is_none() {
            self.cache.set_all_learnt(true);
        }
        Ok(learning.next.is_some())
    }

    /// Whether the row cache tells which keys are not there.
    #[must_use]
    pub fn knows_all_keys(&self) -> bool {
        self.cache.are_all_learnt()
    }

    /// Rows may turn up that were not there: what was learnt no longer holds.
    pub(super) fn unlearn_keys(&self) {
        *self.learning.lock() = Learning::anew();
        self.cache.set_all_learnt(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;
    use crate::options::StoreOptions;
    use crate::row::{Body, Cell, Row};
    use crate::version::{Hlc, Version};

    fn commit(store: &Store, keys: std::ops::Range<u64>, cell: Cell) {
        let mut batch = store.batch();
        for key in keys {
            let body = match cell {
                Cell::Counter { .. } => Body::Counter { base: Version::ZERO, sum: 1 },
                _ => Body::Value(b"v"),
            };
            let version = Version { hlc: Hlc(key + 1), node: 1 };
            batch.push(&Row { key: KeyRef::new(0, &key.to_be_bytes()), cell, version, expiry: None, body });
        }
        store.commit(&mut batch).unwrap();
    }

    fn read(store: &Store, key: u64) -> bool {
        !store.read(KeyRef::new(0, &key.to_be_bytes())).unwrap().is_absent()
    }

    #[test]
    fn fresh_store_knows_what_is_not_there() {
        let store = Store::in_memory();
        assert!(store.knows_all_keys() && !store.learn_keys(1).unwrap());
        commit(&store, 0..100, Cell::Register);
        assert!((0..100).all(|key| read(&store, key)) && !(100..400).any(|key| read(&store, key)));
        let stats = store.stats();
        assert!(stats.cache_absent > 290, "{stats:?}");
        assert_eq!(stats.cache_absent + stats.cache_misses, 300);
    }

    #[test]
    fn first_row_of_a_key_is_cached_whatever_its_cell() {
        let store = Store::in_memory();
        commit(&store, 0..10, Cell::Counter { actor: 7 });
        assert!((0..10).all(|key| read(&store, key)));
        assert_eq!(store.stats().cache_hits, 10, "{:?}", store.stats());
    }

    #[test]
    fn store_that_is_opened_again_learns_its_keys_step_by_step() {
        let disk = MemoryDisk::new();
        let options = StoreOptions::new("");
        commit(&Store::open_memory(&disk, &options).unwrap(), 0..100, Cell::Register);
        let store = Store::open_memory(&disk, &options).unwrap();
        assert!(!store.knows_all_keys() && !read(&store, 200));
        assert_eq!(store.stats().cache_absent, 0);
        // A key that comes meanwhile, before or behind where the pass is.
        let mut steps = 1;
        while store.learn_keys(7).unwrap() {
            commit(&store, 1_000 + steps..1_001 + steps, Cell::Register);
            steps += 1;
        }
        assert!((10..=16).contains(&steps), "{steps}");
        assert!(store.knows_all_keys());
        assert!((0..100).all(|key| read(&store, key)) && (1_001..1_000 + steps).all(|key| read(&store, key)));
        assert!(!(200..300).any(|key| read(&store, key)));
        assert!(store.stats().cache_absent > 90);
        store.unlearn_keys();
        assert!(!store.knows_all_keys() && store.learn_keys(1).unwrap());
    }

    #[test]
    fn too_many_keys_are_not_learnt() {
        let disk = MemoryDisk::new();
        commit(&Store::open_memory(&disk, &StoreOptions::new("")).unwrap(), 0..500, Cell::Register);
        // 128 words, of use for 2,048 keys; then 16, for 256.
        for (row_cache_bytes, knows) in [(16 << 10, true), (2 << 10, false)] {
            let options = StoreOptions { row_cache_bytes, ..StoreOptions::new("") };
            let store = Store::open_memory(&disk, &options).unwrap();
            while store.learn_keys(100).unwrap() {}
            assert_eq!(store.knows_all_keys(), knows);
            assert!((0..500).all(|key| read(&store, key)) && !(500..900).any(|key| read(&store, key)));
        }
    }
}
