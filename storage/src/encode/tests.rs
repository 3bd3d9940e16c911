//! Golden encodings, round trips, damage.

//! Rows to bytes and back; damaged bytes are refused.

use proptest::prelude::*;

use super::*;
use crate::siblings::{Dot, Sibling};

fn row_key_of(row: &Row<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_row_key(&mut out, row);
    assert_eq!(out.len(), row_key_bytes(row));
    out
}

fn row_value_of(row: &Row<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    put_row_value(&mut out, row);
    assert_eq!(out.len(), row_value_bytes(row));
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden_row(cell: Cell, expiry: Option<u64>, body: Body<'static>) -> Row<'static> {
    let version = Version { hlc: Hlc(0x0102_0304_0506_0708), node: 0x1112_1314_1516_1718 };
    Row { key: KeyRef::new(3, b"foo"), cell, version, expiry: expiry.map(UnixMillis), body }
}

/// The encoding is for ever: rows on users' disks look like this. A change needs a new format and a conversion.
#[test]
fn encoding_is_that_of_format_1() {
    let base = Version { hlc: Hlc(5), node: 6 };
    let cases = [
        (
            golden_row(Cell::Register, None, Body::Value(b"bar")),
            "be59fabe0303666f6f02fefdfcfbfaf9f8f7eeedecebeae9e8e7",
            "02626172",
        ),
        (
            golden_row(Cell::Register, Some(0x2122_2324), Body::Value(b"")),
            "be59fabe0303666f6f02fefdfcfbfaf9f8f7eeedecebeae9e8e7",
            "120000000021222324",
        ),
        (
            golden_row(Cell::Register, None, Body::Tombstone),
            "be59fabe0303666f6f02fefdfcfbfaf9f8f7eeedecebeae9e8e7",
            "01",
        ),
        (
            golden_row(Cell::Counter { actor: 0x31 }, None, Body::Counter { base, sum: -2 }),
            "be59fabe0303666f6f010000000000000031fefdfcfbfaf9f8f7eeedecebeae9e8e7",
            "0300000000000000050000000000000006fffffffffffffffe",
        ),
        (
            golden_row(
                Cell::Siblings { actor: 0x31 },
                None,
                Body::Siblings {
                    base,
                    set: b"\x01\x01\x31\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\0\x02\0\x03bar",
                },
            ),
            "be59fabe0303666f6f000000000000000031fefdfcfbfaf9f8f7eeedecebeae9e8e7",
            "040000000000000005000000000000000601013100000000000000090000000000000001000200\
             03626172",
        ),
    ];
    for (row, key, value) in cases {
        assert_eq!(hex(&row_key_of(&row)), key, "{row:?}");
        assert_eq!(hex(&row_value_of(&row)), value, "{row:?}");
    }
    let mut expiry = Vec::new();
    let (row, key, _) = cases[1];
    put_expiry_key(&mut expiry, row.expiry.unwrap(), &row);
    assert_eq!(hex(&expiry), format!("0000000021222324{key}"));
}

fn any_cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        Just(Cell::Register),
        any::<u64>().prop_map(|actor| Cell::Counter { actor }),
        any::<u64>().prop_map(|actor| Cell::Siblings { actor }),
    ]
}

proptest! {
    #[test]
    fn keys_and_values_round_trip(
        db in any::<u8>(), key in prop::collection::vec(any::<u8>(), 0..300), cell in any_cell(),
        hlc in any::<u64>(), node in any::<u64>(), expiry in any::<Option<u64>>(),
        value in prop::collection::vec(any::<u8>(), 0..100), kind in 0..4, sum in any::<i64>(),
    ) {
        let version = Version { hlc: Hlc(hlc), node };
        let mut siblings = SiblingSet::default();
        siblings.put(Sibling::new(Dot { event: hlc | 1, actor: node | 1 }, None, &value));
        let mut set = Vec::new();
        siblings.encode(&mut set);
        let body = match kind {
            0 => Body::Tombstone,
            1 => Body::Value(&value),
            2 => Body::Siblings { base: version, set: &set },
            _ => Body::Counter { base: version, sum },
        };
        let key = KeyRef::new(db, &key);
        let row = Row { key, cell, version, expiry: expiry.map(UnixMillis), body };
        let (encoded_key, encoded_value) = (row_key_of(&row), row_value_of(&row));
        let parts = decode_row_key(&encoded_key).unwrap();
        prop_assert_eq!(parts.prefix, key.prefix());
        prop_assert_eq!((parts.db, parts.key), (db, key.key));
        prop_assert_eq!(row_of(key, &parts, &decode_row_value(&encoded_value).unwrap()), row);
        let mut shared = Vec::new();
        put_key(&mut shared, key);
        prop_assert_eq!(&encoded_key[..parts.key_bytes], &shared[..]);
        for end in 0..encoded_key.len() {
            prop_assert!(decode_row_key(&encoded_key[..end]).is_err());
        }
    }

    #[test]
    fn damaged_bytes_give_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(parts) = decode_row_key(&bytes) {
            let key = KeyRef { db: parts.db, key: parts.key, position: u64::from(parts.prefix) << 32 };
            let row = Row { key, cell: parts.cell, version: parts.version, expiry: None, body: Body::Tombstone };
            prop_assert_eq!(row_key_of(&row), bytes.clone(), "one row has one encoding");
        }
        let _ = decode_row_value(&bytes);
        let _ = decode_expiry_key(&bytes);
    }

    #[test]
    fn newer_rows_of_a_cell_sort_first(a in any::<(u64, u64)>(), b in any::<(u64, u64)>(), cell in any_cell()) {
        let row = |(hlc, node)| Row {
            key: KeyRef::new(0, b"k"), cell, version: Version { hlc: Hlc(hlc), node }, expiry: None,
            body: Body::Tombstone,
        };
        let [a, b] = [row(a), row(b)];
        prop_assert_eq!(row_key_of(&a).cmp(&row_key_of(&b)), b.version.cmp(&a.version));
    }

    #[test]
    fn lengths_round_trip_in_their_shortest_form(value in 0..=u32::MAX) {
        let mut out = Vec::new();
        put_varint(&mut out, value as usize);
        prop_assert_eq!(out.len(), varint_bytes(value as usize));
        prop_assert_eq!(take_varint(&out), Some((value as usize, &[][..])));
        let last = out.len() - 1;
        out[last] |= 0x80;
        out.push(0);
        prop_assert_eq!(take_varint(&out), None);
    }
}

#[test]
fn lengths_at_the_borders_of_their_forms_round_trip() {
    for value in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455, 268_435_456] {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!(out.len(), varint_bytes(value));
        assert_eq!(take_varint(&out), Some((value, &[][..])));
    }
}
