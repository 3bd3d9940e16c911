//! Arguments of the string and key commands, read as Redis 7.2 reads them and refused in its words.

use std::borrow::Cow;

use gyre_cluster::modify::ExpireCondition;
pub use gyre_cluster::modify::{ExpiryChange, SetCondition as Condition};
use gyre_storage::{UnixMillis, parse_integer};

use crate::execute::CommandError;

/// The longest string a command may ask for: `proto-max-bulk-len`'s default.
const STRING_BYTES_MAX: u64 = gyre_cluster::modify::STRING_BYTES_MAX;

const UNIT_CONFLICT: CommandError =
    CommandError::text("ERR NX and XX, GT or LT options at the same time are not compatible");
const GT_LT_CONFLICT: CommandError =
    CommandError::text("ERR GT and LT options at the same time are not compatible");
const BAD_OFFSET: CommandError = CommandError::text("ERR offset is out of range");
const BAD_BIT_OFFSET: CommandError = CommandError::text("ERR bit offset is not an integer or out of range");
const BAD_BIT: CommandError = CommandError::text("ERR bit is not an integer or out of range");
const BAD_NUMBER: CommandError =
    CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647");
const BAD_DATABASE: CommandError = CommandError::text("ERR DB index is out of range");
const BAD_CURSOR: CommandError = CommandError::text("ERR invalid cursor");

/// What stands behind `SET key value`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// `NX`, `XX`.
    pub condition: Condition,
    /// `EX`, `PX`, `EXAT`, `PXAT`, `KEEPTTL`; [`ExpiryChange::Clear`] without them.
    pub expiry: ExpiryChange,
    /// `GET`.
    pub get: bool,
}

/// How an expiry time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeUnit {
    /// In seconds, else in milliseconds.
    pub seconds: bool,
    /// Counted from now, else from the Unix epoch.
    pub relative: bool,
}

impl TimeUnit {
    /// `EX`, `EXPIRE`, `SETEX`.
    pub const SECONDS: TimeUnit = TimeUnit { seconds: true, relative: true };
    /// `PX`, `PEXPIRE`, `PSETEX`.
    pub const MILLIS: TimeUnit = TimeUnit { seconds: false, relative: true };
    /// `EXAT`, `EXPIREAT`.
    pub const AT_SECONDS: TimeUnit = TimeUnit { seconds: true, relative: false };
    /// `PXAT`, `PEXPIREAT`.
    pub const AT_MILLIS: TimeUnit = TimeUnit { seconds: false, relative: false };

    fn of_option(option: &[u8]) -> Option<TimeUnit> {
        [
            ("ex", TimeUnit::SECONDS),
            ("px", TimeUnit::MILLIS),
            ("exat", TimeUnit::AT_SECONDS),
            ("pxat", TimeUnit::AT_MILLIS),
        ]
        .into_iter()
        .find_map(|(name, unit)| is(option, name).then_some(unit))
    }
}

/// Whether `argument` is the word `name`, in any case.
pub fn is(argument: &[u8], name: &str) -> bool {
    argument.eq_ignore_ascii_case(name.as_bytes())
}

/// An integer of 64 bits in its canonical form.
pub fn integer(argument: &[u8]) -> Result<i64, CommandError> {
    parse_integer(argument).ok_or(CommandError::NOT_AN_INTEGER)
}

/// The options of SET, which begin behind the value.
pub fn parse_set<'a>(
    mut options: impl Iterator<Item = &'a [u8]>,
    now: UnixMillis,
) -> Result<SetOptions, CommandError> {
    let mut out = SetOptions::default();
    let mut time = None;
    while let Some(option) = options.next() {
        match TimeUnit::of_option(option) {
            Some(unit) if out.expiry != ExpiryChange::Keep => {
                time = Some(expiry_option(time, unit, options.next())?);
            }
            Some(_) => return Err(CommandError::SYNTAX),
            None if is(option, "nx") && out.condition != Condition::Xx => out.condition = Condition::Nx,
            None if is(option, "xx") && out.condition != Condition::Nx => out.condition = Condition::Xx,
            None if is(option, "get") => out.get = true,
            None if is(option, "keepttl") && time.is_none() => out.expiry = ExpiryChange::Keep,
            None => return Err(CommandError::SYNTAX),
        }
    }
    if let Some((unit, argument)) = time {
        out.expiry = ExpiryChange::At(parse_expiry(argument, unit, now, "set")?);
    }
    Ok(out)
}

