//! What is known about a key's value besides the value: OBJECT and MEMORY USAGE.

use gyre_protocol::Reply;
use gyre_storage::{Record, UnixMillis, parse_integer};

use crate::execute::options::{integer, is};
use crate::execute::value::value_of;
use crate::execute::{Answer, Arguments, CommandError, Context};

const NO_FREQUENCIES: CommandError = CommandError::text(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
     between policies at runtime LRU and LFU data will take some time to adjust.",
);

/// The longest string that Redis keeps within its object.
const EMBEDDED_BYTES_MAX: usize = 44;
/// Memory that a cached key takes besides its record and its name: the cache's entry and two allocations.
const ENTRY_BYTES: usize = 64;

/// What OBJECT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// `ENCODING`: what Redis would call the value's representation if it was set at once.
    Encoding,
    /// `FREQ`: not tracked.
    Frequency,
    /// `IDLETIME`: seconds since the last write; reads are not tracked.
    IdleTime,
    /// `REFCOUNT`: always 1.
    References,
}

/// `OBJECT ENCODING|FREQ|IDLETIME|REFCOUNT key`: null for a key that does not exist.
pub async fn object(cx: &Context, args: &Arguments, aspect: Aspect) -> Answer {
    let record = cx.read(cx.db(), args.get(2)).await?;
    let now = cx.now();
    let Some(value) = value_of(&record, now) else { return Ok(Reply::Null) };
    Ok(match aspect {
        Aspect::Encoding => Reply::text(encoding(&value)),
        Aspect::Frequency => return Err(NO_FREQUENCIES),
        Aspect::IdleTime => Reply::Integer(idle_seconds(&record, now)),
        Aspect::References => Reply::Integer(1),
    })
}

/// `MEMORY USAGE key [SAMPLES count]`: about the bytes that one replica's cache needs for the key.
pub async fn memory_usage(cx: &Context, args: &Arguments) -> Answer {
    let mut options = args.from(3);
    while let Some(option) = options.next() {
        let argument = options.next().ok_or(CommandError::SYNTAX)?;
        if !is(option, "samples") || integer(argument)? < 0 {
            return Err(CommandError::SYNTAX);
        }
    }
    let record = cx.read(cx.db(), args.get(2)).await?;
    if record.view(cx.now()).is_none() {
        return Ok(Reply::Null);
    }
    Ok(Reply::count(record.encoded().len() + args.get(2).len() + ENTRY_BYTES))
}

fn encoding(value: &[u8]) -> &'static str {
    match parse_integer(value) {
        Some(_) => "int",
        None if value.len() <= EMBEDDED_BYTES_MAX => "embstr",
        None => "raw",
    }
}

fn idle_seconds(record: &Record, now: UnixMillis) -> i64 {
    let idle_ms = now.0.saturating_sub(record.newest_version().hlc.millis());
    i64::try_from(idle_ms / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use gyre_storage::{Hlc, Version};

    use super::*;

    #[test]
    fn encodings_are_those_of_a_fresh_set() {
        assert_eq!(encoding(b"-17"), "int");
        assert_eq!(encoding(b"017"), "embstr");
        assert_eq!(encoding(b""), "embstr");
        assert_eq!(encoding(&[b'x'; 44]), "embstr");
        assert_eq!(encoding(&[b'x'; 45]), "raw");
    }

    #[test]
    fn idle_time_counts_from_the_last_write() {
        let version = Version { hlc: Hlc::from_millis(5_000), node: 1 };
        let record = Record::of_register(version, None, Some(b"v"));
        assert_eq!(idle_seconds(&record, UnixMillis(12_999)), 7);
        assert_eq!(idle_seconds(&record, UnixMillis(1)), 0, "a clock behind the writer's");
    }
}
