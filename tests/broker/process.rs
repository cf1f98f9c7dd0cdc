//! A broker process under test: its own directory below the target folder, a port of the system's choice.

use std::{
    fs::{self, File},
    io::Read,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a broker may take to serve before the test gives up: generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

static DIRECTORIES: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

/// A fresh directory for one test. It stays until the next run, for whoever wants to look what a test has left.
pub fn fresh_directory(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    SWEPT.call_once(|| remove_directories_of_earlier_runs(root));
    let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
    let path = root.join(format!("{name}-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("a directory below the target folder");
    path
}

/// A run leaves some two gigabytes.
fn remove_directories_of_earlier_runs(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.rsplitn(3, '-');
        let (number, process) = (parts.next(), parts.next());
        let are_numbers = number.is_some_and(|it| it.parse::<u32>().is_ok());
        let Some(process) = process.and_then(|it| it.parse::<u32>().ok()).filter(|_| are_numbers) else { continue };
        if !Path::new(&format!("/proc/{process}")).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A free port below those that the system gives to clients.
pub fn fixed_port() -> u16 {
    let first = 20_000 + (std::process::id() % 9_000) as u16;
    (first..first + 1000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}

/// The command that starts a broker on `directory` with a free port and two unpinned cores.
pub fn command(directory: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringtail"));
    command.arg("start");
    command.args(["--override", &format!("log.dirs={}", directory.join("data").display())]);
    command.args(["--override", "listeners=PLAINTEXT://127.0.0.1:0"]);
    command.args(["--override", "group.initial.rebalance.delay.ms=0"]);
    command.args(["--override", "offsets.topic.num.partitions=8"]);
    if !extra.contains(&"--cores") {
        command.args(["--cores", "2"]);
    }
    // Which way to the kernel is tried: `own` or `glommio`; without it the broker's default.
    if let Ok(ring) = std::env::var("RINGTAIL_TEST_RING") {
        command.args(["--override", &format!("io.ring={ring}")]);
    }
    command.args(extra);
    command.stdin(Stdio::null());
    command
}

/// Runs a command that must not start a broker. What it said, which is no panic.
pub fn refused(command: &mut Command) -> String {
    let output = command.output().expect("the broker's binary");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "it started:\n{text}");
    assert!(output.status.code().is_some(), "it was killed by a signal:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A running broker. Killed when dropped.
pub struct Broker {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
    address: String,
}

impl Broker {
    /// Starts a broker and waits until it serves.
    pub fn start(directory: &Path, extra: &[&str]) -> Self {
        Self::spawn(directory, command(directory, extra))
    }

    /// Runs a [`command`] for `directory`, and waits until it serves.
    pub fn spawn(directory: &Path, mut command: Command) -> Self {
        static RUN: AtomicU32 = AtomicU32::new(0);
        let log = directory.join(format!("broker-{}.log", RUN.fetch_add(1, Ordering::Relaxed)));
        let output = File::create(&log).expect("a log file");
        let child = command
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the broker's binary");
        let mut broker = Self { child, directory: directory.to_owned(), log, address: String::new() };
        broker.address = broker.wait_for_address();
        broker
    }

    fn wait_for_address(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if log.contains("Transitioning from RECOVERY to RUNNING")
                && let Some(address) = listening_address(&log)
            {
                return address;
            }
            if let Some(status) = self.child.try_wait().expect("our child") {
                panic!("the broker ended with {status}:\n{log}");
            }
            assert!(Instant::now() < deadline, "the broker does not serve:\n{log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `host:port`, for `bootstrap.servers`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the broker has written so far.
    pub fn log(&self) -> String {
        let mut text = String::new();
        File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text)).expect("the broker's log");
        text
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A raw connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Sends SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name]).arg(self.pid().to_string()).status().expect("kill");
        assert!(status.success(), "kill -s {name}");
    }

    /// How the process has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our child")
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.ask_to_stop();
        (self.wait(), began.elapsed())
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the broker does not stop:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Fails the test if the process has ended.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("our child") {
            panic!("the broker ended with {status}:\n{}", self.log());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address of the log line that says where the broker listens.
fn listening_address(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("listening"))?;
    let at = line.find("127.0.0.1:")?;
    Some(line[at..].chars().take_while(|letter| letter.is_ascii_digit() || ".:".contains(*letter)).collect())
}
