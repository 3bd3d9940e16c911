//! What records show, merge and refuse.

use super::*;

const NOW: UnixMillis = UnixMillis(1_000);

fn version(hlc: u64) -> Version {
    Version { hlc: Hlc(hlc), node: 7 }
}

fn counter(actor: u64, hlc: u64, base: Version, sum: i64) -> Row<'static> {
    Row {
        key: KeyRef::new(0, b"k"),
        cell: Cell::Counter { actor },
        version: version(hlc),
        expiry: None,
        body: Body::Counter { base, sum },
    }
}

#[test]
fn register_round_trips_with_and_without_expiry() {
    for (expiry, value) in [(None, Some(&b"v"[..])), (Some(UnixMillis(2_000)), Some(b"")), (None, None)] {
        let record = Record::of_register(version(5), expiry, value);
        let decoded = Record::decode(record.encoded()).unwrap();
        assert_eq!(decoded.register(), Some(Register { version: version(5), expiry, value }));
        assert_eq!(decoded.view(NOW), value.map(View::Bytes));
    }
}

#[test]
fn expired_register_is_not_seen() {
    let record = Record::of_register(version(5), Some(UnixMillis(1_000)), Some(b"v"));
    assert_eq!(record.view(UnixMillis(999)), Some(View::Bytes(b"v")));
    assert_eq!(record.view(NOW), None);
    assert_eq!(record.expiry(NOW), None);
}

#[test]
fn a_swept_row_is_dead_to_every_reader_and_gives_way_to_its_value() {
    let (at, value) = (Some(UnixMillis(2_000)), Some(&b"10"[..]));
    let [whole, swept] = [value, None].map(|value| Record::of_register(version(5), at, value));
    assert_eq!(Record::decode(swept.encoded()).unwrap(), swept);
    assert!(swept.register().unwrap().is_swept() && !whole.register().unwrap().is_swept());
    assert_eq!(swept.digest(), whole.digest());
    assert_eq!(swept.state_digest(Version::ZERO), whole.state_digest(Version::ZERO));
    for now in [1_999, 2_000] {
        assert_eq!(swept.view(UnixMillis(now)), None);
        assert_eq!(swept.expiry(UnixMillis(now)), None);
    }
    assert_eq!([whole.merge(&swept), swept.merge(&whole)], [whole.clone(), whole.clone()]);
    // Nothing is sent for it, either way.
    let key = KeyRef::new(0, b"k");
    assert_eq!(whole.rows_missing_in(&swept, key).count() + swept.rows_missing_in(&whole, key).count(), 0);
    let later = Record::of_register(version(6), None, None);
    assert_eq!([whole.merge(&later), later.merge(&swept)], [later.clone(), later.clone()]);
    // What was counted on it died with it.
    let counted = swept.merge(&Record::of_row(&counter(1, 6, version(5), 3)));
    assert_eq!([1_999, 2_000].map(|now| counted.view(UnixMillis(now))), [None, None]);
    assert!(!later.register().unwrap().is_swept());
}

#[test]
fn counters_of_two_actors_add_up_on_their_base_only() {
    let base = Record::of_register(version(5), None, Some(b"10"));
    let record = base.merge(&Record::of_row(&counter(1, 6, version(5), 3))).merge(&Record::of_row(&counter(
        2,
        6,
        version(5),
        4,
    )));
    assert_eq!(record.view(NOW), Some(View::Integer(17)));
    let reset = record.merge(&Record::of_register(version(9), None, Some(b"1")));
    assert_eq!(reset.view(NOW), Some(View::Bytes(b"1")));
}

#[test]
fn counter_without_register_exists_and_dies_with_a_tombstone() {
    let record = Record::of_row(&counter(1, 6, Version::ZERO, 3));
    assert_eq!(record.view(NOW), Some(View::Integer(3)));
    let deleted = record.merge(&Record::of_register(version(7), None, None));
    assert_eq!(deleted.view(NOW), None);
}

#[test]
fn horizon_hides_older_rows_and_keeps_newer_ones() {
    let old = Record::of_register(version(5), None, Some(b"v"));
    assert_eq!(old.under_horizon(version(5)).view(NOW), None);
    assert_eq!(old.under_horizon(version(4)).view(NOW), Some(View::Bytes(b"v")));
    assert_eq!(Record::ABSENT.under_horizon(version(4)).base(), version(4));
    assert!(Record::ABSENT.under_horizon(Version::ZERO).is_absent());
}

#[test]
fn missing_rows_are_exactly_the_newer_ones() {
    let key = KeyRef::new(0, b"k");
    let old = Record::of_register(version(5), None, Some(b"v"));
    let new = Record::of_register(version(6), None, Some(b"w")).merge(&Record::of_row(&counter(
        1,
        6,
        version(6),
        3,
    )));
    assert_eq!(new.rows_missing_in(&old, key).count(), 2);
    assert_eq!(old.rows_missing_in(&new, key).count(), 0);
    assert_eq!(old.merge(&new), new.merge(&old));
}

#[test]
fn void_counters_count_neither_in_digests_nor_in_repairs() {
    let key = KeyRef::new(0, b"k");
    let register = Record::of_register(version(5), None, Some(b"v"));
    let voided = register.merge(&Record::of_row(&counter(1, 4, version(3), 3)));
    assert_eq!(voided.digest(), register.digest());
    assert_eq!(voided.rows_missing_in(&register, key).count(), 0);
    let ahead = register.merge(&Record::of_row(&counter(1, 7, version(6), 3)));
    assert_ne!(ahead.digest(), register.digest(), "its register may still come");
    assert_eq!(ahead.rows_missing_in(&register, key).count(), 1);
}

#[test]
fn decoding_refuses_damage_without_panicking() {
    let record = Record::of_register(version(5), None, Some(b"value")).merge(&Record::of_row(&counter(
        1,
        6,
        version(5),
        3,
    )));
    let good = record.encoded();
    for end in 1..66 {
        assert_eq!(Record::decode(&good[..end]), Err(MalformedRecord), "cut at {end}");
    }
    for flags in [0xff, TOMBSTONE, EXPIRY, REGISTER | TOMBSTONE | EXPIRY] {
        let mut bad = good.to_vec();
        bad[0] = flags;
        assert_eq!(Record::decode(&bad), Err(MalformedRecord), "flags {flags}");
    }
}

#[test]
fn integers_parse_as_in_redis() {
    for (text, value) in
        [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
    {
        assert_eq!(parse_integer(text.as_bytes()), Some(value));
    }
    for text in ["", "-", "-0", "01", "+1", " 1", "1 ", "9223372036854775808", "1.0", "0x1"] {
        assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
    }
}
