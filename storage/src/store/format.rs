//! The on-disk format: which one a directory has, and whether this program may open it.

use crate::batch::Batch;
use crate::engine::Engine;
use crate::error::StorageError;
use crate::family::Family;
use crate::tree::Tree;

/// The on-disk format this program reads and writes.
pub const FORMAT: u32 = 2;
/// The format before: the same, without trees. They are built when such a directory is opened.
const FORMAT_WITHOUT_TREES: u32 = 1;

const META_FORMAT: &str = "storage.format";

/// Refuses an engine that holds another format; marks a new one with ours.
pub(super) fn check(engine: &dyn Engine) -> Result<(), StorageError> {
    let found = engine.get(Family::Meta, META_FORMAT.as_bytes())?;
    let is_format = |format: u32| found.as_deref() == Some(format.to_string().as_bytes());
    let mut batch = Batch::default();
    match &found {
        None => Tree::begin_empty(&mut batch),
        // From now on rows come with marks, which a program that knows no trees would leave out: it must refuse.
        Some(_) if is_format(FORMAT_WITHOUT_TREES) => {}
        Some(_) if is_format(FORMAT) => return engine.check(),
        Some(found) => {
            let found = String::from_utf8_lossy(found).into_owned();
            return Err(StorageError::UnknownFormat { found, supported: FORMAT });
        }
    }
    engine.check()?;
    batch.put_meta(META_FORMAT, FORMAT.to_string().as_bytes());
    engine.write(batch.encoded(), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::memory::{Memory, MemoryDisk};
    use crate::horizon::Horizons;
    use crate::options::StoreOptions;
    use crate::store::Store;

    #[test]
    fn unknown_format_is_refused_by_name() {
        let disk = MemoryDisk::new();
        let engine = Memory::new(disk.clone(), Horizons::default());
        let mut batch = Batch::default();
        batch.put_meta(META_FORMAT, b"99");
        engine.write(batch.encoded(), true).unwrap();
        let error = Store::open_memory(&disk, &StoreOptions::new("")).unwrap_err();
        assert_eq!(error, StorageError::UnknownFormat { found: "99".into(), supported: FORMAT });
    }
}
