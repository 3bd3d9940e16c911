//! Cases about keys: expiry, many keys in one command, counts, SCAN.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::face::{Expiry, Face, Reply, SetOptions};
use crate::job::Job;

use super::{Done, call, ensure, unix_seconds, want, within};

/// Keys go when their time comes; the EXPIRE family with its conditions.
pub(super) async fn expiry<F: Face>(c: &mut F, job: &Job) -> Done {
    let key = job.key("expiry", "");
    let options = SetOptions { expiry: Some(Expiry::Px(300)), ..SetOptions::default() };
    want(c.set(key.as_bytes(), b"v", options).await, "OK", "SET PX")?;
    let end = Instant::now() + Duration::from_secs(3);
    while c.get(key.as_bytes()).await? != Reply::Nil {
        ensure(Instant::now() < end, "the key has not expired")?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    want(call!(c, "TTL", key), -2, "TTL of an expired key")?;
    want(call!(c, "EXPIRE", key, "10"), 0, "EXPIRE of a missing key")?;
    want(c.set(key.as_bytes(), b"v", SetOptions::default()).await, "OK", "SET")?;
    want(call!(c, "EXPIRE", key, "100", "XX"), 0, "EXPIRE XX")?;
    want(call!(c, "EXPIRE", key, "100", "NX"), 1, "EXPIRE NX")?;
    want(call!(c, "EXPIRE", key, "50", "GT"), 0, "EXPIRE GT")?;
    want(call!(c, "PEXPIRE", key, "50000", "LT"), 1, "PEXPIRE LT")?;
    within(call!(c, "PTTL", key), 48_000, 50_000, "PTTL after PEXPIRE LT")?;
    let at = unix_seconds() + 500;
    want(call!(c, "EXPIREAT", key, at.to_string()), 1, "EXPIREAT")?;
    want(call!(c, "EXPIRETIME", key), at, "EXPIRETIME")?;
    want(call!(c, "PEXPIREAT", key, (at * 1000 + 5).to_string()), 1, "PEXPIREAT")?;
    want(call!(c, "PEXPIRETIME", key), at * 1000 + 5, "PEXPIRETIME")?;
    want(call!(c, "PERSIST", key), 1, "PERSIST")?;
    want(call!(c, "TTL", key), -1, "TTL after PERSIST")?;
    want(call!(c, "EXPIRE", key, "-1"), 1, "EXPIRE into the past")?;
    want(c.exists(&[key]).await, 0, "EXISTS")
}

/// Keys of many slots for a plain client, of one slot for a cluster driver.
fn name<F: Face>(job: &Job, case: &str, name: impl std::fmt::Display) -> String {
    if F::CLUSTER { job.key(case, name) } else { job.spread(case, name) }
}

/// MSET, MGET, MSETNX.
pub(super) async fn mget<F: Face>(c: &mut F, job: &Job) -> Done {
    let keys: Vec<String> = (0..100).map(|i| name::<F>(job, "mget", i)).collect();
    let pairs: Vec<(String, String)> =
        keys.iter().enumerate().map(|(i, key)| (key.clone(), format!("v{i}"))).collect();
    want(c.mset(&pairs).await, "OK", "MSET")?;
    let values = pairs.iter().map(|(_, value)| Reply::text(value)).collect();
    want(c.mget(&keys).await, Reply::List(values), "MGET")?;
    let mixed = [keys[0].clone(), name::<F>(job, "mget", "none"), keys[0].clone()];
    let expected = Reply::List(vec![Reply::text("v0"), Reply::Nil, Reply::text("v0")]);
    want(c.mget(&mixed).await, expected, "MGET with a missing key")?;
    want(call!(c, "MSETNX", keys[0], "x", mixed[1], "x"), 0, "MSETNX with a present key")?;
    want(c.exists(&[mixed[1].clone()]).await, 0, "EXISTS after a refused MSETNX")?;
    want(c.del(&keys).await, 100, "DEL")
}

/// The counts of DEL, UNLINK, EXISTS and TOUCH.
pub(super) async fn del_exists<F: Face>(c: &mut F, job: &Job) -> Done {
    let [a, b, d, none] = ["a", "b", "c", "none"].map(|each| name::<F>(job, "del", each));
    let pairs = [&a, &b, &d].map(|key| (key.clone(), "v".to_owned()));
    want(c.mset(&pairs).await, "OK", "MSET")?;
    want(c.exists(&[a.clone(), b.clone(), d.clone(), none.clone()]).await, 3, "EXISTS")?;
    want(c.exists(&[a.clone(), a.clone()]).await, 2, "EXISTS of one key twice")?;
    want(call!(c, "TOUCH", a, b, none), 2, "TOUCH")?;
    want(c.del(&[a.clone(), none]).await, 1, "DEL with a missing key")?;
    want(c.del(&[b.clone(), b.clone()]).await, 1, "DEL of one key twice")?;
    want(call!(c, "UNLINK", d), 1, "UNLINK")?;
    want(c.exists(&[a, b, d]).await, 0, "EXISTS")
}

/// SCAN finds each of `many` keys: exactly once for a plain client. A cluster driver asks every primary, and
/// every Gyre node answers for the whole cluster, so it may see a key more than once.
pub(super) async fn scan<F: Face>(c: &mut F, job: &Job) -> Done {
    let name = |i| if F::PIPELINE_OF_ONE_SLOT { job.key("scan", i) } else { job.spread("scan", i) };
    let expected: HashSet<String> = (0..job.many).map(name).collect();
    let command = |word: &str, key: &String| vec![word.to_owned(), key.clone()];
    let sets = expected.iter().map(|key| [command("SET", key), vec!["v".to_owned()]].concat());
    for reply in c.pipeline(sets.collect()).await? {
        want(reply, "OK", "SET")?;
    }
    let found = c.scan(&format!("*{}:scan*", job.prefix)).await?;
    let different: HashSet<String> = found.iter().cloned().collect();
    ensure(different == expected, format!("{} of {} keys found", different.len(), expected.len()))?;
    ensure(F::CLUSTER || found.len() == expected.len(), format!("{} keys, some repeated", found.len()))?;
    for reply in c.pipeline(expected.iter().map(|key| command("UNLINK", key)).collect()).await? {
        want(reply, 1, "UNLINK")?;
    }
    Ok(())
}
