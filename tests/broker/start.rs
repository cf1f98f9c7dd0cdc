//! Starting, and failing to start: one line that says what is wrong, and an exit code.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    clients,
    process::{Broker, command, fresh_directory, refused},
};

/// `O_DIRECT` as `/proc/<pid>/fdinfo` shows flags, in octal.
const O_DIRECT: u32 = 0o40000;

#[test]
fn each_executor_is_pinned_to_a_cpu_of_its_own() {
    let cpus =
        thread_cpus(std::process::id()).into_iter().find_map(|(_, cpus)| cpus.contains([',', '-']).then_some(cpus));
    if cpus.is_none() {
        eprintln!("this process may use one CPU only: two pinned executors cannot be had");
        return;
    }
    let directory = fresh_directory("pinned");
    let broker = Broker::start(&directory, &["--cores", "0,1"]);
    let executors: Vec<(String, String)> =
        thread_cpus(broker.pid()).into_iter().filter(|(name, _)| name.starts_with("core-")).collect();
    // The threads of an executor's pool for blocking calls carry its name and are free; an executor may use one CPU.
    let pinned: Vec<&str> =
        executors.iter().map(|(_, cpus)| cpus.as_str()).filter(|cpus| !cpus.contains([',', '-'])).collect();
    assert_eq!(pinned.len(), 2, "{executors:?}");
    assert!(pinned.contains(&"0") && pinned.contains(&"1"), "{executors:?}");
}

/// Name and allowed CPUs of each thread.
fn thread_cpus(pid: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a live process");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(|status| {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                line.trim().to_owned()
            };
            (field("Name:"), field("Cpus_allowed_list:"))
        })
        .collect()
}

#[test]
fn journal_and_segments_are_written_with_direct_io() {
    let directory = fresh_directory("direct");
    let broker = Broker::start(&directory, &[]);
    clients::create_topic_with(broker.address(), "direct", 1, &[("segment.bytes", "1048576")]);
    let producer = clients::producer(broker.address(), &[]);
    // More than a segment, so that the background writer is seen with a segment in its hands.
    let value = vec![b'x'; 60_000];
    let mut kinds = std::collections::BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    while kinds.len() < 2 {
        clients::send(&producer, "direct", 0, None, &value).expect("an ack");
        for (path, flags) in open_files(broker.pid()) {
            if !path.contains("/data/") {
                continue;
            }
            let kind = match path.rsplit_once('.').map(|(_, extension)| extension) {
                Some("log") => "segment",
                _ if path.contains("journal") => "journal",
                _ => continue,
            };
            if flags & O_DIRECT == 0 {
                // glommio opens a file and sets the flag afterwards: it may be missing for a moment, and not for longer.
                thread::sleep(Duration::from_millis(200));
                let still = open_files(broker.pid()).into_iter().any(|open| open == (path.clone(), flags));
                assert!(!still, "{path} is open without O_DIRECT: {flags:o}");
                continue;
            }
            kinds.insert(kind);
        }
        assert!(Instant::now() < deadline, "only saw {kinds:?} among {:?}", open_files(broker.pid()));
    }
}

fn open_files(pid: u32) -> Vec<(String, u32)> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    descriptors
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let path = fs::read_link(entry.path()).ok()?.display().to_string();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display())).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            Some((path, u32::from_str_radix(flags.trim(), 8).ok()?))
        })
        .collect()
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let directory = fresh_directory("same-directory");
    let mut broker = Broker::start(&directory, &[]);
    let text = refused(&mut command(&directory, &[]));
    assert!(text.contains("lock") || text.contains("in use"), "{text}");
    broker.assert_alive();
}

#[test]
fn a_second_broker_on_the_same_port_is_refused() {
    let directory = fresh_directory("port-a");
    let mut broker = Broker::start(&directory, &[]);
    let listeners = format!("listeners=PLAINTEXT://{}", broker.address());
    let text = refused(&mut command(&fresh_directory("port-b"), &["--override", &listeners]));
    assert!(text.contains("taken by another process"), "{text}");
    broker.assert_alive();
}

#[test]
fn a_directory_of_somebody_else_is_refused_untouched() {
    let directory = fresh_directory("foreign");
    let data = directory.join("data");
    fs::create_dir_all(data.join("orders-0")).expect("a directory");
    fs::write(data.join("meta.properties"), "version=1\ncluster.id=abc\nnode.id=1\n").expect("a file");
    fs::write(data.join("orders-0/00000000000000000000.log"), b"not ours").expect("a file");
    let before = listing(&data);
    let text = refused(&mut command(&directory, &[]));
    assert!(text.contains("left untouched") && text.contains("--data-dir"), "{text}");
    assert_eq!(listing(&data), before);
}

