//! What every read-modify-write does, with Redis 7.2's edge cases, and the agreement with a model of a string key.

use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, UnixMillis, Version, View};
use proptest::prelude::*;

use super::{
    Change, ExpireCondition, ExpiryChange, Modify, ModifyError, ModifyReply, NewBody, STRING_BYTES_MAX,
    SetCondition, apply,
};

const NOW: UnixMillis = UnixMillis(1_000);
const SOON: UnixMillis = UnixMillis(5_000);
const LATER: UnixMillis = UnixMillis(9_000);
const ACTOR: u64 = 42;

fn version(hlc: u64) -> Version {
    Version { hlc: Hlc(hlc), node: 7 }
}

fn string(value: &[u8], expiry: Option<UnixMillis>) -> Record {
    Record::of_register(version(5), expiry, Some(value))
}

fn expired() -> Record {
    string(b"7", Some(NOW))
}

/// A counter of total 17: a register 10 and two actors' sums.
fn counter(expiry: Option<UnixMillis>) -> Record {
    let base = string(b"10", expiry);
    [(ACTOR, 3), (9, 4)].into_iter().fold(base, |record, (actor, sum)| {
        let row = gyre_storage::Row {
            key: KeyRef::new(0, b"k"),
            cell: Cell::Counter { actor },
            version: version(6),
            expiry: None,
            body: Body::Counter { base: version(5), sum },
        };
        record.merge(&Record::of_row(&row))
    })
}

fn run(modify: Modify<'_>, record: &Record) -> Change {
    apply(&modify, record, NOW, ACTOR).unwrap()
}

/// The record after the change, stamped with a version above all others.
fn after(modify: Modify<'_>, record: &Record) -> (Record, ModifyReply) {
    let change = run(modify, record);
    let stamp = Version { hlc: Hlc(record.newest_version().hlc.0 + 1), node: 1 };
    let merged = match &change.row {
        Some(row) => record.merge(&Record::of_row(&row.row(KeyRef::new(0, b"k"), stamp))),
        None => record.clone(),
    };
    (merged, change.reply)
}

/// Value and expiry as a client sees them.
fn seen(record: &Record) -> Option<(Vec<u8>, Option<UnixMillis>)> {
    let value = match record.view(NOW)? {
        View::Bytes(bytes) => bytes.to_vec(),
        View::Integer(number) => number.to_string().into_bytes(),
    };
    Some((value, record.expiry(NOW)))
}

fn live(value: &[u8], expiry: Option<UnixMillis>) -> Option<(Vec<u8>, Option<UnixMillis>)> {
    Some((value.to_vec(), expiry))
}

fn bytes(value: &[u8]) -> ModifyReply {
    ModifyReply::Bytes(value.to_vec())
}

fn set(condition: SetCondition, expiry: ExpiryChange, get: bool) -> Modify<'static> {
    Modify::Set { value: b"new", condition, expiry, get }
}

#[test]
fn set_nx_writes_only_absent_and_expired_keys() {
    let nx = set(SetCondition::Nx, ExpiryChange::Clear, false);
    for record in [Record::ABSENT, expired(), Record::of_register(version(5), None, None)] {
        let (record, reply) = after(nx, &record);
        assert_eq!((seen(&record), reply), (live(b"new", None), ModifyReply::Done));
    }
    for record in [string(b"", None), counter(None)] {
        let change = run(nx, &record);
        assert_eq!(change, Change::none(ModifyReply::Nil));
    }
}

#[test]
fn set_xx_writes_only_live_keys() {
    let xx = set(SetCondition::Xx, ExpiryChange::At(SOON), false);
    assert_eq!(run(xx, &Record::ABSENT), Change::none(ModifyReply::Nil));
    assert_eq!(run(xx, &expired()), Change::none(ModifyReply::Nil));
    let (record, reply) = after(xx, &counter(None));
    assert_eq!((seen(&record), reply), (live(b"new", Some(SOON)), ModifyReply::Done));
}

