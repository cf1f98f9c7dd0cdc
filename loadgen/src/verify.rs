//! Correct while loading: what was acknowledged against what was read.
//!
//! Every record carries its producer and its number in the partition. A consumer must see each producer's numbers in order,
//! without a gap that was acknowledged and, from an idempotent producer, without repetition.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

/// Acknowledged stretches kept per partition while the consumer is behind; beyond them the check gives up and says so.
const PENDING_MAX: usize = 1 << 18;
/// Findings kept for the report; all are counted.
const FINDINGS_MAX: usize = 20;
/// Gaps remembered per producer and partition.
const GAPS_MAX: usize = 1 << 12;

/// Consecutive records of one producer in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub producer: u32,
    pub first: u64,
    pub count: u64,
    /// Offset of the first; the others follow it directly.
    pub offset: i64,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    pub checked_records: u64,
    pub lost_records: u64,
    pub duplicate_records: u64,
    pub reordered_records: u64,
    /// Numbers never read whose records were never acknowledged either: allowed.
    pub unacknowledged_gaps: u64,
    /// Batches whose bytes were wrong.
    pub corrupt_batches: u64,
    /// Offsets that a group has committed and that did not come back.
    pub lost_commits: u64,
    /// Partitions where the check gave up because the consumer was too far behind.
    pub unchecked_partitions: u64,
    /// One line each, the first ones only.
    pub findings: Vec<String>,
}

impl Verdict {
    /// Whether the broker broke its word. Repetition and disorder are only forbidden to idempotent producers.
    pub fn is_broken(&self, idempotent: bool) -> bool {
        let strict = self.lost_records + self.corrupt_batches + self.lost_commits;
        let ordered = self.duplicate_records + self.reordered_records;
        strict > 0 || (idempotent && ordered > 0)
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Shared by producers and consumers; one lock per partition, taken once a batch.
pub struct Ledger {
    partitions: Vec<Mutex<PartitionBook>>,
}

#[derive(Debug, Default)]
struct PartitionBook {
    tracks: BTreeMap<u32, Track>,
    gave_up: bool,
    corrupt: Vec<String>,
}

#[derive(Debug, Default)]
struct Track {
    /// The next number that the consumer should see.
    next: u64,
    /// Acknowledged and not yet read, in order.
    pending: VecDeque<Stretch>,
    /// Numbers that the consumer has passed without seeing them.
    gaps: Vec<(u64, u64)>,
    /// Acknowledged numbers that lie in a gap.
    suspects: Vec<Stretch>,
    checked: u64,
    duplicates: u64,
    reordered: u64,
    first_disorder: Option<(i64, u64, u64)>,
}

impl Ledger {
    pub fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    fn book(&self, partition: u32) -> MutexGuard<'_, PartitionBook> {
        self.partitions[partition as usize].lock().expect("no holder of a book panics")
    }

    /// The broker has promised to keep these.
    pub fn acked(&self, partition: u32, stretch: Stretch) {
        let mut book = self.book(partition);
        if book.gave_up {
            return;
        }
        let track = book.tracks.entry(stretch.producer).or_default();
        track.acked(stretch);
        if track.pending.len() > PENDING_MAX || track.suspects.len() > PENDING_MAX {
            book.gave_up = true;
            book.tracks.clear();
        }
    }

    /// A consumer has read these.
    pub fn consumed(&self, partition: u32, stretches: &[Stretch]) {
        let mut book = self.book(partition);
        if book.gave_up {
            return;
        }
        for stretch in stretches {
            book.tracks.entry(stretch.producer).or_default().consumed(*stretch);
        }
    }

    /// A batch that does not read or whose checksum is wrong.
    pub fn corrupt(&self, partition: u32, finding: String) {
        self.book(partition).corrupt.push(finding);
    }

    /// Acknowledged records that no consumer has reached yet.
    pub fn outstanding(&self) -> u64 {
        let books = self.partitions.iter().map(|book| book.lock().expect("no holder of a book panics"));
        books
            .map(|book| {
                let pending = book.tracks.values().flat_map(|track| &track.pending);
                pending.map(|stretch| stretch.count).sum::<u64>()
            })
            .sum()
    }

    /// The final comparison. What is still outstanding is lost: call it when the consumers have had their time.
    pub fn verdict(&self, name: impl Fn(u32) -> String) -> Verdict {
        let mut verdict = Verdict::default();
        for partition in 0..self.partitions.len() as u32 {
            let book = self.book(partition);
            let name = name(partition);
            verdict.unchecked_partitions += u64::from(book.gave_up);
            verdict.corrupt_batches += book.corrupt.len() as u64;
            for finding in &book.corrupt {
                verdict.note(format!("{name}: {finding}"));
            }
            for (producer, track) in &book.tracks {
                track.judge(&name, *producer, &mut verdict);
            }
        }
        verdict
    }
}

impl Track {
    fn acked(&mut self, stretch: Stretch) {
        if stretch.first >= self.next {
            return self.keep(stretch);
        }
        // The consumer was faster than the acknowledgement; only numbers in its gaps are still of interest.
        let passed_end = stretch.end().min(self.next);
        let passed = Stretch { count: passed_end - stretch.first, ..stretch };
        self.suspect(passed);
        if stretch.end() > self.next {
            let skipped = self.next - stretch.first;
            self.keep(Stretch {
                first: self.next,
                count: stretch.count - skipped,
                offset: stretch.offset + skipped as i64,
                ..stretch
            });
        }
    }

