//! Latency histograms of fixed, log-linear buckets: as good as HDR histograms to one digit, and recordable without a
//! lock or an atomic read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets for each doubling, as a power of two: 8, so that a bucket is at most an eighth as wide as its values.
const SUB_BITS: u32 = 3;
const SUB_BUCKETS: usize = 1 << SUB_BITS;
/// Doublings above the first 8 values: up to 2^32 microseconds, over an hour.
const DOUBLINGS: usize = 29;
/// How many buckets there are.
pub const BUCKETS: usize = SUB_BUCKETS * (DOUBLINGS + 1);

/// Adds to a cell that only one thread writes: a plain load and store, no locked instruction.
#[inline]
pub(super) fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// The bucket of a value in microseconds. Bucket bounds are inclusive above, so powers of two are bounds.
#[inline]
fn bucket(micros: u64) -> usize {
    let value = micros.saturating_sub(1).min(u64::from(u32::MAX));
    let index = if value < 1 << SUB_BITS {
        value
    } else {
        let exponent = value.ilog2();
        let doubling = u64::from(exponent - SUB_BITS + 1);
        (doubling << SUB_BITS) | ((value >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1))
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The greatest value of a bucket, in microseconds.
fn bound(bucket: usize) -> u64 {
    let (doubling, sub) = (bucket >> SUB_BITS, (bucket & (SUB_BUCKETS - 1)) as u64);
    if doubling == 0 { sub + 1 } else { (SUB_BUCKETS as u64 + sub + 1) << (doubling - 1) }
}

/// A histogram that one thread writes and any thread reads.
pub struct Cells {
    counts: [AtomicU64; BUCKETS],
}

impl Default for Cells {
    fn default() -> Self {
        Cells { counts: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Cells {
    /// Takes a value in. Only the owning thread may call this.
    #[inline]
    pub fn record(&self, micros: u64) {
        if let Some(cell) = self.counts.get(bucket(micros)) {
            add(cell, 1);
        }
    }

    /// Adds what was recorded so far to `sum`.
    pub fn add_to(&self, sum: &mut Histogram) {
        for (count, cell) in sum.counts.iter_mut().zip(&self.counts) {
            *count += cell.load(Ordering::Relaxed);
        }
    }
}

/// A histogram at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// How many values it has.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was recorded since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        Histogram { counts: counts.collect() }
    }

    /// The value in microseconds that `percent` of all values do not exceed, rounded up to its bucket's bound; 0 when
    /// there are no values.
    pub fn percentile(&self, percent: f64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count that is off by one in 2^53 moves no percentile"
        )]
        let wanted = (self.count() as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            let reached = seen as f64 >= wanted;
            if reached {
                return bound(bucket);
            }
        }
        0
    }

    /// How many values were at most 2^`exponent` microseconds.
    pub fn at_most_power_of_two(&self, exponent: u32) -> u64 {
        let bounds = self.counts.iter().enumerate();
        bounds.take_while(|(bucket, _)| bound(*bucket) <= 1 << exponent).map(|(_, count)| count).sum()
    }

    /// `(2^k, values at most 2^k)` in microseconds, for the powers between which values fall: what
    /// `LATENCY HISTOGRAM` answers.
    pub fn powers_of_two(&self) -> Vec<(u64, u64)> {
        let total = self.count();
        let mut out: Vec<(u64, u64)> = Vec::new();
        for exponent in 0..=32 {
            let below = out.last().map_or(0, |(_, count)| *count);
            if below == total {
                break;
            }
            let count = self.at_most_power_of_two(exponent);
            if count > below {
                out.push((1 << exponent, count));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let cells = Cells::default();
        values.iter().for_each(|value| cells.record(*value));
        let mut histogram = Histogram::default();
        cells.add_to(&mut histogram);
        histogram
    }

    #[test]
    fn every_value_falls_into_the_bucket_whose_bounds_hold_it() {
        let around = (0..32).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1, 3 << bit]);
        for value in around.filter(|value| *value <= 1 << 32) {
            let index = bucket(value);
            assert!(value <= bound(index), "{value} is above its bucket");
            assert!(index == 0 || bound(index - 1) < value, "{value} belongs into an earlier bucket");
        }
        assert_eq!(bound(BUCKETS - 1), 1 << 32);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn bounds_are_at_most_an_eighth_above_their_values() {
        for value in (9_u64..1_000_000).step_by(97) {
            let over = bound(bucket(value)) - value;
            assert!(over * 8 <= value, "{value} is shown as {}", value + over);
        }
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let histogram = of(&[1, 2, 3, 4, 5, 6, 7, 8, 8, 1000]);
        assert_eq!(histogram.percentile(50.0), 5);
        assert_eq!(histogram.percentile(90.0), 8);
        assert_eq!(histogram.percentile(99.9), 1024);
        assert_eq!(of(&[]).percentile(50.0), 0);
    }

    #[test]
    fn powers_of_two_are_cumulative_and_end_with_all_values() {
        assert_eq!(
            of(&[0, 1, 2, 3, 1024, 1025]).powers_of_two(),
            [(1, 2), (2, 3), (4, 4), (1024, 5), (2048, 6)]
        );
        assert_eq!(of(&[]).powers_of_two(), []);
        assert_eq!(of(&[u64::MAX]).powers_of_two(), [(1 << 32, 1)]);
    }

    #[test]
    fn what_was_there_before_is_taken_off() {
        let before = of(&[5, 100]);
        let after = of(&[5, 100, 100, 7]);
        assert_eq!(after.since(&before), of(&[100, 7]));
    }
}