#[test]
fn set_get_replies_the_old_value_whether_or_not_it_writes() {
    let get = |condition| set(condition, ExpiryChange::Clear, true);
    let (record, reply) = after(get(SetCondition::Always), &string(b"old", Some(SOON)));
    assert_eq!((seen(&record), reply), (live(b"new", None), bytes(b"old")));
    assert_eq!(after(get(SetCondition::Always), &Record::ABSENT).1, ModifyReply::Nil);
    let refused = run(get(SetCondition::Nx), &counter(None));
    assert_eq!(refused, Change::none(bytes(b"17")));
    let (record, reply) = after(get(SetCondition::Nx), &Record::ABSENT);
    assert_eq!((seen(&record), reply), (live(b"new", None), ModifyReply::Nil));
    assert_eq!(run(get(SetCondition::Xx), &Record::ABSENT), Change::none(ModifyReply::Nil));
}

#[test]
fn keepttl_keeps_a_live_expiry_and_does_not_revive_a_past_one() {
    let keep = set(SetCondition::Always, ExpiryChange::Keep, false);
    assert_eq!(seen(&after(keep, &string(b"old", Some(SOON))).0), live(b"new", Some(SOON)));
    assert_eq!(seen(&after(keep, &expired()).0), live(b"new", None));
}

#[test]
fn set_with_a_past_expiry_deletes() {
    let past = set(SetCondition::Always, ExpiryChange::At(NOW), false);
    let change = run(past, &string(b"old", None));
    assert_eq!(change.reply, ModifyReply::Done);
    assert_eq!(change.row.unwrap().body, NewBody::Tombstone);
}

#[test]
fn getdel_replies_and_deletes() {
    let (record, reply) = after(Modify::GetDelete, &counter(Some(SOON)));
    assert_eq!((seen(&record), reply), (None, bytes(b"17")));
    assert_eq!(run(Modify::GetDelete, &Record::ABSENT), Change::none(ModifyReply::Nil));
}

#[test]
fn getex_changes_only_the_expiry() {
    let getex = |expiry| Modify::GetExpire { expiry };
    let (record, reply) = after(getex(ExpiryChange::At(SOON)), &counter(None));
    assert_eq!((seen(&record), reply), (live(b"17", Some(SOON)), bytes(b"17")));
    assert_eq!(seen(&after(getex(ExpiryChange::Clear), &string(b"v", Some(SOON))).0), live(b"v", None));
    assert_eq!(seen(&after(getex(ExpiryChange::At(NOW)), &string(b"v", None)).0), None);
    for unchanged in [getex(ExpiryChange::Keep), getex(ExpiryChange::At(SOON))] {
        assert_eq!(run(unchanged, &string(b"v", Some(SOON))).row, None);
    }
    assert_eq!(run(getex(ExpiryChange::Clear), &Record::ABSENT).reply, ModifyReply::Nil);
}

#[test]
fn append_joins_and_keeps_the_expiry() {
    let (record, reply) = after(Modify::Append { value: b"lo" }, &string(b"hel", Some(SOON)));
    assert_eq!((seen(&record), reply), (live(b"hello", Some(SOON)), ModifyReply::Integer(5)));
    let (record, reply) = after(Modify::Append { value: b"0" }, &counter(None));
    assert_eq!((seen(&record), reply), (live(b"170", None), ModifyReply::Integer(3)));
    let (record, reply) = after(Modify::Append { value: b"" }, &Record::ABSENT);
    assert_eq!((seen(&record), reply), (live(b"", None), ModifyReply::Integer(0)));
    let unchanged = run(Modify::Append { value: b"" }, &string(b"abc", None));
    assert_eq!(unchanged, Change::none(ModifyReply::Integer(3)));
}

