//! Versioned rows: what a replica stores, how it orders and merges them, and the engines that keep them.

pub mod key;
pub mod record;
pub mod row;
pub mod version;

pub use key::{KeyRef, SLOTS, Slot};
pub use record::{CounterCell, Record, RecordBuilder, Register, View, parse_integer};
pub use row::{Body, Cell, Row};
pub use version::{Hlc, UnixMillis, Version};
