//! What options are taken, and what is said of the others.

use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn words(text: &'static str) -> impl Iterator<Item = &'static [u8]> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes)
}

fn set(text: &'static str) -> Result<SetOptions, CommandError> {
    parse_set(words(text), NOW)
}

fn at(millis: u64) -> ExpiryChange {
    ExpiryChange::At(UnixMillis(millis))
}

#[test]
fn set_options_combine_as_in_redis() {
    assert_eq!(set(""), Ok(SetOptions::default()));
    assert_eq!(
        set("nX Ex 10 gEt"),
        Ok(SetOptions { condition: Condition::Nx, expiry: at(1_010_000), get: true })
    );
    assert_eq!(set("px 5").unwrap().expiry, at(1_000_005));
    assert_eq!(set("exat 5 xx").unwrap().expiry, at(5_000));
    assert_eq!(set("pxat 5").unwrap().expiry, at(5));
    assert_eq!(set("keepttl").unwrap().expiry, ExpiryChange::Keep);
    assert_eq!(set("ex 5 ex 6").unwrap().expiry, at(1_006_000));
    for text in
        ["nx xx", "xx nx", "ex", "ex 5 px 5", "ex 5 keepttl", "keepttl ex 5", "persist", "foo", "ex abc zz"]
    {
        assert_eq!(set(text), Err(CommandError::SYNTAX), "{text}");
    }
}

#[test]
fn expiry_times_of_set_are_positive_and_fit() {
    let invalid = || Err(CommandError::text("ERR invalid expire time in 'set' command"));
    for text in ["ex 0", "ex -1", "px 0", "pxat -5", "ex 9223372036854775807", "px 9223372036854775807"] {
        assert_eq!(set(text), invalid(), "{text}");
    }
    assert_eq!(set("exat 9223372036854775").unwrap().expiry, at(9_223_372_036_854_775_000));
    for text in ["ex 1.5", "ex abc", "px 99999999999999999999"] {
        assert_eq!(set(text), Err(CommandError::NOT_AN_INTEGER), "{text}");
    }
}

#[test]
fn getex_takes_one_change() {
    let getex = |text| parse_getex(words(text), NOW);
    assert_eq!(getex(""), Ok(ExpiryChange::Keep));
    assert_eq!(getex("persist"), Ok(ExpiryChange::Clear));
    assert_eq!(getex("PX 7"), Ok(at(1_000_007)));
    for text in ["persist ex 5", "ex 5 persist", "ex 5 exat 5", "nx", "keepttl", "ex"] {
        assert_eq!(getex(text), Err(CommandError::SYNTAX), "{text}");
    }
    assert_eq!(getex("ex 0"), Err(CommandError::text("ERR invalid expire time in 'getex' command")));
}

#[test]
fn expire_takes_past_times_and_conditions() {
    let expire =
        |time: &str, text| parse_expire(time.as_bytes(), words(text), TimeUnit::SECONDS, NOW, "expire");
    assert_eq!(expire("10", ""), Ok((UnixMillis(1_010_000), ExpireCondition::Always)));
    assert_eq!(expire("-10", "gt"), Ok((UnixMillis(990_000), ExpireCondition::Gt)));
    assert_eq!(expire("-99999999", "nx"), Ok((UnixMillis(0), ExpireCondition::Nx)));
    assert_eq!(expire("1", "xx lt").unwrap().1, ExpireCondition::XxLt);
    assert_eq!(expire("1", "gt xx").unwrap().1, ExpireCondition::Gt);
    assert_eq!(expire("1", "nx nx").unwrap().1, ExpireCondition::Nx);
    for text in ["nx xx", "gt nx", "nx lt gt"] {
        assert_eq!(expire("1", text), Err(UNIT_CONFLICT), "{text}");
    }
    assert_eq!(expire("1", "lt gt"), Err(GT_LT_CONFLICT));
    assert_eq!(expire("1", "foo"), Err(CommandError::text("ERR Unsupported option foo")));
    let invalid = Err(CommandError::text("ERR invalid expire time in 'expire' command"));
    assert_eq!(expire("9223372036854775807", ""), invalid);
    assert_eq!(expire("-9223372036854775808", ""), invalid);
    assert_eq!(expire("1e3", ""), Err(CommandError::NOT_AN_INTEGER));
}

#[test]
fn offsets_and_bits_are_bounded() {
    assert_eq!(parse_offset(b"5"), Ok(5));
    assert_eq!(parse_offset(b"-1"), Err(BAD_OFFSET));
    assert_eq!(parse_offset(b"x"), Err(CommandError::NOT_AN_INTEGER));
    assert_eq!(parse_bit_offset(b"4294967295"), Ok(4_294_967_295));
    for text in [&b"4294967296"[..], b"-1", b"x", b""] {
        assert_eq!(parse_bit_offset(text), Err(BAD_BIT_OFFSET));
    }
    assert_eq!((parse_bit(b"1"), parse_bit(b"2"), parse_bit(b"01")), (Ok(true), Err(BAD_BIT), Err(BAD_BIT)));
}

#[test]
fn databases_and_copy_options_are_checked() {
    assert_eq!(parse_database(b"15", 16), Ok(15));
    assert_eq!(parse_database(b"16", 16), Err(BAD_DATABASE));
    assert_eq!(parse_database(b"-1", 16), Err(BAD_DATABASE));
    assert_eq!(parse_database(b"4294967296", 16), Err(BAD_NUMBER));
    let copy = |text| parse_copy(words(text), 16);
    assert_eq!(copy("db 3 REPLACE"), Ok(CopyOptions { db: Some(3), replace: true }));
    assert_eq!(copy("db"), Err(CommandError::SYNTAX));
    assert_eq!(copy("nx"), Err(CommandError::SYNTAX));
}

#[test]
fn scan_options_are_checked() {
    let options = parse_scan(words("count 100 match a* type string")).unwrap();
    assert_eq!(options, ScanOptions { pattern: Some(b"a*"), count: 100, type_name: Some(b"string") });
    for text in ["count 0", "count -1", "count", "foo 1", "match"] {
        assert_eq!(parse_scan(words(text)), Err(CommandError::SYNTAX), "{text}");
    }
    assert_eq!(parse_scan(words("count x")), Err(CommandError::NOT_AN_INTEGER));
    assert_eq!(parse_cursor(b"18446744073709551615"), Ok(u64::MAX));
    assert_eq!((parse_cursor(b""), parse_cursor(b"-1"), parse_cursor(b"+7")), (Ok(0), Ok(u64::MAX), Ok(7)));
    for text in [&b"x"[..], b"-", b" 1", b"1x", b"18446744073709551616"] {
        assert_eq!(parse_cursor(text), Err(BAD_CURSOR));
    }
}