/// The options of GETEX, which begin behind the key. Without options the expiry stays.
pub fn parse_getex<'a>(
    mut options: impl Iterator<Item = &'a [u8]>,
    now: UnixMillis,
) -> Result<ExpiryChange, CommandError> {
    let mut persist = false;
    let mut time = None;
    while let Some(option) = options.next() {
        match TimeUnit::of_option(option) {
            Some(unit) if !persist => time = Some(expiry_option(time, unit, options.next())?),
            None if is(option, "persist") && time.is_none() => persist = true,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    match time {
        Some((unit, argument)) => Ok(ExpiryChange::At(parse_expiry(argument, unit, now, "getex")?)),
        None if persist => Ok(ExpiryChange::Clear),
        None => Ok(ExpiryChange::Keep),
    }
}

/// An expiry alone, of a `command` that has no other options.
pub fn parse_expiry_only<'a>(
    mut options: impl Iterator<Item = &'a [u8]>,
    now: UnixMillis,
    command: &'static str,
) -> Result<Option<UnixMillis>, CommandError> {
    let mut time = None;
    while let Some(option) = options.next() {
        let unit = TimeUnit::of_option(option).ok_or(CommandError::SYNTAX)?;
        time = Some(expiry_option(time, unit, options.next())?);
    }
    time.map(|(unit, argument)| parse_expiry(argument, unit, now, command)).transpose()
}

/// An expiry option with its argument. Another unit may not have come before; the same one may, and is replaced.
fn expiry_option<'a>(
    before: Option<(TimeUnit, &'a [u8])>,
    unit: TimeUnit,
    argument: Option<&'a [u8]>,
) -> Result<(TimeUnit, &'a [u8]), CommandError> {
    match (before, argument) {
        (Some((earlier, _)), _) if earlier != unit => Err(CommandError::SYNTAX),
        (_, Some(argument)) => Ok((unit, argument)),
        (_, None) => Err(CommandError::SYNTAX),
    }
}

/// The expiry time of SET, SETEX, PSETEX and GETEX: positive as written, and within 63 bits of milliseconds.
pub fn parse_expiry(
    argument: &[u8],
    unit: TimeUnit,
    now: UnixMillis,
    command: &'static str,
) -> Result<UnixMillis, CommandError> {
    let written = integer(argument)?;
    if written <= 0 {
        return Err(invalid_expire_time(command));
    }
    let at = absolute(written, unit, now).ok_or_else(|| invalid_expire_time(command))?;
    u64::try_from(at).map(UnixMillis).map_err(|_| invalid_expire_time(command))
}

/// The time and the condition of EXPIRE and its kin, whose `options` begin behind the time. A time before the epoch
/// becomes the epoch: both have passed.
pub fn parse_expire<'a>(
    time: &[u8],
    options: impl Iterator<Item = &'a [u8]>,
    unit: TimeUnit,
    now: UnixMillis,
    command: &'static str,
) -> Result<(UnixMillis, ExpireCondition), CommandError> {
    let condition = parse_expire_condition(options)?;
    let at = absolute(integer(time)?, unit, now).ok_or_else(|| invalid_expire_time(command))?;
    Ok((UnixMillis(u64::try_from(at).unwrap_or(0)), condition))
}

fn parse_expire_condition<'a>(
    options: impl Iterator<Item = &'a [u8]>,
) -> Result<ExpireCondition, CommandError> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in options {
        let flag = match () {
            () if is(option, "nx") => &mut nx,
            () if is(option, "xx") => &mut xx,
            () if is(option, "gt") => &mut gt,
            () if is(option, "lt") => &mut lt,
            () => return Err(unsupported_option(option)),
        };
        *flag = true;
    }
    match (nx, xx, gt, lt) {
        (true, _, _, _) if xx || gt || lt => Err(UNIT_CONFLICT),
        (_, _, true, true) => Err(GT_LT_CONFLICT),
        (true, _, _, _) => Ok(ExpireCondition::Nx),
        (_, _, true, _) => Ok(ExpireCondition::Gt),
        (_, true, _, true) => Ok(ExpireCondition::XxLt),
        (_, _, _, true) => Ok(ExpireCondition::Lt),
        (_, true, _, _) => Ok(ExpireCondition::Xx),
        _ => Ok(ExpireCondition::Always),
    }
}