    fn keep(&mut self, stretch: Stretch) {
        if let Some(last) = self.pending.back_mut() {
            let follows = last.end() == stretch.first && last.offset + last.count as i64 == stretch.offset;
            if follows {
                last.count += stretch.count;
                return;
            }
            if last.first > stretch.first {
                let at = self.pending.partition_point(|kept| kept.first < stretch.first);
                return self.pending.insert(at, stretch);
            }
        }
        self.pending.push_back(stretch);
    }

    fn suspect(&mut self, passed: Stretch) {
        for (start, end) in &self.gaps {
            let (first, last) = (passed.first.max(*start), passed.end().min(*end));
            if first < last {
                let offset = passed.offset + (first - passed.first) as i64;
                let lost = Stretch { first, count: last - first, offset, ..passed };
                self.suspects.push(lost);
            }
        }
    }

    fn consumed(&mut self, stretch: Stretch) {
        self.checked += stretch.count;
        if stretch.first < self.next {
            self.seen_again(stretch);
        } else if stretch.first > self.next && self.gaps.len() < GAPS_MAX {
            self.gaps.push((self.next, stretch.first));
        }
        if stretch.end() > self.next {
            self.pass(stretch.end());
        }
    }

    /// Moves `next` on; acknowledged numbers before it are either read now or in a gap.
    fn pass(&mut self, next: u64) {
        self.next = next;
        while let Some(front) = self.pending.front().copied() {
            if front.first >= next {
                break;
            }
            self.pending.pop_front();
            let passed = Stretch { count: front.end().min(next) - front.first, ..front };
            self.suspect(passed);
            if front.end() > next {
                let skipped = next - front.first;
                self.pending.push_front(Stretch {
                    first: next,
                    count: front.count - skipped,
                    offset: front.offset + skipped as i64,
                    ..front
                });
                break;
            }
        }
    }

    /// Numbers below `next`: late ones out of a gap are disorder, the others repetition.
    fn seen_again(&mut self, stretch: Stretch) {
        let end = stretch.end().min(self.next);
        let mut late = 0;
        let mut gaps = Vec::with_capacity(self.gaps.len());
        for (start, stop) in self.gaps.drain(..) {
            let (first, last) = (stretch.first.max(start), end.min(stop));
            if first >= last {
                gaps.push((start, stop));
                continue;
            }
            late += last - first;
            gaps.extend([(start, first), (last, stop)].into_iter().filter(|(a, b)| a < b));
        }
        self.gaps = gaps;
        self.suspects.retain(|lost| !(stretch.first <= lost.first && lost.end() <= end));
        self.reordered += late;
        self.duplicates += (end - stretch.first) - late;
        self.first_disorder.get_or_insert((stretch.offset, stretch.first, self.next));
    }

