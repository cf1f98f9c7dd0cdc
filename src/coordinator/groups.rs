//! Groups as the driver sees them.

use std::convert::Infallible;

use kafka_protocol::protocol::StrBytes;

use crate::{
    base::{RawRecord, Timestamp},
    coordinator::machine::{EffectsOf, Moment, StateMachine},
    group::{GroupAnswer, GroupConfig, GroupRequest, Groups},
    protocol::primitives::DecodeError,
};

impl StateMachine for Groups {
    const NAME: &'static str = "groups";
    type Config = GroupConfig;
    type Request = GroupRequest;
    type Answer = GroupAnswer;
    type Action = Infallible;

    fn new(config: GroupConfig) -> Self {
        Self::new(config)
    }

    fn configure(&mut self, config: GroupConfig) {
        self.configure(config);
    }

    fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        self.replay(key, value)
    }

    fn loaded(&mut self, moment: &Moment<'_>) -> EffectsOf<Self> {
        self.bound(moment.bytes_max);
        let mut effects = self.loaded(moment.now);
        effects.append(self.forget_deleted(moment.now, moment.image));
        effects
    }

    fn request(&mut self, token: u64, request: GroupRequest, moment: &Moment<'_>) -> EffectsOf<Self> {
        self.bound(moment.bytes_max);
        self.request(token, request, moment.now, moment.random)
    }

    fn abandon(&mut self, token: u64) {
        self.abandon(token);
    }

    fn tick(&mut self, moment: &Moment<'_>) -> EffectsOf<Self> {
        self.bound(moment.bytes_max);
        self.tick(moment.now)
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.next_deadline()
    }

    fn topic_deleted(&mut self, name: &str, moment: &Moment<'_>) -> EffectsOf<Self> {
        self.topic_deleted(&StrBytes::from_string(name.to_owned()), moment.now)
    }

    fn snapshot(&self) -> Vec<RawRecord> {
        self.snapshot()
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes()
    }
}
