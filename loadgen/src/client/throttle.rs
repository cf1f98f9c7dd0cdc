//! The silence that a broker's quotas ask for in every reply (`throttle_time_ms`), and from which version on it is the client
//! that has to keep it (KIP-219). Before, the broker has already kept the reply back for as long.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
        FetchRequest, FindCoordinatorRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
        LeaveGroupRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
        ProduceRequest, SyncGroupRequest,
    },
    protocol::Request,
};

/// A request whose reply may ask for silence.
pub trait Throttled: Request {
    /// From this version on the waiting is the client's.
    const CLIENT_WAITS_FROM: i16;

    fn throttle_time_ms(response: &Self::Response) -> i32;

    /// How long nothing may be sent on the connection on which this reply came.
    fn silence(version: i16, response: &Self::Response) -> Duration {
        let asked = u64::try_from(Self::throttle_time_ms(response)).unwrap_or(0);
        Duration::from_millis(if version >= Self::CLIENT_WAITS_FROM { asked } else { 0 })
    }
}

macro_rules! throttled {
    ($($request:ty: $from:literal),* $(,)?) => {$(
        impl Throttled for $request {
            const CLIENT_WAITS_FROM: i16 = $from;

            fn throttle_time_ms(response: &Self::Response) -> i32 {
                response.throttle_time_ms
            }
        }
    )*};
}

throttled! {
    ProduceRequest: 6,
    FetchRequest: 8,
    ListOffsetsRequest: 3,
    MetadataRequest: 6,
    OffsetCommitRequest: 4,
    OffsetFetchRequest: 4,
    FindCoordinatorRequest: 2,
    JoinGroupRequest: 3,
    HeartbeatRequest: 2,
    LeaveGroupRequest: 2,
    SyncGroupRequest: 2,
    ApiVersionsRequest: 2,
    CreateTopicsRequest: 3,
    DeleteTopicsRequest: 2,
    InitProducerIdRequest: 1,
    DescribeConfigsRequest: 2,
    DescribeClusterRequest: 0,
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{MetadataResponse, ProduceResponse};

    use super::*;

    #[test]
    fn the_waiting_is_the_clients_from_a_version_on() {
        let asked = |ms| MetadataResponse::default().with_throttle_time_ms(ms);
        let cases = [(5, 300, 0), (6, 300, 300), (13, 300, 300), (13, 0, 0), (13, -7, 0)];
        for (version, ms, expected) in cases {
            let silence = MetadataRequest::silence(version, &asked(ms));
            assert_eq!(silence, Duration::from_millis(expected), "version {version}, {ms} ms");
        }
        let produced = ProduceResponse::default().with_throttle_time_ms(9);
        assert_eq!(ProduceRequest::silence(5, &produced), Duration::ZERO);
        assert_eq!(ProduceRequest::silence(6, &produced), Duration::from_millis(9));
    }
}
