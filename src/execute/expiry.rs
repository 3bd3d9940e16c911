//! Expiry times of keys: EXPIRE, TTL, PERSIST and their kin.

use gyre_cluster::modify::Modify;
use gyre_protocol::Reply;
use gyre_storage::{Record, UnixMillis};

use crate::execute::options::{self, TimeUnit};
use crate::execute::value::modify;
use crate::execute::{Answer, Arguments, Context};

/// How an expiry is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// TTL: seconds left.
    Seconds,
    /// PTTL: milliseconds left.
    Millis,
    /// EXPIRETIME: seconds since the epoch.
    AtSeconds,
    /// PEXPIRETIME: milliseconds since the epoch.
    AtMillis,
}

/// `EXPIRE key time [NX|XX|GT|LT]`, and in other units.
pub async fn expire(cx: &Context, args: &Arguments, unit: TimeUnit, command: &'static str) -> Answer {
    let (at, condition) = options::parse_expire(args.get(2), args.from(3), unit, cx.now(), command)?;
    modify(cx, args.get(1), Modify::Expire { at, condition }).await
}

/// `TTL key`, and in other units: -2 if the key does not exist, -1 if it does not expire.
pub async fn ttl(cx: &Context, args: &Arguments, report: Report) -> Answer {
    let record = cx.read(cx.db(), args.get(1)).await?;
    Ok(Reply::Integer(expiry_number(&record, cx.now(), report)))
}

/// `PERSIST key`.
pub async fn persist(cx: &Context, args: &Arguments) -> Answer {
    modify(cx, args.get(1), Modify::Persist).await
}

fn expiry_number(record: &Record, now: UnixMillis, report: Report) -> i64 {
    if record.view(now).is_none() {
        return -2;
    }
    let Some(UnixMillis(at)) = record.expiry(now) else { return -1 };
    let left = at.saturating_sub(now.0);
    let number = match report {
        // Redis rounds to the nearest second.
        Report::Seconds => left.saturating_add(500) / 1_000,
        Report::Millis => left,
        Report::AtSeconds => at.saturating_add(500) / 1_000,
        Report::AtMillis => at,
    };
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use gyre_storage::{Hlc, Version};

    use super::*;

    fn report(record: &Record, report: Report) -> i64 {
        expiry_number(record, UnixMillis(10_000), report)
    }

    #[test]
    fn expiries_are_reported_in_every_unit() {
        let version = Version { hlc: Hlc(1), node: 1 };
        let record = Record::of_register(version, Some(UnixMillis(12_501)), Some(b"v"));
        assert_eq!(report(&record, Report::Seconds), 3);
        assert_eq!(report(&record, Report::Millis), 2_501);
        assert_eq!(report(&record, Report::AtSeconds), 13);
        assert_eq!(report(&record, Report::AtMillis), 12_501);
        let forever = Record::of_register(version, None, Some(b"v"));
        let expired = Record::of_register(version, Some(UnixMillis(10_000)), Some(b"v"));
        for kind in [Report::Seconds, Report::Millis, Report::AtSeconds, Report::AtMillis] {
            assert_eq!(report(&forever, kind), -1);
            assert_eq!(report(&expired, kind), -2);
            assert_eq!(report(&Record::ABSENT, kind), -2);
        }
    }
}
