//! Floats with a 64-bit mantissa: the `long double` of x86-64, on which Redis computes INCRBYFLOAT.
//!
//! Every replica and every machine must come to the same text, and that text should be the one Redis writes: 0.1
//! added to 10.5 is 10.6 there, and with 53-bit floats would be 10.6 only by luck of the printing. So the three
//! operations needed are done in software: reading decimal text (round to nearest, ties to even, like glibc's
//! `strtold`), addition, and `printf("%.17Lf")` with trailing zeros cut.
//!
//! Deviations from `long double`: no hexadecimal input, and numbers below 2^-16382 keep full precision, which no
//! output of 17 decimals can show.

use super::natural::Natural;

/// Redis parses at most this many bytes as a float (`MAX_LONG_DOUBLE_CHARS`, terminator included).
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Decimals printed before trailing zeros are cut.
const DECIMALS: usize = 17;
/// `long double` ends below 2^16384.
const EXPONENT_END: i32 = 16_384;
/// No `long double` but zero has a decimal exponent below this.
const DECIMAL_EXPONENT_MIN: i32 = -4_950;
const DECIMAL_EXPONENT_MAX: i32 = 4_933;

/// A number as INCRBYFLOAT sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extended {
    /// `inf`, in whichever direction: it parses, but no sum with it is accepted.
    Infinite,
    /// `(-1)^negative × mantissa × 2^exponent`; the mantissa's top bit is set unless it is zero.
    Finite { negative: bool, mantissa: u64, exponent: i32 },
}

impl Extended {
    pub(super) const ZERO: Extended = Extended::Finite { negative: false, mantissa: 0, exponent: 0 };

    /// Reads decimal text as Redis's `string2ld` does: all of it, no spaces; `inf` but not `nan`.
    pub(super) fn parse(text: &[u8]) -> Option<Extended> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(Extended::Infinite);
        }
        let (digits, exponent) = parse_decimal(unsigned)?;
        from_decimal(negative, digits, exponent)
    }

    /// The sum, rounded to 64 bits; `None` if it is not finite.
    pub(super) fn plus(self, other: Extended) -> Option<Extended> {
        let Extended::Finite { negative, mantissa, exponent } = self else { return None };
        let Extended::Finite { negative: other_negative, mantissa: other_mantissa, exponent: other_exponent } =
            other
        else {
            return None;
        };
        if mantissa == 0 {
            return Some(other);
        }
        if other_mantissa == 0 {
            return Some(self);
        }
        if other_exponent > exponent {
            return other.plus(self);
        }
        // The greater operand gets 62 bits of room below, so that the lesser one loses nothing that matters.
        let distance = exponent.abs_diff(other_exponent);
        let scale = exponent - 62;
        let great = u128::from(mantissa) << 62;
        let whole = u128::from(other_mantissa) << 62;
        let small = whole.checked_shr(distance).unwrap_or(0);
        let sticky = small.checked_shl(distance).unwrap_or(0) != whole;
        if negative == other_negative {
            return rounded(negative, great + small, scale, sticky);
        }
        if great > small {
            // A lost one below the lesser operand makes the true difference a little smaller.
            return rounded(negative, great - small - u128::from(sticky), scale, sticky);
        }
        rounded(small > great && other_negative, small - great, scale, false)
    }

    /// `printf("%.17Lf")`, trailing zeros and a trailing point cut, `-0` written as `0`.
    pub(super) fn to_text(self) -> String {
        let Extended::Finite { negative, mantissa, exponent } = self else { return "inf".to_owned() };
        let mut text = if exponent >= 0 {
            let mut whole = Natural::from_u64(mantissa);
            whole.shift_left(exponent.unsigned_abs());
            whole.to_decimal()
        } else {
            fraction_text(mantissa, exponent.unsigned_abs())
        };
        if negative && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// Digits and decimal exponent of `digits[.digits][e[+-]digits]`; at least one digit before the exponent.
fn parse_decimal(text: &[u8]) -> Option<(Natural, i32)> {
    let mut digits = Natural::default();
    let mut digits_seen = 0u32;
    let mut decimals = 0i32;
    let mut point_seen = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'0'..=b'9' => {
                digits.multiply_add(10, u32::from(byte - b'0'));
                digits_seen += 1;
                decimals += i32::from(point_seen);
            }
            b'.' if !point_seen => point_seen = true,
            b'e' | b'E' => break,
            _ => return None,
        }
        rest = tail;
    }
    if digits_seen == 0 {
        return None;
    }
    let exponent = match rest.split_first() {
        None => 0,
        Some((_, tail)) => parse_exponent(tail)?,
    };
    Some((digits, exponent - decimals))
}

/// A signed decimal exponent, clamped to a range that is far out of a float's.
fn parse_exponent(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0i32, |size, digit| (size * 10 + i32::from(digit - b'0')).min(100_000));
    Some(if negative { -size } else { size })
}

/// `digits × 10^exponent`, rounded to 64 bits; `None` out of `long double`'s range.
fn from_decimal(negative: bool, mut digits: Natural, exponent: i32) -> Option<Extended> {
    if digits.is_zero() {
        return Some(Extended::Finite { negative, mantissa: 0, exponent: 0 });
    }
    // 77/256 is just under log10(2): the number's decimal exponent to within a few.
    let magnitude = i32::try_from(digits.bits()).ok()? * 77 / 256 + exponent;
    if !(DECIMAL_EXPONENT_MIN..=DECIMAL_EXPONENT_MAX).contains(&magnitude) {
        return None;
    }
    if exponent >= 0 {
        digits.multiply_power_of_ten(exponent.unsigned_abs());
        let (top, shifted, sticky) = digits.top();
        return rounded(negative, top, i32::try_from(shifted).ok()?, sticky);
    }
    let mut divisor = Natural::from_u64(1);
    divisor.multiply_power_of_ten(exponent.unsigned_abs());
    // Scaled so that the quotient has 66 or 67 bits: two or more to round by.
    let scale = i32::try_from(divisor.bits()).ok()? + 66 - i32::try_from(digits.bits()).ok()?;
    if scale >= 0 {
        digits.shift_left(scale.unsigned_abs());
    } else {
        divisor.shift_left(scale.unsigned_abs());
    }
    let (quotient, inexact) = digits.quotient(&divisor);
    rounded(negative, quotient, -scale, inexact)
}

