//! Standard histogram logs (format 1.3), as HistogramLogAnalyzer and HistogramLogProcessor read them; values in nanoseconds.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};

use crate::measure::{Metric, Sample};

/// The lines of a log, one for each metric and second.
#[derive(Default)]
pub struct HistogramLog {
    lines: String,
    serializer: V2DeflateSerializer,
    scratch: Vec<u8>,
}

impl HistogramLog {
    /// `offset` and `duration` in nanoseconds from the log's start.
    pub fn add(&mut self, offset: u64, duration: u64, sample: &Sample) {
        for metric in Metric::ALL {
            let histogram = sample.histogram(metric);
            if histogram.is_empty() {
                continue;
            }
            let encoded = encode(histogram, &mut self.serializer, &mut self.scratch);
            writeln!(
                self.lines,
                "Tag={},{:.3},{:.3},{:.3},{encoded}",
                metric.name(),
                offset as f64 / 1e9,
                duration as f64 / 1e9,
                histogram.max() as f64 / 1e6,
            )
            .expect("writing to a string does not fail");
        }
    }

    /// The whole file.
    pub fn text(&self, start_wall_ns: u64) -> String {
        let seconds = start_wall_ns as f64 / 1e9;
        format!(
            "#[Logged with ringtail-loadgen {}]\n#[Histogram log format version 1.3]\n#[StartTime: {seconds:.3} (seconds since epoch)]\n#[BaseTime: {seconds:.3} (seconds since epoch)]\n\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n{}",
            env!("CARGO_PKG_VERSION"),
            self.lines
        )
    }
}

/// A histogram as compressed base64 (V2), for logs and JSON.
pub fn encode_once(histogram: &Histogram<u64>) -> String {
    encode(histogram, &mut V2DeflateSerializer::new(), &mut Vec::new())
}

fn encode(histogram: &Histogram<u64>, serializer: &mut V2DeflateSerializer, scratch: &mut Vec<u8>) -> String {
    scratch.clear();
    serializer.serialize(histogram, scratch).expect("a histogram serializes into memory");
    STANDARD.encode(scratch)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;

    /// The log reader of the histogram crate, a port of the Java one's format, judges what we write.
    #[test]
    fn another_reader_reads_our_log() {
        let mut sample = Sample::default();
        for value in [1_000, 2_000, 5_000_000] {
            sample.record(Metric::Latency, value);
        }
        let mut log = HistogramLog::default();
        log.add(1_000_000_000, 1_000_000_000, &sample);
        let text = log.text(1_700_000_000_123_000_000);
        let body: String = text.lines().filter(|line| !line.starts_with('"')).fold(String::new(), |t, l| t + l + "\n");
        let entries: Vec<_> = IntervalLogIterator::new(body.as_bytes()).map(Result::unwrap).collect();
        let found = entries.iter().find_map(|entry| match entry {
            LogEntry::Interval(interval) => Some(interval),
            _ => None,
        });
        let interval = found.expect("an interval line");
        assert_eq!(interval.tag().unwrap().as_str(), "latency");
        let bytes = STANDARD.decode(interval.encoded_histogram()).unwrap();
        let back: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(back.len(), 3);
        assert_eq!(back.max(), sample.histogram(Metric::Latency).max());
    }
}