#[test]
fn setrange_overwrites_and_pads() {
    let at = |offset, value| Modify::SetRange { offset, value };
    let (record, reply) = after(at(6, b"Redis"), &string(b"Hello World", Some(SOON)));
    assert_eq!((seen(&record), reply), (live(b"Hello Redis", Some(SOON)), ModifyReply::Integer(11)));
    let (record, reply) = after(at(2, b"x"), &Record::ABSENT);
    assert_eq!((seen(&record), reply), (live(b"\0\0x", None), ModifyReply::Integer(3)));
    assert_eq!(seen(&after(at(1, b"8"), &counter(None)).0), live(b"18", None));
    for record in [Record::ABSENT, string(b"abc", None)] {
        let length = seen(&record).map_or(0, |(value, _)| value.len() as i64);
        let change = run(at(u64::MAX, b""), &record);
        assert_eq!(change, Change::none(ModifyReply::Integer(length)));
    }
}

#[test]
fn strings_do_not_grow_past_the_limit() {
    for modify in [
        Modify::SetRange { offset: STRING_BYTES_MAX, value: b"x" },
        Modify::SetRange { offset: u64::MAX, value: b"x" },
        Modify::SetBit { offset: STRING_BYTES_MAX * 8, bit: true },
        Modify::SetBit { offset: u64::MAX, bit: true },
    ] {
        assert_eq!(apply(&modify, &Record::ABSENT, NOW, ACTOR), Err(ModifyError::TooLong));
    }
}

#[test]
fn setbit_counts_from_the_most_significant_bit() {
    let bit = |offset, bit| Modify::SetBit { offset, bit };
    let (record, reply) = after(bit(7, true), &Record::ABSENT);
    assert_eq!((seen(&record), reply), (live(b"\x01", None), ModifyReply::Integer(0)));
    let (record, reply) = after(bit(7, false), &record);
    assert_eq!((seen(&record), reply), (live(b"\0", None), ModifyReply::Integer(1)));
    assert_eq!(seen(&after(bit(17, false), &record).0), live(b"\0\0\0", None));
    assert_eq!(run(bit(3, false), &record), Change::none(ModifyReply::Integer(0)));
    assert_eq!(seen(&after(bit(6, true), &string(b"a", Some(SOON))).0), live(b"c", Some(SOON)));
}

#[test]
fn add_grows_the_own_cell_and_leaves_the_others() {
    let (record, reply) = after(Modify::Add { delta: 5 }, &counter(Some(SOON)));
    assert_eq!((seen(&record), reply), (live(b"22", Some(SOON)), ModifyReply::Integer(22)));
    let row = run(Modify::Add { delta: 5 }, &counter(None)).row.unwrap();
    assert_eq!(row.cell, Cell::Counter { actor: ACTOR });
    assert_eq!(row.body, NewBody::Counter { base: version(5), sum: 8 });
}

#[test]
fn add_starts_a_cell_on_the_present_base() {
    for (record, base) in [
        (Record::ABSENT, Version::ZERO),
        (Record::of_register(version(5), None, None), version(5)),
        (string(b"0", None), version(5)),
        (counter(None).merge(&Record::of_register(version(8), None, Some(b"0"))), version(8)),
    ] {
        let row = run(Modify::Add { delta: -2 }, &record).row.unwrap();
        assert_eq!(row.body, NewBody::Counter { base, sum: -2 });
        assert_eq!(after(Modify::Add { delta: -2 }, &record).1, ModifyReply::Integer(-2));
    }
}

#[test]
fn add_to_an_expired_key_starts_a_register() {
    let (record, reply) = after(Modify::Add { delta: 3 }, &expired());
    assert_eq!((seen(&record), reply), (live(b"3", None), ModifyReply::Integer(3)));
    assert_eq!(run(Modify::Add { delta: 3 }, &expired()).row.unwrap().cell, Cell::Register);
}

