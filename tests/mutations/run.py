#!/usr/bin/env python3
"""Breaks the broker on purpose, in one place at a time, and says after how many schedules the simulators notice.

    tests/mutations/run.py [NAME...]

Every mutation is an edit of the source: the broken code beside the good one, chosen by the variable RINGTAIL_MUTANT, so that one
build in a scratch worktree (target/mutations) has them all. An edit whose place is not there any more fails the run, as does a
mutation that nobody notices. CARGO says how cargo is called.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = pathlib.Path(os.environ.get("MUTATIONS_DIR", ROOT / "target" / "mutations"))
TREE = SCRATCH / "tree"
# Where it is built: what the project depends on is there already if it is the project's own folder.
TARGET = os.environ.get("MUTATIONS_TARGET", str(SCRATCH / "target"))
CARGO = shlex.split(os.environ.get("CARGO", "cargo"))

# How schedules are run: seeds from..upto, in growing windows.
WINDOWS = [(0, 20), (20, 100), (100, 400), (400, 1200), (1200, 3000)]
WINDOW_SECONDS = 600
LOG, BROKER = "log::tests::crash::nothing_acknowledged", "sim::schedule::what_was_answered"

SWITCH = '''
/// Whether this is the mutation of that name.
pub(crate) fn mutant(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("RINGTAIL_MUTANT").ok()).as_deref() == Some(name)
}
'''


def is_(name):
    return f'crate::mutant("{name}")'


# (name, what is broken, which tests look; and for each place: file, the code as it is, the code that may be broken)
MUTATIONS = [
    ("skip-flush", "a journal block is written without a flush", LOG, "src/log/journal.rs",
     "            place.file.durable.write(shared, place.position).await\n",
     f"            if {is_('skip-flush')} {{ place.file.plain.write(shared, place.position).await }} else {{\n"
     "            place.file.durable.write(shared, place.position).await }\n"),
    ("ack-early", "a journal block counts before its write is done", LOG, "src/log/journal.rs",
     "        let written = if flush && !unsynced {\n",
     f"        let written = if {is_('ack-early')} {{\n"
     "            let (file, position) = (place.file.durable.clone(), place.position);\n"
     "            self.io.spawner.spawn(async move { drop(file.write(shared, position).await) });\n"
     "            Ok(())\n"
     "        } else if flush && !unsynced {\n"),
    ("forget-producers", "a producer's window is forgotten when a segment is rolled", LOG, "src/log/recovery/replay.rs",
     "        match entry {\n            Entry::Append { head, batch } if head.base_offset >= log.log_end_offset() => {\n",
     "        match entry {\n"
     f"            Entry::Seal {{ .. }} if {is_('forget-producers')} => {{\n"
     "                self.state.borrow_mut().producers = Default::default();\n"
     "                Ok(false)\n"
     "            }\n"
     "            Entry::Append { head, batch } if head.base_offset >= log.log_end_offset() => {\n"),
    ("lose-index-entry", "lookups by timestamp go one index entry too far", BROKER, "src/log/index.rs",
     "if after == 0 { 0 } else { self.times[after - 1].1 }",
     f"if {is_('lose-index-entry')} {{ self.times.get(after).map_or(0, |entry| entry.1) }} "
     "else if after == 0 { 0 } else { self.times[after - 1].1 }"),
    ("free-under-old-image", "the journal is freed though the checkpoint was not written", LOG, "src/log/destage.rs",
     "    next_checkpoint(logs, first_sequence).await?;\n",
     f"    if !{is_('free-under-old-image')} {{ next_checkpoint(logs, first_sequence).await?; }}\n"),
    ("skip-sync", "a checkpoint is written before its segments are synced", LOG, "src/log/destage.rs",
     "    core.gate.sync(&core.io).await.map_err(RoundError::Disk)?;\n",
     f"    if !{is_('skip-sync')} {{ core.gate.sync(&core.io).await.map_err(RoundError::Disk)?; }}\n"),
    ("ignore-failed-sync", "a failed sync counts as a good one", BROKER, "src/log/sync_gate.rs",
     "                    Err(error) => _ = self.failed.set(error.to_string()),\n",
     f"                    Err(_) if {is_('ignore-failed-sync')} => _ = self.ended.fetch_max(number, Ordering::AcqRel),\n"
     "                    Err(error) => _ = self.failed.set(error.to_string()),\n"),
    ("bad-batch-is-end", "a damaged batch of the metadata counts as the end of its log", "log::tests::rot::",
     "src/log/recovery/replay.rs",
     "            let read = log.read(from, READ_BYTES, end, true).await.map_err(|error| unusable(&log, error))?;\n"
     "            let bytes = crate::log::core::joined(&read.slices);\n"
     "            let Some(next) = end_of_batches(&bytes, from, from > start) else {\n",
     "            let read = match log.read(from, READ_BYTES, end, true).await {\n"
     f"                Err(LogError::Corrupt {{ .. }}) if {is_('bad-batch-is-end')} => break,\n"
     "                read => read.map_err(|error| unusable(&log, error))?,\n"
     "            };\n"
     "            let bytes = crate::log::core::joined(&read.slices);\n"
     "            let Some(next) = end_of_batches(&bytes, from, from > start) else {\n"
     f"                if {is_('bad-batch-is-end')} {{ break; }}\n",
     # What a read has found damaged is looked at once more.
     "src/log/recovery/replay.rs",
     "        let alive = metadata.log.state().alive();\n",
     f"        let alive = metadata.log.state().alive().or_else(|why| if {is_('bad-batch-is-end')} {{ Ok(()) }} "
     "else { Err(why) });\n"),
    ("forget-log-start", "a log start that the journal announces is forgotten", LOG, "src/log/recovery/replay.rs",
     "let announced = journals.starts.get(&key).copied().unwrap_or_default();",
     f"let announced = journals.starts.get(&key).copied().filter(|_| !{is_('forget-log-start')}).unwrap_or_default();"),
    ("forget-cut", "a cut that the journal announces is forgotten", "log::tests::cuts::", "src/log/recovery/journals.rs",
     "            Entry::Truncate { at, .. } => Some(Announced::Cut(at)),\n",
     f"            Entry::Truncate {{ at, .. }} => Some(Announced::Cut(at)).filter(|_| !{is_('forget-cut')}),\n"),
    ("same-generation", "a segment that was cut passes for what it was", "log::tests::cuts::", "src/log/placing/cut.rs",
     "        self.generation += 1;\n        self.cuts += 1;\n",
     f"        if !{is_('same-generation')} {{ self.generation += 1; }}\n        self.cuts += 1;\n"),
    ("open-anothers-directory", "the directory of another topic of that name is written to", "log::tests::faults::",
     "src/log/partition_directory.rs",
     "        if found == Some(log.key().topic_id) {\n",
     f"        if found == Some(log.key().topic_id) || {is_('open-anothers-directory')} {{\n"),
    ("remove-anothers-directory", "a deletion takes the directory that has the name, whoever's it is",
     "log::tests::names::",
     "src/log/removal.rs",
     "        if !log.state().has_directory() && !partition_directory::belongs_to(&core.io, &path, key.topic_id).await {\n",
     f"        if !{is_('remove-anothers-directory')} && !log.state().has_directory() "
     "&& !partition_directory::belongs_to(&core.io, &path, key.topic_id).await {\n"),
    ("leak-reservation", "a reservation that is not used is not given back", LOG, "src/log/room.rs",
     "            log.core.memory.give_back(self.bytes);\n            log.change(Placing::list_clean_tail);\n",
     f"            if !{is_('leak-reservation')} {{ log.core.memory.give_back(self.bytes); }}\n"
     "            log.change(Placing::list_clean_tail);\n"),
    ("reserve-no-space", "appends are promised no room on the disk", LOG, "src/log/room.rs",
     "        if needed <= held {\n",
     f"        if needed <= held || {is_('reserve-no-space')} {{\n"),
    ("leak-promise", "room on the disk that was promised is not given back", LOG, "src/log/space.rs",
     "    pub fn give_back(&self, bytes: u64) {\n",
     f"    pub fn give_back(&self, bytes: u64) {{\n        if {is_('leak-promise')} {{ return; }}\n"),
    ("above-high-watermark", "readers see what is not durable yet", BROKER, "src/partition/fetch.rs",
     "            Fetcher::Consumer(Isolation::ReadUncommitted) => self.high_watermark(),\n",
     "            Fetcher::Consumer(Isolation::ReadUncommitted) "
     f"if {is_('above-high-watermark')} => self.log_end_offset(),\n"
     "            Fetcher::Consumer(Isolation::ReadUncommitted) => self.high_watermark(),\n"),
    ("skip-epoch", "a start after a crash begins no new leader epoch", BROKER, "src/shard/start.rs",
     "    if !recovered.report.clean {\n",
     f"    if !recovered.report.clean && !{is_('skip-epoch')} {{\n"),
    ("store-twice", "a batch that is there already is stored again", BROKER, "src/partition/append.rs",
     "            if let Some(original) = self.state.producers.duplicate_of(info) {\n",
     f"            if let Some(original) = self.state.producers.duplicate_of(info).filter(|_| !{is_('store-twice')}) {{\n"),
    ("answer-undurable-commit", "a group's answer does not wait for its records", BROKER, "src/coordinator/held.rs",
     "        let (answers, actions) = (effects.answers, effects.actions);\n",
     "        let (mut answers, actions) = (effects.answers, effects.actions);\n"
     f"        if {is_('answer-undurable-commit')} {{ self.take_effect(std::mem::take(&mut answers), Vec::new()); }}\n"),
]


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, **options)


def make_tree():
    """A worktree of what is committed here, edited."""
    if not TREE.exists():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        run("git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", "--force", str(TREE))
    head = run("git", "-C", str(ROOT), "rev-parse", "HEAD", stdout=subprocess.PIPE).stdout.strip()
    run("git", "-C", str(TREE), "reset", "--quiet", "--hard", head)
    with open(TREE / "src" / "lib.rs", "a") as lib:
        lib.write(SWITCH)
    for name, _, _, *places in MUTATIONS:
        for path, good, broken in zip(*[iter(places)] * 3):
            file = TREE / path
            text = file.read_text()
            if text.count(good) != 1:
                sys.exit(f"{name}: its place is found {text.count(good)} times in {path}")
            file.write_text(text.replace(good, broken))


def build():
    built = run(*CARGO, "test", "--locked", "-p", "ringtail", "--lib", "--no-run", "--target-dir", TARGET, cwd=TREE,
                stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    return TREE / re.search(r"\((.*?)\)\s*$", built.stderr.strip().splitlines()[-1]).group(1)


def look(program, mutant, tests, first, upto):
    """The first seed that fails, or how it ended otherwise; None if nothing was noticed."""
    variables = {**os.environ, "RINGTAIL_FIRST": str(first), "RINGTAIL_SEEDS": str(upto - first), "RUST_BACKTRACE": "0"}
    variables.pop("RINGTAIL_SEED", None)
    if mutant:
        variables["RINGTAIL_MUTANT"] = mutant
    try:
        done = subprocess.run([str(program), tests], env=variables, text=True, errors="replace", timeout=WINDOW_SECONDS,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return f"hangs within {upto}", ""
    if done.returncode == 0:
        return None, ""
    failed = [int(seed) for seeds in re.findall(r"replay with RINGTAIL_SEED[^\[]*\[([\d, ]+)\]", done.stdout)
              for seed in seeds.split(",")]
    words = [line.strip() for line in done.stdout.splitlines() if re.search(r"RINGTAIL_SEED=\d|seed \d", line)]
    word = re.sub(r"RINGTAIL_SEED=\d+ (partition \S+: )?", "", words[0])[:90] if words else "a test fails"
    return (min(failed) + 1 if failed else "a test of its own"), word


def main():
    wanted = set(sys.argv[1:])
    make_tree()
    program = build()
    for tests in {LOG, BROKER}:
        noticed, word = look(program, None, tests, 0, 100)
        if noticed:
            sys.exit(f"{tests} fails without a mutation: {word}")
    unnoticed = []
    print("| mutation | schedules | caught after | as |\n|---|---|--:|---|", flush=True)
    for name, what, tests, *_ in MUTATIONS:
        if wanted and name not in wanted:
            continue
        windows = WINDOWS if tests in (LOG, BROKER) else WINDOWS[:1]
        for first, upto in windows:
            noticed, word = look(program, name, tests, first, upto)
            if noticed:
                break
        if not noticed:
            unnoticed.append(name)
        kind = {LOG: "log", BROKER: "broker"}.get(tests, f"`{tests.rstrip(':')}`")
        print(f"| {what} (`{name}`) | {kind} | {noticed or 'NOT CAUGHT'} | {word} |", flush=True)
    if unnoticed:
        sys.exit(f"nobody noticed {', '.join(unnoticed)}")


if __name__ == "__main__":
    main()
