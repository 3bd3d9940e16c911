//! Values of string keys as commands see them, and the replies of read-modify-writes.

use std::borrow::Cow;

use gyre_cluster::modify::{Modify, ModifyReply};
use gyre_protocol::Reply;
use gyre_storage::{Record, UnixMillis, View};

use crate::execute::{Answer, CommandError, Context};

/// The value of the key at `now`, a counter's as decimal text; `None` if it does not exist.
pub fn value_of(record: &Record, now: UnixMillis) -> Option<Cow<'_, [u8]>> {
    Some(match record.view(now)? {
        View::Bytes(bytes) => Cow::Borrowed(bytes),
        View::Integer(number) => Cow::Owned(number.to_string().into_bytes()),
    })
}

/// A value or null.
pub fn value_reply(record: &Record, now: UnixMillis) -> Reply {
    value_of(record, now).map_or(Reply::Null, |value| Reply::Bulk(value.into_owned()))
}

/// A count or a position as an integer reply; strings are too short for it to saturate.
pub fn count_reply(count: u64) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Whether the key exists.
pub async fn exists(cx: &Context, key: &[u8]) -> Result<bool, CommandError> {
    let record = cx.read(cx.db(), key).await?;
    Ok(record.view(cx.now()).is_some())
}

/// The value of the key in the connection's database, owned.
pub async fn read_value(cx: &Context, key: &[u8]) -> Result<Option<Vec<u8>>, CommandError> {
    let record = cx.read(cx.db(), key).await?;
    Ok(value_of(&record, cx.now()).map(Cow::into_owned))
}

/// What `look` makes of the value of the key in the connection's database, which is not copied.
pub async fn with_value<R>(
    cx: &Context,
    key: &[u8],
    look: impl FnOnce(Option<&[u8]>) -> R,
) -> Result<R, CommandError> {
    let record = cx.read(cx.db(), key).await?;
    Ok(look(value_of(&record, cx.now()).as_deref()))
}

/// Runs a read-modify-write of `key` and answers with what it replies.
pub async fn modify(cx: &Context, key: &[u8], modify: Modify<'_>) -> Answer {
    Ok(match cx.modify(cx.db(), key, &modify).await? {
        ModifyReply::Done => Reply::Ok,
        ModifyReply::Nil => Reply::Null,
        ModifyReply::Integer(number) => Reply::Integer(number),
        ModifyReply::Bytes(bytes) => Reply::Bulk(bytes),
    })
}

/// Runs a read-modify-write of `key` that answers how many keys it changed.
pub async fn modify_count(cx: &Context, key: &[u8], modify: Modify<'_>) -> Result<i64, CommandError> {
    Ok(match cx.modify(cx.db(), key, &modify).await? {
        ModifyReply::Integer(number) => number,
        ModifyReply::Done | ModifyReply::Bytes(_) => 1,
        ModifyReply::Nil => 0,
    })
}
