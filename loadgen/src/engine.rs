//! A run from beginning to end: topics, threads, the second-by-second books, the wait for what is unanswered, the verdict.

pub mod books;
pub mod setup;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    client::admin::Admin,
    control::{self, Shared},
    engine::{
        books::{Books, Row},
        setup::{Ground, Phase},
    },
    failure::Failure,
    fetch::Consumer,
    group::offsets::GroupBooks,
    measure::{Sample, Window},
    sys,
    verify::{Ledger, Verdict},
    worker::{self, Handover, Job},
    workload::{Mode, Workload},
};

const SECOND: u64 = 1_000_000_000;
/// Connections are made before the first record is due.
const LEAD_NS: u64 = 300_000_000;
const LEAD_PER_CONNECTION_NS: u64 = 1_000_000;
const POLL: Duration = Duration::from_millis(20);
/// Consumers get this long after the last acknowledgement, at most the time-out of the run.
const CATCH_UP_MAX_NS: u64 = 60 * SECOND;

/// What a run has to say while it goes on.
pub enum News<'a> {
    Note(&'a str),
    Second { row: &'a Row, totals: &'a Sample, left_ns: u64 },
}

/// All that a run has found.
pub struct Outcome {
    pub workload: Workload,
    pub started_wall_ns: u64,
    pub start: u64,
    pub window: Window,
    pub ended: u64,
    /// When a consumer last read records; 0 without consumers.
    pub last_read: u64,
    pub interrupted: bool,
    pub books: Books,
    pub verdict: Option<Verdict>,
    /// Of runs with consumers in a group.
    pub group: Option<GroupBooks>,
    pub partitions: usize,
    pub prefilled_bytes: u64,
    /// Why the numbers must not be used; empty in a valid run.
    pub invalid: Vec<String>,
    pub notes: Vec<String>,
}