fn listing(directory: &std::path::Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.path().is_dir() {
            found.extend(listing(&entry.path()));
        }
        found.push((entry.path().display().to_string(), entry.metadata().expect("metadata").len()));
    }
    found.sort();
    found
}

#[test]
fn wrong_settings_are_named_with_key_and_value() {
    let directory = fresh_directory("settings");
    let file = directory.join("server.properties");
    let cases = [
        ("num.partitions=many\n", vec!["num.partitions", "many"]),
        ("log.segment.bytes=12\n", vec!["log.segment.bytes", "12"]),
        (
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n",
            vec!["authorizer.class.name"],
        ),
        ("listeners=SSL://:9093\n", vec!["SSL"]),
        ("controller.quorum.voters=2@b:1,3@c:1\n", vec!["controller.quorum.voters", "node.id=1"]),
        (
            "listeners=PLAINTEXT://:0,CONTROLLER://:0\ncontroller.listener.names=CONTROLLER\n\
             controller.quorum.voters=1@a:1,2@b:1\n",
            vec!["controller.quorum.voters", "not formatted"],
        ),
        ("log.dirs=/tmp/a,/tmp/b\n", vec!["log.dirs"]),
    ];
    for (text, words) in cases {
        fs::write(&file, text).expect("a file");
        let mut start = std::process::Command::new(env!("CARGO_BIN_EXE_ringtail"));
        start.current_dir(&directory).args(["start", "server.properties"]);
        let output = refused(&mut start);
        for word in words {
            assert!(output.contains(word), "«{text}» gave:\n{output}");
        }
    }
    let output = refused(command(&directory, &[]).args(["--override", "num.partition=3"]));
    assert!(output.contains("num.partitions"), "the nearest name helps:\n{output}");
}

#[test]
fn an_unknown_key_in_a_file_is_a_warning_only() {
    let directory = fresh_directory("unknown-key");
    let file = directory.join("server.properties");
    fs::write(&file, "num.partitons=3\nnum.network.threads=3\n").expect("a file");
    // The file's path stands where Kafka's start script has it.
    let broker = Broker::start(&directory, &[file.to_str().expect("a plain path")]);
    assert!(broker.log().contains("num.partitions"), "the nearest known name:\n{}", broker.log());
}

#[test]
fn storage_format_then_start_keeps_the_cluster_id() {
    let directory = fresh_directory("format");
    let data = directory.join("data");
    let file = directory.join("server.properties");
    fs::write(
        &file,
        format!(
            "process.roles=broker,controller\nnode.id=7\nlog.dirs={}\nlisteners=PLAINTEXT://127.0.0.1:0\n",
            data.display()
        ),
    )
    .expect("a file");
    let ringtail = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_ringtail")).args(arguments).output().expect("the binary")
    };
    let id = String::from_utf8(ringtail(&["storage", "random-uuid"]).stdout).expect("text").trim().to_owned();
    assert_eq!(id.len(), 22, "{id}");
    let path = file.to_str().expect("a plain path");
    let formatted = ringtail(&["storage", "format", "--standalone", "-t", &id, "-c", path]);
    assert!(formatted.status.success(), "{formatted:?}");
    assert!(
        !ringtail(&["storage", "format", "--standalone", "-t", &id, "-c", path]).status.success(),
        "formatted twice"
    );
    let broker = Broker::start(&directory, &[path, "--override", "node.id=7"]);
    let properties = fs::read_to_string(data.join("meta.properties")).expect("meta.properties");
    assert!(properties.contains(&format!("cluster.id={id}")), "{properties}");
    drop(broker);
}

#[test]
fn an_idle_broker_is_small_and_asleep() {
    let directory = fresh_directory("idle");
    let broker = Broker::start(&directory, &[]);
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", broker.pid())).expect("a live process");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    };
    std::thread::sleep(Duration::from_secs(1));
    let before = ticks();
    std::thread::sleep(Duration::from_secs(5));
    let used = ticks() - before;
    // 100 ticks a second: 5 s at 1 % are 5. Twice that still tells a sleeper from a spinner.
    assert!(used <= 10, "{used} ticks of 10 ms in 5 s");
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("a live process");
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: u64 = rss.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    assert!(kib < 64 * 1024, "{kib} KiB resident");
    let disk: u64 = listing(&broker.data()).iter().map(|(_, bytes)| bytes).sum();
    assert!(disk <= 64 * 1024 * 1024, "a fresh directory takes {disk} bytes");
}
