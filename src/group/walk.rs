//! Random walks: whatever clients do, the books stay right and the log tells what is durable.

use super::{GroupConfig, Groups, script::Bench};

/// A small generator of our own, so that a seed means the same for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of<'a>(&mut self, these: &[&'a str]) -> &'a str {
        these[self.below(these.len() as u64) as usize]
    }
}

const CLIENTS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn command(dice: &mut Dice) -> String {
    let who = dice.one_of(&CLIENTS);
    let group = dice.one_of(&["", "", "", "group=h"]);
    match dice.below(32) {
        0..=5 => {
            let version = dice.one_of(&["v0", "v3", "v4", "v5", "v9", "v9"]);
            let instance = match dice.below(3) {
                0 => format!("static=i{who}"),
                _ => String::new(),
            };
            let protocols =
                dice.one_of(&["range:m", "range:x,rr:y", "range:subscribed+t+u", "range:subscribed+t,rr:z", "rr:z"]);
            let rebalance = dice.one_of(&["10s", "60s", "0s"]);
            let id = dice.one_of(&["", "", "", "id="]);
            format!("join {who} {version} {instance} protos={protocols} session=6s rebalance={rebalance} {id} {group}")
        }
        6..=9 => format!("sync {who} a=1,b=2,c=3,d=4,e=5 {group}"),
        10..=12 => format!("hb {who} {group}"),
        13 => format!("leave {who} {} {group}", dice.one_of(&["v1", "v5"])),
        14 => format!("leave static=i{who} {group}"),
        15..=16 => format!("commit {who} t/{}={} {group}", dice.below(3), dice.below(100)),
        17 => format!("commit - u/0={} gen=-1 {} {group}", dice.below(100), dice.one_of(&["", "retention=20s v2"])),
        18 => format!("{} {group}", dice.one_of(&["delete", "describe", "list", "fetch all", "offsets-delete t/0"])),
        19 => dice.one_of(&["topic-gone t", "restart", "+1min", "+1d"]).to_owned(),
        // Everybody does as a good client would.
        20..=24 => {
            let all = |verb: &str| CLIENTS.map(|who| format!("{verb} {who}")).join(";");
            format!(
                "{};+3s;+3s;{};{}",
                all("join"),
                all("sync"),
                CLIENTS.map(|who| format!("sync {who} a=1,b=2")).join(";")
            )
        }
        25..=31 => format!("+{}ms", dice.below(4_000)),
        other => unreachable!("{other} of 32"),
    }
}

#[test]
fn replaying_the_log_gives_what_is_durable_whatever_clients_do() {
    let mut stable = 0;
    for seed in 0..120 {
        let config = GroupConfig {
            size_max: if seed % 3 == 0 { 3 } else { 100 },
            initial_rebalance_delay_ms: if seed % 2 == 0 { 3_000 } else { 0 },
            offsets_retention_ms: 60_000,
            offsets_retention_check_interval_ms: 10_000,
            bytes_max: if seed % 5 == 0 { 3_000 } else { 64 << 20 },
            ..GroupConfig::default()
        };
        let mut dice = Dice(seed);
        let mut bench = Bench::new(config);
        let mut script = Vec::new();
        for _ in 0..200 {
            script.push(command(&mut dice));
            let hint = || format!("seed {seed}: {}", script.join("; "));
            for command in script.last().expect("just pushed").split(';') {
                bench.run(command);
                bench.groups.check_books(&hint());
            }
            bench.check_replay(&hint());
        }
        stable += bench.out.matches("synced").count();
    }
    assert!(stable > 1_000, "the walks reach stable groups: {stable}");
}

#[test]
fn no_bytes_from_the_disk_break_the_machine() {
    let mut bench = Bench::new(GroupConfig::default());
    let script = "join a static=i; join b v3; join c static=k v5; +6s; sync a a=x,b=y; commit a t/0=1,t/1=2; join d v3 group=h; +3s; sync d d=z; commit - u/0=1 group=k";
    script.split(';').for_each(|command| bench.run(command.trim()));
    let mut taken = 0;
    for seed in 0..2_000 {
        let mut dice = Dice(seed);
        let mut groups = Groups::new(GroupConfig::default());
        for (key, value) in &bench.log {
            let mut key = key.to_vec();
            let mut value = value.as_ref().map(|value| value.to_vec()).unwrap_or_default();
            for _ in 0..dice.below(4) {
                let bytes = if dice.below(4) == 0 { &mut key } else { &mut value };
                let at = dice.below(bytes.len() as u64) as usize;
                // Often a byte of a neighbour, so that names collide.
                bytes[at] = if dice.below(2) == 0 { bytes[at / 2] } else { dice.below(256) as u8 };
            }
            value.truncate(value.len() - usize::from(dice.below(20) == 0));
            taken += usize::from(groups.replay(&key, Some(&value)).is_ok());
        }
        let hint = format!("seed {seed}");
        groups.check_books(&hint);
        groups.loaded(0);
        groups.check_books(&hint);
        for hour in 1..200 {
            groups.tick(hour * 3_600_000);
        }
        groups.check_books(&hint);
    }
    assert!(taken > 2_000, "some mutations still read: {taken}");
}
