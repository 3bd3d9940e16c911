//! What is put into a batch, read from its bytes.

use super::changes::Change;
use super::*;
use crate::row::{Body, Cell};
use crate::version::UnixMillis;

fn row(expiry: Option<u64>) -> Row<'static> {
    Row {
        key: KeyRef::new(3, b"foo"),
        cell: Cell::Register,
        version: Version { hlc: Hlc(9), node: 1 },
        expiry: expiry.map(UnixMillis),
        body: Body::Value(b"bar"),
    }
}

#[test]
fn what_was_added_comes_back_in_order() {
    let mut batch = Batch::default();
    batch.push(&row(None));
    batch.push(&row(Some(7)));
    batch.put_meta("name", b"bytes");
    batch.hint(5, row(None).key, Hlc(9), 4);
    batch.delete(Family::Rows, b"row");
    batch.delete(Family::Hints, b"hint");
    assert_eq!((batch.len(), batch.newest()), (2, Hlc(9)));
    let encoded = batch.encoded().to_vec();
    assert_eq!(encoded[8..12], 7u32.to_le_bytes(), "rows, index entry, document, hint, deletions");
    let changes: Vec<Change<'_>> = changes(&encoded).map(Result::unwrap).collect();
    let families: Vec<Family> = changes.iter().map(|change| change.family).collect();
    use Family::{Expiry, Hints, Meta, Rows};
    assert_eq!(families, [Rows, Rows, Expiry, Meta, Hints, Rows, Hints]);
    assert_eq!(changes[2].key[..8], 7u64.to_be_bytes());
    assert_eq!(changes[2].key[8..], *changes[1].key);
    assert_eq!((changes[3].key, changes[3].value), (&b"name"[..], Some(&b"bytes"[..])));
    assert_eq!(changes[4].value, Some(&Hint::value(Hlc(9), 4)[..]));
    assert_eq!((changes[5].key, changes[5].value), (&b"row"[..], None));
    assert_eq!((changes[6].key, changes[6].value), (&b"hint"[..], None));
}

#[test]
fn cleared_batch_is_like_a_new_one_and_keeps_little() {
    let mut batch = Batch::default();
    let large = vec![0; 3 * RETAINED_BYTES_MAX];
    batch.push(&Row { body: Body::Value(&large), ..row(None) });
    assert!(batch.bytes() > large.len());
    batch.clear();
    assert!(batch.is_empty() && batch.newest() == Hlc::ZERO);
    assert!(batch.data.capacity() <= RETAINED_BYTES_MAX);
    assert_eq!(batch.encoded(), Batch::default().encoded());
}

#[test]
fn damaged_batch_gives_an_error_and_ends() {
    let mut batch = Batch::default();
    batch.push(&row(Some(7)));
    let encoded = batch.encoded().to_vec();
    for end in HEADER_BYTES + 1..encoded.len() {
        let results: Vec<_> = changes(&encoded[..end]).collect();
        assert!(results.len() <= 2);
        let is_cut_between = results.iter().all(Result::is_ok) && results.len() == 1;
        assert!(is_cut_between || results.last().is_some_and(Result::is_err), "cut at {end}");
    }
}
