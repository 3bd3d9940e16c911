//! How a store is opened.

use std::path::PathBuf;

/// When a commit counts as durable; the `appendfsync` of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// A commit returns when its rows are on stable storage.
    Always,
    /// A commit returns when its rows are in the operating system's hands; [`crate::Store::sync`] is called once a
    /// second. A killed process loses nothing, a power failure at most the last second.
    #[default]
    EverySecond,
    /// As [`FsyncPolicy::EverySecond`], but nobody syncs: the operating system writes when it likes.
    No,
}

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The directory; created if it is not there.
    pub dir: PathBuf,
    /// When commits count as durable.
    pub fsync: FsyncPolicy,
    /// Bytes a memtable may take before it is written to a file.
    pub memtable_bytes: usize,
    /// Bytes for blocks of table files.
    pub block_cache_bytes: usize,
    /// Bytes for the cache of newest rows; 0 is none. A sixteenth of it comes on top, for which keys there are.
    pub row_cache_bytes: usize,
    /// Bytes that hints may take, about; what comes beyond is dropped and its slot marked.
    pub hint_bytes_max: u64,
    /// Threads for flushes and compactions.
    pub background_jobs: usize,
}

impl StoreOptions {
    /// The default options for a store in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions {
            dir: dir.into(),
            fsync: FsyncPolicy::EverySecond,
            memtable_bytes: 64 << 20,
            block_cache_bytes: 128 << 20,
            row_cache_bytes: 384 << 20,
            hint_bytes_max: 256 << 20,
            background_jobs: 2,
        }
    }
}
