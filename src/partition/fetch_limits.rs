//! How many bytes a fetch may return (KIP-74), and when it has enough.
//!
//! Partitions are served in the order asked. The first one that has anything returns its first batch whole, however
//! large, so that a consumer never stands still; after that a partition whose next batch does not fit returns nothing.

/// What is left of one request's byte limits. Ask, read, take: partition by partition, in request order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchBudget {
    left: usize,
    taken: usize,
}

/// What one partition may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Whole batches up to this many bytes.
    pub max_bytes: usize,
    /// The first batch even if it is larger.
    pub min_one: bool,
}

impl Allowance {
    /// Whether reading is pointless.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.max_bytes == 0 && !self.min_one
    }
}

impl FetchBudget {
    /// The smaller of what the client asks (`max_bytes`; negative is 0) and what the broker gives (`fetch.max.bytes`).
    #[must_use]
    pub fn new(max_bytes: i32, broker_max_bytes: usize) -> Self {
        Self { left: usize::try_from(max_bytes).unwrap_or(0).min(broker_max_bytes), taken: 0 }
    }

    /// What the next partition may read.
    #[must_use]
    pub fn allowance(&self, partition_max_bytes: i32) -> Allowance {
        let partition = usize::try_from(partition_max_bytes).unwrap_or(0);
        Allowance { max_bytes: partition.min(self.left), min_one: self.taken == 0 }
    }

    /// The partition returned `bytes`.
    pub fn take(&mut self, bytes: usize) {
        self.taken += bytes;
        self.left = self.left.saturating_sub(bytes);
    }

    /// For partitions that were read side by side, on several cores, each with an allowance of its own: whether these
    /// `bytes` still fit. Takes them if so; a partition that does not fit returns nothing.
    pub fn admit(&mut self, bytes: usize, partition_max_bytes: i32) -> bool {
        let allowance = self.allowance(partition_max_bytes);
        let fits = bytes <= allowance.max_bytes || allowance.min_one;
        if fits {
            self.take(bytes);
        }
        fits
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken
    }
}

/// What a fetch has come to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes that could be sent now.
    pub bytes: usize,
    /// Whether any partition has an error or diverges.
    pub urgent: bool,
    /// Partitions asked for.
    pub partitions: usize,
}

impl FetchProgress {
    /// Whether to answer now rather than wait for more. `min_bytes` never demands more than `max_bytes` allows.
    #[must_use]
    pub fn is_enough(&self, min_bytes: i32, max_bytes: i32, max_wait_ms: i32) -> bool {
        let wanted = usize::try_from(min_bytes.min(max_bytes)).unwrap_or(0);
        max_wait_ms <= 0 || self.partitions == 0 || self.urgent || self.bytes >= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batch sizes of each partition; what each returns.
    fn served(max_bytes: i32, partitions: &[(i32, &[usize])]) -> Vec<usize> {
        let mut budget = FetchBudget::new(max_bytes, 1000);
        let serve = |(partition_max_bytes, batches): &(i32, &[usize])| {
            let allowance = budget.allowance(*partition_max_bytes);
            let mut bytes = 0;
            for (index, batch) in batches.iter().enumerate() {
                if bytes + batch <= allowance.max_bytes || (index == 0 && allowance.min_one) {
                    bytes += batch;
                } else {
                    break;
                }
            }
            budget.take(bytes);
            bytes
        };
        partitions.iter().map(serve).collect()
    }

    #[test]
    fn the_first_batch_goes_out_whole_and_the_rest_must_fit() {
        for (max_bytes, partitions, expected) in [
            (100, &[(50, &[20, 20, 20][..]), (50, &[30]), (50, &[30])][..], vec![40, 30, 30]),
            (10, &[(5, &[400]), (50, &[30])], vec![400, 0]),
            (10, &[(5, &[]), (5, &[30]), (5, &[1])], vec![0, 30, 0]),
            (100, &[(0, &[30]), (0, &[30])], vec![30, 0]),
            (0, &[(-1, &[30]), (100, &[30])], vec![30, 0]),
            (i32::MAX, &[(i32::MAX, &[600]), (i32::MAX, &[600]), (i32::MAX, &[300])], vec![600, 0, 300]),
        ] {
            assert_eq!(served(max_bytes, partitions), expected, "{max_bytes} {partitions:?}");
        }
    }

    #[test]
    fn what_was_read_side_by_side_is_admitted_in_order() {
        let mut budget = FetchBudget::new(100, 1000);
        let admitted: Vec<_> = [0, 60, 50, 40].map(|bytes| budget.admit(bytes, 100)).to_vec();
        assert_eq!((admitted, budget.taken()), (vec![true, true, false, true], 100));
        assert!(FetchBudget::new(10, 10).admit(500, 10), "the first batch is never held back");
    }

    #[test]
    fn when_a_fetch_is_answered() {
        let progress = |bytes, urgent, partitions| FetchProgress { bytes, urgent, partitions };
        for (progress, min, max, wait, expected) in [
            (progress(0, false, 1), 1, 100, 500, false),
            (progress(0, false, 1), 0, 100, 500, true),
            (progress(0, false, 1), 1, 100, 0, true),
            (progress(0, false, 0), 1, 100, 500, true),
            (progress(0, true, 1), 1, 100, 500, true),
            (progress(99, false, 1), 100, 100, 500, false),
            (progress(100, false, 1), 5000, 100, 500, true),
        ] {
            assert_eq!(progress.is_enough(min, max, wait), expected, "{progress:?} {min} {max} {wait}");
        }
    }
}
