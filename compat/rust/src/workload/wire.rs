//! Cases about the connection: greeting, pipelines, errors, reconnecting, databases, other nodes.

use std::time::{Duration, Instant};

use crate::face::{Answer, Face, Reply, SetOptions};
use crate::job::Job;

use super::{Done, call, ensure, refused, want, within};

const PLAIN: SetOptions = SetOptions { expiry: None, when: None, get: false };

/// PING, ECHO, INFO, CLIENT SETNAME.
pub(super) async fn connect<F: Face>(c: &mut F, job: &Job) -> Done {
    want(c.own(&["PING"]).await, "PONG", "PING")?;
    want(c.own(&["ECHO", "a\r\nb ✓"]).await, "a\r\nb ✓", "ECHO")?;
    let Reply::Text(info) = c.own(&["INFO"]).await? else { return Err("INFO is not text".to_owned()) };
    let info = String::from_utf8_lossy(&info).into_owned();
    ensure(info.contains("redis_version:7."), "no redis_version:7 in INFO")?;
    ensure(info.contains("role:master"), "no role:master in INFO")?;
    want(c.own(&["CLIENT", "SETNAME", "compat"]).await, "OK", "CLIENT SETNAME")?;
    want(c.own(&["CLIENT", "GETNAME"]).await, "compat", "CLIENT GETNAME")?;
    for i in 0..20 {
        let key = job.spread("connect", i); // in different slots: a cluster driver uses every node
        want(c.set(key.as_bytes(), b"v", PLAIN).await, "OK", "SET")?;
        want(c.del(&[key]).await, 1, "DEL")?;
    }
    Ok(())
}

/// `many` commands in one pipeline, answered in order; a failing one leaves the others alone.
pub(super) async fn pipeline<F: Face>(c: &mut F, job: &Job) -> Done {
    let name = |i: usize| {
        if F::PIPELINE_OF_ONE_SLOT { job.key("pipeline", i) } else { job.spread("pipeline", i) }
    };
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let half = job.many / 2;
    let both = (0..half).flat_map(|i| [words(&["SET", &name(i), &i.to_string()]), words(&["GET", &name(i)])]);
    let replies = c.pipeline(both.collect()).await?;
    ensure(replies.len() == 2 * half, format!("{} replies", replies.len()))?;
    for (i, reply) in replies.into_iter().enumerate() {
        let expected = if i % 2 == 0 { "OK".to_owned() } else { (i / 2).to_string() };
        want(reply, expected.as_str(), "a reply of the pipeline")?;
    }
    let key = job.key("pipeline", "mixed");
    let commands: [&[&str]; 4] = [&["SET", &key, "text"], &["INCR", &key], &["GET", &key], &["DEL", &key]];
    let replies = c.pipeline(commands.iter().map(|each| words(each)).collect()).await;
    if F::PIPELINE_TELLS_EACH_ERROR {
        let Ok([set, incr, get, del]) = <[Answer; 4]>::try_from(replies?) else {
            return Err("not four replies".to_owned());
        };
        want(set, "OK", "SET")?;
        refused(incr, "not an integer")?;
        want(get, "text", "GET after the failing command")?;
        want(del, 1, "DEL")?;
    } else {
        refused(replies.map(|_| Reply::Nil), "not an integer")?;
        want(c.exists(&[key]).await, 0, "EXISTS: the commands after the failing one ran")?;
    }
    for reply in c.pipeline((0..half).map(|i| words(&["DEL", &name(i)])).collect()).await? {
        want(reply, 1, "DEL")?;
    }
    Ok(())
}

/// Redis's error texts, and a connection that goes on after each.
pub(super) async fn errors<F: Face>(c: &mut F, job: &Job) -> Done {
    let (key, none) = (job.key("errors", ""), job.key("errors", "none"));
    want(c.set(key.as_bytes(), b"text", PLAIN).await, "OK", "SET")?;
    refused(c.incr(&key).await, "value is not an integer or out of range")?;
    refused(call!(c, "INCRBYFLOAT", key, "1"), "value is not a valid float")?;
    refused(call!(c, "SET", key, "v", "BOGUS"), "syntax error")?;
    refused(call!(c, "SET", key, "v", "EX", "0"), "invalid expire time in 'set' command")?;
    refused(call!(c, "GET", key, "more"), "wrong number of arguments for 'get' command")?;
    refused(call!(c, "SETRANGE", key, "-1", "v"), "offset is out of range")?;
    refused(call!(c, "RENAME", none, key), "no such key")?;
    want(c.get(key.as_bytes()).await, "text", "GET")?;
    want(c.del(&[key]).await, 1, "DEL")
}

