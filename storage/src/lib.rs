//! Versioned rows: what a replica stores, how it orders and merges them, and the engines that keep them.

mod ahead;
mod batch;
mod cache;
mod encode;
mod engine;
mod error;
mod expiry;
mod family;
mod hints;
mod horizon;
pub mod key;
mod options;
mod purge;
mod read;
pub mod record;
pub mod row;
mod scan;
pub mod siblings;
mod stats;
mod store;
mod superseded;
pub mod tree;
mod unsound;
pub mod version;

pub use batch::{Batch, ReadBack};
pub use engine::memory::MemoryDisk;
pub use error::StorageError;
pub use expiry::Due;
pub use hints::{ExpiryPass, Hint, HintCounts, HintStats};
pub use key::{KeyRef, SLOTS, Slot};
pub use options::{FsyncPolicy, StoreOptions};
pub use purge::PurgeHorizon;
pub use record::{
    CounterCell, LiveSibling, Record, RecordBuilder, Register, SiblingCell, SiblingState, View, parse_integer,
};
pub use row::{Body, Cell, Row};
pub use scan::{PREFIX_END, ScanPage};
pub use stats::{DamageStats, EngineStats, StoreStats};
pub use store::{FORMAT, Mended, PurgeStep, Store, SweepPass, SweepStep, TOUCHED_MAX};
pub use version::{Hlc, UnixMillis, Version};
