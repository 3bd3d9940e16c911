//! Floating point numbers as text, as Redis 7.2 writes them.

/// Whole numbers up to here are written as integers (`double2ll`: `LLONG_MAX / 2`).
const INTEGERS_MAX: f64 = 4_611_686_018_427_387_904.0;

/// `value` as `d2string` writes it: an integer where it is one, otherwise the fewest digits that read back as the
/// same number, laid out as `fpconv_dtoa` does.
#[must_use]
pub fn format(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value != 0.0 && value.abs() <= INTEGERS_MAX && value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value == 0.0 {
        return format!("{sign}0");
    }
    // Rust prints the shortest digits too: "d.ddde±x".
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    format!("{sign}{}", layout(&digits, exponent.parse().unwrap_or(0)))
}

/// Places the point into `digits`, of which the first stands for 10^`exponent`.
fn layout(digits: &str, exponent: i32) -> String {
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The number is digits · 10^shift.
    let shift = exponent - (count - 1);
    if shift >= 0 && exponent.abs() < count + 7 {
        let zeros = usize::try_from(shift).unwrap_or(0);
        return format!("{digits}{}", "0".repeat(zeros));
    }
    if shift < 0 && (shift > -7 || exponent.abs() < 4) {
        return match usize::try_from(exponent + 1) {
            Ok(whole @ 1..) => {
                let (whole, fraction) = digits.split_at(whole);
                format!("{whole}.{fraction}")
            }
            _ => format!("0.{}{digits}", "0".repeat(usize::try_from(-(exponent + 1)).unwrap_or(0))),
        };
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::format;

    #[test]
    fn numbers_are_laid_out_as_redis_does() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (3.25, "3.25"),
            (123_456.789, "123456.789"),
            (100.0, "100"),
            (-1e17, "-100000000000000000"),
            (1e19, "1e+19"),
            (1.5e19, "1.5e+19"),
            (12_345_678_901_234_567_000.0, "12345678901234567000"),
            (1.25e-3, "0.00125"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.7e308, "1.7e+308"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(format(value), text);
        }
    }

    #[test]
    fn every_text_reads_back_as_the_same_number() {
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..10_000 {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let value = f64::from_bits(bits);
            if value.is_finite() {
                assert_eq!(format(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
            }
        }
    }
}
