//! Who asks, and what it takes: where every handler asks whether it may be answered.

use std::{rc::Rc, time::Duration};

use crate::{
    api::{
        Session,
        metering::Metering,
        policy::{CLUSTER, Operation, Policy, Quota, Resource},
    },
    base::ErrorCode,
};

/// A topic, among the resources of DescribeConfigs and IncrementalAlterConfigs.
pub(super) const TOPIC_CONFIGS: i8 = 2;

/// A client in one of its requests.
pub(super) struct Asker {
    /// The client.
    pub session: Rc<Session>,
    /// What the request does with what it names.
    pub operation: Operation,
    /// What the request is counted as.
    pub quota: Quota,
    /// What clients may do.
    pub policy: Policy,
    /// What the request uses; none while no quota is set.
    pub metering: Option<Rc<Metering>>,
}

impl Asker {
    /// The same client, in what else the request does: some do one thing with a group and another with its topics.
    pub fn to(&self, operation: Operation) -> Self {
        Self { session: self.session.clone(), operation, quota: self.quota, policy: self.policy, metering: None }
    }

    /// Whether it may do with a resource what the request does.
    pub fn may(&self, resource: Resource, name: &str) -> bool {
        self.may_do(self.operation, resource, name)
    }

    /// Whether it may do something with a resource. Every question whether something is allowed is this one.
    pub fn may_do(&self, operation: Operation, resource: Resource, name: &str) -> bool {
        (self.policy.may)(&self.session, operation, resource, name)
    }

    /// Refuses whoever may not do with a topic what the request does.
    /// # Errors  `TopicAuthorizationFailed`.
    pub fn topic(&self, name: &str) -> Result<(), ErrorCode> {
        if self.may(Resource::Topic, name) { Ok(()) } else { Err(ErrorCode::TopicAuthorizationFailed) }
    }

    /// Refuses whoever may not do with a group what the request does.
    /// # Errors  `GroupAuthorizationFailed`.
    pub fn group(&self, id: &str) -> Result<(), ErrorCode> {
        if self.may(Resource::Group, id) { Ok(()) } else { Err(ErrorCode::GroupAuthorizationFailed) }
    }

    /// Refuses whoever may not do with the cluster what the request does.
    /// # Errors  `ClusterAuthorizationFailed`.
    pub fn cluster(&self) -> Result<(), ErrorCode> {
        if self.may(Resource::Cluster, CLUSTER) { Ok(()) } else { Err(ErrorCode::ClusterAuthorizationFailed) }
    }

    /// Refuses whoever may not do with the settings of a resource what the request does. The types are those of DescribeConfigs; all
    /// settings but a topic's are the cluster's.
    /// # Errors  `TopicAuthorizationFailed` or `ClusterAuthorizationFailed`.
    pub fn configs_of(&self, resource_type: i8, name: &str) -> Result<(), ErrorCode> {
        if resource_type == TOPIC_CONFIGS { self.topic(name) } else { self.cluster() }
    }

    /// For how long the client is not read from after this request. Asked once a request, when it is answered.
    pub fn throttle(&self) -> Duration {
        let told = (self.policy.throttle)(&self.session, self.quota);
        self.metering.as_ref().map_or(told, |metering| told.max(metering.throttle(self.quota)))
    }

    /// A client that may do everything.
    #[cfg(test)]
    pub fn anybody() -> Self {
        let session = Session::new(std::net::IpAddr::from([127, 0, 0, 1]), 0, Default::default());
        Self {
            session: Rc::new(session),
            operation: Operation::Describe,
            quota: Quota::Request,
            policy: Policy::OPEN,
            metering: None,
        }
    }
}
