//! String commands on one key.

use gyre_cluster::modify::{ExpiryChange, Modify, SetCondition};
use gyre_protocol::Reply;

use crate::execute::bitmap::{clamp, is_backward};
use crate::execute::options::{self, SetOptions, TimeUnit};
use crate::execute::value::{exists, modify, modify_count, value_reply, with_value};
use crate::execute::{Answer, Arguments, CommandError, Context};

const DECREMENT_OVERFLOW: CommandError = CommandError::text("ERR decrement would overflow");

/// `GET key`.
pub async fn get(cx: &Context, args: &Arguments) -> Answer {
    let record = cx.read(cx.db(), args.get(1)).await?;
    Ok(value_reply(&record, cx.now()))
}

/// `SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]`.
pub async fn set(cx: &Context, args: &Arguments) -> Answer {
    let options = options::parse_set(args.from(3), cx.now())?;
    let (key, value) = (args.get(1), args.get(2));
    match options {
        SetOptions { condition: SetCondition::Always, expiry: ExpiryChange::Clear, get: false } => {
            cx.write(cx.db(), key, Some(value), None).await?;
            Ok(Reply::Ok)
        }
        SetOptions { condition: SetCondition::Always, expiry: ExpiryChange::At(at), get: false } => {
            cx.write(cx.db(), key, Some(value), Some(at)).await?;
            Ok(Reply::Ok)
        }
        SetOptions { condition, expiry, get } => {
            modify(cx, key, Modify::Set { value, condition, expiry, get }).await
        }
    }
}

/// `SETNX key value`.
pub async fn setnx(cx: &Context, args: &Arguments) -> Answer {
    let set = Modify::Set {
        value: args.get(2),
        condition: SetCondition::Nx,
        expiry: ExpiryChange::Clear,
        get: false,
    };
    modify_count(cx, args.get(1), set).await.map(Reply::Integer)
}

/// `SETEX key seconds value` and `PSETEX key milliseconds value`.
pub async fn setex(cx: &Context, args: &Arguments, unit: TimeUnit, command: &'static str) -> Answer {
    let at = options::parse_expiry(args.get(2), unit, cx.now(), command)?;
    cx.write(cx.db(), args.get(1), Some(args.get(3)), Some(at)).await?;
    Ok(Reply::Ok)
}

/// `GETSET key value`.
pub async fn getset(cx: &Context, args: &Arguments) -> Answer {
    let set = Modify::Set {
        value: args.get(2),
        condition: SetCondition::Always,
        expiry: ExpiryChange::Clear,
        get: true,
    };
    modify(cx, args.get(1), set).await
}

/// `GETDEL key`.
pub async fn getdel(cx: &Context, args: &Arguments) -> Answer {
    modify(cx, args.get(1), Modify::GetDelete).await
}

/// `GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]`; a plain read without options.
pub async fn getex(cx: &Context, args: &Arguments) -> Answer {
    match options::parse_getex(args.from(2), cx.now()) {
        Ok(ExpiryChange::Keep) => get(cx, args).await,
        Ok(expiry) => modify(cx, args.get(1), Modify::GetExpire { expiry }).await,
        Err(error) if error == CommandError::SYNTAX => Err(error),
        // Redis looks at the time only once it has found the key.
        Err(bad_time) if exists(cx, args.get(1)).await? => Err(bad_time),
        Err(_) => Ok(Reply::Null),
    }
}

/// `APPEND key value`.
pub async fn append(cx: &Context, args: &Arguments) -> Answer {
    modify(cx, args.get(1), Modify::Append { value: args.get(2) }).await
}

/// `STRLEN key`.
pub async fn strlen(cx: &Context, args: &Arguments) -> Answer {
    with_value(cx, args.get(1), |value| Reply::count(value.map_or(0, <[u8]>::len))).await
}

/// `SETRANGE key offset value`.
pub async fn setrange(cx: &Context, args: &Arguments) -> Answer {
    let offset = options::parse_offset(args.get(2))?;
    modify(cx, args.get(1), Modify::SetRange { offset, value: args.get(3) }).await
}

/// `GETRANGE key start end`, and `SUBSTR`, its old name.
pub async fn getrange(cx: &Context, args: &Arguments) -> Answer {
    let (start, end) = (options::integer(args.get(2))?, options::integer(args.get(3))?);
    with_value(cx, args.get(1), |value| {
        let value = value.unwrap_or_default();
        let range = clamp(value.len(), start, end).filter(|_| !is_backward(start, end));
        Reply::bulk(range.and_then(|(start, end)| value.get(start..end)).unwrap_or_default())
    })
    .await
}

/// `INCR key`, `DECR key`: adds `delta`.
pub async fn add(cx: &Context, args: &Arguments, delta: i64) -> Answer {
    modify(cx, args.get(1), Modify::Add { delta }).await
}

/// `INCRBY key increment`.
pub async fn incrby(cx: &Context, args: &Arguments) -> Answer {
    add(cx, args, options::integer(args.get(2))?).await
}

/// `DECRBY key decrement`.
pub async fn decrby(cx: &Context, args: &Arguments) -> Answer {
    let delta = options::integer(args.get(2))?.checked_neg().ok_or(DECREMENT_OVERFLOW)?;
    add(cx, args, delta).await
}

/// `INCRBYFLOAT key increment`.
pub async fn incrbyfloat(cx: &Context, args: &Arguments) -> Answer {
    modify(cx, args.get(1), Modify::AddFloat { delta: args.get(2) }).await
}