/// `written` in milliseconds since the epoch; `None` if that leaves 64 bits.
fn absolute(written: i64, unit: TimeUnit, now: UnixMillis) -> Option<i64> {
    let millis = if unit.seconds { written.checked_mul(1_000)? } else { written };
    let start = if unit.relative { i64::try_from(now.0).ok()? } else { 0 };
    millis.checked_add(start)
}

fn invalid_expire_time(command: &'static str) -> CommandError {
    CommandError::Text(Cow::Owned(format!("ERR invalid expire time in '{command}' command")))
}

fn unsupported_option(option: &[u8]) -> CommandError {
    const SHOWN_BYTES_MAX: usize = 128;
    let shown = String::from_utf8_lossy(option.get(..SHOWN_BYTES_MAX).unwrap_or(option));
    CommandError::Text(Cow::Owned(format!("ERR Unsupported option {shown}")))
}

/// The offset of SETRANGE, in bytes.
pub fn parse_offset(argument: &[u8]) -> Result<u64, CommandError> {
    u64::try_from(integer(argument)?).map_err(|_| BAD_OFFSET)
}

/// The offset of SETBIT and GETBIT, in bits: below 8 × 512 MB.
pub fn parse_bit_offset(argument: &[u8]) -> Result<u64, CommandError> {
    let offset =
        parse_integer(argument).and_then(|offset| u64::try_from(offset).ok()).ok_or(BAD_BIT_OFFSET)?;
    if offset >> 3 >= STRING_BYTES_MAX { Err(BAD_BIT_OFFSET) } else { Ok(offset) }
}

/// The new bit of SETBIT.
pub fn parse_bit(argument: &[u8]) -> Result<bool, CommandError> {
    match argument {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(BAD_BIT),
    }
}

/// The database number of COPY and MOVE, of which there are `databases`.
pub fn parse_database(argument: &[u8], databases: usize) -> Result<u8, CommandError> {
    let index = i32::try_from(integer(argument)?).map_err(|_| BAD_NUMBER)?;
    let known = usize::try_from(index).is_ok_and(|index| index < databases);
    u8::try_from(index).ok().filter(|_| known).ok_or(BAD_DATABASE)
}

/// What stands behind `COPY source destination`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// `DB`: the destination's database, where it is another.
    pub db: Option<u8>,
    /// `REPLACE`.
    pub replace: bool,
}

/// The options of COPY.
pub fn parse_copy<'a>(
    mut options: impl Iterator<Item = &'a [u8]>,
    databases: usize,
) -> Result<CopyOptions, CommandError> {
    let mut out = CopyOptions::default();
    while let Some(option) = options.next() {
        if is(option, "replace") {
            out.replace = true;
        } else if is(option, "db") {
            let argument = options.next().ok_or(CommandError::SYNTAX)?;
            out.db = Some(parse_database(argument, databases)?);
        } else {
            return Err(CommandError::SYNTAX);
        }
    }
    Ok(out)
}

/// What stands behind `SCAN cursor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions<'a> {
    /// `MATCH`: every key without it.
    pub pattern: Option<&'a [u8]>,
    /// `COUNT`: about how many keys to look at.
    pub count: usize,
    /// `TYPE`: every type without it.
    pub type_name: Option<&'a [u8]>,
}

/// The cursor of SCAN: an unsigned integer, read like C's `strtoul`, so that nothing is 0 and -1 is the greatest.
pub fn parse_cursor(argument: &[u8]) -> Result<u64, CommandError> {
    let (negative, digits) = match argument {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits_only = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| digits_only).ok_or(BAD_CURSOR)?;
    let cursor: u64 = text.parse().map_err(|_| BAD_CURSOR)?;
    Ok(if negative { cursor.wrapping_neg() } else { cursor })
}

/// The options of SCAN.
pub fn parse_scan<'a>(mut options: impl Iterator<Item = &'a [u8]>) -> Result<ScanOptions<'a>, CommandError> {
    let mut out = ScanOptions { pattern: None, count: 10, type_name: None };
    while let Some(option) = options.next() {
        let argument = options.next().ok_or(CommandError::SYNTAX)?;
        match () {
            () if is(option, "match") => out.pattern = Some(argument),
            () if is(option, "count") => {
                let count = usize::try_from(integer(argument)?).unwrap_or(0);
                out.count = if count == 0 { return Err(CommandError::SYNTAX) } else { count };
            }
            () if is(option, "type") => out.type_name = Some(argument),
            () => return Err(CommandError::SYNTAX),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
