//! Brokers that come and go for good: BrokerRegistration (62), UnregisterBroker (64).
//!
//! Differs from Kafka: a broker that comes back with another data directory has lost what it had acknowledged, and only such a
//! one is no eligible leader any more; a broker that runs is not taken out.

use std::collections::BTreeSet;

use kafka_protocol::{
    messages::{
        BrokerRegistrationRequest, BrokerRegistrationResponse, UnregisterBrokerResponse,
        broker_registration_request::Listener,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    ApiError, Controller, repeated,
    start::{METADATA_VERSION, METADATA_VERSION_FEATURE},
};
use crate::{
    base::{BrokerId, ErrorCode},
    protocol::metadata_records::{BrokerEndpoint, BrokerFeature, MetadataRecord, RegisterBroker},
};

/// Most listeners, features or directories that a broker may name.
const LISTED_MAX: usize = 100;

/// Most bytes of all names, hosts and the rack of a broker: they become one record.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Ids below are Kafka's marks for directories that are none.
const RESERVED_DIRECTORIES: u128 = 100;

impl Controller {
    /// BrokerRegistration, versions 0–4: a broker starts, or repeats what it has said. It is fenced until it has caught up.
    pub fn register(
        &mut self,
        request: &BrokerRegistrationRequest,
    ) -> (Vec<MetadataRecord>, BrokerRegistrationResponse) {
        let answer = BrokerRegistrationResponse::default();
        match self.registered(request) {
            Ok((records, broker_epoch)) => (records, answer.with_broker_epoch(broker_epoch)),
            Err(error) => (Vec::new(), answer.with_error_code(error.code()).with_broker_epoch(-1)),
        }
    }

    fn registered(&mut self, request: &BrokerRegistrationRequest) -> Result<(Vec<MetadataRecord>, i64), ErrorCode> {
        let broker = BrokerId(request.broker_id.0);
        let existing = self.image.broker(broker).cloned();
        let again = existing.as_ref().filter(|existing| existing.incarnation_id == request.incarnation_id);
        if let Some(existing) = &existing
            && again.is_none()
            && self.sessions.is_valid(broker, existing.broker_epoch)
        {
            return Err(ErrorCode::DuplicateBrokerRegistration);
        }
        self.check_registration(broker, request)?;
        let mut registration = registration(request);
        self.check_features(&registration.features)?;
        match again {
            Some(existing) => {
                registration.broker_epoch = existing.broker_epoch;
                registration.fenced = existing.fenced;
                registration.in_controlled_shutdown = existing.in_controlled_shutdown;
            }
            None => {
                registration.broker_epoch = self.next_offset;
                registration.fenced = true;
            }
        }
        let broker_epoch = registration.broker_epoch;
        let mut records = Vec::new();
        if again != Some(&registration) {
            records.extend(self.first_features());
            self.apply(&records);
            if let Some(existing) = existing.as_ref().filter(|_| again.is_none()) {
                records.extend(self.withdraw_last_life(existing, &registration.log_dirs));
            }
            let registered = [MetadataRecord::RegisterBroker(registration)];
            self.apply(&registered);
            records.extend(registered);
        }
        self.sessions.hear(broker, broker_epoch, -1);
        Ok((records, broker_epoch))
    }

    /// UnregisterBroker: takes out a broker that does not run.
    pub fn unregister(&mut self, broker: BrokerId) -> (Vec<MetadataRecord>, UnregisterBrokerResponse) {
        let refuse = |refusal: ApiError| {
            let answer = UnregisterBrokerResponse::default().with_error_code(refusal.code.code());
            (Vec::new(), answer.with_error_message(refusal.message()))
        };
        let Some(registered) = self.image.broker(broker) else {
            let message = format!("Broker ID {broker} is not currently registered");
            return refuse(ApiError::new(ErrorCode::BrokerIdNotRegistered, message));
        };
        if !registered.fenced {
            let message = format!("Broker {broker} runs: stop it before it is taken out of the cluster.");
            return refuse(ApiError::new(ErrorCode::InvalidRequest, message));
        }
        let gone = [MetadataRecord::UnregisterBroker { broker_id: broker.0, broker_epoch: registered.broker_epoch }];
        // Whoever comes under this id next is another one, and has nothing.
        let mut records = self.withdraw(broker, Some(Uuid::nil()));
        self.apply(&gone);
        records.extend(gone);
        self.sessions.end(broker);
        (records, UnregisterBrokerResponse::default().with_error_message(None))
    }

    /// What a new cluster begins with.
    pub(super) fn first_features(&self) -> Vec<MetadataRecord> {
        let missing = self.image.feature(METADATA_VERSION_FEATURE) == 0;
        let name = METADATA_VERSION_FEATURE.to_owned();
        missing.then(|| MetadataRecord::FeatureLevel { name, level: METADATA_VERSION }).into_iter().collect()
    }

    fn check_registration(&self, broker: BrokerId, request: &BrokerRegistrationRequest) -> Result<(), ErrorCode> {
        let too_many = request.listeners.len().max(request.features.len()).max(request.log_dirs.len()) > LISTED_MAX;
        let listener = |listener: &Listener| listener.name.len() + listener.host.len();
        let text_bytes = request.listeners.iter().map(listener).sum::<usize>()
            + request.features.iter().map(|feature| feature.name.len()).sum::<usize>()
            + request.rack.as_ref().map_or(0, |rack| rack.len());
        let listeners = repeated(request.listeners.iter().map(|listener| listener.name.as_str()));
        let directories = repeated(request.log_dirs.iter().copied());
        let reserved = request.log_dirs.iter().any(|directory| directory.as_u128() < RESERVED_DIRECTORIES);
        let taken = |directory: &Uuid| {
            let mut others = self.image.brokers().filter(|other| other.broker_id != broker.0);
            others.any(|other| other.log_dirs.contains(directory))
        };
        if broker.0 < 0
            || too_many
            || text_bytes > TEXT_BYTES_MAX
            || request.listeners.is_empty()
            || request.log_dirs.is_empty()
            || !listeners.is_empty()
            || !directories.is_empty()
            || reserved
            || request.log_dirs.iter().any(taken)
        {
            return Err(ErrorCode::InvalidRegistration);
        }
        if request.is_migrating_zk_broker {
            return Err(ErrorCode::BrokerIdNotRegistered);
        }
        Ok(())
    }

    /// Every feature that is finalized, or is about to be, must lie in what the broker knows; what it does not name it knows
    /// as level 0 alone.
    fn check_features(&self, known: &[BrokerFeature]) -> Result<(), ErrorCode> {
        let mut finalized: Vec<(&str, i16)> = self.image.features().collect();
        if self.image.feature(METADATA_VERSION_FEATURE) == 0 {
            finalized.push((METADATA_VERSION_FEATURE, METADATA_VERSION));
        }
        let knows = |(name, level): &(&str, i16)| {
            let mut ranges = known.iter().filter(|range| range.name == *name);
            ranges.any(|range| (range.min..=range.max).contains(level))
        };
        if finalized.iter().all(knows) { Ok(()) } else { Err(ErrorCode::UnsupportedVersion) }
    }

    /// A broker's next life begins: the last one is in sync with nothing any more.
    fn withdraw_last_life(&mut self, last: &RegisterBroker, directories: &[Uuid]) -> Vec<MetadataRecord> {
        let before: BTreeSet<&Uuid> = last.log_dirs.iter().collect();
        let lost = !before.is_empty() && !directories.iter().any(|directory| before.contains(directory));
        self.withdraw(BrokerId(last.broker_id), directories.first().copied().filter(|_| lost))
    }
}

/// What the broker says of itself; its epoch and state are the controller's to say.
fn registration(request: &BrokerRegistrationRequest) -> RegisterBroker {
    let end_points = request.listeners.iter().map(|listener| BrokerEndpoint {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = request.features.iter().map(|feature| BrokerFeature {
        name: feature.name.to_string(),
        min: feature.min_supported_version,
        max: feature.max_supported_version,
    });
    RegisterBroker {
        broker_id: request.broker_id.0,
        incarnation_id: request.incarnation_id,
        broker_epoch: -1,
        end_points: end_points.collect(),
        features: features.collect(),
        rack: request.rack.as_ref().map(StrBytes::to_string),
        fenced: true,
        in_controlled_shutdown: false,
        log_dirs: request.log_dirs.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::rig::Rig;

    fn code(rig: &mut Rig, request: &BrokerRegistrationRequest) -> i16 {
        rig.register(request).error_code
    }

    #[test]
    fn the_first_registration_begins_the_cluster() {
        let mut rig = Rig::new();
        let request = rig.registration(1, 1001).with_rack(Some("r".into()));
        assert_eq!(rig.register(&request).broker_epoch, 0);
        let image = rig.controller.image();
        assert_eq!(image.features().collect::<Vec<_>>(), [("metadata.version", 30)]);
        let broker = image.broker(BrokerId(1)).expect("registered");
        assert_eq!((broker.fenced, broker.rack.as_deref(), broker.end_points.len()), (true, Some("r"), 1));
    }

    #[test]
    fn two_brokers_of_one_id_are_refused_while_the_first_is_heard_of() {
        let mut rig = Rig::of(&[1, 2]);
        let mut second = rig.registration(2, 1002);
        assert_eq!(code(&mut rig, &second), ErrorCode::DuplicateBrokerRegistration.code());
        rig.pass(2_000, &[1]);
        assert_eq!(code(&mut rig, &second), ErrorCode::DuplicateBrokerRegistration.code());
        rig.pass(2_000, &[1]);
        let answer = rig.register(&second);
        assert_eq!(answer.error_code, 0);
        // Asked again, for want of an answer, it gets the same one, and nothing is written.
        let offset = rig.offset;
        assert_eq!((rig.register(&second), rig.offset), (answer.clone(), offset));
        // With something new it is written down, and still the same life.
        rig.beat(2, i64::MAX);
        second.rack = Some("elsewhere".into());
        assert_eq!(rig.register(&second), answer);
        let broker = rig.controller.image().broker(BrokerId(2)).expect("registered");
        assert_eq!((broker.fenced, broker.rack.as_deref()), (false, Some("elsewhere")));
    }

    #[test]
    fn a_new_life_is_in_sync_with_nothing_and_leads_nothing() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[2, 1, 3], &[1, 2, 3], &[2]], &[]);
        let request = rig.registration(2, 1002);
        rig.controller.sessions.end(BrokerId(2));
        assert_eq!(code(&mut rig, &request), 0);
        let shown = [0, 1, 2].map(|index| rig.show(index));
        assert_eq!(shown, ["1 e1 isr=1,3", "1 e0 isr=1,3", "none e1 isr= elr=2"]);
        rig.beat(2, i64::MAX);
        assert_eq!(rig.show(2), "2 e2 isr=2");
    }

    #[test]
    fn a_broker_that_has_lost_its_disk_leads_nothing_that_it_alone_had() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[2, 1], &[2], &[1, 2]], &[("min.insync.replicas", "2")]);
        rig.kill(1);
        rig.kill(2);
        assert_eq!([0, 1].map(|index| rig.show(index)), ["none e1 isr= elr=1,2", "none e1 isr= elr=2"]);
        let wiped = rig.registration(2, 7777);
        assert_eq!(code(&mut rig, &wiped), 0);
        rig.beat(2, i64::MAX);
        let shown = [0, 1, 2].map(|index| rig.show(index));
        assert_eq!(shown, ["none e1 isr= elr=1 last=2", "none e1 isr= last=2", "none e2 isr= elr=1 last=2"]);
        assert_eq!(rig.partition(0).directories[0], Uuid::from_u128(7777));
        rig.start(1);
        let shown = [0, 1, 2].map(|index| rig.show(index));
        assert_eq!(shown, ["1 e2 isr=1 last=2", "none e1 isr= last=2", "1 e3 isr=1 last=2"]);
    }

    #[test]
    fn what_cannot_be_registered() {
        let mut rig = Rig::of(&[1]);
        let good = rig.registration(2, 1002);
        let mut refused = |shape: fn(&mut BrokerRegistrationRequest), error: ErrorCode| {
            let mut request = good.clone();
            shape(&mut request);
            let before = rig.controller.image().clone();
            let answer = rig.register(&request);
            assert_eq!((answer.error_code, answer.broker_epoch), (error.code(), -1), "{request:?}");
            assert_eq!(rig.controller.image(), &before);
        };
        let invalid = ErrorCode::InvalidRegistration;
        refused(|it| it.broker_id = (-1).into(), invalid);
        refused(|it| it.listeners.clear(), invalid);
        refused(|it| it.listeners = vec![Listener::default(); 2], invalid);
        refused(|it| it.listeners = vec![it.listeners[0].clone(); 101], invalid);
        refused(|it| it.rack = Some("r".repeat(64 << 10).into()), invalid);
        refused(|it| it.log_dirs.clear(), invalid);
        refused(|it| it.log_dirs = vec![it.log_dirs[0]; 2], invalid);
        refused(|it| it.log_dirs = vec![Uuid::nil()], invalid);
        // Somebody has copied broker 1's directory.
        refused(|it| it.log_dirs = vec![Uuid::from_u128(1001)], invalid);
        refused(|it| it.is_migrating_zk_broker = true, ErrorCode::BrokerIdNotRegistered);
        refused(|it| it.features.clear(), ErrorCode::UnsupportedVersion);
        refused(|it| it.features[0].max_supported_version = 29, ErrorCode::UnsupportedVersion);
        refused(|it| it.features[0].min_supported_version = 31, ErrorCode::UnsupportedVersion);
    }

    #[test]
    fn a_broker_is_taken_out_once_it_does_not_run() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[2, 1], &[2]], &[]);
        let unregister = |rig: &mut Rig, id| rig.decide(|controller| controller.unregister(BrokerId(id))).error_code;
        assert_eq!(unregister(&mut rig, 3), ErrorCode::BrokerIdNotRegistered.code());
        assert_eq!(unregister(&mut rig, 2), ErrorCode::InvalidRequest.code());
        rig.kill(2);
        assert_eq!(unregister(&mut rig, 2), 0);
        assert!(rig.controller.image().broker(BrokerId(2)).is_none());
        assert_eq!([0, 1].map(|index| rig.show(index)), ["1 e1 isr=1", "none e1 isr= last=2"]);
        rig.start(2);
        assert_eq!(rig.show(1), "none e1 isr= last=2");
    }
}
