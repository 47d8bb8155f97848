//! Latencies of one round in a histogram, and what the rounds together say.

/// Sub-buckets of each power of two: values are told apart to within 0.4 %.
const FINE: u32 = 256;

/// A histogram of nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u32>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; (FINE * 40) as usize],
            total: 0,
        }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        let bucket = bucket(nanos).min(self.counts.len() - 1);
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// The value that this share of all values does not exceed, in nanoseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return middle(bucket);
            }
        }
        f64::NAN
    }
}

fn bucket(nanos: u64) -> usize {
    let fine = u64::from(FINE);
    if nanos < fine {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - FINE.ilog2();
    (u64::from(shift) * fine + (nanos >> shift)) as usize
}

fn middle(bucket: usize) -> f64 {
    let fine = FINE as usize;
    if bucket < fine {
        return bucket as f64;
    }
    let shift = bucket / fine - 1;
    ((bucket - shift * fine) as f64 + 0.5) * 2f64.powi(shift as i32)
}

/// What several rounds say about one number.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Nothing, if there is no value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            f64::midpoint(sorted[half - 1], sorted[half])
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_within_half_a_percent_of_its_values() {
        for nanos in [0, 1, 255, 256, 257, 511, 512, 1_000, 33_333, 1_234_567, 9_999_999_999] {
            let told = middle(bucket(nanos));
            assert!(
                (told - nanos as f64).abs() <= nanos as f64 * 0.005 + 0.5,
                "{nanos} is told as {told}"
            );
        }
    }

    #[test]
    fn quantiles_of_a_row_of_numbers() {
        let mut histogram = Histogram::new();
        (1..=1_000).for_each(|number| histogram.record(number * 1_000));
        assert!((histogram.quantile(0.5) - 500_000.0).abs() < 2_500.0);
        assert!((histogram.quantile(0.99) - 990_000.0).abs() < 5_000.0);
    }
}
