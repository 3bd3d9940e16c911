//! Taking a table file out of a closed database, by an edit at the end of its manifest.
//!
//! RocksDB can drop files only by merging them, which reads them, or below level 0 by whole ranges of keys. A damaged
//! file can be dropped as its own tool does it (`ldb unsafe_remove_sst_file`): with a version edit that deletes it.
//!
//! ```text
//! edit     6 varint | level varint | file number varint [| 200 varint | column family varint, unless it is 0]
//!                                                                                     db/version_edit.cc
//! record   masked CRC-32C of what follows the length u32 LE | length u16 LE | type u8 | part of an edit
//!                                                                                     db/log_format.h
//! ```
//! Records do not cross blocks of 32 KiB: an edit is one record (type 1), or a first (2), middle (3) and a last one (4);
//! where less than a record's head is left of a block, zeros fill it. A torn edit at the end is as good as none.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::encode::put_varint;
use crate::error::StorageError;

const BLOCK_BYTES: usize = 32 << 10;
const HEAD_BYTES: usize = 7;
const TAG_DELETED_FILE: usize = 6;
const TAG_COLUMN_FAMILY: usize = 200;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// A table file of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableFile {
    /// The column family's id.
    pub(super) family: usize,
    pub(super) level: usize,
    pub(super) number: u64,
}

/// Takes `files` out of the closed database in `dir`. On an error the manifest is what it was.
pub(super) fn remove_files(dir: &Path, files: &[TableFile]) -> Result<(), StorageError> {
    let manifest = manifest_of(dir)?;
    let length = fs::metadata(&manifest).map_err(|error| failed(&manifest, &error))?.len();
    let mut out = Vec::new();
    let begin = usize::try_from(length).unwrap_or(usize::MAX) % BLOCK_BYTES;
    for file in files {
        put_record(&mut out, begin, &edit(file));
    }
    let append = || {
        let mut opened = OpenOptions::new().append(true).open(&manifest)?;
        let appended = opened.write_all(&out).and_then(|()| opened.sync_all());
        if appended.is_err() {
            // As it was, or a torn end, which counts for nothing.
            let _ = opened.set_len(length);
        }
        appended
    };
    append().map_err(|error| failed(&manifest, &error))
}

/// The manifest that `CURRENT` names.
fn manifest_of(dir: &Path) -> Result<PathBuf, StorageError> {
    let current = dir.join("CURRENT");
    let name = fs::read_to_string(&current).map_err(|error| failed(&current, &error))?;
    let name = name.trim_end();
    let is_manifest = name
        .strip_prefix("MANIFEST-")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()));
    if !is_manifest {
        return Err(StorageError::damaged("CURRENT does not name a manifest"));
    }
    Ok(dir.join(name))
}

fn failed(path: &Path, error: &std::io::Error) -> StorageError {
    StorageError::Failed { what: format!("{}: {error}", path.display()) }
}

fn edit(file: &TableFile) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, TAG_DELETED_FILE);
    put_varint(&mut out, file.level);
    put_varint(&mut out, usize::try_from(file.number).unwrap_or(usize::MAX));
    if file.family != 0 {
        put_varint(&mut out, TAG_COLUMN_FAMILY);
        put_varint(&mut out, file.family);
    }
    out
}

/// Appends `payload` to `out`, which will stand at `begin` of a block.
fn put_record(out: &mut Vec<u8>, begin: usize, payload: &[u8]) {
    let mut rest = payload;
    let mut is_first = true;
    loop {
        let left = BLOCK_BYTES - (begin + out.len()) % BLOCK_BYTES;
        if left < HEAD_BYTES {
            out.resize(out.len() + left, 0);
            continue;
        }
        let (part, after) = rest.split_at(rest.len().min(left - HEAD_BYTES));
        let kind = match (is_first, after.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        let body = [&[kind], part].concat();
        out.extend_from_slice(&mask(crc32c(&body)).to_le_bytes());
        out.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&body);
        (rest, is_first) = (after, false);
        if rest.is_empty() {
            return;
        }
    }
}

/// A checksum of bytes that may hold checksums (util/crc32c.h).
fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a few bytes, once in a disk's life.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use rocksdb::DB;

    use super::*;

    #[test]
    fn checksum_is_that_of_the_literature() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
    }

    #[test]
    fn records_are_cut_at_the_borders_of_blocks() {
        let whole = |begin| {
            let mut out = Vec::new();
            put_record(&mut out, begin, b"payload");
            out
        };
        assert_eq!(whole(0).len(), HEAD_BYTES + 7);
        assert_eq!(whole(0)[6], FULL);
        let padded = whole(BLOCK_BYTES - 3);
        assert_eq!((&padded[..3], padded[9]), (&[0; 3][..], FULL));
        let cut = whole(BLOCK_BYTES - HEAD_BYTES - 2);
        assert_eq!((cut[6], &cut[7..9], cut[15], &cut[16..]), (FIRST, &b"pa"[..], LAST, &b"yload"[..]));
        let empty_first = whole(BLOCK_BYTES - HEAD_BYTES);
        assert_eq!((empty_first[6], empty_first[13]), (FIRST, LAST));
    }

    /// What a crash leaves of an edit, the first of its bytes, is as good as none.
    #[test]
    fn torn_edit_removes_nothing_and_a_whole_one_its_file() {
        let whole = tempfile::tempdir().unwrap();
        let open = |dir: &Path| DB::open_default(dir).unwrap();
        let file = {
            let db = open(whole.path());
            for key in ["a", "b"] {
                db.put(key, key).unwrap();
                db.flush().unwrap();
            }
            let files = db.live_files().unwrap();
            let found = files.iter().find(|file| file.start_key.as_deref() == Some(b"b")).unwrap();
            let number = found.name.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
            TableFile { family: 0, level: 0, number }
        };
        let copy = || {
            let dir = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(whole.path()).unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
            dir
        };
        let edited = copy();
        remove_files(edited.path(), &[file]).unwrap();
        let bytes = |dir: &Path| fs::read(manifest_of(dir).unwrap()).unwrap();
        let (before, after) = (bytes(whole.path()).len(), bytes(edited.path()));
        for length in before..=after.len() {
            let torn = copy();
            fs::write(manifest_of(torn.path()).unwrap(), &after[..length]).unwrap();
            // Whatever it was, it stays so.
            for _ in 0..2 {
                let db = open(torn.path());
                assert_eq!(db.get("a").unwrap().as_deref(), Some(&b"a"[..]));
                assert_eq!(
                    db.get("b").unwrap().is_none(),
                    length == after.len(),
                    "{length} of {}",
                    after.len()
                );
            }
        }
        assert!(after.len() > before + HEAD_BYTES);
    }
}
