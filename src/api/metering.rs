//! What a request of a client under a quota uses (KIP-13, 124), and for how long the client waits for it (KIP-219).
//!
//! There is none of this as long as no quota is set. Time is that of the core that serves the connection, while it works on the request;
//! what other cores do for it is not counted.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use kafka_protocol::protocol::StrBytes;

use crate::{
    api::{Context, Session, policy::Quota},
    io::{Clock, Instant},
    metadata::quotas::Counted,
    metrics::Windows,
    shard::{Router, Used},
};

/// Kafka's keys of what is held to.
const PRODUCED: &str = "producer_byte_rate";
const FETCHED: &str = "consumer_byte_rate";
const TIME: &str = "request_percentage";

/// One request of a client while some quota is set.
pub(super) struct Metering {
    router: Router,
    clock: Clock,
    user: StrBytes,
    client_id: StrBytes,
    request_bytes: usize,
    fetched_bytes: Cell<usize>,
    worked: Cell<Duration>,
    working_since: Cell<Option<Instant>>,
}

impl Metering {
    /// None if no quota is set.
    pub fn of(
        context: &Context,
        session: &Session,
        client_id: Option<&StrBytes>,
        request_bytes: usize,
    ) -> Option<Rc<Self>> {
        if context.router.image().quotas().is_empty() {
            return None;
        }
        Some(Rc::new(Self {
            router: context.router.clone(),
            clock: context.io.clock.clone(),
            user: session.user(),
            client_id: client_id.cloned().unwrap_or_default(),
            request_bytes,
            fetched_bytes: Cell::new(0),
            worked: Cell::new(Duration::ZERO),
            working_since: Cell::new(None),
        }))
    }

    /// So many bytes of records are about to be answered.
    pub fn fetched(&self, bytes: usize) {
        self.fetched_bytes.set(bytes);
    }

    /// The most that one fetch may have: as in Kafka what is allowed in all full windows, so that one request cannot use more than
    /// they could make up for.
    pub fn fetch_bytes_max(&self) -> Option<usize> {
        let (bound, _) = self.quota(FETCHED)?;
        let bytes = bound * self.windows().full().as_secs_f64();
        // What is no number bounds nothing.
        (bytes < i32::MAX as f64).then_some(bytes as usize)
    }

    /// Counts what was used until now; for how long the client is not read from. Asked once a request, when it is answered.
    pub fn throttle(&self, quota: Quota) -> Duration {
        let bytes = match quota {
            Quota::Produce => self.held_to(PRODUCED, Used::Produced, self.request_bytes as f64),
            Quota::Fetch => self.held_to(FETCHED, Used::Fetched, self.fetched_bytes.get() as f64),
            Quota::Mutation | Quota::Request => Duration::ZERO,
        };
        let time = self.held_to(TIME, Used::Time, self.time().as_secs_f64() * 100.0);
        // As in Kafka, nobody waits longer for time than a window is long.
        bytes.max(time.min(self.windows().length))
    }

    fn held_to(&self, key: &str, used: Used, amount: f64) -> Duration {
        let Some((bound, Counted { by_user, by_client_id })) = self.quota(key) else { return Duration::ZERO };
        let who = (used, by_user.then_some(self.user.as_str()), by_client_id.then_some(self.client_id.as_str()));
        let now = self.clock.now().since(Instant(0));
        self.router.quota_use().used(who, amount, bound, self.windows(), now)
    }

    fn quota(&self, key: &str) -> Option<(f64, Counted)> {
        self.router.image().quotas().of_client(&self.user, &self.client_id, key)
    }

    fn windows(&self) -> Windows {
        self.router.config().requests.quota_windows
    }

    /// For how long the core has worked on the request.
    fn time(&self) -> Duration {
        let working = self.working_since.get().map(|since| self.clock.now().since(since));
        self.worked.get() + working.unwrap_or_default()
    }

    /// The same work, with its time counted.
    pub async fn timed<T>(self: Rc<Self>, mut work: Pin<Box<dyn Future<Output = T>>>) -> T {
        poll_fn(move |context| {
            self.working_since.set(Some(self.clock.now()));
            let polled = work.as_mut().poll(context);
            self.worked.set(self.time());
            self.working_since.set(None);
            polled
        })
        .await
    }
}
