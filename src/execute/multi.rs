//! String commands on several keys, wherever these are: MGET, MSET, MSETNX.
//!
//! The keys are read and written at once and independently: other clients may see some of an MSET before the rest,
//! and after an error some of it may have been done.

use std::collections::HashMap;

use gyre_cluster::modify::{ExpiryChange, Modify, SetCondition};
use gyre_protocol::Reply;

use crate::execute::gather::{gather, sum};
use crate::execute::value::{exists, modify_count, read_value};
use crate::execute::{Answer, Arguments, CommandError, Context};

/// `MGET key …`.
pub async fn mget(cx: &Context, args: &Arguments) -> Answer {
    let values = gather(args.from(1), |key| read_value(cx, key)).await?;
    Ok(Reply::Array(values.into_iter().map(|value| value.map_or(Reply::Null, Reply::Bulk)).collect()))
}

/// `MSET key value …`.
pub async fn mset(cx: &Context, args: &Arguments) -> Answer {
    let pairs = pairs(args, MSET_ARITY)?;
    gather(pairs, |(key, value)| cx.write(cx.db(), key, Some(value), None)).await?;
    Ok(Reply::Ok)
}

/// `MSETNX key value …`: all or nothing, as long as nobody else writes these keys meanwhile.
///
/// First it looks for any of the keys, then sets each on the condition that it is still absent. Should one have
/// appeared in between, it deletes what it has set, where that has not been overwritten, and answers 0.
pub async fn msetnx(cx: &Context, args: &Arguments) -> Answer {
    let pairs = pairs(args, MSETNX_ARITY)?;
    let present = gather(pairs.iter(), |(key, _)| exists(cx, key)).await?;
    if present.contains(&true) {
        return Ok(Reply::Integer(0));
    }
    let set =
        |value| Modify::Set { value, condition: SetCondition::Nx, expiry: ExpiryChange::Clear, get: false };
    let written = gather(pairs.iter(), |(key, value)| modify_count(cx, key, set(value))).await?;
    if !written.contains(&0) {
        return Ok(Reply::Integer(1));
    }
    let own = pairs.iter().zip(&written).filter(|(_, written)| **written == 1).map(|(pair, _)| pair);
    sum(own, |(key, value)| modify_count(cx, key, Modify::DeleteIfEqual { value })).await?;
    Ok(Reply::Integer(0))
}

const MSET_ARITY: CommandError = CommandError::text("ERR wrong number of arguments for 'mset' command");
const MSETNX_ARITY: CommandError = CommandError::text("ERR wrong number of arguments for 'msetnx' command");

/// A key and its value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The pairs of an MSET; of a key that occurs twice the last.
fn pairs(args: &Arguments, wrong_arity: CommandError) -> Result<Vec<Pair<'_>>, CommandError> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity);
    }
    let all = || args.from(1).step_by(2).zip(args.from(2).step_by(2));
    let last: HashMap<&[u8], usize> = all().enumerate().map(|(index, (key, _))| (key, index)).collect();
    Ok(all()
        .enumerate()
        .filter(|(index, (key, _))| last.get(key) == Some(index))
        .map(|(_, pair)| pair)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_repeated_key_counts() {
        let args: Arguments = "MSET a 1 b 2 a 3".split(' ').map(str::as_bytes).collect();
        assert_eq!(pairs(&args, MSET_ARITY).unwrap(), [(&b"b"[..], &b"2"[..]), (b"a", b"3")]);
        let odd: Arguments = "MSET a 1 b".split(' ').map(str::as_bytes).collect();
        assert_eq!(pairs(&odd, MSET_ARITY), Err(MSET_ARITY));
    }
}
