//! A machine of two records that needs all of the driver.
//!
//! `total <name>`: what was added up under a name. `owed <name>`: an announcement that is to be made.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    base::{RawRecord, Timestamp},
    coordinator::{EffectsOf, Moment, StateMachine},
    protocol::primitives::DecodeError,
};

/// The answer to an addition that would lead above `total_max`.
pub const REFUSED: i64 = -1;

#[derive(Clone)]
pub struct Config {
    pub total_max: i64,
}

pub enum Request {
    /// Adds to a total, in a record with so many bytes more than it needs.
    Add { name: String, number: i64, padding: usize },
    /// Tells a total.
    Total(String),
    /// Has a name announced, and answers with its total when that was done.
    Announce(String),
    /// The announcement was made.
    Announced(String),
    /// Answers after so many milliseconds.
    Wait(i64),
}

pub struct Toy {
    config: Config,
    totals: BTreeMap<String, i64>,
    owed: BTreeSet<String>,
    /// Who waits for an announcement, and for what time.
    announcing: Vec<(String, u64)>,
    waiting: BTreeSet<(Timestamp, u64)>,
}

pub fn total_record(name: &str, total: i64, padding: usize) -> RawRecord {
    let mut value = total.to_be_bytes().to_vec();
    value.resize(8 + padding, 0);
    (format!("total {name}").into(), Some(value.into()))
}

fn owed_record(name: &str, value: Option<Bytes>) -> RawRecord {
    (format!("owed {name}").into(), value)
}

impl Toy {
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.announcing.len()
    }

    fn total(&self, name: &str) -> i64 {
        self.totals.get(name).copied().unwrap_or(0)
    }

    /// Takes a record of its own in and appends it.
    fn record(&mut self, record: RawRecord, effects: &mut EffectsOf<Self>) {
        self.replay(&record.0, record.1.as_deref()).expect("a record of our own");
        effects.records.push(record);
    }
}

impl StateMachine for Toy {
    const NAME: &'static str = "toys";
    type Config = Config;
    type Request = Request;
    type Answer = i64;
    type Action = String;

    fn new(config: Config) -> Self {
        Self {
            config,
            totals: BTreeMap::new(),
            owed: BTreeSet::new(),
            announcing: Vec::new(),
            waiting: BTreeSet::new(),
        }
    }

    fn configure(&mut self, config: Config) {
        self.config = config;
    }

    fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        let key = std::str::from_utf8(key).expect("a test's own record");
        match (key.split_once(' ').expect("two words"), value) {
            (("total", name), Some(value)) => {
                let total = i64::from_be_bytes(value[..8].try_into().expect("eight bytes"));
                self.totals.insert(name.to_owned(), total);
            }
            (("total", name), None) => drop(self.totals.remove(name)),
            (("owed", name), Some(_)) => drop(self.owed.insert(name.to_owned())),
            (("owed", name), None) => drop(self.owed.remove(name)),
            (other, _) => panic!("{other:?}"),
        }
        Ok(())
    }

    fn loaded(&mut self, _: &Moment<'_>) -> EffectsOf<Self> {
        EffectsOf::<Self> { actions: self.owed.iter().cloned().collect(), ..Default::default() }
    }

    fn request(&mut self, token: u64, request: Request, moment: &Moment<'_>) -> EffectsOf<Self> {
        let mut effects = EffectsOf::<Self>::default();
        match request {
            Request::Add { name, number, padding } => {
                let total = self.total(&name) + number;
                if total > self.config.total_max {
                    effects.answers.push((token, REFUSED));
                } else {
                    self.record(total_record(&name, total, padding), &mut effects);
                    effects.answers.push((token, total));
                }
            }
            Request::Total(name) => effects.answers.push((token, self.total(&name))),
            Request::Announce(name) => {
                self.record(owed_record(&name, Some(Bytes::new())), &mut effects);
                self.announcing.push((name.clone(), token));
                effects.actions.push(name);
            }
            Request::Announced(name) => {
                self.record(owed_record(&name, None), &mut effects);
                let (told, left) = std::mem::take(&mut self.announcing).into_iter().partition(|(one, _)| *one == name);
                self.announcing = left;
                let told: Vec<_> = told;
                effects.answers.extend(told.into_iter().map(|(name, token)| (token, self.total(&name))));
            }
            Request::Wait(ms) => drop(self.waiting.insert((moment.now + ms, token))),
        }
        effects
    }

    fn abandon(&mut self, token: u64) {
        self.waiting.retain(|(_, other)| *other != token);
        self.announcing.retain(|(_, other)| *other != token);
    }

    fn tick(&mut self, moment: &Moment<'_>) -> EffectsOf<Self> {
        let later = self.waiting.split_off(&(moment.now + 1, 0));
        let due = std::mem::replace(&mut self.waiting, later);
        EffectsOf::<Self> { answers: due.into_iter().map(|(_, token)| (token, 0)).collect(), ..Default::default() }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(deadline, _)| *deadline)
    }

    fn topic_deleted(&mut self, name: &str, _: &Moment<'_>) -> EffectsOf<Self> {
        let mut effects = EffectsOf::<Self>::default();
        if self.totals.contains_key(name) {
            self.record((format!("total {name}").into(), None), &mut effects);
        }
        effects
    }

    fn snapshot(&self) -> Vec<RawRecord> {
        let totals = self.totals.iter().map(|(name, total)| total_record(name, *total, 0));
        totals.chain(self.owed.iter().map(|name| owed_record(name, Some(Bytes::new())))).collect()
    }

    fn held_bytes(&self) -> usize {
        self.totals.keys().chain(&self.owed).map(|name| name.len() + 8).sum()
    }
}