/// Runs a workload against a cluster. The topics that it made are removed, whatever happens.
pub fn run(workload: &Workload, bootstrap: &[String], news: &mut dyn FnMut(News<'_>)) -> Result<Outcome, Failure> {
    let client_id = "ringtail-loadgen";
    let mut admin = Admin::new(bootstrap, client_id).through(workload.via);
    let ground = setup::prepare(workload, &mut admin, news)?;
    let result = run_prepared(workload, bootstrap, &ground, news);
    let removed = setup::clean_up(workload, &mut admin, &ground);
    match (result, removed) {
        (Ok(mut outcome), Err(error)) => {
            outcome.notes.push(format!("topics were not removed: {error}"));
            Ok(outcome)
        }
        (result, _) => result,
    }
}

fn run_prepared(
    workload: &Workload,
    bootstrap: &[String],
    ground: &Ground,
    news: &mut dyn FnMut(News<'_>),
) -> Result<Outcome, Failure> {
    let ledger = workload.verify.then(|| Arc::new(Ledger::new(ground.layout.partitions.len())));
    let mut prefilled_bytes = 0;
    if workload.prefill_bytes > 0 {
        news(News::Note(&format!("writing {} bytes to read back", workload.prefill_bytes)));
        let filler = Workload {
            mode: Mode::Produce,
            rate: crate::workload::Rate::Max,
            producers: 1,
            consumers: 0,
            group: false,
            warm_up_ns: 0,
            duration_ns: 3600 * SECOND,
            ..workload.clone()
        };
        let filled = phase(&filler, bootstrap, ground, ledger.clone(), Phase::Prefill, &mut |_| {})?;
        prefilled_bytes = filled.books.totals.counters.acked_bytes;
        if filled.books.totals.counters.due_records() > filled.books.totals.counters.acked_records {
            return Err(Failure("not everything could be written before the read; see the broker's log".into()));
        }
    }
    let mut outcome = phase(workload, bootstrap, ground, ledger.clone(), Phase::Measure, news)?;
    outcome.prefilled_bytes = prefilled_bytes;
    if let Some(ledger) = ledger.filter(|_| workload.mode.fetches()) {
        // A run that was cut short proves nothing about what had not been read yet.
        let mut verdict = ledger.verdict(|partition| ground.layout.name(partition));
        if outcome.interrupted || ended_early(workload, &outcome) {
            outcome.notes.push("the end of the log was not reached; lost records are not judged".to_owned());
            verdict.lost_records = 0;
        }
        if let Some(group) = &outcome.group {
            verdict.lost_commits = group.lost_offsets;
            verdict.findings.extend(group.findings.iter().cloned());
        }
        outcome.verdict = Some(verdict);
    }
    judge(&mut outcome);
    Ok(outcome)
}

/// A fetch run whose time was over before the end of the log.
fn ended_early(workload: &Workload, outcome: &Outcome) -> bool {
    workload.mode == Mode::Fetch && outcome.books.consumed_bytes() < outcome.prefilled_bytes.max(1)
}

fn phase(
    workload: &Workload,
    bootstrap: &[String],
    ground: &Ground,
    ledger: Option<Arc<Ledger>>,
    phase: Phase,
    news: &mut dyn FnMut(News<'_>),
) -> Result<Outcome, Failure> {
    let connections = (workload.producers + workload.consumers) as u64;
    let start = sys::monotonic_ns() + LEAD_NS + LEAD_PER_CONNECTION_NS * connections;
    let window = Window { start: start + workload.warm_up_ns, end: start + workload.warm_up_ns + workload.duration_ns };
    let started_wall_ns = sys::wall_ns() + start.saturating_sub(sys::monotonic_ns());
    let threads = workload.threads;
    let (shared, asked) = Shared::new(threads, ground.leaders.clone())
        .map_err(|error| Failure(format!("the system refuses an eventfd: {error}")))?;
    let (handovers, received) = channel();
    let mut crew = Crew { workers: Vec::new(), helpers: Vec::new(), returns: Vec::new() };

    let mut producers = setup::producers(workload, ground, ledger.clone(), phase, (start, window.end))?;
    let fetch = setup::fetch_settings(workload, ground, window);
    let mut consumers = setup::consumers(workload, ground, &fetch, ledger.clone());
    for index in 0..threads {
        let (give_back, returned) = channel();
        crew.returns.push(give_back);
        let job = Job {
            index,
            producers: take_share(&mut producers, index, threads),
            consumers: take_share(&mut consumers, index, threads),
            window,
            start,
            acks: workload.acks,
            has_topic_ids: ground.layout.has_topic_ids(),
            request_timeout_ns: workload.request_timeout_ns,
            spin: workload.spin,
            client_id: "ringtail-loadgen".to_owned(),
            topics: ground.topics(),
            shared: Arc::clone(&shared),
            handovers: handovers.clone(),
            returned,
        };
        crew.start_worker(job, workload.pin.get(index % workload.pin.len().max(1)).copied())?;
    }
    drop(handovers);
    crew.start_control(&shared, asked, workload, bootstrap, ground)?;
    if workload.group && phase == Phase::Measure {
        crew.helpers.extend(setup::join_group(workload, bootstrap, ground, &fetch, &shared)?);
    }

    let mut books = Books::new(start, window.start, threads);
    let mut run = Run { workload, window, shared: &shared, ledger: ledger.as_deref(), fetch: &fetch, phase, ground };
    let interrupted = run.follow(&received, &crew.returns, &mut books, news)?;
    crew.join()?;
    Ok(Outcome {
        workload: workload.clone(),
        started_wall_ns,
        start,
        window,
        ended: sys::monotonic_ns(),
        last_read: fetch.last_read.load(Ordering::Relaxed),
        interrupted,
        books,
        verdict: None,
        group: (workload.group && phase == Phase::Measure).then(|| shared.group().clone()),
        partitions: ground.layout.partitions.len(),
        prefilled_bytes: 0,
        invalid: Vec::new(),
        notes: Vec::new(),
    })
}

/// Every `threads`-th item from `index` on, in the order of the original list.
fn take_share<T>(items: &mut [Option<T>], index: usize, threads: usize) -> Vec<T> {
    items.iter_mut().skip(index).step_by(threads).filter_map(Option::take).collect()
}

/// The threads of a phase.
struct Crew {
    workers: Vec<JoinHandle<std::io::Result<()>>>,
    helpers: Vec<JoinHandle<()>>,
    returns: Vec<Sender<Sample>>,
}

impl Crew {
    fn start_worker(&mut self, job: Job, core: Option<usize>) -> Result<(), Failure> {
        let name = format!("load-{}", job.index);
        let body = move || {
            if let Some(id) = core
                && !core_affinity::set_for_current(core_affinity::CoreId { id })
            {
                let message = format!("cannot pin to core {id}; does it exist, and may this process use it?");
                return Err(std::io::Error::other(message));
            }
            worker::run(job)
        };
        let spawned = std::thread::Builder::new().name(name).spawn(body);
        self.workers.push(spawned.map_err(|error| Failure(format!("cannot start a thread: {error}")))?);
        Ok(())
    }

    fn start_control(
        &mut self,
        shared: &Arc<Shared>,
        asked: Receiver<control::Ask>,
        workload: &Workload,
        bootstrap: &[String],
        ground: &Ground,
    ) -> Result<(), Failure> {
        let shared = Arc::clone(shared);
        let mut addresses = bootstrap.to_vec();
        let known = ground.leaders.brokers.values().flatten();
        addresses.extend(known.map(ToString::to_string));
        let layout = Arc::clone(&ground.layout);
        let via = workload.via;
        let body = move || {
            let mut admin = Admin::new(&addresses, "ringtail-loadgen-control").through(via);
            control::serve(&shared, &asked, &mut admin, &layout);
        };
        let spawned = std::thread::Builder::new().name("control".to_owned()).spawn(body);
        self.helpers.push(spawned.map_err(|error| Failure(format!("cannot start a thread: {error}")))?);
        Ok(())
    }

    fn join(self) -> Result<(), Failure> {
        for worker in self.workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Failure(error.to_string())),
                Err(_) => {
                    return Err("a load thread panicked; this is a bug of ringtail-loadgen".into());
                }
            }
        }
        for helper in self.helpers {
            if helper.join().is_err() {
                return Err("a control thread panicked; this is a bug of ringtail-loadgen".into());
            }
        }
        Ok(())
    }
}