#[test]
fn add_refuses_what_is_no_integer_and_what_overflows() {
    let add = |record: &Record, delta| apply(&Modify::Add { delta }, record, NOW, ACTOR);
    for text in [&b"abc"[..], b"", b" 1", b"1.0", b"9223372036854775808"] {
        assert_eq!(add(&string(text, None), 1), Err(ModifyError::NotAnInteger));
    }
    assert_eq!(add(&string(b"9223372036854775807", None), 1), Err(ModifyError::Overflow));
    assert_eq!(add(&string(b"-9223372036854775808", None), -1), Err(ModifyError::Overflow));
    assert!(add(&string(b"9223372036854775806", None), 1).is_ok());
}

#[test]
fn add_float_writes_text_and_keeps_the_expiry() {
    let add = |delta| Modify::AddFloat { delta };
    let (record, reply) = after(add(b"0.1"), &string(b"10.50", Some(SOON)));
    assert_eq!((seen(&record), reply), (live(b"10.6", Some(SOON)), bytes(b"10.6")));
    assert_eq!(after(add(b"0.5"), &counter(None)).1, bytes(b"17.5"));
    assert_eq!(after(add(b"5.0e3"), &Record::ABSENT).1, bytes(b"5000"));
    let refused =
        |record: &Record, delta| apply(&Modify::AddFloat { delta }, record, NOW, ACTOR).unwrap_err();
    assert_eq!(refused(&string(b"abc", None), b"1"), ModifyError::NotAFloat);
    assert_eq!(refused(&string(b"", None), b"1"), ModifyError::NotAFloat);
    assert_eq!(refused(&Record::ABSENT, b"1 "), ModifyError::NotAFloat);
    assert_eq!(refused(&Record::ABSENT, b"inf"), ModifyError::NotFinite);
}

#[test]
fn delete_replies_whether_the_key_existed() {
    for record in [string(b"v", None), counter(Some(SOON))] {
        let (record, reply) = after(Modify::Delete, &record);
        assert_eq!((seen(&record), reply), (None, ModifyReply::Integer(1)));
    }
    for record in [Record::ABSENT, expired(), Record::of_register(version(5), None, None)] {
        let change = run(Modify::Delete, &record);
        assert_eq!(change, Change::none(ModifyReply::Integer(0)));
    }
}

#[test]
fn conditional_deletes_spare_what_others_wrote() {
    let at = |hlc| Modify::DeleteIfVersion { version: version(hlc) };
    assert_eq!(run(at(5), &counter(None)).reply, ModifyReply::Integer(0));
    assert_eq!(seen(&after(at(6), &counter(None)).0), None);
    assert_eq!(run(at(6), &Record::ABSENT).reply, ModifyReply::Integer(0));
    let equal = |value| Modify::DeleteIfEqual { value };
    assert_eq!(seen(&after(equal(b"17"), &counter(None)).0), None);
    assert_eq!(run(equal(b"16"), &counter(None)), Change::none(ModifyReply::Integer(0)));
    assert_eq!(run(equal(b""), &Record::ABSENT).reply, ModifyReply::Integer(0));
}

/// Rows: the present expiry; columns: condition, whether EXPIRE to `SOON` is done.
#[test]
fn expire_honours_its_conditions() {
    use ExpireCondition::{Always, Gt, Lt, Nx, Xx, XxLt};
    let sooner = Some(UnixMillis(4_000));
    for (present, allowed) in [
        (None, vec![Always, Nx, Lt]),
        (sooner, vec![Always, Xx, Gt]),
        (Some(SOON), vec![Always, Xx]),
        (Some(LATER), vec![Always, Xx, Lt, XxLt]),
    ] {
        for condition in [Always, Nx, Xx, Gt, Lt, XxLt] {
            let (record, reply) = after(Modify::Expire { at: SOON, condition }, &string(b"v", present));
            let holds = allowed.contains(&condition);
            assert_eq!(reply, ModifyReply::Integer(i64::from(holds)), "{present:?} {condition:?}");
            assert_eq!(seen(&record), live(b"v", if holds { Some(SOON) } else { present }));
        }
    }
}

