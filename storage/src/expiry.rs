//! The expiry index: which rows expire when.

use crate::batch::Family;
use crate::encode::decode_expiry_key;
use crate::engine::{Engine, Step};
use crate::error::StorageError;
use crate::version::{UnixMillis, Version};

/// An entry of the expiry index whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When the row expired.
    pub expiry: UnixMillis,
    /// The database of its key.
    pub db: u8,
    /// Its key.
    pub key: Vec<u8>,
    /// Its version.
    pub version: Version,
}

/// The first `limit` entries that are due at `now`, earliest first.
pub(crate) fn due(engine: &dyn Engine, now: UnixMillis, limit: usize) -> Result<Vec<Due>, StorageError> {
    let mut due = Vec::new();
    let end = now.0.checked_add(1).map(u64::to_be_bytes);
    engine.walk_range(Family::Expiry, &[], end.as_ref().map(|end| &end[..]), &mut |key, _| {
        if due.len() >= limit {
            return Ok(Step::Stop);
        }
        let (expiry, row) = decode_expiry_key(key)?;
        due.push(Due { expiry, db: row.db, key: row.key.to_vec(), version: row.version });
        Ok(Step::Next)
    })?;
    Ok(due)
}