/// An unknown command is an error reply; the connection stays the same.
pub(super) async fn unknown<F: Face>(c: &mut F) -> Done {
    let before = c.own(&["CLIENT", "ID"]).await?;
    refused(c.own(&["FOO.BAR", "x"]).await, "unknown command")?;
    refused(c.own(&["CLIENT", "NOSUCH"]).await, "unknown subcommand")?;
    want(c.own(&["CLIENT", "ID"]).await, before, "CLIENT ID after unknown commands")
}

/// After CLIENT KILL of its own connection the client works again, on a new connection.
pub(super) async fn reconnect<F: Face>(c: &mut F, job: &Job) -> Done {
    let Reply::Int(before) = c.own(&["CLIENT", "ID"]).await? else { return Err("no CLIENT ID".to_owned()) };
    let kill = c.own(&["CLIENT", "KILL", "ID", &before.to_string(), "SKIPME", "no"]).await;
    want(kill, 1, "CLIENT KILL")?;
    let end = Instant::now() + Duration::from_secs(5);
    let after = loop {
        match c.own(&["CLIENT", "ID"]).await {
            Ok(after) => break after,
            Err(error) => ensure(Instant::now() < end, format!("never again: {error}"))?,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure(after != Reply::Int(before), "the connection is the same")?;
    let key = job.key("reconnect", "");
    want(c.set(key.as_bytes(), b"v", PLAIN).await, "OK", "SET")?;
    want(c.get(key.as_bytes()).await, "v", "GET")?;
    want(c.del(&[key]).await, 1, "DEL")
}

/// SELECT separates keys; FLUSHDB empties one database (only where the servers belong to the run).
pub(super) async fn databases<F: Face>(zero: &mut F, job: &Job) -> Done {
    let key = job.key("databases", "");
    let mut nine = F::open(job, &job.entry, 9).await?;
    want(zero.set(key.as_bytes(), b"0", PLAIN).await, "OK", "SET in 0")?;
    want(nine.get(key.as_bytes()).await, Reply::Nil, "GET in 9")?;
    want(nine.set(key.as_bytes(), b"9", PLAIN).await, "OK", "SET in 9")?;
    want(zero.get(key.as_bytes()).await, "0", "GET in 0")?;
    within(nine.own(&["DBSIZE"]).await, 1, i64::MAX, "DBSIZE of 9")?;
    if job.flush {
        want(nine.own(&["FLUSHDB"]).await, "OK", "FLUSHDB")?;
        want(nine.own(&["DBSIZE"]).await, 0, "DBSIZE after FLUSHDB")?;
    }
    want(nine.del(std::slice::from_ref(&key)).await, i64::from(!job.flush), "DEL in 9")?;
    want(zero.del(&[key]).await, 1, "DEL in 0")?;
    nine.close().await;
    Ok(())
}

/// What one node acknowledged every node answers.
pub(super) async fn nodes<F: Face>(job: &Job) -> Done {
    let mut clients = Vec::new();
    for address in &job.nodes {
        clients.push(F::open(job, address, 0).await?);
    }
    for writer in 0..clients.len() {
        let key = job.spread("nodes", writer);
        let value = writer.to_string();
        want(clients[writer].set(key.as_bytes(), value.as_bytes(), PLAIN).await, "OK", "SET")?;
        for reader in &mut clients {
            want(reader.get(key.as_bytes()).await, value.as_str(), "GET through another node")?;
        }
        let next = (writer + 1) % clients.len();
        want(clients[next].del(std::slice::from_ref(&key)).await, 1, "DEL through another node")?;
        for reader in &mut clients {
            want(reader.exists(std::slice::from_ref(&key)).await, 0, "EXISTS after DEL")?;
        }
    }
    for client in clients {
        client.close().await;
    }
    Ok(())
}
