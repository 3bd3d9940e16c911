//! Cases about values: SET's options, the string commands, bytes of every kind and size, counters.

use crate::face::{Expiry, Face, Reply, SetOptions, When};
use crate::job::Job;

use super::{Done, call, ensure, refused, unix_seconds, want, within};

const PLAIN: SetOptions = SetOptions { expiry: None, when: None, get: false };

fn lasting(expiry: Expiry) -> SetOptions {
    SetOptions { expiry: Some(expiry), ..PLAIN }
}

fn when(when: When) -> SetOptions {
    SetOptions { when: Some(when), ..PLAIN }
}

/// Every option of SET.
pub(super) async fn set<F: Face>(c: &mut F, job: &Job) -> Done {
    let name = job.key("set", "k");
    let key = name.as_bytes();
    let at = unix_seconds() + 200;
    let unsigned = u64::try_from(at).map_err(|error| error.to_string())?;
    let get = SetOptions { get: true, ..PLAIN };
    want(c.set(key, b"1", PLAIN).await, "OK", "SET")?;
    want(c.get(key).await, "1", "GET")?;
    want(call!(c, "TTL", key), -1, "TTL")?;
    want(c.set(key, b"2", lasting(Expiry::Ex(100))).await, "OK", "SET EX")?;
    within(call!(c, "TTL", key), 98, 100, "TTL after EX 100")?;
    want(c.set(key, b"3", lasting(Expiry::Px(100_000))).await, "OK", "SET PX")?;
    within(call!(c, "PTTL", key), 98_000, 100_000, "PTTL after PX 100000")?;
    want(c.set(key, b"4", lasting(Expiry::ExAt(unsigned))).await, "OK", "SET EXAT")?;
    want(call!(c, "EXPIRETIME", key), at, "EXPIRETIME")?;
    want(c.set(key, b"5", lasting(Expiry::PxAt(unsigned * 1000 + 7))).await, "OK", "SET PXAT")?;
    want(call!(c, "PEXPIRETIME", key), at * 1000 + 7, "PEXPIRETIME")?;
    want(c.set(key, b"6", lasting(Expiry::Keep)).await, "OK", "SET KEEPTTL")?;
    want(call!(c, "PEXPIRETIME", key), at * 1000 + 7, "PEXPIRETIME after KEEPTTL")?;
    want(c.set(key, b"7", when(When::Nx)).await, Reply::Nil, "SET NX of a present key")?;
    want(c.set(key, b"8", when(When::Xx)).await, "OK", "SET XX of a present key")?;
    want(call!(c, "TTL", key), -1, "TTL after a plain SET")?;
    want(c.set(key, b"9", get).await, "8", "SET GET")?;
    want(c.set(key, b"10", SetOptions { get: true, ..when(When::Nx) }).await, "9", "SET NX GET")?;
    let all = SetOptions { expiry: Some(Expiry::Px(50_000)), when: Some(When::Xx), get: true };
    want(c.set(key, b"11", all).await, "9", "SET PX XX GET")?;
    within(call!(c, "PTTL", key), 48_000, 50_000, "PTTL after PX XX GET")?;
    want(c.del(std::slice::from_ref(&name)).await, 1, "DEL")?;
    want(c.set(key, b"12", when(When::Xx)).await, Reply::Nil, "SET XX of a missing key")?;
    want(c.set(key, b"13", get).await, Reply::Nil, "SET GET of a missing key")?;
    want(c.del(std::slice::from_ref(&name)).await, 1, "DEL")?;
    let fresh = SetOptions { expiry: Some(Expiry::Ex(10)), ..when(When::Nx) };
    want(c.set(key, b"14", fresh).await, "OK", "SET EX NX")?;
    want(c.get(key).await, "14", "GET")?;
    want(c.del(std::slice::from_ref(&name)).await, 1, "DEL")
}

