//! Calculations on strings as arrays of bits: BITCOUNT, BITPOS, BITOP, and the ranges they take.
//!
//! Bit 0 is the most significant bit of the first byte.

/// What a range counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    #[default]
    Byte,
    /// Bits.
    Bit,
}

/// A stretch of bits, from the first to the one behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRange {
    start: usize,
    end: usize,
}

impl BitRange {
    /// All of `bytes`.
    pub fn all(bytes: &[u8]) -> BitRange {
        BitRange { start: 0, end: bytes.len() * 8 }
    }

    /// What `start` to `end` (inclusive, negative from the end) means in `bytes`; `None` if that is empty.
    pub fn of(bytes: &[u8], start: i64, end: i64, unit: Unit) -> Option<BitRange> {
        let scale = if unit == Unit::Bit { 1 } else { 8 };
        let (start, end) = clamp(bytes.len() * 8 / scale, start, end)?;
        Some(BitRange { start: start * scale, end: end * scale })
    }
}

/// Whether both ends count from the end and are the wrong way round. GETRANGE and BITCOUNT take that as empty;
/// BITPOS does not, and so finds the first element when both lie before it.
pub fn is_backward(start: i64, end: i64) -> bool {
    start < 0 && end < 0 && start > end
}

/// What the inclusive range `start` to `end`, negative from the end, means in a sequence of `length` elements: the
/// first, and the one behind the last. Ends before the first element are moved to it. `None` if the range is empty.
pub fn clamp(length: usize, start: i64, end: i64) -> Option<(usize, usize)> {
    let length = i64::try_from(length).ok()?;
    let from_front = |index: i64| if index < 0 { (index + length).max(0) } else { index };
    let (start, end) = (from_front(start), from_front(end).min(length - 1));
    if start > end {
        return None;
    }
    Some((usize::try_from(start).ok()?, usize::try_from(end + 1).ok()?))
}

/// Bit `offset`; zero past the end.
pub fn bit_at(bytes: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset >> 3).ok().and_then(|index| bytes.get(index));
    byte.is_some_and(|byte| byte & (0x80 >> (offset & 7)) != 0)
}

/// How many bits of `range` are set.
pub fn count(bytes: &[u8], range: BitRange) -> u64 {
    let (head, body, tail) = cut(bytes, range);
    let ends = head.map_or(0, masked_ones) + tail.map_or(0, masked_ones);
    let (words, rest) = body.as_chunks::<8>();
    let in_words: u64 = words.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
    let in_rest: u64 = rest.iter().map(|byte| u64::from(byte.count_ones())).sum();
    ends + in_words + in_rest
}

/// The position of the first bit of `range` that equals `bit`.
pub fn position(bytes: &[u8], range: BitRange, bit: bool) -> Option<u64> {
    let (head, body, tail) = cut(bytes, range);
    let first_byte = range.start / 8;
    let found = |index: usize, byte: u8, mask: u8| {
        let hit = if bit { byte & mask } else { !byte & mask };
        (hit != 0).then(|| index as u64 * 8 + u64::from(hit.leading_zeros()))
    };
    let body_from = first_byte + usize::from(head.is_some());
    let skip = if bit { 0x00 } else { 0xff };
    head.and_then(|(byte, mask)| found(first_byte, byte, mask))
        .or_else(|| {
            let index = body.iter().position(|byte| *byte != skip)?;
            found(body_from + index, *body.get(index)?, 0xff)
        })
        .or_else(|| tail.and_then(|(byte, mask)| found(body_from + body.len(), byte, mask)))
}

/// A byte of which only the bits of a mask belong to a range.
type Partial = Option<(u8, u8)>;

/// The range as a partial first byte, whole bytes, and a partial last byte.
fn cut(bytes: &[u8], range: BitRange) -> (Partial, &[u8], Partial) {
    let at = |index: usize| bytes.get(index).copied().unwrap_or_default();
    let (first, last) = (range.start / 8, range.end / 8);
    let front_mask = 0xffu8 >> (range.start % 8);
    let back_mask = !(0xffu8 >> (range.end % 8));
    if first == last {
        return (Some((at(first), front_mask & back_mask)), &[], None);
    }
    let whole_from = range.start.div_ceil(8);
    let head = (!range.start.is_multiple_of(8)).then(|| (at(first), front_mask));
    let tail = (!range.end.is_multiple_of(8)).then(|| (at(last), back_mask));
    (head, bytes.get(whole_from..last).unwrap_or_default(), tail)
}

fn masked_ones((byte, mask): (u8, u8)) -> u64 {
    u64::from((byte & mask).count_ones())
}

/// What BITOP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// All sources.
    And,
    /// Any source.
    Or,
    /// An odd number of sources.
    Xor,
    /// Not the only source.
    Not,
}

impl Operation {
    /// The operation of that name.
    pub fn of_name(name: &[u8]) -> Option<Operation> {
        [("and", Operation::And), ("or", Operation::Or), ("xor", Operation::Xor), ("not", Operation::Not)]
            .into_iter()
            .find_map(|(word, operation)| name.eq_ignore_ascii_case(word.as_bytes()).then_some(operation))
    }
}

