//! What can go wrong in storage, named by what the caller can do about it.

use std::path::PathBuf;

/// An error of the store or of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// An earlier write or sync failed, so that nothing more may be acknowledged: every later commit is refused.
    /// The node must stop serving writes; only a restart (after the disk is well again) clears it.
    #[error("storage is poisoned since a write failed: {reason}")]
    Poisoned {
        /// What the first failure said.
        reason: String,
    },
    /// Bytes on disk are not what this program writes. The read fails; other keys may be well.
    #[error("damaged data on disk: {what}")]
    Damaged {
        /// What was found where something else was expected.
        what: String,
    },
    /// The directory was written by another version of the on-disk format. Its data was not touched.
    #[error("the data directory has on-disk format {found}, this program supports format {supported}")]
    UnknownFormat {
        /// What the directory says.
        found: String,
        /// What this program reads and writes.
        supported: u32,
    },
    /// Another process has the data directory open.
    #[error("the data directory {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system or the engine refused a read or the opening of the directory.
    #[error("storage failed: {what}")]
    Failed {
        /// What it said.
        what: String,
    },
}

impl StorageError {
    pub(crate) fn damaged(what: impl Into<String>) -> StorageError {
        StorageError::Damaged { what: what.into() }
    }
}
