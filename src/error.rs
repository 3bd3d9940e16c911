//! Why a node does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use gyre_storage::StorageError;

use crate::config::ConfigError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings are refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be made.
    #[error("cannot create the data directory {dir}: {source} (setting `dir`)", dir = dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A port cannot be opened.
    #[error("cannot listen on {address}: {source} (setting `{setting}`)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting it comes from.
        setting: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The store is damaged in a place that the node cannot mend while it runs, or run without.
    #[error(
        "{what}\n\
         If other nodes hold replicas of what this one holds, move {dir} away and start this node with the same settings \
         and `--node-id` (`gyre status` of another node shows it): they give it back what it held. Else put back a copy of \
         the directory.",
        dir = dir.display()
    )]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// What was found where.
        what: StorageError,
    },
    /// The store cannot be opened or read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the store keeps of the cluster does not parse or contradicts the settings.
    #[error("{what}")]
    Identity {
        /// The contradiction, and what to do.
        what: String,
    },
    /// The system refuses a thread, a signal handler or the like.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}
