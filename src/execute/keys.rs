//! Commands on keys of any type: DEL, EXISTS, TYPE, RENAME, COPY, MOVE.

use std::collections::HashSet;

use gyre_cluster::modify::{ExpiryChange, Modify, ModifyReply, SetCondition};
use gyre_protocol::Reply;

use crate::execute::gather::sum;
use crate::execute::options;
use crate::execute::value::{exists, modify_count, value_of};
use crate::execute::{Answer, Arguments, CommandError, Context};

const NO_SUCH_KEY: CommandError = CommandError::text("ERR no such key");
const SAME_KEY: CommandError = CommandError::text("ERR source and destination objects are the same");
const KEEPS_CHANGING: CommandError =
    CommandError::text("ERR the source key is being written faster than it can be moved");

/// How often a transfer starts again because its source was written meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// `DEL key …`, `UNLINK key …`: how many of the keys existed.
pub async fn del(cx: &Context, args: &Arguments) -> Answer {
    let keys: HashSet<&[u8]> = args.from(1).collect();
    sum(keys, |key| modify_count(cx, key, Modify::Delete)).await.map(Reply::Integer)
}

/// `EXISTS key …`, `TOUCH key …`: how many of the keys exist, each counted as often as it is named.
pub async fn count_existing(cx: &Context, args: &Arguments) -> Answer {
    sum(args.from(1), async |key| exists(cx, key).await.map(i64::from)).await.map(Reply::Integer)
}

/// `TYPE key`.
pub async fn type_of(cx: &Context, args: &Arguments) -> Answer {
    let name = if exists(cx, args.get(1)).await? { "string" } else { "none" };
    Ok(Reply::simple(name))
}

/// `RENAME key newkey`.
pub async fn rename(cx: &Context, args: &Arguments) -> Answer {
    let (from, to) = ((cx.db(), args.get(1)), (cx.db(), args.get(2)));
    if from == to {
        return if exists(cx, args.get(1)).await? { Ok(Reply::Ok) } else { Err(NO_SUCH_KEY) };
    }
    match transfer(cx, from, to, SetCondition::Always).await? {
        Transfer::NoSource => Err(NO_SUCH_KEY),
        Transfer::Done | Transfer::Occupied => Ok(Reply::Ok),
    }
}

/// `RENAMENX key newkey`.
pub async fn renamenx(cx: &Context, args: &Arguments) -> Answer {
    let (from, to) = ((cx.db(), args.get(1)), (cx.db(), args.get(2)));
    if from == to {
        return if exists(cx, args.get(1)).await? { Ok(Reply::Integer(0)) } else { Err(NO_SUCH_KEY) };
    }
    match transfer(cx, from, to, SetCondition::Nx).await? {
        Transfer::NoSource => Err(NO_SUCH_KEY),
        Transfer::Done => Ok(Reply::Integer(1)),
        Transfer::Occupied => Ok(Reply::Integer(0)),
    }
}

/// `MOVE key db`.
pub async fn move_to(cx: &Context, args: &Arguments) -> Answer {
    let db = options::parse_database(args.get(2), cx.node().config.load().databases)?;
    if db == cx.db() {
        return Err(SAME_KEY);
    }
    let key = args.get(1);
    match transfer(cx, (cx.db(), key), (db, key), SetCondition::Nx).await? {
        Transfer::Done => Ok(Reply::Integer(1)),
        Transfer::NoSource | Transfer::Occupied => Ok(Reply::Integer(0)),
    }
}

/// `COPY source destination [DB db] [REPLACE]`.
pub async fn copy(cx: &Context, args: &Arguments) -> Answer {
    let options = options::parse_copy(args.from(3), cx.node().config.load().databases)?;
    let to = (options.db.unwrap_or(cx.db()), args.get(2));
    if to == (cx.db(), args.get(1)) {
        return Err(SAME_KEY);
    }
    let record = cx.read(cx.db(), args.get(1)).await?;
    let now = cx.now();
    let Some(value) = value_of(&record, now) else { return Ok(Reply::Integer(0)) };
    let condition = if options.replace { SetCondition::Always } else { SetCondition::Nx };
    let expiry = record.expiry(now).map_or(ExpiryChange::Clear, ExpiryChange::At);
    let set = Modify::Set { value: &value, condition, expiry, get: false };
    let done = cx.modify(to.0, to.1, &set).await? == ModifyReply::Done;
    Ok(Reply::Integer(i64::from(done)))
}

/// A key and its database.
type Place<'a> = (u8, &'a [u8]);

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// The value, with its expiry, is at the destination, and no longer at the source.
    Done,
    /// There was nothing at the source.
    NoSource,
    /// There was something at the destination already.
    Occupied,
}

/// Copies a key to another place, and then deletes the source, unless it was written meanwhile: then it is copied
/// again. So at no moment is the value in neither place, whatever fails on the way; for a moment it is in both.
async fn transfer(
    cx: &Context,
    from: Place<'_>,
    to: Place<'_>,
    condition: SetCondition,
) -> Result<Transfer, CommandError> {
    let mut condition = condition;
    for attempt in 0..ATTEMPTS_MAX {
        let record = cx.read(from.0, from.1).await?;
        let now = cx.now();
        let Some(value) = value_of(&record, now) else {
            // Deleted by somebody after it was copied: as if the deletion had come just before the first look.
            return Ok(if attempt == 0 { Transfer::NoSource } else { Transfer::Done });
        };
        let expiry = record.expiry(now).map_or(ExpiryChange::Clear, ExpiryChange::At);
        let set = Modify::Set { value: &value, condition, expiry, get: false };
        if cx.modify(to.0, to.1, &set).await? == ModifyReply::Nil {
            return Ok(Transfer::Occupied);
        }
        // From now on the destination is ours to overwrite.
        condition = SetCondition::Always;
        let delete = Modify::DeleteIfVersion { version: record.newest_version() };
        if cx.modify(from.0, from.1, &delete).await? == ModifyReply::Integer(1) {
            return Ok(Transfer::Done);
        }
    }
    Err(KEEPS_CHANGING)
}
