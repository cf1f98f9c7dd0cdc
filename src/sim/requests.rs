//! The table of requests as clients meet it.

use std::rc::Rc;

use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, DescribeLogDirsRequest};

use crate::{
    api::{table::TABLE, toy},
    sim::{
        bench::Bench,
        connection::Gone,
        wire::{self, Wire},
    },
};

/// What is advertised for the toy's key, and the directories that it names in each of its versions.
async fn ask_toy(wire: Rc<Wire>) -> Result<(Option<(i16, i16)>, Vec<String>), Gone> {
    let versions = wire.ask(0, &ApiVersionsRequest::default()).await?;
    let range = versions.api_keys.iter().find(|range| range.api_key == ApiKey::DescribeLogDirs as i16);
    let range = range.map(|range| (range.min_version, range.max_version));
    let mut directories = Vec::new();
    for version in 1..=4 {
        let answer = wire.ask(version, &DescribeLogDirsRequest::default().with_topics(None)).await?;
        directories.extend(answer.results.iter().map(|result| format!("{version} {}", result.log_dir.as_str())));
    }
    Ok((range, directories))
}

#[test]
fn one_more_request_is_a_file_and_a_row() {
    let bench = Bench::start(5, 2);
    bench.topic("t", 1);
    let open = || Rc::new(Wire::open(&bench.life, 1).expect("it serves"));
    assert!(bench.wait(ask_toy(open())).is_err(), "without a row the connection ends");

    let table = TABLE.with(toy::ROW);
    bench.life.change_contexts(|context| context.with_table(table));
    let (range, directories) = bench.wait(ask_toy(open())).expect("answered");
    assert_eq!(range, Some((1, 4)));
    assert_eq!(directories, ["1 /toys/t", "2 /toys/t", "3 /toys/t", "4 /toys/t"]);

    // The guard knows its shape: a list longer than the frame never gets to the codec.
    let mut forged = wire::frame(1, 9, &DescribeLogDirsRequest::default().with_topics(None)).to_vec();
    let length = forged.len();
    forged[length - 4..].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    assert!(bench.wait(open().send(forged.into())).is_none(), "the connection ends");

    let start = [0, ApiKey::DescribeLogDirs as u8, 0, 1];
    assert_eq!((table.memory_estimate(&start, 100), TABLE.memory_estimate(&start, 100)), (4096 + 300, 100));
}