/// `value × 2^exponent` (and a little more, if `sticky`) rounded to a 64-bit mantissa, ties to even.
fn rounded(negative: bool, value: u128, exponent: i32, sticky: bool) -> Option<Extended> {
    if value == 0 {
        return Some(Extended::ZERO);
    }
    let bits = 128 - value.leading_zeros();
    let (mut mantissa, mut exponent) = if bits <= 64 {
        let up = 64 - bits;
        (value << up, exponent - i32::try_from(up).ok()?)
    } else {
        let down = bits - 64;
        (round_shift(value, down, sticky), exponent + i32::try_from(down).ok()?)
    };
    if mantissa >> 64 != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    if exponent + 64 > EXPONENT_END {
        return None;
    }
    Some(Extended::Finite { negative, mantissa: u64::try_from(mantissa).ok()?, exponent })
}

/// `value / 2^by` to the nearest integer, ties to even; `sticky` says that `value` was a little more.
fn round_shift(value: u128, by: u32, sticky: bool) -> u128 {
    if by == 0 {
        return value;
    }
    let Some(quotient) = value.checked_shr(by) else {
        // Below one by at least 2^by / 2^127; only a value above one half would round up.
        return u128::from(by == 128 && (value > 1 << 127 || value == 1 << 127 && sticky));
    };
    let half = 1u128 << (by - 1);
    let lost = value & (half | (half - 1));
    let up = lost > half || lost == half && (sticky || quotient & 1 == 1);
    quotient + u128::from(up)
}

/// `mantissa / 2^shift` with 17 decimals, trailing zeros cut.
fn fraction_text(mantissa: u64, shift: u32) -> String {
    let scaled = round_shift(u128::from(mantissa) * 10u128.pow(17), shift, false);
    let text = format!("{scaled:018}");
    let (whole, decimals) = text.split_at(text.len() - DECIMALS);
    let decimals = decimals.trim_end_matches('0');
    if decimals.is_empty() { whole.to_owned() } else { format!("{whole}.{decimals}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(a: &str, b: &str) -> String {
        Extended::parse(a.as_bytes()).unwrap().plus(Extended::parse(b.as_bytes()).unwrap()).unwrap().to_text()
    }

    #[test]
    fn text_is_accepted_as_in_redis() {
        for text in ["0", "-0", "+1", "1.", ".5", "1e5", "1E-5", "1.5e+3", "inf", "-Infinity", "007"] {
            assert!(Extended::parse(text.as_bytes()).is_some(), "{text}");
        }
        for text in
            ["", "-", ".", "e5", "1e", "1e+", " 1", "1 ", "nan", "1.2.3", "abc", "1e5000", "1e-5000", "--1"]
        {
            assert_eq!(Extended::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Extended::parse(&[b'1'; TEXT_BYTES_MAX + 1]), None);
        assert_eq!(Extended::parse(&[b'1'; TEXT_BYTES_MAX]), None);
        assert!(Extended::parse(&[b'1'; 4_932]).is_some());
    }

    /// The right column is what redis-server 7.0.15 on x86-64 answers.
    #[test]
    fn sums_print_as_in_redis() {
        include_str!("testdata/incrbyfloat.txt").lines().filter(|line| !line.starts_with('#')).for_each(
            |line| {
                let mut columns = line.split_whitespace();
                let (a, b) = (columns.next().unwrap(), columns.next().unwrap());
                let expected = columns.next().unwrap();
                assert_eq!(sum(a, b), expected, "{a} + {b}");
            },
        );
    }

    #[test]
    fn infinite_sums_are_refused() {
        let (infinite, one) = (Extended::parse(b"inf").unwrap(), Extended::parse(b"1").unwrap());
        assert_eq!(infinite.plus(one), None);
        assert_eq!(one.plus(infinite), None);
        let great = Extended::parse(b"1.1e4932").unwrap();
        assert_eq!(great.plus(great), None);
    }

    proptest! {
        #[test]
        fn sums_of_integers_are_exact(a in -(1i64 << 62)..1 << 62, b in -(1i64 << 62)..1 << 62) {
            prop_assert_eq!(sum(&a.to_string(), &b.to_string()), (a + b).to_string());
        }

        #[test]
        fn sums_of_short_decimals_are_exact(a in -9_999i64..9_999, b in -9_999i64..9_999) {
            let text = |n: i64| format!("{}{}.{:03}", if n < 0 { "-" } else { "" }, n.abs() / 1000, n.abs() % 1000);
            let exact = text(a + b);
            let exact = exact.trim_end_matches('0').trim_end_matches('.').to_owned();
            let exact = if exact == "-0" { "0".to_owned() } else { exact };
            prop_assert_eq!(sum(&text(a), &text(b)), exact);
        }

        #[test]
        fn parsing_never_panics(text in prop::collection::vec(any::<u8>(), 0..40), digits in "[-+0-9.eE]{0,60}") {
            let _ = Extended::parse(&text);
            if let Some(number) = Extended::parse(digits.as_bytes()) {
                let again = Extended::parse(number.to_text().as_bytes());
                prop_assert!(again.is_some());
            }
        }
    }
}
