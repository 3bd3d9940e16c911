//! Bit commands: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP.

use gyre_cluster::modify::Modify;
use gyre_protocol::Reply;

use crate::execute::bitmap::{self, BitRange, Operation, Unit, is_backward};
use crate::execute::gather::gather;
use crate::execute::options::{self, integer, is};
use crate::execute::value::{count_reply, modify, read_value, with_value};
use crate::execute::{Answer, Arguments, CommandError, Context};

const BAD_BIT_ARGUMENT: CommandError = CommandError::text("ERR The bit argument must be 1 or 0.");
const NOT_OF_MANY: CommandError =
    CommandError::text("ERR BITOP NOT must be called with a single source key.");

/// `SETBIT key offset value`.
pub async fn setbit(cx: &Context, args: &Arguments) -> Answer {
    let offset = options::parse_bit_offset(args.get(2))?;
    let bit = options::parse_bit(args.get(3))?;
    modify(cx, args.get(1), Modify::SetBit { offset, bit }).await
}

/// `GETBIT key offset`.
pub async fn getbit(cx: &Context, args: &Arguments) -> Answer {
    let offset = options::parse_bit_offset(args.get(2))?;
    with_value(cx, args.get(1), |value| {
        Reply::Integer(i64::from(bitmap::bit_at(value.unwrap_or_default(), offset)))
    })
    .await
}

/// `BITCOUNT key [start end [BYTE|BIT]]`.
pub async fn bitcount(cx: &Context, args: &Arguments) -> Answer {
    let bounds = match args.len() {
        2 => None,
        4 | 5 => Some((integer(args.get(2))?, integer(args.get(3))?, unit(args, 4)?)),
        _ => return Err(CommandError::SYNTAX),
    };
    with_value(cx, args.get(1), |value| {
        let value = value.unwrap_or_default();
        let range = match bounds {
            None => Some(BitRange::all(value)),
            Some((start, end, _)) if is_backward(start, end) => None,
            Some((start, end, unit)) => BitRange::of(value, start, end, unit),
        };
        count_reply(range.map_or(0, |range| bitmap::count(value, range)))
    })
    .await
}

/// `BITPOS key bit [start [end [BYTE|BIT]]]`.
///
/// A string is followed by zeros for ever: so a zero is found behind it, unless `end` was given.
pub async fn bitpos(cx: &Context, args: &Arguments) -> Answer {
    let bit = match integer(args.get(2))? {
        0 => false,
        1 => true,
        _ => return Err(BAD_BIT_ARGUMENT),
    };
    let (start, end, unit) = match args.len() {
        3 => (0, None, Unit::Byte),
        4 => (integer(args.get(3))?, None, Unit::Byte),
        5 | 6 => {
            let start = integer(args.get(3))?;
            let unit = unit(args, 5)?;
            (start, Some(integer(args.get(4))?), unit)
        }
        _ => return Err(CommandError::SYNTAX),
    };
    with_value(cx, args.get(1), |value| {
        let Some(value) = value else { return Reply::Integer(if bit { -1 } else { 0 }) };
        let Some(range) = BitRange::of(value, start, end.unwrap_or(-1), unit) else {
            return Reply::Integer(-1);
        };
        match bitmap::position(value, range, bit) {
            Some(position) => count_reply(position),
            None if !bit && end.is_none() => Reply::count(value.len() * 8),
            None => Reply::Integer(-1),
        }
    })
    .await
}

/// `BITOP AND|OR|XOR|NOT destination key …`.
pub async fn bitop(cx: &Context, args: &Arguments) -> Answer {
    let operation = Operation::of_name(args.get(1)).ok_or(CommandError::SYNTAX)?;
    if operation == Operation::Not && args.len() != 4 {
        return Err(NOT_OF_MANY);
    }
    let sources =
        gather(args.from(3), async |key| Ok(read_value(cx, key).await?.unwrap_or_default())).await?;
    let result = bitmap::combine(operation, &sources);
    let value = (!result.is_empty()).then_some(result.as_slice());
    cx.write(cx.db(), args.get(2), value, None).await?;
    Ok(Reply::count(result.len()))
}

/// The unit at argument `index`, if there is one: bytes by default.
fn unit(args: &Arguments, index: usize) -> Result<Unit, CommandError> {
    match () {
        () if args.len() <= index || is(args.get(index), "byte") => Ok(Unit::Byte),
        () if is(args.get(index), "bit") => Ok(Unit::Bit),
        () => Err(CommandError::SYNTAX),
    }
}