#[test]
fn expire_in_the_past_deletes_and_of_nothing_does_nothing() {
    let expire = |at| Modify::Expire { at, condition: ExpireCondition::Always };
    let (record, reply) = after(expire(NOW), &string(b"v", None));
    assert_eq!((seen(&record), reply), (None, ModifyReply::Integer(1)));
    assert_eq!(run(expire(SOON), &Record::ABSENT), Change::none(ModifyReply::Integer(0)));
    assert_eq!(seen(&after(expire(SOON), &counter(None)).0), live(b"17", Some(SOON)));
}

#[test]
fn persist_removes_an_expiry_once() {
    let (record, reply) = after(Modify::Persist, &counter(Some(SOON)));
    assert_eq!((seen(&record), reply), (live(b"17", None), ModifyReply::Integer(1)));
    for record in [record, Record::ABSENT, expired()] {
        assert_eq!(run(Modify::Persist, &record), Change::none(ModifyReply::Integer(0)));
    }
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (-100i64..100).prop_map(|number| number.to_string().into_bytes()),
    ]
}

fn any_expiry() -> impl Strategy<Value = ExpiryChange> {
    prop_oneof![
        Just(ExpiryChange::Keep),
        Just(ExpiryChange::Clear),
        (0u64..3_000).prop_map(|at| ExpiryChange::At(UnixMillis(at))),
    ]
}

/// A read-modify-write of kind `kind`; the other arguments fill whatever fields it has.
fn modify_of(kind: u8, value: &[u8], number: i64, expiry: ExpiryChange, get: bool) -> Modify<'_> {
    let size = number.unsigned_abs();
    let condition = [SetCondition::Always, SetCondition::Nx, SetCondition::Xx][(size % 3) as usize];
    match kind % 13 {
        0 => Modify::Set { value, condition, expiry, get },
        1 => Modify::GetDelete,
        2 => Modify::GetExpire { expiry },
        3 => Modify::Append { value },
        4 => Modify::SetRange { offset: size % 50, value },
        5 => Modify::SetBit { offset: size % 200, bit: get },
        6 => Modify::Add { delta: number },
        7 => Modify::AddFloat { delta: value },
        8 => Modify::Delete,
        9 => Modify::DeleteIfVersion { version: version(size) },
        10 => Modify::DeleteIfEqual { value },
        11 => {
            use ExpireCondition::{Always, Gt, Lt, Nx, Xx, XxLt};
            let condition = [Always, Nx, Xx, Gt, Lt, XxLt][(size % 6) as usize];
            Modify::Expire { at: UnixMillis(size % 3_000), condition }
        }
        _ => Modify::Persist,
    }
}

proptest! {
    #[test]
    fn modifies_survive_the_wire(
        kind in any::<u8>(), value in any_value(), number in any::<i64>(), expiry in any_expiry(), get in any::<bool>(),
    ) {
        let modify = modify_of(kind, &value, number, expiry, get);
        let mut wire = Vec::new();
        modify.encode(&mut wire);
        prop_assert_eq!(Modify::decode(&wire), Ok(modify));
    }

    #[test]
    fn replies_survive_the_wire(value in any_value(), number in any::<i64>()) {
        for reply in [ModifyReply::Done, ModifyReply::Nil, ModifyReply::Integer(number), ModifyReply::Bytes(value)] {
            let mut wire = Vec::new();
            reply.encode(&mut wire);
            prop_assert_eq!(ModifyReply::decode(&wire), Ok(reply));
        }
    }

    #[test]
    fn hostile_bytes_decode_to_an_error_or_to_themselves(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut wire = Vec::new();
        if let Ok(modify) = Modify::decode(&bytes) {
            modify.encode(&mut wire);
            prop_assert_eq!(&wire, &bytes);
        }
        wire.clear();
        if let Ok(reply) = ModifyReply::decode(&bytes) {
            reply.encode(&mut wire);
            prop_assert_eq!(&wire, &bytes);
        }
        for code in bytes {
            if let Ok(error) = ModifyError::from_code(code) {
                prop_assert_eq!(error.code(), code);
            }
        }
    }

    /// A history of changes of one key, seen by clients, is that of a plain optional string with an expiry.
    #[test]
    fn histories_agree_with_a_string_variable(
        steps in prop::collection::vec((any::<u8>(), any_value(), -500i64..500, any_expiry(), any::<bool>()), 1..30),
    ) {
        let mut record = Record::ABSENT;
        let mut model: Option<(Vec<u8>, Option<UnixMillis>)> = None;
        for (kind, value, number, expiry, get) in steps {
            let modify = modify_of(kind, &value, number, expiry, get);
            if let Ok(change) = apply(&modify, &record, NOW, ACTOR) {
                model = model_after(model, &modify, &change.reply);
                record = after(modify, &record).0;
            }
            prop_assert_eq!(seen(&record), model.clone(), "after {:?}", modify);
        }
    }
}

