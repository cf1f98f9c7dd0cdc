//! `ringtail dev`: a cluster for trying out, as processes of their own in a temporary directory.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    log::directory::MetaProperties,
    server::{self, Stop},
};

/// So long the nodes may take until they serve.
const START_MAX: Duration = Duration::from_secs(60);
/// So long they may take to stop in order.
const STOP_MAX: Duration = Duration::from_secs(20);
/// How often it is looked how they are.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// Lines of a node's log that are shown when it cannot start.
const LOG_LINES: usize = 10;

/// How large the cluster is.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// How many nodes, each broker and controller.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: u8,
    /// Memory that each of them may hold.
    #[arg(long, value_name = "bytes", default_value = "128M", value_parser = server::parse_bytes)]
    memory: u64,
}

/// Starts the nodes, says where they are, and ends them with this process. Their data goes with them.
pub(super) fn run(dev: &Dev) -> Result<(), String> {
    let stop = Stop::default();
    server::watch_signals(stop.clone()).map_err(|error| format!("signals: {error}"))?;
    let directory = Temporary::new()?;
    let plan = Plan::new(dev.nodes)?;
    let cluster_id = random_id()?;
    let mut nodes = Vec::new();
    for number in 0..plan.nodes() {
        let node = Node::start(&directory.0, &plan, number, dev.memory, &cluster_id)?;
        println!("node {}: pid {}, {}", node.id, node.child.id(), node.home.display());
        nodes.push(node);
    }
    wait_until_all_serve(&mut nodes, &stop)?;
    if !stop.is_raised() {
        println!("bootstrap.servers={}", plan.bootstrap());
        println!("Stop it with Ctrl-C; kill -9 one of the processes to see the others go on.");
    }
    while !stop.is_raised() {
        nodes.iter_mut().filter_map(Node::news_of_end).for_each(|news| println!("{news}"));
        if nodes.iter().all(|node| node.ended.is_some()) {
            return Err("no node is left".into());
        }
        thread::sleep(LOOK_PERIOD);
    }
    stop_all(&mut nodes)
}

fn random_id() -> Result<String, String> {
    server::random_id().map_err(|error| format!("no random numbers: {error}"))
}

/// A fresh directory. Removed when dropped, after the nodes in it have ended.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("ringtail-dev-{}", random_id()?));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// Who listens where.
struct Plan {
    /// For clients and for controllers, by node.
    ports: Vec<(u16, u16)>,
}

impl Plan {
    /// Free ports, all held until the last one is known, so that no two are the same.
    fn new(nodes: u8) -> Result<Self, String> {
        let hold = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let held: Result<Vec<_>, _> = (0..2 * nodes).map(hold).collect();
        let ports: Result<Vec<u16>, _> = held
            .and_then(|held| held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect())
            .map_err(|error| format!("no free ports: {error}"));
        Ok(Self { ports: ports?.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect() })
    }

    fn nodes(&self) -> usize {
        self.ports.len()
    }

    fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.ports.iter().map(|(clients, _)| format!("127.0.0.1:{clients}")).collect();
        addresses.join(",")
    }

    /// A node's `server.properties`.
    fn properties(&self, number: usize, data: &Path) -> String {
        let (clients, controllers) = self.ports[number];
        let voters: Vec<String> =
            (1..).zip(&self.ports).map(|(id, (_, port))| format!("{id}@127.0.0.1:{port}")).collect();
        let copies = self.nodes().min(3);
        format!(
            "process.roles=broker,controller\nnode.id={}\ncontroller.quorum.voters={}\n\
             listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controllers}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n\
             default.replication.factor={copies}\noffsets.topic.replication.factor={copies}\nmin.insync.replicas={}\n\
             group.initial.rebalance.delay.ms=0\n",
            number + 1,
            voters.join(","),
            data.display(),
            // One may be missing of three; of two or one none may.
            if copies == 3 { 2 } else { 1 }
        )
    }
}

/// One of them.
struct Node {
    id: usize,
    child: Child,
    /// Where clients connect.
    port: u16,
    home: PathBuf,
    ended: Option<ExitStatus>,
}

