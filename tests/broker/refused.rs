//! A machine that does not let the broker be: one line that says what is wrong and what to do, or it does without.

use std::{fs, os::unix::process::CommandExt};

use super::{
    clients, confined,
    mount::Mount,
    process::{Broker, command, fresh_directory, refused},
};

/// The broker's own last words: one line, and nothing of a panic.
fn one_line(text: &str, word: &str) {
    assert_eq!(text.lines().filter(|line| line.contains(word)).count(), 1, "«{word}» in one line of:\n{text}");
}

#[test]
fn io_uring_refused_by_a_seccomp_filter() {
    let directory = fresh_directory("seccomp");
    let text = refused(confined::without_io_uring(&mut command(&directory, &[])));
    one_line(&text, "seccomp");
    assert!(text.contains("io_uring_setup"), "the remedy names the calls to allow:\n{text}");
    assert!(!directory.join("data").exists(), "nothing is made before it is known that it can run");
}

#[test]
fn too_little_memory_may_be_locked() {
    let directory = fresh_directory("memlock");
    let text = refused(confined::with_memlock(&mut command(&directory, &["--cores", "8"]), 1 << 20));
    one_line(&text, "may be locked");
    let fits = text.split("--cores ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let fits = fits.unwrap_or_else(|| panic!("the number that fits:\n{text}")).to_owned();
    assert!((2..8).contains(&fits.parse::<u32>().expect("a number")), "{text}");
    let text = refused(confined::with_memlock(&mut command(&directory, &["--cores", "1"]), 64 << 10));
    assert!(text.contains("ulimit -l") && !text.contains("start with --cores"), "no number fits:\n{text}");
    if !may_lock_anything() {
        // The kernel counts what a user's processes lock together, so the other tests' brokers would be in the way.
        eprintln!("skipped: the other brokers of this user lock memory as well");
        return;
    }
    // What the message says is true.
    let mut start = command(&directory, &["--cores", &fits]);
    confined::with_memlock(&mut start, 1 << 20);
    let broker = Broker::spawn(&directory, start);
    clients::create_topic(broker.address(), "small", 2);
    let producer = clients::producer(broker.address(), &[]);
    for partition in 0..2 {
        assert_eq!(clients::send(&producer, "small", partition, None, b"fits").expect("an ack"), 0);
    }
}

/// Whether this process has CAP_IPC_LOCK, so that what its children lock with it is not counted.
fn may_lock_anything() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") >> 14 & 1 == 1
}

#[test]
fn a_read_only_disk() {
    let directory = fresh_directory("read-only");
    let Some(mount) = Mount::new(&directory.join("disk"), 96) else { return };
    let data = directory.join("disk/data");
    let on_it = format!("log.dirs={}", data.display());
    let start = || command(&directory, &["--override", &on_it]);
    // A directory of ours, stopped in good order, and one that is still to be made.
    let (status, _) = Broker::spawn(&directory, start()).terminate();
    assert!(status.success(), "exit {status}");
    mount.make_read_only();
    one_line(&refused(&mut start()), "read-only");
    let elsewhere = format!("log.dirs={}", directory.join("disk/other").display());
    one_line(&refused(&mut command(&directory, &["--override", &elsewhere])), "read-only");
}

#[test]
fn a_missing_right() {
    let directory = fresh_directory("right");
    let data = directory.join("data");
    fs::create_dir_all(&data).expect("a directory");
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("our own directory");
    let mut start = command(&directory, &[]);
    start.uid(65_534).gid(65_534);
    match start.output() {
        // Not root: this user cannot become another one. Or the other one does not reach the binary.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => eprintln!("skipped: {error}"),
        Err(error) => panic!("{error}"),
        Ok(_) => one_line(&refused(&mut start), "give this user the right to write there"),
    }
}
