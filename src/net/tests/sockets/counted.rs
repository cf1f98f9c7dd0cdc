//! What a core counts of its connections, and why each of them ended.

use std::cell::Cell;

use super::*;
use crate::metrics::Counter;

/// The counters that are not zero.
fn counted(snapshot: &Snapshot, counters: &[Counter]) -> Vec<(Counter, u64)> {
    let all = counters.iter().map(|counter| (*counter, snapshot.counter(*counter)));
    all.filter(|(_, count)| *count > 0).collect()
}

const ENDS: [Counter; 8] = [
    Counter::ConnectionsRefused,
    Counter::ConnectionsMoved,
    Counter::ClosedByClient,
    Counter::ClosedForFrame,
    Counter::ClosedForRequest,
    Counter::ClosedIdle,
    Counter::ClosedForMemory,
    Counter::ClosedByStop,
];

/// A sweeper whose time goes so much further at each look.
fn sweeper(step: Duration) -> impl Fn(&NetCore<Echo>) + Send {
    let now = Cell::new(Duration::ZERO);
    move |core| {
        now.set(now.get() + step);
        core.sweep(now.get());
    }
}

#[test]
fn every_connection_ends_for_one_reason_and_bytes_are_counted_both_ways() {
    let (_kept, snapshot) = with_counted_echo(
        settings(),
        |_| {},
        |connect| {
            let mut client = connect();
            send(&mut client, b"e-hello-you");
            assert_eq!(receive(&mut client), b"e-hello-you");
            drop(client);
            let mut bad = connect();
            bad.write_all(&i32::MAX.to_be_bytes()).unwrap();
            assert!(is_ended(&mut bad));
            let mut told_to = connect();
            send(&mut told_to, b"x-------");
            assert!(is_ended(&mut told_to));
            // All that there may be; whoever comes after that is refused.
            let kept: Vec<StdStream> = (0..100).map(|_| connect()).collect();
            assert!(is_ended(&mut connect()));
            kept
        },
    );
    let (received, sent) = (4 + 11 + 4 + 4 + 8, 4 + 11);
    assert_eq!(
        counted(&snapshot, &[Counter::BytesReceived, Counter::BytesSent]),
        [(Counter::BytesReceived, received), (Counter::BytesSent, sent)]
    );
    // The ends of the first three may not have been seen when the hundred came, so of these a few may have been refused.
    let refused = snapshot.counter(Counter::ConnectionsRefused);
    assert!((1..=4).contains(&refused), "{snapshot}");
    assert_eq!(snapshot.counter(Counter::ConnectionsOpened), 104 - refused);
    assert_eq!(
        counted(&snapshot, &ENDS[2..]),
        [
            (Counter::ClosedByClient, 1),
            (Counter::ClosedForFrame, 1),
            (Counter::ClosedForRequest, 1),
            (Counter::ClosedByStop, 101 - refused),
        ]
    );
    assert_eq!(snapshot.gauge(Gauge::Connections), 0);
}

#[test]
fn idle_connections_are_counted_as_such() {
    let settings = NetSettings { idle_max: Duration::from_secs(20), ..settings() };
    let ((), snapshot) = with_counted_echo(settings, sweeper(Duration::from_secs(1)), |connect| {
        assert!(is_ended(&mut connect()));
    });
    assert_eq!(counted(&snapshot, &ENDS), [(Counter::ClosedIdle, 1)]);
}

#[test]
fn who_is_closed_for_memory_is_counted_as_such() {
    let replies = ReplyMemory::new(1, 1 << 20, 3 << 20);
    let settings = NetSettings { replies, idle_max: Duration::MAX, stream: small_send_buffer(), ..settings() };
    let ((), snapshot) = with_counted_echo(settings, sweeper(Duration::from_millis(1)), |connect| {
        // 4 MiB that nobody reads.
        let mut deaf = connect();
        send(&mut deaf, b"b-------");
        thread::sleep(Duration::from_millis(100));
        assert!(deaf.read_exact(&mut vec![0; 4 << 20]).is_err());
    });
    assert_eq!(counted(&snapshot, &ENDS), [(Counter::ClosedForMemory, 1)]);
}