impl Node {
    fn start(directory: &Path, plan: &Plan, number: usize, memory: u64, cluster_id: &str) -> Result<Self, String> {
        let id = number + 1;
        let home = directory.join(format!("node-{id}"));
        let (data, file) = (home.join("data"), home.join("server.properties"));
        let failed = |error: std::io::Error| format!("{}: {error}", home.display());
        fs::create_dir_all(&data).map_err(failed)?;
        fs::write(&file, plan.properties(number, &data)).map_err(failed)?;
        let meta = MetaProperties { cluster_id: cluster_id.to_owned(), node_id: id as i32, directory_id: random_id()? };
        server::write_meta(&data, &meta).map_err(|error| error.to_string())?;
        let log = File::create(home.join("log")).map_err(failed)?;
        let cpus = server::affinity_mask();
        let cpu = cpus[number % cpus.len()];
        let program = std::env::current_exe().map_err(|error| format!("this program is not found: {error}"))?;
        let mut command = Command::new(program);
        command.arg("start").arg(&file).args(["--cores", &format!("{cpu}-{cpu}"), "--memory", &memory.to_string()]);
        command.arg("--end-with-parent").stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        // A terminal's Ctrl-C is for us alone: we tell them, once.
        let child = command.process_group(0).spawn().map_err(failed)?;
        Ok(Self { id, child, port: plan.ports[number].0, home, ended: None })
    }

    /// Looks whether it has ended, and keeps how.
    fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }

    /// What there is to say when it ends by itself, once.
    fn news_of_end(&mut self) -> Option<String> {
        if self.ended.is_some() || !self.has_ended() {
            return None;
        }
        let (status, home) = (self.ended?, self.home.display());
        Some(format!(
            "node {} has ended ({status}); start it again with: ringtail start {home}/server.properties",
            self.id
        ))
    }

    /// Its listener for clients opens when it serves.
    fn serves(&self) -> bool {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    fn tell_to_stop(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// However this process comes to its end, the nodes come with it.
impl Drop for Node {
    fn drop(&mut self) {
        if !self.has_ended() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn wait_until_all_serve(nodes: &mut [Node], stop: &Stop) -> Result<(), String> {
    let deadline = Instant::now() + START_MAX;
    while !stop.is_raised() && !nodes.iter().all(Node::serves) {
        if let Some(node) = nodes.iter_mut().find_map(|node| node.has_ended().then_some(node)) {
            return Err(format!("node {} did not start:\n{}", node.id, node.last_words()));
        }
        if Instant::now() > deadline {
            let late: Vec<String> = nodes.iter().filter(|node| !node.serves()).map(Node::last_words).collect();
            return Err(format!("not all nodes serve after {} s:\n{}", START_MAX.as_secs(), late.join("\n\n")));
        }
        thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}

fn stop_all(nodes: &mut [Node]) -> Result<(), String> {
    nodes.iter_mut().filter(|node| node.ended.is_none()).for_each(|node| node.tell_to_stop());
    let deadline = Instant::now() + STOP_MAX;
    while !nodes.iter_mut().all(Node::has_ended) && Instant::now() < deadline {
        thread::sleep(LOOK_PERIOD);
    }
    match nodes.iter_mut().find_map(|node| (!node.has_ended()).then_some(node)) {
        Some(node) => Err(format!("node {} does not stop:\n{}", node.id, node.last_words())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_ports_of_its_own_and_knows_the_others() {
        for nodes in [1, 2, 3, 7] {
            let plan = Plan::new(nodes).expect("there are ports");
            let mut ports: Vec<u16> =
                plan.ports.iter().flat_map(|(clients, controllers)| [*clients, *controllers]).collect();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), 2 * usize::from(nodes));
            for number in 0..plan.nodes() {
                let text = plan.properties(number, Path::new("/tmp/d"));
                let loaded = crate::config::load(Some(("f", &text)), &[]).expect("it starts a node");
                assert_eq!(loaded.notes, []);
                let config = loaded.config;
                assert_eq!(config.node.id.0 as usize, number + 1);
                let voters: Vec<u16> = config.cluster.voters.iter().map(|voter| voter.port).collect();
                assert_eq!(voters, plan.ports.iter().map(|(_, port)| *port).collect::<Vec<_>>());
                assert_eq!(config.listeners.controllers[0].port, plan.ports[number].1);
                assert_eq!(config.topics.replication_factor, i16::from(nodes.min(3)));
            }
        }
    }
}
