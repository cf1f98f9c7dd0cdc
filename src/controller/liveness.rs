//! Who is alive: heartbeats, sessions that end, brokers that want to stop.
//!
//! Differs from Kafka: a heartbeat's failed log directories are passed over; partitions go offline one by one here.

use kafka_protocol::messages::{BrokerHeartbeatRequest, BrokerHeartbeatResponse};

use super::Controller;
use crate::{
    base::{BrokerId, ErrorCode},
    protocol::metadata_records::{BrokerRegistrationChange, MetadataRecord, RegisterBroker},
};

/// How often partitions without leader, or with eligible ones, are looked through. Whoever comes back is elected at once, and
/// settings that are changed count at once; this is for those in the file that this controller has and the last one had not.
const REVIEW_EVERY_MS: u64 = 5_000;

/// What a broker is after its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fenced,
    Unfenced,
    /// Hands over what it leads.
    Stopping,
    /// Has handed over, and everybody knows: it may stop.
    Stopped,
}

impl Controller {
    /// The time by a clock that never goes back. To be told before each decision.
    pub fn set_now(&mut self, now_ms: u64) {
        let alive = self.image.brokers().filter(|broker| !broker.fenced);
        self.sessions.set_now(now_ms, alive.map(|broker| (BrokerId(broker.broker_id), broker.broker_epoch)));
        self.now_ms = now_ms;
    }

    /// The offset that the first record of the next decision will have.
    pub fn set_next_offset(&mut self, next_offset: i64) {
        self.next_offset = next_offset;
    }

    /// What time alone brings about: brokers that were not heard of are fenced.
    pub fn tick(&mut self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (broker, broker_epoch) in self.sessions.expire() {
            records.extend(self.fence_life(broker, broker_epoch));
        }
        if self.now_ms.saturating_sub(self.reviewed_ms) >= REVIEW_EVERY_MS {
            self.reviewed_ms = self.now_ms;
            records.extend(self.review_leaders());
        }
        records
    }

    /// Fences a broker that is known to be dead, if it has not begun a new life.
    pub fn fence_dead(&mut self, broker: BrokerId, broker_epoch: i64) -> Vec<MetadataRecord> {
        if self.registered_in(broker, broker_epoch).is_none() {
            return Vec::new();
        }
        self.sessions.end(broker);
        self.fence_life(broker, broker_epoch)
    }

    /// BrokerHeartbeat, versions 0–1.
    pub fn heartbeat(&mut self, request: &BrokerHeartbeatRequest) -> (Vec<MetadataRecord>, BrokerHeartbeatResponse) {
        let broker = BrokerId(request.broker_id.0);
        let answer = BrokerHeartbeatResponse::default();
        let Some(registered) = self.registered_in(broker, request.broker_epoch).cloned() else {
            let error = ErrorCode::StaleBrokerEpoch;
            return (Vec::new(), answer.with_error_code(error.code()));
        };
        let offset = request.current_metadata_offset;
        let state = self.next_state(&registered, request);
        let records = match state {
            State::Fenced | State::Stopped => self.fence_life(broker, registered.broker_epoch),
            State::Unfenced if registered.fenced => self.unfence(&registered),
            State::Unfenced => Vec::new(),
            State::Stopping => self.hand_over(&registered),
        };
        match state {
            // Its next life need not wait until the last one's session is over.
            State::Stopped => self.sessions.end(broker),
            State::Fenced | State::Unfenced | State::Stopping => {
                self.sessions.hear(broker, registered.broker_epoch, offset);
            }
        }
        if state == State::Stopping && !records.is_empty() {
            self.sessions.stop_behind(broker, self.next_offset + records.len() as i64 - 1);
        }
        let answer = answer
            .with_is_caught_up(offset >= registered.broker_epoch)
            .with_is_fenced(matches!(state, State::Fenced | State::Stopped))
            .with_should_shut_down(state == State::Stopped);
        (records, answer)
    }

