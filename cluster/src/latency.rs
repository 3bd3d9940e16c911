//! How long peers take to answer, for deciding when another one should be asked.

/// Each power of two of microseconds is cut into this many buckets.
const STEPS: usize = 4;
const BUCKETS: usize = 32 * STEPS;
/// After so many samples all counts are halved: the estimate is of about the last two of these.
const WINDOW: u32 = 4_096;
/// Fewer samples than this say nothing about a 99th percentile.
const SAMPLES_MIN: u32 = 100;
/// The estimate is made anew every so many samples.
const REFRESH: u32 = 64;

/// A decaying histogram of latencies: buckets of 19 % width, counts halved every 4,096 samples, so that the
/// estimate follows the last few thousand. (Cassandra's `SPECULATIVE_RETRY 99p` keeps an exponentially decaying
/// reservoir per table instead.)
#[derive(Clone, Debug)]
pub struct Latency {
    counts: [u32; BUCKETS],
    total: u32,
    /// The estimate as of the last multiple of [`REFRESH`] samples: it is asked for with every read.
    p99: Option<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { counts: [0; BUCKETS], total: 0, p99: None }
    }
}

impl Latency {
    /// Takes in that an answer took `micros` microseconds.
    pub fn record(&mut self, micros: u64) {
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
            self.total += 1;
        }
        if self.total >= WINDOW {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        if self.total.is_multiple_of(REFRESH) {
            self.p99 = self.estimate();
        }
    }

    /// What 99 of 100 answers took at most, in microseconds, rounded up to the end of its bucket. `None` before
    /// there are enough samples.
    #[must_use]
    pub fn p99(&self) -> Option<u64> {
        self.p99
    }

    fn estimate(&self) -> Option<u64> {
        if self.total < SAMPLES_MIN {
            return None;
        }
        let mut above = self.total / 100;
        for (index, &count) in self.counts.iter().enumerate().rev() {
            match above.checked_sub(count) {
                Some(rest) => above = rest,
                None => return Some(end_of(index)),
            }
        }
        None
    }
}

/// Bucket of a latency: its power of two, then the two bits below its top bit.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    let power = micros.ilog2();
    let step = if power >= 2 { micros >> (power - 2) & 3 } else { micros << (2 - power) & 3 };
    (power as usize * STEPS + usize::try_from(step).unwrap_or(0)).min(BUCKETS - 1)
}

/// The first latency past bucket `index`.
fn end_of(index: usize) -> u64 {
    let (power, step) = (index / STEPS, index % STEPS);
    let width_of_four = 1u64 << power;
    width_of_four + (width_of_four * (step as u64 + 1)).div_ceil(STEPS as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_below_the_end_of_its_bucket_and_near_it() {
        for micros in (1..5_000).chain([100_000, 1_234_567, 3_000_000_000]) {
            let end = end_of(bucket(micros));
            assert!(end > micros, "{micros} not below {end}");
            assert!(end <= micros + micros / 4 + 1, "{micros} far below {end}");
        }
    }

    #[test]
    fn the_99th_percentile_leaves_one_in_a_hundred_out() {
        let mut latency = Latency::default();
        for sample in 0..1_000 {
            latency.record(if sample % 200 == 0 { 50_000 } else { 300 });
        }
        assert!((300..400).contains(&latency.p99().unwrap()));
        for sample in 0..1_000 {
            latency.record(if sample % 20 == 0 { 50_000 } else { 300 });
        }
        assert!((50_000..65_000).contains(&latency.p99().unwrap()));
    }

    #[test]
    fn few_samples_give_no_estimate() {
        let mut latency = Latency::default();
        (0..99).for_each(|_| latency.record(300));
        assert_eq!(latency.p99(), None);
    }

    #[test]
    fn the_estimate_follows_a_change() {
        let mut latency = Latency::default();
        (0..10_000).for_each(|_| latency.record(80_000));
        (0..60_000).for_each(|_| latency.record(200));
        assert!(latency.p99().unwrap() < 300);
        (0..1_000).for_each(|_| latency.record(u64::MAX));
        assert!(latency.p99().is_some());
    }
}
