//! `DBSIZE`, `FLUSHDB`, `FLUSHALL`: a database as a whole.

use gyre_cluster::topology::Databases;
use gyre_protocol::Reply;

use crate::execute::{Answer, Arguments, CommandError, Context};

/// `DBSIZE`.
pub async fn dbsize(cx: &Context) -> Answer {
    let keys = cx.count(cx.db()).await?;
    Ok(Reply::Integer(i64::try_from(keys).unwrap_or(i64::MAX)))
}

/// `FLUSHDB [ASYNC|SYNC]`. Both modes are one deletion horizon: the keys are gone when it answers, and compaction
/// frees their space later.
pub async fn flushdb(cx: &Context, args: &Arguments) -> Answer {
    check_mode(args)?;
    cx.flush(Databases::one(cx.db())).await?;
    Ok(Reply::Ok)
}

/// `FLUSHALL [ASYNC|SYNC]`: every database, by one deletion horizon.
pub async fn flushall(cx: &Context, args: &Arguments) -> Answer {
    check_mode(args)?;
    let databases = cx.node().config.load().databases;
    cx.flush(Databases::all(databases)).await?;
    Ok(Reply::Ok)
}

fn check_mode(args: &Arguments) -> Result<(), CommandError> {
    let is = |word: &[u8]| args.get(1).eq_ignore_ascii_case(word);
    match args.len() {
        1 => Ok(()),
        2 if is(b"ASYNC") || is(b"SYNC") => Ok(()),
        _ => Err(CommandError::SYNTAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_takes_one_mode_at_most() {
        let check = |line: &str| check_mode(&line.split(' ').map(str::as_bytes).collect());
        for line in ["FLUSHALL", "FLUSHALL async", "FLUSHDB SYNC"] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
        for line in ["FLUSHALL FOO", "FLUSHDB ASYNC SYNC"] {
            assert_eq!(check(line), Err(CommandError::SYNTAX), "{line}");
        }
    }
}