    fn next_state(&self, registered: &RegisterBroker, request: &BrokerHeartbeatRequest) -> State {
        let broker = BrokerId(registered.broker_id);
        match (registered.fenced, registered.in_controlled_shutdown) {
            (true, _) if request.want_shut_down => State::Stopped,
            (true, stopping) => {
                let caught_up = request.current_metadata_offset >= registered.broker_epoch;
                if caught_up && !request.want_fence && !stopping { State::Unfenced } else { State::Fenced }
            }
            (false, true) => {
                let told = self.sessions.stops_behind(broker).is_none_or(|offset| self.reached_by_all() >= offset);
                if told && !self.has_leaderships(broker) { State::Stopped } else { State::Stopping }
            }
            (false, false) if request.want_shut_down => {
                if self.has_leaderships(broker) {
                    State::Stopping
                } else {
                    State::Stopped
                }
            }
            (false, false) if request.want_fence => State::Fenced,
            (false, false) => State::Unfenced,
        }
    }

    /// How far the images of all brokers that serve go.
    fn reached_by_all(&self) -> i64 {
        let brokers = self.image.brokers().map(|broker| BrokerId(broker.broker_id));
        let active = brokers.filter(|broker| self.is_active(*broker));
        active.map(|broker| self.sessions.metadata_offset(broker)).min().unwrap_or(i64::MAX)
    }

    /// The broker's registration, if it is that one.
    pub(super) fn registered_in(&self, broker: BrokerId, broker_epoch: i64) -> Option<&RegisterBroker> {
        self.image.broker(broker).filter(|registered| registered.broker_epoch == broker_epoch)
    }

    /// Fences one life of a broker, unless it is or is over.
    fn fence_life(&mut self, broker: BrokerId, broker_epoch: i64) -> Vec<MetadataRecord> {
        if self.registered_in(broker, broker_epoch).is_none_or(|registered| registered.fenced) {
            return Vec::new();
        }
        let mut records = self.withdraw(broker, None);
        let fenced = Some(true);
        records.push(self.change_registration(BrokerRegistrationChange { fenced, ..of(broker, broker_epoch) }));
        records
    }

    fn unfence(&mut self, registered: &RegisterBroker) -> Vec<MetadataRecord> {
        let life = of(BrokerId(registered.broker_id), registered.broker_epoch);
        let mut records = vec![self.change_registration(BrokerRegistrationChange { fenced: Some(false), ..life })];
        records.extend(self.review_leaders());
        records
    }

    /// Others lead what the broker leads, where there are others.
    fn hand_over(&mut self, registered: &RegisterBroker) -> Vec<MetadataRecord> {
        let broker = BrokerId(registered.broker_id);
        let mut records = Vec::new();
        if !registered.in_controlled_shutdown {
            let in_controlled_shutdown = Some(true);
            let life = of(broker, registered.broker_epoch);
            records.push(self.change_registration(BrokerRegistrationChange { in_controlled_shutdown, ..life }));
        }
        records.extend(self.withdraw(broker, None));
        records
    }

    fn change_registration(&mut self, change: BrokerRegistrationChange) -> MetadataRecord {
        let record = MetadataRecord::BrokerRegistrationChange(change);
        self.apply(std::slice::from_ref(&record));
        record
    }
}

