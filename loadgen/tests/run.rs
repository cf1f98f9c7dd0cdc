//! The program against brokers on the loopback interface that behave, misbehave and die.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use ringtail_loadgen::null_broker::{Manners, NullBroker};

fn loadgen(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtail-loadgen"));
    command.args(arguments).stdin(Stdio::null()).output().expect("the program was built for this test")
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Answers the first connection with these bytes.
fn stranger(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 64];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn a_run_reports_every_record_and_leaves_three_files() {
    let broker = NullBroker::start(0, Manners::default()).expect("a null broker");
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-report");
    let address = broker.address.to_string();
    let out = directory.display().to_string();
    let output = loadgen(&[
        "run",
        "trickle",
        "-b",
        &address,
        "--mode",
        "produce",
        "--duration",
        "1s",
        "--warm-up",
        "200ms",
        "--seed",
        "7",
        "--lateness-bound",
        "10s",
        "--json",
        "-q",
        "-o",
        &out,
    ]);
    assert!(output.status.success(), "{}", error_of(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    assert_eq!(report["schema"], "ringtail-loadgen/run/1");
    assert_eq!(report["counters"]["acked_records"], 200, "200 records a second for one second");
    assert_eq!(report["columns"]["latency"]["samples"], 200);
    assert_eq!(report["workload"]["seed"], 7);
    for file in ["report.json", "report.html", "latency.hlog"] {
        assert!(directory.join(file).exists(), "{file}");
    }
    let page = std::fs::read_to_string(directory.join("report.html")).expect("written above");
    assert!(!page.contains("http://") && !page.contains("https://"), "readable without network");
}

#[test]
fn bad_input_is_one_line_that_says_what_to_do() {
    let http = stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let tls = stranger(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x46]);
    let silent = stranger(b"");
    let broker = NullBroker::start(0, Manners::default()).expect("a null broker");
    let null = broker.address.to_string();
    let cases: [(&[&str], &str); 7] = [
        (&["run", "trickle", "-b", "127.0.0.1:1"], "cannot reach a broker"),
        (&["run", "trickle", "-b", &http], "HTTP"),
        (&["run", "trickle", "-b", &tls], "TLS"),
        (&["run", "trickle", "-b", &silent], "closed the connection"),
        (&["run", "trickle", "-b", &null, "--topic", "nope", "--create", "false"], "does not exist"),
        (&["run", "trickle", "-b", &null, "--rate", "fast"], "rate"),
        (&["gate", "localhost:1"], "two targets"),
    ];
    for (arguments, expected) in cases {
        let output = loadgen(arguments);
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        let lines = error.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!(lines, 1, "{error}");
    }
}

#[test]
fn a_topic_with_too_few_partitions_is_refused_and_left_alone() {
    let broker = NullBroker::start(0, Manners::default()).expect("a null broker");
    let address = broker.address.to_string();
    let on_topic = |more: &[&str]| {
        let common = ["run", "trickle", "-b", &address, "--mode", "produce", "--topic", "narrow", "-q"];
        let short = ["--duration", "200ms", "--warm-up", "0s", "--lateness-bound", "10s"];
        loadgen(&[&common[..], &short[..], more].concat())
    };
    let output = on_topic(&["--partitions", "2", "--keep-topics"]);
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let output = on_topic(&["--partitions", "3"]);
    let error = error_of(&output);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("has 2 partition(s), the workload wants 3") && error.contains("--partitions 2"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let output = on_topic(&["--partitions", "2", "--create", "false"]);
    assert_eq!(output.status.code(), Some(0), "it is still there: {}", error_of(&output));
}

#[test]
fn a_full_disk_is_one_line_and_what_was_measured_is_not_lost() {
    let broker = NullBroker::start(0, Manners::default()).expect("a null broker");
    let address = broker.address.to_string();
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-full");
    std::fs::create_dir_all(&directory).expect("a directory");
    let part = directory.join("report.json.part");
    let _ = std::fs::remove_file(&part);
    std::os::unix::fs::symlink("/dev/full", &part).expect("a file system with links");
    let out = directory.display().to_string();
    let arguments = ["run", "trickle", "-b", &address, "--mode", "produce", "--duration", "300ms", "--warm-up", "0s"];
    let full = ["--json", "-q", "--lateness-bound", "10s", "-o", &out];
    let output = loadgen(&[&arguments[..], &full[..]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", error_of(&output));
    let error = error_of(&output);
    assert!(error.contains("No space left") && error.contains("--out") && error.lines().count() == 1, "{error}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the report on standard output");
    assert_eq!(report["counters"]["acked_records"], 60);

    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of every Linux");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtail-loadgen"));
    let output =
        command.args(arguments).arg("-q").stdout(nowhere).output().expect("the program was built for this test");
    assert_eq!(output.status.code(), Some(3), "no panic: {}", error_of(&output));
    assert!(error_of(&output).contains("standard output"), "{}", error_of(&output));
}

#[test]
fn a_stored_baseline_judges_and_is_marked_as_weaker() {
    let program = env!("CARGO_BIN_EXE_ringtail-loadgen");
    let base = format!("{program} null-broker --port {{port}} --delay 1ms");
    let slowed = format!("{program} null-broker --port {{port}} --delay 4ms");
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("gate-baseline");
    let (rounds, file) = (directory.join("rounds").display().to_string(), directory.join("base.json"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = file.display().to_string();
    let gate = |arguments: &[&str], producers: &str| {
        let common = [
            "--pairs",
            "6",
            "--duration",
            "300ms",
            "--warm-up",
            "50ms",
            "--rate",
            "1000",
            "-q",
            "--limit",
            "p50=50%",
            "--work-dir",
            &rounds,
            "--producers",
            producers,
        ];
        loadgen(&[&["gate"], arguments, &common[..]].concat())
    };
    let output = gate(&[&base, "--save-baseline", &file], "1");
    assert_eq!(output.status.code(), Some(0), "{}", error_of(&output));
    let output = gate(&[&slowed, "--baseline", &file], "1");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text} {}", error_of(&output));
    assert!(text.contains("Weaker than pairs"), "{text}");
    let output = gate(&[&slowed, "--baseline", &file], "2");
    assert_eq!(output.status.code(), Some(3), "another load than the stored one");
    assert!(error_of(&output).contains("other workloads"), "{}", error_of(&output));
}

#[test]
fn a_broker_that_dies_is_awaited_up_to_the_time_out_and_reported() {
    let broker = NullBroker::start(0, Manners::default()).expect("a null broker");
    let address = broker.address.to_string();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        drop(broker);
    });
    let output = loadgen(&[
        "run",
        "trickle",
        "-b",
        &address,
        "--mode",
        "produce",
        "--duration",
        "2s",
        "--warm-up",
        "200ms",
        "--timeout",
        "1s",
        "--lateness-bound",
        "10s",
        "--json",
        "-q",
    ]);
    killer.join().expect("it only sleeps and drops");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report all the same");
    let of = |name: &str| report["counters"][name].as_u64().expect("a count");
    assert_eq!(of("acked_records") + of("timed_out_records"), 400, "no record leaves the percentiles");
    assert!(of("timed_out_records") > 50, "{report:#}");
    assert_eq!(report["columns"]["latency"]["samples"], 400);
}

#[test]
fn a_throttled_producer_keeps_silent_and_the_wait_is_latency() {
    let broker = NullBroker::start(0, Manners { throttle_ms: 200, ..Manners::default() }).expect("a null broker");
    let address = broker.address.to_string();
    let output = loadgen(&[
        "run",
        "trickle",
        "-b",
        &address,
        "--mode",
        "produce",
        "--rate",
        "100",
        "--in-flight",
        "1",
        "--batch-records",
        "1000",
        "--duration",
        "2s",
        "--warm-up",
        "0s",
        "--json",
        "-q",
    ]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    let requests = report["counters"]["produce_requests"].as_u64().expect("a count");
    assert!((5..=12).contains(&requests), "one request in 200 ms for two seconds: {report:#}");
    assert_eq!(report["counters"]["acked_records"], 200, "{report:#}");
    assert!(report["counters"]["throttled_ns"].as_u64().expect("a count") >= 1_000_000_000, "{report:#}");
    let late = |column: &str| report["columns"][column]["percentiles"]["p50"]["ns"].as_u64().expect("200 samples");
    assert!(late("latency") > 50_000_000, "the wait is latency: {report:#}");
    assert!(late("lateness") < 50_000_000, "and not the generator's fault: {report:#}");
}

#[test]
fn a_slowed_broker_is_a_regression_and_a_dead_one_an_error() {
    let program = env!("CARGO_BIN_EXE_ringtail-loadgen");
    let directory = format!("{}/gate-rounds", env!("CARGO_TARGET_TMPDIR"));
    let base = format!("{program} null-broker --port {{port}}");
    let slowed = format!("{base} --delay 3ms");
    let common = [
        "--pairs",
        "9",
        "--duration",
        "300ms",
        "--warm-up",
        "50ms",
        "--rate",
        "1000",
        "--producers",
        "1",
        "-q",
        "--limit",
        "p50=50%",
        "--work-dir",
        &directory,
    ];
    let gate = |candidate: &str| {
        let mut arguments = vec!["gate", &base, candidate];
        arguments.extend(common);
        loadgen(&arguments)
    };
    let output = gate(&slowed);
    assert_eq!(output.status.code(), Some(1), "{} {}", String::from_utf8_lossy(&output.stdout), error_of(&output));
    let output = gate("echo {port} is taken; exit 5");
    assert_eq!(output.status.code(), Some(3));
    assert!(error_of(&output).contains("is taken"), "{}", error_of(&output));
}
