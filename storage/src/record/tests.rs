//! What records show, merge and refuse.

use super::*;
use crate::key::KeyRef;
use crate::siblings::{Dot, PLAIN, Sibling, SiblingSet, VersionVector};

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

fn siblings(actor: u64, hlc: u64, base: Version, seen: &[(u64, u64)], value: &'static [u8]) -> Row<'static> {
    let mut set = SiblingSet::default();
    let mut context = VersionVector::default();
    seen.iter().for_each(|&(actor, event)| context.see(Dot { event, actor }));
    set.discard(&context);
    set.put(Sibling::new(Dot { event: hlc, actor }, None, value));
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    let body = Body::Siblings { base, set: Vec::leak(bytes) };
    Row {
        key: KeyRef::new(0, b"k"),
        cell: Cell::Siblings { actor },
        version: version(hlc),
        expiry: None,
        body,
    }
}

fn of_rows(rows: &[Row<'_>]) -> Record {
    rows.iter().fold(Record::ABSENT, |record, row| record.merge(&Record::of_row(row)))
}

#[test]
fn a_record_keeps_only_cells_that_say_something() {
    let base = version(5);
    let register = Record::of_register(base, None, Some(b"plain"));
    let [first, second] = [siblings(1, 6, base, &[], b"a"), siblings(2, 7, base, &[], b"b")];
    let concurrent = register.merge(&of_rows(&[first, second]));
    assert_eq!(concurrent.sibling_cells().count(), 2);
    assert_eq!(concurrent.siblings(NOW).len(), 3);
    let both = siblings(2, 8, base, &[(PLAIN, 5), (1, 6), (2, 7)], b"both");
    let merged = concurrent.merge(&Record::of_row(&both));
    assert_eq!(merged.sibling_cells().count(), 1);
    assert_eq!(merged.view(NOW), Some(View::Bytes(b"both")));
    let key = KeyRef::new(0, b"k");
    assert!(merged.covers(&first) && !concurrent.covers(&both));
    assert_eq!(concurrent.rows_missing_in(&merged, key).count(), 0);
    assert_eq!(merged.rows_missing_in(&concurrent, key).collect::<Vec<_>>(), [both]);
    assert_eq!(merged.digest(), register.merge(&Record::of_row(&both)).digest());
    let replaced = merged.merge(&Record::of_register(version(9), None, None));
    assert!(replaced.is_plain() && replaced.view(NOW).is_none());
    assert_eq!(merged.under_horizon(version(6)).view(NOW), None, "a set on what was flushed is void");
}

#[test]
fn of_cells_that_know_the_same_the_newer_row_stays_everywhere() {
    let seen = [(1, 4), (2, 4)];
    let emptied = |actor: u64, hlc: u64| {
        let mut only = SiblingSet::default();
        let mut context = VersionVector::default();
        seen.iter().for_each(|&(actor, event)| context.see(Dot { event, actor }));
        only.discard(&context);
        let mut bytes = Vec::new();
        only.encode(&mut bytes);
        let body = Body::Siblings { base: Version::ZERO, set: Vec::leak(bytes) };
        Row { body, ..siblings(actor, hlc, Version::ZERO, &[], b"") }
    };
    let [older, newer] = [Record::of_row(&emptied(2, 6)), Record::of_row(&emptied(1, 7))];
    assert_eq!(older.merge(&newer), newer);
    assert_eq!(newer.merge(&older), newer);
    let key = KeyRef::new(0, b"k");
    assert_eq!(newer.rows_missing_in(&older, key).count(), 1, "or their digests would differ for ever");
    assert_eq!(older.rows_missing_in(&newer, key).count(), 0);
    assert!(newer.view(NOW).is_none() && !newer.is_absent(), "what was seen stays when nothing is left");
}

#[test]
fn the_newest_sibling_is_the_plain_view_until_it_expires() {
    let mut set = SiblingSet::default();
    set.put(Sibling::new(Dot { event: 8, actor: 1 }, Some(NOW), b"gone"));
    set.put(Sibling::new(Dot { event: 7, actor: 2 }, Some(UnixMillis(9_000)), b"later"));
    set.put(Sibling::new(Dot { event: 6, actor: 3 }, None, b"oldest"));
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    let body = Body::Siblings { base: Version::ZERO, set: &bytes };
    let row = Row { body, ..siblings(1, 8, Version::ZERO, &[], b"") };
    let record = Record::of_row(&row);
    assert_eq!(record.view(NOW), Some(View::Bytes(b"later")));
    assert_eq!(record.expiry(NOW), Some(UnixMillis(9_000)));
    assert_eq!(record.view(UnixMillis(9_000)), Some(View::Bytes(b"oldest")));
    assert_eq!(record.expiry(UnixMillis(9_000)), None);
}

#[test]
fn counters_beside_siblings_are_the_plain_value() {
    let counted = Record::of_row(&counter(1, 6, Version::ZERO, 3));
    let written = siblings(2, 7, Version::ZERO, &[], b"text");
    let record = counted.merge(&Record::of_row(&written));
    let values: Vec<View<'_>> = record.siblings(NOW).iter().map(|sibling| sibling.value).collect();
    assert_eq!(values, [View::Bytes(b"text"), View::Integer(3)]);
    assert_eq!(record.sibling_state().seen().of(PLAIN), 6);
    let replaced = siblings(2, 8, Version::ZERO, &[(PLAIN, 6), (2, 7)], b"new");
    let record = record.merge(&Record::of_row(&replaced));
    assert_eq!(record.siblings(NOW).len(), 1);
    let counted_on = record.merge(&Record::of_row(&counter(1, 9, Version::ZERO, 4)));
    assert_eq!(counted_on.siblings(NOW).len(), 2, "an increment that the context had not seen");
}

#[test]
fn damaged_sibling_cells_are_refused_without_panicking() {
    let rows = [siblings(1, 6, version(5), &[], b"a"), siblings(2, 7, version(5), &[], b"bc")];
    let record = of_rows(&rows).merge(&Record::of_register(version(5), None, Some(b"value")));
    let good = record.encoded();
    assert_eq!(Record::decode(good), Ok(record.clone()));
    for end in 1..good.len() - b"value".len() {
        assert_eq!(Record::decode(&good[..end]), Err(MalformedRecord), "cut at {end}");
    }
    for at in 0..good.len() {
        for bits in [1, 0x80, 0xff] {
            let mut bad = good.to_vec();
            bad[at] ^= bits;
            if let Ok(record) = Record::decode(&bad) {
                let _ = record.siblings(NOW);
                let _ = (record.digest(), record.view(NOW), record.newest_version());
                assert_eq!(record.merge(&record), record);
            }
        }
    }
}