/// The sources combined; as long as the longest, shorter ones padded with zeros.
pub fn combine(operation: Operation, sources: &[Vec<u8>]) -> Vec<u8> {
    let length = sources.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = sources.first().cloned().unwrap_or_default();
    out.resize(length, 0);
    if operation == Operation::Not {
        out.iter_mut().for_each(|byte| *byte = !*byte);
        return out;
    }
    for source in sources.iter().skip(1) {
        let (common, beyond) = out.split_at_mut(source.len().min(length));
        for (byte, other) in common.iter_mut().zip(source) {
            match operation {
                Operation::And => *byte &= other,
                Operation::Or => *byte |= other,
                Operation::Xor | Operation::Not => *byte ^= other,
            }
        }
        if operation == Operation::And {
            beyond.fill(0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_cut_as_in_redis() {
        assert_eq!(clamp(5, 0, -1), Some((0, 5)));
        assert_eq!(clamp(5, -3, -1), Some((2, 5)));
        assert_eq!(clamp(5, -100, 100), Some((0, 5)));
        assert_eq!(clamp(5, 1, 1), Some((1, 2)));
        assert_eq!(clamp(5, -100, -50), Some((0, 1)), "Redis clamps both to the first element");
        for (start, end) in [(3, 2), (5, 9), (-1, -2), (i64::MAX, i64::MAX)] {
            assert_eq!(clamp(5, start, end), None, "{start} {end}");
        }
        assert_eq!(clamp(5, -50, -100), Some((0, 1)));
        assert!(is_backward(-50, -100) && !is_backward(-100, -50) && !is_backward(1, 0));
        assert_eq!(clamp(0, 0, -1), None);
        assert_eq!(clamp(0, i64::MIN, i64::MAX), None);
    }

    #[test]
    fn bits_are_counted_as_in_the_manual() {
        let of = |start, end, unit| count(b"foobar", BitRange::of(b"foobar", start, end, unit).unwrap());
        assert_eq!(count(b"foobar", BitRange::all(b"foobar")), 26);
        assert_eq!(of(0, 0, Unit::Byte), 4);
        assert_eq!(of(1, 1, Unit::Byte), 6);
        assert_eq!(of(5, 30, Unit::Bit), 17);
        assert_eq!(count(b"", BitRange::all(b"")), 0);
    }

    #[test]
    fn positions_are_found_as_in_the_manual() {
        let bytes = b"\xff\xf0\x00";
        assert_eq!(position(bytes, BitRange::all(bytes), false), Some(12));
        let bytes = b"\x00\xff\xf0";
        assert_eq!(position(bytes, BitRange::of(bytes, 2, -1, Unit::Byte).unwrap(), true), Some(16));
        assert_eq!(position(bytes, BitRange::of(bytes, 7, 15, Unit::Bit).unwrap(), true), Some(8));
        assert_eq!(position(b"\0\0", BitRange::all(b"\0\0"), true), None);
        assert_eq!(position(b"\xff", BitRange::all(b"\xff"), false), None);
    }

    #[test]
    fn strings_are_combined_up_to_the_longest() {
        let sources = [b"abc".to_vec(), b"a".to_vec()];
        assert_eq!(combine(Operation::And, &sources), b"a\0\0");
        assert_eq!(combine(Operation::Or, &sources), b"abc");
        assert_eq!(combine(Operation::Xor, &sources), b"\0bc");
        assert_eq!(combine(Operation::And, &[b"a".to_vec(), b"abc".to_vec()]), b"a\0\0");
        assert_eq!(combine(Operation::Not, &[b"\x0f".to_vec()]), b"\xf0");
        assert_eq!(combine(Operation::Or, &[vec![], vec![]]), b"");
        assert_eq!(Operation::of_name(b"xOr"), Some(Operation::Xor));
        assert_eq!(Operation::of_name(b"nand"), None);
    }

    fn naive(bytes: &[u8], start: u64, end: u64) -> Vec<bool> {
        (start..=end).map(|bit| bit_at(bytes, bit)).collect()
    }

    proptest! {
        #[test]
        fn counting_and_finding_agree_with_single_bits(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..24),
            a in 0i64..192,
            b in 0i64..192,
        ) {
            let last = i64::try_from(bytes.len()).unwrap() * 8 - 1;
            let (start, end) = (a.min(b).min(last), a.max(b).min(last));
            let range = BitRange::of(&bytes, start, end, Unit::Bit).unwrap();
            let start = start.unsigned_abs();
            let bits = naive(&bytes, start, end.unsigned_abs());
            prop_assert_eq!(count(&bytes, range), bits.iter().filter(|bit| **bit).count() as u64);
            for wanted in [false, true] {
                let expected = bits.iter().position(|bit| *bit == wanted).map(|index| index as u64 + start);
                prop_assert_eq!(position(&bytes, range, wanted), expected);
            }
        }
    }
}