    fn judge(&self, name: &str, producer: u32, verdict: &mut Verdict) {
        verdict.checked_records += self.checked;
        verdict.duplicate_records += self.duplicates;
        verdict.reordered_records += self.reordered;
        let missing: u64 = self.gaps.iter().map(|(start, end)| end - start).sum();
        let lost_in_gaps: u64 = self.suspects.iter().map(|lost| lost.count).sum();
        verdict.unacknowledged_gaps += missing.saturating_sub(lost_in_gaps);
        for lost in self.suspects.iter().chain(&self.pending) {
            verdict.lost_records += lost.count;
            verdict.note(format!(
                "lost: {name} offset {} ({} acknowledged records of producer {producer} from number {})",
                lost.offset, lost.count, lost.first
            ));
        }
        if let Some((offset, found, expected)) = self.first_disorder {
            verdict.note(format!(
                "out of order or repeated: {name} offset {offset} holds number {found} of producer {producer}, where {expected} was due"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a5+3@50`: numbers 5, 6, 7 acknowledged at offset 50; `c5+3@50`: read.
    fn check(script: &str, expected: (u64, u64, u64, u64)) {
        let ledger = Ledger::new(1);
        for step in script.split(' ') {
            let (first, rest) = step[1..].split_once('+').unwrap();
            let (count, offset) = rest.split_once('@').unwrap();
            let stretch = Stretch {
                producer: 1,
                first: first.parse().unwrap(),
                count: count.parse().unwrap(),
                offset: offset.parse().unwrap(),
            };
            match &step[..1] {
                "a" => ledger.acked(0, stretch),
                _ => ledger.consumed(0, &[stretch]),
            }
        }
        let v = ledger.verdict(|_| "t-0".to_owned());
        let found = (v.lost_records, v.duplicate_records, v.reordered_records, v.unacknowledged_gaps);
        assert_eq!(found, expected, "{script}: {v:?}");
    }

    #[test]
    fn verdicts() {
        check("a0+3@0 c0+3@0", (0, 0, 0, 0));
        check("c0+3@0 a0+3@0", (0, 0, 0, 0));
        check("a0+3@0 a3+3@3 c0+2@0 c2+4@2", (0, 0, 0, 0));
        check("a0+3@0 c0+2@0", (1, 0, 0, 0));
        check("a0+3@0 a3+2@3 a5+3@5 c0+3@0 c5+3@3", (2, 0, 0, 0));
        check("c0+3@0 c5+3@3 a0+3@0 a5+3@5 a3+2@3", (2, 0, 0, 0));
        check("c0+3@0 c5+3@3 a0+3@0 a5+3@3", (0, 0, 0, 2));
        check("c0+3@0 c0+3@3 a0+3@0", (0, 3, 0, 0));
        check("c0+3@0 c5+3@3 c3+2@6 a0+3@0 a3+2@6 a5+3@3", (0, 0, 2, 0));
        check("a0+3@0 a3+2@3 a5+3@5 c0+3@0 c5+3@3 c3+2@6", (0, 0, 2, 0));
    }

    #[test]
    fn a_loss_names_partition_and_offset() {
        let ledger = Ledger::new(2);
        ledger.acked(1, Stretch { producer: 4, first: 0, count: 10, offset: 70 });
        ledger.consumed(1, &[Stretch { producer: 4, first: 0, count: 8, offset: 70 }]);
        assert_eq!(ledger.outstanding(), 2);
        let verdict = ledger.verdict(|partition| format!("topic-{partition}"));
        assert!(verdict.is_broken(false));
        assert!(verdict.findings[0].contains("topic-1 offset 78"), "{verdict:?}");
    }

    #[test]
    fn repetition_is_only_forbidden_to_idempotent_producers() {
        let verdict = Verdict { duplicate_records: 1, ..Verdict::default() };
        assert!(verdict.is_broken(true) && !verdict.is_broken(false));
    }
}
