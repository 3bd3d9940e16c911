//! Natural numbers of any size: just what exact conversion between decimal text and binary floats needs.

use std::cmp::Ordering;

/// Limbs of 32 bits, least significant first, without leading zero limbs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Natural(Vec<u32>);

impl Natural {
    pub(super) fn from_u64(value: u64) -> Natural {
        let mut out = Natural(vec![low(value), low(value >> 32)]);
        out.trim();
        out
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// `self = self × factor + addend`.
    pub(super) fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = low(carry);
            carry >>= 32;
        }
        self.0.push(low(carry));
        self.trim();
    }

    /// `self = self × 10^power`.
    pub(super) fn multiply_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow(power % 9), 0);
    }

    /// `self = self / divisor`; answers the remainder.
    pub(super) fn divide(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0u64;
        for limb in self.0.iter_mut().rev() {
            let part = remainder << 32 | u64::from(*limb);
            *limb = low(part / u64::from(divisor));
            remainder = part % u64::from(divisor);
        }
        self.trim();
        low(remainder)
    }

    /// How many bits the number has; 0 for zero.
    pub(super) fn bits(&self) -> u32 {
        let limbs = u32::try_from(self.0.len()).unwrap_or(u32::MAX / 32);
        self.0.last().map_or(0, |top| limbs * 32 - top.leading_zeros())
    }

    /// `self = self × 2^by`.
    pub(super) fn shift_left(&mut self, by: u32) {
        let within = by % 32;
        if within > 0 {
            let mut carry = 0u64;
            for limb in &mut self.0 {
                carry |= u64::from(*limb) << within;
                *limb = low(carry);
                carry >>= 32;
            }
            self.0.push(low(carry));
        }
        self.0.splice(0..0, std::iter::repeat_n(0, (by / 32) as usize));
        self.trim();
    }

    /// The 96 most significant bits or all of them, how far they were shifted right, and whether a one was lost.
    pub(super) fn top(&self) -> (u128, u32, bool) {
        let lost = self.0.len().saturating_sub(3);
        let top = self.0.iter().skip(lost).rev().fold(0u128, |top, limb| top << 32 | u128::from(*limb));
        let sticky = self.0.iter().take(lost).any(|limb| *limb != 0);
        (top, u32::try_from(lost).unwrap_or(u32::MAX / 32) * 32, sticky)
    }

    /// `floor(self / divisor)` and whether the division left a remainder. The quotient must have at most 100 bits.
    pub(super) fn quotient(&self, divisor: &Natural) -> (u128, bool) {
        let steps = (self.bits() + 1).saturating_sub(divisor.bits());
        let mut remainder = self.clone();
        let mut aligned = divisor.clone();
        aligned.shift_left(steps);
        let mut quotient = 0u128;
        for _ in 0..=steps {
            quotient <<= 1;
            if remainder.compare(&aligned) != Ordering::Less {
                remainder.subtract(&aligned);
                quotient |= 1;
            }
            remainder.shift_left(1);
        }
        (quotient, !remainder.is_zero())
    }

    /// The number's decimal digits; `"0"` for zero.
    pub(super) fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.is_zero() {
            groups.push(rest.divide(1_000_000_000));
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        text
    }

    fn compare(&self, other: &Natural) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// `self = self - other`, which must not be greater.
    fn subtract(&mut self, other: &Natural) {
        let mut borrow = 0i64;
        let subtrahend = other.0.iter().copied().chain(std::iter::repeat(0));
        for (limb, less) in self.0.iter_mut().zip(subtrahend) {
            let difference = i64::from(*limb) - i64::from(less) + borrow;
            *limb = low(difference.rem_euclid(1 << 32).unsigned_abs());
            borrow = difference.div_euclid(1 << 32);
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low limb is what is asked for")]
fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::cast_possible_truncation, reason = "each limb is cut out of the number")]
    fn natural(value: u128) -> Natural {
        let mut out = Natural::from_u64((value >> 64) as u64);
        out.shift_left(32);
        out.multiply_add(1, (value >> 32) as u32);
        out.shift_left(32);
        out.multiply_add(1, value as u32);
        out
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_128_bit_integers(a in any::<u128>(), b in 1..=u64::MAX, shift in 0u32..64) {
            prop_assert_eq!(natural(a).to_decimal(), a.to_string());
            let divisor = u128::from(b) << 36;
            let (quotient, inexact) = natural(a).quotient(&natural(divisor));
            prop_assert_eq!(quotient, a / divisor);
            prop_assert_eq!(inexact, a % divisor != 0);
            let mut shifted = natural(u128::from(b));
            shifted.shift_left(shift);
            prop_assert_eq!(shifted.to_decimal(), (u128::from(b) << shift).to_string());
            prop_assert_eq!(shifted.bits(), 128 - (u128::from(b) << shift).leading_zeros());
        }
    }
}
