//! Deletion horizons: up to which version a database was flushed.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::error::StorageError;
use crate::version::{Hlc, Version};

/// How many databases a horizon can stand for: the database number is one byte of the row key.
pub(crate) const DATABASES_MAX: usize = 256;
const VERSION_BYTES: usize = 16;

/// The horizon of every database, shared with the compaction filter. Only ever rises.
#[derive(Clone, Debug, Default)]
pub(crate) struct Horizons(Arc<ArcSwap<Vec<Version>>>);

impl Horizons {
    /// The horizon of `db`, [`Version::ZERO`] if it was never flushed.
    pub(crate) fn of(&self, db: u8) -> Version {
        self.0.load().get(usize::from(db)).copied().unwrap_or_default()
    }

    /// All of them, by database number; databases past the end were never flushed.
    pub(crate) fn all(&self) -> Arc<Vec<Version>> {
        self.0.load_full()
    }

    /// Puts `merged` (from [`Horizons::merged_with`]) in force.
    pub(crate) fn store(&self, merged: Vec<Version>) {
        self.0.store(Arc::new(merged));
    }

    /// The later of the present and of `others`, for each database; `None` if that is the present.
    pub(crate) fn merged_with(&self, others: &[Version]) -> Option<Vec<Version>> {
        let mut merged = self.all().to_vec();
        let known = others.len().min(DATABASES_MAX);
        if merged.len() < known {
            merged.resize(known, Version::ZERO);
        }
        let mut raised = false;
        for (own, other) in merged.iter_mut().zip(others) {
            if *other > *own {
                *own = *other;
                raised = true;
            }
        }
        raised.then_some(merged)
    }
}

/// The document: sixteen bytes a database, from 0 on.
pub(crate) fn encode(horizons: &[Version]) -> Vec<u8> {
    let mut out = Vec::with_capacity(horizons.len() * VERSION_BYTES);
    for horizon in horizons {
        out.extend_from_slice(&horizon.hlc.0.to_be_bytes());
        out.extend_from_slice(&horizon.node.to_be_bytes());
    }
    out
}

/// Reads the document.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Version>, StorageError> {
    let damaged = || StorageError::damaged("the horizons document does not parse");
    let (versions, rest) = bytes.as_chunks::<VERSION_BYTES>();
    if !rest.is_empty() || versions.len() > DATABASES_MAX {
        return Err(damaged());
    }
    versions
        .iter()
        .map(|version| {
            let (hlc, node) = version.split_first_chunk::<8>().ok_or_else(damaged)?;
            let node: &[u8; 8] = node.try_into().map_err(|_| damaged())?;
            Ok(Version { hlc: Hlc(u64::from_be_bytes(*hlc)), node: u64::from_be_bytes(*node) })
        })
        .collect()
}
