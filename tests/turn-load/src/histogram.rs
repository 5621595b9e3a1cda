//! Many durations, and their percentiles: buckets 1/64 of an octave wide, so that a percentile is at most 1.6 % off.

/// Buckets per octave.
const FINE: u32 = 64;
/// Values of 0 ns up to half a minute.
const OCTAVES: u32 = 35;

#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    greatest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; (FINE * OCTAVES) as usize],
            count: 0,
            greatest: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, value: u64) {
        let last = self.buckets.len() - 1;
        self.buckets[bucket(value).min(last)] += 1;
        self.count += 1;
        self.greatest = self.greatest.max(value);
    }

    /// The value that this share of all (0 to 1) does not exceed; 0 when there is none.
    pub(crate) fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && index + 1 < self.buckets.len() {
                return upper_end(index).min(self.greatest);
            }
        }
        self.greatest
    }

    pub(crate) const fn greatest(&self) -> u64 {
        self.greatest
    }
}

/// Values below `FINE` have a bucket each; above, the leading bits choose.
const fn bucket(value: u64) -> usize {
    if value < FINE as u64 {
        return value as usize;
    }
    let octave = value.ilog2() - FINE.ilog2();
    let fine = (value >> octave) as u32 - FINE;
    ((octave + 1) * FINE + fine) as usize
}

const fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    let fine = FINE as u64;
    if index < fine {
        return index;
    }
    let octave = index / fine - 1;
    (((index % fine) + fine + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_ends_at_or_just_above_it() {
        for value in (0..5_000).chain([1 << 20, (1 << 33) + 12_345, 999_999_999]) {
            let end = upper_end(bucket(value));
            assert!(end >= value && end - value <= value / 64, "{value}: {end}");
        }
    }

    #[test]
    fn percentiles_of_a_thousand_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in 1..=1_000 {
            histogram.add(value * 1_000);
        }
        let near = |share, value: u64| histogram.percentile(share).abs_diff(value) <= value / 60;
        assert!(near(0.5, 500_000) && near(0.99, 990_000) && near(1.0, 1_000_000));
        assert_eq!(histogram.greatest(), 1_000_000);
        histogram.add(u64::MAX);
        assert_eq!(histogram.percentile(1.0), u64::MAX);
    }
}