struct Run<'a> {
    workload: &'a Workload,
    window: Window,
    shared: &'a Shared,
    ledger: Option<&'a Ledger>,
    fetch: &'a crate::fetch::Settings,
    phase: Phase,
    ground: &'a Ground,
}

impl Run<'_> {
    /// Collects the books until the run is over. Returns whether it was interrupted.
    fn follow(
        &mut self,
        received: &Receiver<Handover>,
        returns: &[Sender<Sample>],
        books: &mut Books,
        news: &mut dyn FnMut(News<'_>),
    ) -> Result<bool, Failure> {
        let mut interrupted = false;
        let mut deadline = self.window.end + self.workload.timeout_ns;
        let mut drained_at = None;
        loop {
            match received.recv_timeout(POLL) {
                Ok(handover) => {
                    let rows = books.take(handover, returns);
                    for row in rows {
                        let left_ns = self.window.end.saturating_sub(sys::monotonic_ns());
                        news(News::Second { row: &row, totals: &books.totals, left_ns });
                        books.rows.push(row);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Every worker has handed over its last interval.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = sys::monotonic_ns();
            if sys::interrupted() && !interrupted {
                interrupted = true;
                // What is in flight gets a moment; Ctrl-C does not mean a minute.
                deadline = now + 2 * SECOND.min(self.workload.timeout_ns);
                self.shared.stop.store(true, Ordering::Relaxed);
                self.shared.wake_all();
            }
            let drained = self.shared.drained.iter().all(|flag| flag.load(Ordering::Acquire));
            if drained && drained_at.is_none() {
                drained_at = Some(now);
            }
            if self.is_over(now, drained_at, interrupted) || now >= deadline {
                self.shared.quit.store(true, Ordering::Relaxed);
                self.shared.wake_all();
            }
        }
        Ok(interrupted)
    }

    fn is_over(&self, now: u64, drained_at: Option<u64>, interrupted: bool) -> bool {
        if self.workload.mode == Mode::Fetch && self.phase == Phase::Measure {
            return now >= self.window.end || interrupted || self.is_caught_up();
        }
        if self.phase == Phase::Prefill && interrupted {
            return true;
        }
        let Some(drained_at) = drained_at else {
            return false;
        };
        if !self.workload.mode.fetches() {
            return true;
        }
        let read_all = match self.ledger {
            Some(ledger) => ledger.outstanding() == 0,
            None => now > drained_at + SECOND,
        };
        read_all || now > drained_at + CATCH_UP_MAX_NS.min(self.workload.timeout_ns)
    }

    /// Whether the consumers have reached the ends that the log had when the run began.
    fn is_caught_up(&self) -> bool {
        let ends = self.ground.ends_now();
        let positions = self.fetch.positions.iter();
        !ends.is_empty() && positions.zip(&ends).all(|(position, end)| position.load(Ordering::Relaxed) >= *end)
    }
}

/// Says why the numbers must not be used, if so.
fn judge(outcome: &mut Outcome) {
    use crate::measure::Metric;
    let workload = &outcome.workload;
    let is_open = workload.mode.produces() && workload.records_per_second().is_some();
    if !is_open {
        return;
    }
    let lateness = outcome.books.totals.histogram(Metric::Lateness);
    let late = lateness.value_at_quantile(0.99);
    let bound = workload.lateness_bound_ns;
    if !lateness.is_empty() && late > bound {
        outcome.invalid.push(format!(
            "the generator itself was {} late at p99 (bound {}): give it more CPU (--threads, --pin, --spin) or a lower rate",
            crate::workload::units::show_ns(late as f64),
            crate::workload::units::show_ns(bound as f64),
        ));
    }
    let busy = outcome.books.busiest_worker();
    if !workload.spin && busy > CPU_SATURATED {
        outcome.invalid.push(format!(
            "a load thread used {:.0} % of its core: give it more CPU (--threads) or a lower rate",
            busy * 100.0
        ));
    }
    if outcome.books.totals.counters.due_records() == 0 {
        outcome.invalid.push("no record was due in the measured time".to_owned());
    }
}

/// A thread that uses more of its core than this cannot be trusted to have been on time.
const CPU_SATURATED: f64 = 0.95;

/// Divides the partitions among consumers: partition i to consumer i mod n.
pub fn plain_assignment(partitions: usize, consumer: usize, consumers: usize) -> BTreeSet<u32> {
    (consumer..partitions).step_by(consumers).map(|partition| partition as u32).collect()
}

/// Consumers before they are given to threads.
pub type Consumers = Vec<Option<Consumer>>;
