//! Iterators that are kept between reads.
//!
//! Making an iterator allocates one for each memtable and file, 2 to 3 µs; bringing one up to date that nobody has
//! flushed or compacted under is a tenth of it. Reads that memory can answer are the hot ones (the first touch of an
//! absent key, above all), so each thread that makes them keeps an iterator.
//!
//! A kept iterator holds on to the memtables and files of its version of the database: [`KeptIterators::release`],
//! called now and then, lets go of those that nobody has used since the last time.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rocksdb::{DB, DBRawIterator, ReadOptions, ReadTier};
use self_cell::self_cell;

use crate::engine::rocks::failed;
use crate::error::StorageError;

/// Threads that find a place of their own; more share places, and make an iterator when theirs is in use.
const PLACES: usize = 16;

self_cell!(
    /// An iterator with the database it belongs to.
    struct Kept {
        owner: Arc<DB>,
        #[covariant]
        dependent: DBRawIterator,
    }
);

#[derive(Default)]
struct Place {
    kept: Option<Kept>,
    /// Used since the last release.
    is_used: bool,
}

/// One iterator for each reading thread, over what memory holds of the rows of one key prefix.
pub(super) struct KeptIterators {
    places: [Mutex<Place>; PLACES],
}

thread_local! {
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

static NEXT_PLACE: AtomicUsize = AtomicUsize::new(0);

impl KeptIterators {
    pub(super) fn new() -> KeptIterators {
        KeptIterators { places: Default::default() }
    }

    /// Lends `work` an iterator that sees every write finished before.
    pub(super) fn with<R>(
        &self,
        db: &Arc<DB>,
        work: impl FnOnce(&mut DBRawIterator<'_>) -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        let place = PLACE.get().unwrap_or_else(|| {
            let place = NEXT_PLACE.fetch_add(1, Ordering::Relaxed) % PLACES;
            PLACE.set(Some(place));
            place
        });
        let Some(mut place) = self.places.get(place).and_then(Mutex::try_lock) else {
            return work(&mut db.raw_iterator_opt(options()));
        };
        place.is_used = true;
        let mut kept = match place.kept.take() {
            Some(mut kept) => {
                kept.with_dependent_mut(|_, iterator| iterator.refresh()).map_err(failed)?;
                kept
            }
            None => Kept::new(Arc::clone(db), |db| db.raw_iterator_opt(options())),
        };
        let result = kept.with_dependent_mut(|_, iterator| work(iterator));
        place.kept = Some(kept);
        result
    }

    /// Drops all iterators. The database is not read meanwhile.
    pub(super) fn close(&self) {
        for place in &self.places {
            place.lock().kept = None;
        }
    }

    /// Drops the iterators that were not used since the last call.
    pub(super) fn release(&self) {
        for place in &self.places {
            let mut place = place.lock();
            if !std::mem::take(&mut place.is_used) {
                place.kept = None;
            }
        }
    }
}

fn options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_prefix_same_as_start(true);
    options.set_read_tier(ReadTier::BlockCache);
    options
}