/// A change of nothing.
fn of(broker: BrokerId, broker_epoch: i64) -> BrokerRegistrationChange {
    BrokerRegistrationChange { broker_id: broker.0, broker_epoch, ..BrokerRegistrationChange::default() }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        IncrementalAlterConfigsRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    };

    use super::*;
    use crate::{controller::rig::Rig, protocol::metadata_records::TOPIC_RESOURCE};

    /// (is_caught_up, is_fenced, should_shut_down)
    fn told(answer: &BrokerHeartbeatResponse) -> (bool, bool, bool) {
        assert_eq!(answer.error_code, 0);
        (answer.is_caught_up, answer.is_fenced, answer.should_shut_down)
    }

    fn stop(rig: &mut Rig, broker: i32) -> (bool, bool, bool) {
        let offset = rig.offset - 1;
        told(&rig.heartbeat(broker, |it| it.with_current_metadata_offset(offset).with_want_shut_down(true)))
    }

    #[test]
    fn a_broker_is_unfenced_once_its_image_has_its_registration() {
        let mut rig = Rig::of(&[1]);
        let request = rig.registration(2, 1002);
        let epoch = rig.register(&request).broker_epoch;
        assert!(rig.controller.image().broker(BrokerId(2)).expect("registered").fenced);
        assert_eq!(told(&rig.beat(2, epoch - 1)), (false, true, false));
        let wanted = rig.heartbeat(2, |it| it.with_current_metadata_offset(epoch).with_want_fence(true));
        assert_eq!(told(&wanted), (true, true, false));
        assert_eq!(told(&rig.beat(2, epoch)), (true, false, false));
        // And again, on its own wish.
        let wanted = rig.heartbeat(2, |it| it.with_current_metadata_offset(epoch).with_want_fence(true));
        assert_eq!(told(&wanted), (true, true, false));
    }

    #[test]
    fn heartbeats_of_another_life_and_of_strangers_are_refused() {
        let mut rig = Rig::of(&[1, 2]);
        for (broker, epoch) in [(2, rig.epochs[&1]), (2, -1), (3, rig.epochs[&2]), (-7, 0)] {
            let answer = rig.heartbeat(broker, |it| it.with_broker_epoch(epoch));
            assert_eq!(answer.error_code, ErrorCode::StaleBrokerEpoch.code(), "{broker} in {epoch}");
        }
    }

    #[test]
    fn who_is_not_heard_of_is_fenced_and_others_lead() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2, 3], &[2, 3, 1], &[1]], &[("min.insync.replicas", "2")]);
        rig.pass(3_000, &[2, 3]);
        assert_eq!(rig.show(0), "1 e0 isr=1,2,3");
        rig.pass(200, &[2, 3]);
        assert_eq!([0, 1, 2].map(|index| rig.show(index)), ["2 e1 isr=2,3", "2 e0 isr=2,3", "none e1 isr= elr=1"]);
        assert!(rig.controller.image().broker(BrokerId(1)).expect("registered").fenced);
        // It was only slow: it leads alone what nobody else can, and has to catch up with the rest.
        rig.pass(500, &[1, 2, 3]);
        assert_eq!([0, 1, 2].map(|index| rig.show(index)), ["2 e1 isr=2,3", "2 e0 isr=2,3", "1 e2 isr=1"]);
    }

    #[test]
    fn a_new_controller_listens_for_a_session_before_it_fences() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[2, 1]], &[]);
        rig.pass(2_000, &[1]);
        rig.controller = Controller::new(rig.controller.config.clone(), rig.controller.image().clone());
        rig.pass(3_000, &[1]);
        assert_eq!(rig.show(0), "2 e0 isr=2,1");
        rig.pass(200, &[1]);
        assert_eq!(rig.show(0), "1 e1 isr=1");
    }

    #[test]
    fn only_the_life_that_is_known_to_be_dead_is_fenced_for_it() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[2, 1]], &[]);
        let dead = rig.epochs[&2];
        rig.kill(2);
        assert_eq!(rig.show(0), "1 e1 isr=1");
        // Its next life registers at once, and late news of the last one's end mean nothing.
        rig.start(2);
        rig.epochs.insert(2, dead);
        rig.kill(2);
        assert!(!rig.controller.image().broker(BrokerId(2)).expect("registered").fenced);
        assert_eq!(rig.decide(|controller| (controller.fence_dead(BrokerId(9), 0), ())), ());
    }

    #[test]
    fn a_broker_that_wants_to_stop_hands_over_first() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2, 3], &[2, 1, 3]], &[]);
        assert_eq!(stop(&mut rig, 1), (true, false, false));
        assert_eq!([0, 1].map(|index| rig.show(index)), ["2 e1 isr=2,3", "2 e0 isr=2,3"]);
        // The others have to hear of it before it goes, so that they find the new leaders.
        rig.beat(2, rig.offset - 1);
        assert_eq!(stop(&mut rig, 1), (true, false, false));
        rig.beat(3, rig.offset - 1);
        assert_eq!(stop(&mut rig, 1), (true, true, true));
        assert!(rig.controller.image().broker(BrokerId(1)).expect("registered").fenced);
        // Nobody unfences a life that is over.
        assert_eq!(told(&rig.beat(1, rig.offset)), (true, true, false));
        assert_eq!(stop(&mut rig, 1), (true, true, true));
        rig.start(1);
    }

    #[test]
    fn a_broker_that_leads_nothing_may_stop_at_once_and_a_fenced_one_too() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[2, 1]], &[]);
        assert_eq!(stop(&mut rig, 1), (true, true, true));
        assert_eq!(rig.show(0), "2 e0 isr=2");
        let request = rig.registration(3, 1003);
        rig.register(&request);
        assert_eq!(stop(&mut rig, 3), (true, true, true));
    }

    #[test]
    fn the_last_one_to_stop_leads_again_when_it_comes_back() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[("min.insync.replicas", "2")]);
        rig.kill(2);
        assert_eq!(rig.show(0), "1 e0 isr=1 elr=2");
        assert_eq!(stop(&mut rig, 1), (true, false, false));
        assert_eq!(rig.show(0), "none e1 isr= elr=2,1");
        assert_eq!(stop(&mut rig, 1), (true, true, true));
        // Nothing was committed without 2, so that it may lead just as well.
        rig.start(2);
        assert_eq!(rig.show(0), "2 e2 isr=2 elr=1");
        rig.start(1);
        assert_eq!(rig.show(0), "2 e2 isr=2 elr=1");
    }

    fn set_min(rig: &mut Rig, value: &'static str) {
        let config = AlterableConfig::default()
            .with_name("min.insync.replicas".into())
            .with_config_operation(0)
            .with_value(Some(value.into()));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name("t".into())
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = rig.decide(|controller| controller.incremental_alter_configs(BrokerId(1), &request));
        assert_eq!(answer.responses[0].error_code, 0);
    }

    #[test]
    fn who_was_eligible_is_not_once_less_is_enough_to_commit() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2, 3]], &[("min.insync.replicas", "3")]);
        rig.kill(2);
        rig.kill(3);
        assert_eq!(rig.show(0), "1 e0 isr=1 elr=2,3");
        set_min(&mut rig, "2");
        assert_eq!(rig.show(0), "1 e0 isr=1 elr=2,3");
        // From here on 1 commits alone.
        set_min(&mut rig, "1");
        assert_eq!(rig.show(0), "1 e0 isr=1");
        set_min(&mut rig, "3");
        assert_eq!(rig.show(0), "1 e0 isr=1");
        rig.start(2);
        rig.kill(1);
        assert_eq!(rig.show(0), "none e1 isr= elr=1");
    }

    #[test]
    fn unclean_elections_are_for_topics_that_want_them() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[]);
        rig.kill(2);
        rig.kill(1);
        rig.start(2);
        assert_eq!(rig.show(0), "none e1 isr= elr=1");
        rig.pass(10_000, &[2]);
        assert_eq!(rig.show(0), "none e1 isr= elr=1");
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2]], &[("unclean.leader.election.enable", "true")]);
        rig.kill(2);
        rig.kill(1);
        rig.start(2);
        assert_eq!(rig.show(0), "2 e2 isr=2 recovering");
    }
}
