//! The expiry index: which rows expire when.

use crate::encode::{decode_expiry_key, put_expiry_key};
use crate::engine::{Engine, Step};
use crate::error::StorageError;
use crate::family::Family;
use crate::key::KeyRef;
use crate::row::{Body, Cell, Row};
use crate::version::{UnixMillis, Version};

/// An entry of the expiry index whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When the row expired, or the first of its siblings that was not swept then.
    pub expiry: UnixMillis,
    /// The database of its key.
    pub db: u8,
    /// Its key.
    pub key: Vec<u8>,
    /// Its cell: the register, or an actor's siblings.
    pub cell: Cell,
    /// Its version.
    pub version: Version,
}

/// The first `limit` entries behind the entry `after` that are due at `now`, earliest first, and the last of them as
/// stored (`after` if there is none).
pub(crate) fn due(
    engine: &dyn Engine,
    after: Vec<u8>,
    now: UnixMillis,
    limit: usize,
) -> Result<(Vec<Due>, Vec<u8>), StorageError> {
    let mut start = after.clone();
    if !start.is_empty() {
        start.push(0);
    }
    let (mut due, mut last) = (Vec::new(), after);
    let end = now.0.checked_add(1).map(u64::to_be_bytes);
    engine.walk_range(Family::Expiry, &start, end.as_ref().map(|end| &end[..]), &mut |key, _| {
        if due.len() >= limit {
            return Ok(Step::Stop);
        }
        let (expiry, row) = decode_expiry_key(key)?;
        due.push(Due { expiry, db: row.db, key: row.key.to_vec(), cell: row.cell, version: row.version });
        last.clear();
        last.extend_from_slice(key);
        Ok(Step::Next)
    })?;
    Ok((due, last))
}

/// Appends the entry of `due`.
pub(crate) fn put_due(out: &mut Vec<u8>, due: &Due) {
    let key = KeyRef::new(due.db, &due.key);
    let row =
        Row { key, cell: due.cell, version: due.version, expiry: Some(due.expiry), body: Body::Tombstone };
    put_expiry_key(out, due.expiry, &row);
}
