//! Who the brokers are, and where clients of a listener reach them. Ourselves we know best: the ports that were bound; the others
//! are told as they registered.

use kafka_protocol::{messages::BrokerId as WireBroker, protocol::StrBytes};

use crate::{
    api::{Context, call::text},
    base::{BrokerId, ErrorCode},
    group,
    metadata::{Image, names::CONSUMER_OFFSETS},
};

/// Where clients of a listener are told to connect to.
#[derive(Clone, Debug)]
pub struct AdvertisedListener {
    /// The listener's name.
    pub name: String,
    /// The advertised host.
    pub host: StrBytes,
    /// The advertised port: the real one where 0 was asked for.
    pub port: u16,
}

/// A broker as clients of one listener see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    /// `node.id`.
    pub id: WireBroker,
    /// The advertised host of the client's listener.
    pub host: StrBytes,
    /// The advertised port of the client's listener.
    pub port: i32,
    /// `broker.rack`.
    pub rack: Option<StrBytes>,
}

/// The brokers that serve, by id, for a client of the given listener.
pub(super) fn all(context: &Context, image: &Image, listener: usize) -> Vec<Broker> {
    serving(image, ourselves(context, listener), &context.advertised[listener].name)
}

/// The broker that clients send changes of the metadata to.
pub(super) fn controller(context: &Context) -> WireBroker {
    WireBroker(context.router.broker_id().0)
}

/// The broker that coordinates a group, for a client of the given listener.
/// # Errors  `CoordinatorNotAvailable` as long as the group's partition of `__consumer_offsets` has no leader that
/// serves.
pub(super) fn coordinator(
    context: &Context,
    image: &Image,
    listener: usize,
    group_id: &str,
) -> Result<Broker, ErrorCode> {
    let leader = coordinator_id(image, group_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let ourselves = ourselves(context, listener);
    if leader == context.router.broker_id() {
        return Ok(ourselves);
    }
    let others = serving(image, ourselves, &context.advertised[listener].name);
    others.into_iter().find(|broker| broker.id.0 == leader.0).ok_or(ErrorCode::CoordinatorNotAvailable)
}

fn ourselves(context: &Context, listener: usize) -> Broker {
    let told = &context.advertised[listener];
    Broker {
        id: WireBroker(context.router.broker_id().0),
        host: told.host.clone(),
        port: i32::from(told.port),
        rack: context.router.config().node.rack.as_deref().map(text),
    }
}

/// We, and the registered others that are not fenced and have such a listener.
fn serving(image: &Image, ourselves: Broker, listener: &str) -> Vec<Broker> {
    let others = image.brokers().filter(|broker| broker.broker_id != ourselves.id.0 && !broker.fenced);
    let mut brokers: Vec<Broker> = others
        .filter_map(|broker| {
            let endpoint = broker.end_points.iter().find(|endpoint| endpoint.name == listener)?;
            Some(Broker {
                id: WireBroker(broker.broker_id),
                host: text(&endpoint.host),
                port: i32::from(endpoint.port),
                rack: broker.rack.as_deref().map(text),
            })
        })
        .collect();
    brokers.push(ourselves);
    brokers.sort_by_key(|broker| broker.id.0);
    brokers
}

fn coordinator_id(image: &Image, group_id: &str) -> Option<BrokerId> {
    let topic = image.topic(CONSUMER_OFFSETS)?;
    let partitions = i32::try_from(topic.partitions.len()).ok().filter(|partitions| *partitions > 0)?;
    topic.partition(group::partition_of(group_id, partitions))?.leader
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::topics,
        protocol::metadata_records::{BrokerEndpoint, MetadataRecord, RegisterBroker},
    };

    /// `id host:port rack` of each broker that clients of a listener are told of, by the one with id 1.
    fn told(image: &Image, listener: &str) -> Vec<String> {
        let ourselves = Broker { id: WireBroker(1), host: text("us"), port: 9092, rack: None };
        let show = |broker: &Broker| {
            format!("{} {}:{} {:?}", broker.id.0, broker.host.as_str(), broker.port, broker.rack.as_deref())
        };
        serving(image, ourselves, listener).iter().map(show).collect()
    }

    fn registered(broker_id: i32, listener: &str, fenced: bool) -> MetadataRecord {
        let endpoint = BrokerEndpoint {
            name: listener.to_owned(),
            host: format!("host-{broker_id}"),
            port: 99,
            security_protocol: 0,
        };
        MetadataRecord::RegisterBroker(RegisterBroker {
            broker_id,
            end_points: vec![endpoint],
            rack: Some("r".to_owned()),
            fenced,
            ..RegisterBroker::default()
        })
    }

    #[test]
    fn others_are_told_by_the_listener_that_the_client_came_through() {
        let mut image = topics::test_image();
        assert_eq!(told(&image, "PLAINTEXT"), ["1 us:9092 None"]);
        for record in [
            registered(3, "PLAINTEXT", false),
            registered(1, "OTHER", true),
            registered(0, "PLAINTEXT", false),
            registered(2, "PLAINTEXT", true),
        ] {
            image.apply(&record).expect("a registration always fits");
        }
        assert_eq!(
            told(&image, "PLAINTEXT"),
            [r#"0 host-0:99 Some("r")"#, "1 us:9092 None", r#"3 host-3:99 Some("r")"#]
        );
        assert_eq!(told(&image, "INTERNAL"), ["1 us:9092 None"]);
    }

    #[test]
    fn a_group_s_coordinator_leads_its_partition() {
        assert_eq!(coordinator_id(&topics::test_image(), "g"), Some(BrokerId(1)));
        assert_eq!(coordinator_id(&Image::default(), "g"), None);
    }
}