type Variable = Option<(Vec<u8>, Option<UnixMillis>)>;

/// The model: what each change makes of a variable. Where a change has a condition, its reply says if it held.
fn model_after(old: Variable, modify: &Modify<'_>, reply: &ModifyReply) -> Variable {
    let old_expiry = old.as_ref().and_then(|(_, expiry)| *expiry);
    let changed = |change: ExpiryChange| match change {
        ExpiryChange::Keep => old_expiry,
        ExpiryChange::Clear => None,
        ExpiryChange::At(at) => Some(at),
    };
    let text = || old.clone().map(|(value, _)| value).unwrap_or_default();
    let padded = |length: usize| {
        let mut text = text();
        text.resize(text.len().max(length), 0);
        text
    };
    let done = *reply == ModifyReply::Integer(1);
    let new = match *modify {
        Modify::Set { value, condition, expiry, .. } => {
            let holds = match condition {
                SetCondition::Always => true,
                SetCondition::Nx => old.is_none(),
                SetCondition::Xx => old.is_some(),
            };
            if holds { Some((value.to_vec(), changed(expiry))) } else { old.clone() }
        }
        Modify::GetDelete => None,
        Modify::GetExpire { expiry } => old.clone().map(|(value, _)| (value, changed(expiry))),
        Modify::Append { value } => Some(([&text(), value].concat(), old_expiry)),
        Modify::SetRange { value: b"", .. } => old.clone(),
        Modify::SetRange { offset, value } => {
            let mut text = padded(offset as usize + value.len());
            text[offset as usize..offset as usize + value.len()].copy_from_slice(value);
            Some((text, old_expiry))
        }
        Modify::SetBit { offset, bit } => {
            let mut text = padded(offset as usize / 8 + 1);
            let mask = 128 >> (offset % 8);
            let byte = &mut text[offset as usize / 8];
            *byte = if bit { *byte | mask } else { *byte & !mask };
            Some((text, old_expiry))
        }
        Modify::Add { delta } => {
            let start: i64 =
                if old.is_some() { String::from_utf8(text()).unwrap().parse().unwrap() } else { 0 };
            Some(((start + delta).to_string().into_bytes(), old_expiry))
        }
        Modify::AddFloat { .. } => {
            let ModifyReply::Bytes(sum) = reply else { panic!("a float sum is text") };
            Some((sum.clone(), old_expiry))
        }
        Modify::Delete => None,
        Modify::DeleteIfVersion { .. } => old.clone().filter(|_| !done),
        Modify::DeleteIfEqual { value } => old.clone().filter(|(old, _)| old != value),
        Modify::Expire { at, .. } if done => old.clone().map(|(value, _)| (value, Some(at))),
        Modify::Expire { .. } => old.clone(),
        Modify::Persist => old.clone().map(|(value, _)| (value, None)),
        Modify::SetSibling { .. } | Modify::DeleteSiblings { .. } => {
            unreachable!("siblings have a model of their own")
        }
    };
    new.filter(|(_, expiry)| expiry.is_none_or(|at| at > NOW))
}
