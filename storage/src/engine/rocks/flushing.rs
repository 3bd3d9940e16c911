//! Waiting for flushes, which RocksDB may forget.
//!
//! With `min_write_buffer_number_to_merge` above one it forgets a flush that is asked for while another one, of earlier
//! memtables, is just syncing the closed files of the log: the other takes the request for its own
//! (`MemTableList::PickMemtablesToFlush`) but does not write the memtables that came since, which then wait until there are
//! enough to merge. Whoever waits for them, waits for ever if nobody else writes.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rocksdb::{DB, FlushOptions, properties};

use super::integer;

/// After so long it is seen to that a flush is under way, then after twice as long, and so on: what takes long, a compaction,
/// is no reason to flush what others write meanwhile in small pieces.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(100);

/// Does `work`, which waits until the rows' memtables are flushed, and meanwhile asks again for a flush that is forgotten.
pub(super) fn flushing<T>(db: &DB, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        // Dropped when the work has ended, however it ends.
        let (_at_work, has_ended) = mpsc::channel::<()>();
        let watch = move || {
            let mut pause = FIRST_LOOK_AFTER;
            while has_ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                if is_forgotten(db) {
                    ask(db);
                }
                pause *= 2;
            }
        };
        // A machine that has no thread left gets by without.
        let _ = thread::Builder::new().name("gyre-flushing".into()).spawn_scoped(scope, watch);
        work()
    })
}

/// Memtables wait, and nothing that would flush them is under way.
fn is_forgotten(db: &DB) -> bool {
    integer(db, properties::NUM_IMMUTABLE_MEM_TABLE) > 0
        && integer(db, properties::MEM_TABLE_FLUSH_PENDING) == 0
        && integer(db, properties::NUM_RUNNING_FLUSHES) == 0
}

fn ask(db: &DB) {
    let mut options = FlushOptions::default();
    options.set_wait(false);
    // Whoever waits is told of an error as well.
    let _ = db.flush_opt(&options);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that is wrong fails")]

    use std::time::Instant;

    use super::*;
    use rocksdb::Options;

    /// Memtables that are too few to be merged are what a forgotten flush leaves: nobody flushes them unasked.
    #[test]
    fn a_forgotten_flush_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(64 << 10);
        options.set_min_write_buffer_number_to_merge(8);
        options.set_max_write_buffer_number(16);
        let db = DB::open(&options, dir.path()).unwrap();
        let waiting = || integer(&db, properties::NUM_IMMUTABLE_MEM_TABLE);
        for key in 0_u32.. {
            db.put(key.to_be_bytes(), [0; 1 << 10]).unwrap();
            if waiting() == 2 {
                break;
            }
        }
        assert!(is_forgotten(&db));
        let begun = Instant::now();
        flushing(&db, || {
            while waiting() > 0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "{} memtables still wait", waiting());
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(db.property_value(properties::num_files_at_level(0)).unwrap().as_deref(), Some("1"));
    }
}
