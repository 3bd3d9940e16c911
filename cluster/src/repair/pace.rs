//! How fast a node exchanges: a token bucket for everything it sends, takes in or lists, for itself and for its peers.

use crate::time::MonoMicros;

/// What a record costs, that is sent or stored; what a listed key and a compared part of a range cost is a part of it.
const RECORD: i64 = 64;
/// Listing a key reads it.
const KEY: i64 = 8;
/// Comparing a part reads a few sums.
const PART: i64 = 1;
/// The bucket holds the tokens of this part of a second, so that a pause is not followed by a flood.
const BURST_SHARE: i64 = 10;
const SECOND: i64 = 1_000_000;

/// The bucket. Whoever finds it not empty may take what a step costs, which then is a debt; so steps need not fit it.
#[derive(Debug)]
pub(super) struct Pace {
    /// Records a second.
    rate: i64,
    /// Millionths of a token.
    tokens: i64,
    filled_at: MonoMicros,
}

impl Pace {
    pub(super) fn new(rate: u32, now: MonoMicros) -> Pace {
        Pace { rate: i64::from(rate.max(1)), tokens: 0, filled_at: now }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = i64::from(rate.max(1));
    }

    /// Whether something may be done now.
    pub(super) fn is_free(&mut self, now: MonoMicros) -> bool {
        let elapsed = i64::try_from(now.micros_since(self.filled_at)).unwrap_or(i64::MAX);
        self.filled_at = self.filled_at.max(now);
        let a_second = self.rate.saturating_mul(RECORD);
        let most = a_second.saturating_mul(SECOND) / BURST_SHARE;
        self.tokens = self.tokens.saturating_add(elapsed.saturating_mul(a_second)).min(most);
        self.tokens > 0
    }

    pub(super) fn pay_records(&mut self, count: usize) {
        self.pay(count, RECORD);
    }

    pub(super) fn pay_keys(&mut self, count: usize) {
        self.pay(count, KEY);
    }

    pub(super) fn pay_parts(&mut self, count: usize) {
        self.pay(count, PART);
    }

    fn pay(&mut self, count: usize, each: i64) {
        let cost = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(each).saturating_mul(SECOND);
        self.tokens = self.tokens.saturating_sub(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_goes_through_whatever_the_steps() {
        let mut pace = Pace::new(1_000, MonoMicros(0));
        let mut sent = 0;
        for ms in 1..=10_000u64 {
            if pace.is_free(MonoMicros(ms * 1_000)) {
                pace.pay_records(256);
                sent += 256;
            }
        }
        assert!((9_700..=10_400).contains(&sent), "ten seconds at 1,000 a second: {sent}");
    }

    #[test]
    fn a_pause_is_not_followed_by_a_flood() {
        let mut pace = Pace::new(1_000, MonoMicros(0));
        let later = MonoMicros(3_600_000_000);
        let mut sent = 0;
        while pace.is_free(later) {
            pace.pay_records(10);
            sent += 10;
        }
        assert_eq!(sent, 100, "a tenth of a second's");
    }
}
