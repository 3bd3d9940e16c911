//! `WAIT` and `WAITAOF`: on how many replicas this connection's writes are.

use std::time::Duration;

use gyre_protocol::{Reply, integer};
use gyre_storage::FsyncPolicy;

use crate::execute::{Answer, Arguments, CommandError, Context};

/// `WAIT replicas milliseconds`: waits until so many replicas have every write of this connection, and answers how
/// many have. The node itself counts where it is a replica; Redis leaves its primary out.
pub async fn wait(cx: &Context, args: &Arguments) -> Answer {
    let wanted = integer(args.get(1)).ok_or(CommandError::NOT_AN_INTEGER)?;
    let within = timeout(args.get(2))?;
    let acked = cx.acknowledged(usize::try_from(wanted).unwrap_or(0), within).await;
    Ok(Reply::count(acked))
}

/// `WAITAOF local replicas milliseconds`: whether this node has synced its log, and how many other replicas have
/// synced this connection's writes. Only under `appendfsync always` is an acknowledgement known to be on the other
/// node's disk; otherwise none is counted.
pub async fn waitaof(cx: &Context, args: &Arguments) -> Answer {
    let local = integer(args.get(1)).ok_or(CommandError::NOT_AN_INTEGER)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::text("ERR value is out of range, value must between 0 and 1"));
    }
    let wanted = integer(args.get(2))
        .and_then(|replicas| usize::try_from(replicas).ok())
        .ok_or(CommandError::text("ERR value is out of range, must be positive"))?;
    let within = timeout(args.get(3))?;
    let replicas = match cx.node().config.load().appendfsync {
        FsyncPolicy::Always => cx.acknowledged(wanted.saturating_add(1), within).await.saturating_sub(1),
        FsyncPolicy::EverySecond | FsyncPolicy::No => 0,
    };
    let synced = local == 1 && cx.sync().await;
    Ok(Reply::Array(vec![Reply::Integer(synced.into()), Reply::count(replicas)]))
}

/// A timeout in milliseconds; `None` for 0, which is no limit.
fn timeout(text: &[u8]) -> Result<Option<Duration>, CommandError> {
    let millis = integer(text).ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    let millis = u64::try_from(millis).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_whole_milliseconds_and_zero_is_none() {
        assert_eq!(timeout(b"250"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(timeout(b"0"), Ok(None));
        assert_eq!(timeout(b"-1"), Err(CommandError::text("ERR timeout is negative")));
        assert_eq!(timeout(b"a"), Err(CommandError::text("ERR timeout is not an integer or out of range")));
    }
}