/// The other string commands and the commands on keys of any type.
pub(super) async fn strings<F: Face>(c: &mut F, job: &Job) -> Done {
    let (key, other) = (job.key("strings", "k"), job.key("strings", "other"));
    want(call!(c, "SETNX", key, "Hello"), 1, "SETNX")?;
    want(call!(c, "APPEND", key, " World"), 11, "APPEND")?;
    want(call!(c, "STRLEN", key), 11, "STRLEN")?;
    want(call!(c, "GETRANGE", key, "-5", "-1"), "World", "GETRANGE")?;
    want(call!(c, "SETRANGE", key, "6", "Redis"), 11, "SETRANGE")?;
    want(call!(c, "GETSET", key, "new"), "Hello Redis", "GETSET")?;
    want(call!(c, "GETEX", key, "EX", "100"), "new", "GETEX EX")?;
    within(call!(c, "TTL", key), 98, 100, "TTL after GETEX EX")?;
    want(call!(c, "GETEX", key, "PERSIST"), "new", "GETEX PERSIST")?;
    want(call!(c, "TTL", key), -1, "TTL after GETEX PERSIST")?;
    want(call!(c, "SETEX", key, "100", "s"), "OK", "SETEX")?;
    want(call!(c, "PSETEX", key, "100000", "p"), "OK", "PSETEX")?;
    want(call!(c, "TYPE", key), "string", "TYPE")?;
    want(call!(c, "SETBIT", key, "7", "1"), 0, "SETBIT")?;
    want(call!(c, "GETBIT", key, "7"), 1, "GETBIT")?;
    want(call!(c, "BITCOUNT", key), 4, "BITCOUNT")?;
    want(call!(c, "RENAME", key, other), "OK", "RENAME")?;
    within(call!(c, "TTL", other), 95, 100, "TTL after RENAME")?;
    want(call!(c, "COPY", other, key), 1, "COPY")?;
    want(call!(c, "RENAMENX", key, other), 0, "RENAMENX")?;
    want(call!(c, "GETDEL", key), "q", "GETDEL")?;
    want(call!(c, "GETDEL", key), Reply::Nil, "GETDEL of a missing key")?;
    want(c.del(&[other]).await, 1, "DEL")
}

/// Every byte in a value and in a key.
pub(super) async fn binary<F: Face>(c: &mut F, job: &Job) -> Done {
    let every: Vec<u8> = (0..=255).chain(*b"\r\n$5\r\n\0").collect();
    let key = [job.key("binary", "").into_bytes(), every.clone()].concat();
    want(c.set(&key, &every, PLAIN).await, "OK", "SET")?;
    want(c.get(&key).await, every.as_slice(), "GET")?;
    want(call!(c, "STRLEN", key), i64::try_from(every.len()).unwrap_or(-1), "STRLEN")?;
    want(call!(c, "DEL", key), 1, "DEL")
}

/// An empty value is a value; a missing one is nil.
pub(super) async fn empty<F: Face>(c: &mut F, job: &Job) -> Done {
    let key = job.key("empty", "");
    want(c.get(key.as_bytes()).await, Reply::Nil, "GET of a missing key")?;
    want(c.set(key.as_bytes(), b"", PLAIN).await, "OK", "SET")?;
    want(c.get(key.as_bytes()).await, "", "GET")?;
    want(c.exists(std::slice::from_ref(&key)).await, 1, "EXISTS")?;
    want(call!(c, "STRLEN", key), 0, "STRLEN")?;
    want(c.del(&[key]).await, 1, "DEL")
}

/// Keys and values outside ASCII.
pub(super) async fn unicode<F: Face>(c: &mut F, job: &Job) -> Done {
    for name in ["ключ", "鍵", "🔑 clé", "a\u{301}"] {
        let key = job.key("unicode", name);
        want(c.set(key.as_bytes(), name.as_bytes(), PLAIN).await, "OK", "SET")?;
        want(c.get(key.as_bytes()).await, name, "GET")?;
        want(c.del(&[key]).await, 1, "DEL")?;
    }
    Ok(())
}

/// A value of `size` bytes comes back as it went.
pub(super) async fn big_value<F: Face>(c: &mut F, key: &str, size: usize) -> Done {
    let period: Vec<u8> = (0..65_537_u32).map(|i| (i * 7 + (i >> 8) * 13).to_le_bytes()[0]).collect();
    let mut value = period.repeat(size / period.len() + 1);
    value.truncate(size);
    want(c.set(key.as_bytes(), &value, PLAIN).await, "OK", "SET")?;
    want(c.get(key.as_bytes()).await, value.as_slice(), "GET")?;
    want(call!(c, "STRLEN", key), i64::try_from(size).unwrap_or(-1), "STRLEN")?;
    want(c.del(&[key.to_owned()]).await, 1, "DEL")
}

/// INCR and its family, also five hundred at once.
pub(super) async fn counters<F: Face>(c: &mut F, job: &Job) -> Done {
    let key = job.key("counters", "");
    want(c.incr(&key).await, 1, "INCR")?;
    want(call!(c, "INCRBY", key, "41"), 42, "INCRBY")?;
    want(call!(c, "DECR", key), 41, "DECR")?;
    want(call!(c, "DECRBY", key, "100"), -59, "DECRBY")?;
    want(call!(c, "INCRBYFLOAT", key, "0.5"), "-58.5", "INCRBYFLOAT")?;
    want(c.set(key.as_bytes(), b"9223372036854775807", PLAIN).await, "OK", "SET")?;
    refused(c.incr(&key).await, "increment or decrement would overflow")?;
    want(c.del(std::slice::from_ref(&key)).await, 1, "DEL")?;
    let replies = c.pipeline(vec![vec!["INCR".to_owned(), key.clone()]; 500]).await?;
    for (expected, reply) in (1..).zip(replies.clone()) {
        want(reply, expected, "INCR in a pipeline")?;
    }
    ensure(replies.len() == 500, "five hundred replies")?;
    want(c.del(&[key]).await, 1, "DEL")
}
