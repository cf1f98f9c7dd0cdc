//! `ringtail dev`: nodes of a cluster that come and go with one process.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::process::fresh_directory;

const PATIENCE: Duration = Duration::from_secs(30);

/// The process, its nodes' ids, and where clients connect.
struct Dev {
    child: Child,
    said: BufReader<ChildStdout>,
    nodes: Vec<String>,
    addresses: Vec<String>,
    temporary: PathBuf,
}

impl Dev {
    fn start(name: &str, nodes: usize) -> Self {
        let temporary = fresh_directory(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringtail"));
        command.args(["dev", "--nodes", &nodes.to_string(), "--memory", "64M"]).env("TMPDIR", &temporary);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut dev = Self { child, said, nodes: Vec::new(), addresses: Vec::new(), temporary };
        while dev.addresses.is_empty() {
            let line = dev.next_line();
            if let Some(list) = line.strip_prefix("bootstrap.servers=") {
                dev.addresses = list.split(',').map(str::to_owned).collect();
            }
            if let Some((_, rest)) = line.split_once(": pid ") {
                dev.nodes.push(rest.split_once(',').expect("a place").0.to_owned());
            }
        }
        assert_eq!((dev.nodes.len(), dev.addresses.len()), (nodes, nodes));
        dev
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.said.read_line(&mut line).expect("it speaks") > 0, "it ended");
        line.trim_end().to_owned()
    }

    /// Whether it ended well.
    fn wait(&mut self) -> bool {
        until(|| self.child.try_wait().expect("our child").is_some());
        self.child.wait().expect("our child").success()
    }

    fn left(&self) -> usize {
        fs::read_dir(&self.temporary).expect("the directory").count()
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", name, pid]).status().expect("kill").success(), "kill -s {name} {pid}");
}

#[test]
fn the_nodes_and_their_data_go_with_the_process() {
    let mut dev = Dev::start("dev-stop", 1);
    for address in &dev.addresses {
        TcpStream::connect(address).expect("the node serves");
    }
    assert_eq!(dev.left(), 1);
    signal("TERM", &dev.child.id().to_string());
    assert!(dev.wait());
    assert!(dev.nodes.iter().all(|pid| !Path::new("/proc").join(pid).exists()));
    assert_eq!(dev.left(), 0);
}

#[test]
fn a_node_that_ends_is_told() {
    let mut dev = Dev::start("dev-tell", 1);
    signal("KILL", &dev.nodes[0].clone());
    let mut line = dev.next_line();
    while !line.starts_with("node 1 has ended (signal: 9") {
        line = dev.next_line();
    }
    assert!(line.contains("ringtail start"), "{line}");
    assert!(!dev.wait(), "none is left");
    assert_eq!(dev.left(), 0);
}

#[test]
fn no_node_outlives_a_process_that_is_killed() {
    let mut dev = Dev::start("dev-kill", 1);
    dev.child.kill().expect("our child");
    dev.wait();
    until(|| dev.nodes.iter().all(|pid| !Path::new("/proc").join(pid).exists()));
    assert!(dev.addresses.iter().all(|address| TcpStream::connect(address).is_err()));
}
