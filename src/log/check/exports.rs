//! What a clean stop leaves for Kafka's tools, held against the checkpoints. A start reads none of it.

use std::{collections::BTreeSet, path::Path};

use crate::{
    base::{METADATA_KEY, Map, Offset, PartitionKey},
    io::Io,
    log::{check::report::CheckReport, image::LogImage, segment::file_name, settings::LivePartitions},
    partition::PartitionState,
};

const ONLY_TOOLS: &str = "only Kafka's tools read it, and the next clean stop writes it again";

/// What a file of offsets says about a partition.
type Value = fn(&LogImage) -> Offset;

/// The three files of offsets.
pub async fn check_offsets(
    io: &Io,
    directory: &Path,
    live: &LivePartitions,
    images: &Map<PartitionKey, LogImage>,
    report: &mut CheckReport,
) {
    let files: [(&str, Value); 3] = [
        ("recovery-point-offset-checkpoint", |image| image.log_end),
        ("log-start-offset-checkpoint", |image| image.log_start),
        ("replication-offset-checkpoint", |image| image.log_end),
    ];
    for (name, value) in files {
        let lines = live.iter().filter(|(key, _)| **key != METADATA_KEY).map(|(key, (topic, _))| {
            let value = images.get(key).map_or(Offset::ZERO, value);
            format!("{topic} {} {value}", key.partition)
        });
        let expected: BTreeSet<String> = lines.collect();
        let path = directory.join(name);
        let found = io.disk.read_file(&path).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let agrees = found.is_ok_and(|text| {
            let mut lines = text.lines();
            let head = (lines.next(), lines.next().and_then(|count| count.parse().ok()));
            head == (Some("0"), Some(expected.len())) && lines.map(str::to_owned).collect::<BTreeSet<_>>() == expected
        });
        if !agrees {
            report.goes_on(format!("{} is not what the stop wrote", path.display()), ONLY_TOOLS);
        }
    }
}

/// Epochs and producers of a partition, as far as the files are there: a partition without news keeps its old ones.
pub async fn check_partition(io: &Io, path: &Path, state: &PartitionState, report: &mut CheckReport) {
    let files = [
        (file_name(state.log_end_offset, "snapshot"), state.producers.export()),
        ("leader-epoch-checkpoint".to_owned(), state.epochs.export().into_bytes()),
    ];
    for (name, expected) in files {
        let path = path.join(name);
        match io.disk.read_file(&path).await {
            Ok(found) if found == expected => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) => report.goes_on(format!("{} is not what the stop wrote", path.display()), ONLY_TOOLS),
            Err(error) => report.goes_on(format!("{}: {error}", path.display()), ONLY_TOOLS),
        }
    }
}
