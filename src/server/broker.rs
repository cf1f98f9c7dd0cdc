//! The broker behind the sockets: what each core recovers, serves and stops.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tracing::{error, info};
use uuid::Uuid;

use super::{
    BrokerIdentity,
    executors::{CoreContext, Shard},
    gate::Gate,
};
use crate::{
    api::{self, ListenerKind},
    base::{BrokerId, TopicId},
    coordinator::MachineMemory,
    io::{Either, either},
    log::{self, LogSettings, StopReport},
    net,
    protocol::metadata_records::BrokerEndpoint,
    shard::{self, Broker, Cluster, CoreSeed, Registration, RewriteMemory, Started},
};

/// Of the broker's memory, sixteenths: records that wait for their segment, and groups. The rest is for requests, replies and
/// connections.
const DIRTY_SIXTEENTHS: u64 = 2;
pub(super) const GROUPS_SIXTEENTHS: u64 = 1;
/// Of the broker's memory, thirty-seconds: records altogether, and batches made anew that are on their way to become some.
const RECORDS_32NDS: u64 = 9;
pub(super) const REWRITES_32NDS: u64 = 1;
/// Open segment files that a core has at least.
const OPEN_FILES_MIN: usize = 16;

/// One value for all cores.
#[derive(Clone)]
pub struct KafkaBroker {
    /// What recovery left for each core to take.
    seeds: Arc<Mutex<Vec<Option<CoreSeed>>>>,
    recovered: Gate,
}

/// One core that serves.
#[derive(Clone)]
pub struct KafkaService {
    context: Rc<api::Context>,
    started: Rc<Started>,
}

impl KafkaBroker {
    /// A broker of so many cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self { seeds: Arc::default(), recovered: Gate::new(cores) }
    }

    /// The first core recovers for all of them.
    async fn recover(&self, context: &CoreContext) -> Result<(), String> {
        if context.core > 0 {
            return Ok(());
        }
        let CoreContext { io, identity, cores, .. } = context;
        let (settings, broker) = (log_settings(context), broker(identity));
        let directory = &identity.data_dir;
        let recovered = shard::recover(io, &broker, &identity.config, directory, &settings, *cores).await;
        let (seeds, report) = recovered.map_err(|error| error.to_string())?;
        // Also after a life that had to give it up.
        log::put_ballast(io, directory, settings.ballast_bytes).await;
        if !report.fresh {
            info!(
                clean = report.clean,
                partitions = report.partitions,
                blocks = report.blocks,
                batches = report.batches,
                dropped = report.dropped,
                strays = report.strays,
                "recovered"
            );
        }
        *lock(&self.seeds) = seeds.into_iter().map(Some).collect();
        Ok(())
    }
}

impl Shard for KafkaBroker {
    type Service = KafkaService;
    type Stopped = StopReport;

    async fn start(&self, context: &CoreContext) -> Result<KafkaService, String> {
        let recovered = self.recover(context).await;
        self.recovered.pass(recovered).await?;
        let seed = lock(&self.seeds).get_mut(context.core).and_then(Option::take);
        let seed = seed.ok_or("recovery left nothing for this core")?;
        let io = context.io.clone();
        let started = shard::start(io.clone(), seed, Rc::new(die)).await.map_err(|error| error.to_string())?;
        started.router.keep_to(&context.replies);
        started.router.tell_bounds(context.bounds);
        let advertised = context.identity.advertised.iter().map(|told| api::AdvertisedListener {
            name: told.listener.clone(),
            host: told.host.clone().into(),
            port: told.port,
        });
        let context = api::Context::new(started.router.clone(), io, advertised.collect(), context.cores);
        Ok(KafkaService { context, started: Rc::new(started) })
    }

    async fn announce(&self, context: &CoreContext, service: &KafkaService) -> Result<(), String> {
        // Does something on the controller's core alone.
        let registered = service.started.register(registration(&context.identity));
        if !context.identity.config.cluster.of_several() {
            return registered.await.map_err(|error| error.to_string());
        }
        // Others may let it wait for ever.
        match either(registered, context.stop.raised()).await {
            Either::Left(registered) => registered.map_err(|error| error.to_string()),
            Either::Right(()) => Ok(()),
        }
    }

    async fn leave(&self, service: &KafkaService) {
        service.started.leave().await;
    }

    async fn stop(&self, service: KafkaService) -> Result<StopReport, String> {
        service.started.stop().await.map_err(|error| error.to_string())
    }

    fn connection_limits(&self, service: &KafkaService) -> Option<(usize, usize)> {
        let config = service.started.router.config();
        Some((config.network.connections_max as usize, config.network.connections_per_ip_max as usize))
    }

    async fn finish(&self, context: &CoreContext, stopped: Vec<StopReport>) -> Result<(), String> {
        let finished = log::finish_clean_stop(&context.io, &context.identity.data_dir, &stopped).await;
        finished.map_err(|error| error.to_string())
    }
}

impl net::Service for KafkaService {
    type Client = Rc<api::Session>;

    fn client(&self, peer: &net::Peer) -> Rc<api::Session> {
        let (address, identity) = (peer.address.ip(), peer.identity.clone());
        Rc::new(match peer.kind {
            ListenerKind::Clients => api::Session::new(address, peer.listener, identity),
            ListenerKind::Controllers => api::Session::of_controllers(address, identity),
        })
    }

    fn identity(&self, client: &Rc<api::Session>) -> api::Identity {
        client.identity()
    }

    fn pipelines(&self, frame: &[u8]) -> bool {
        api::pipelines(frame)
    }

    fn memory_estimate(&self, frame_start: &[u8], frame_bytes: usize) -> usize {
        api::memory_estimate(frame_start, frame_bytes)
    }

    fn better_core(&self, client: &Rc<api::Session>) -> Option<usize> {
        client.better_core()
    }

    async fn handle(&self, client: &Rc<api::Session>, frame: Bytes) -> net::Pending {
        api::handle(&self.context, client, frame).await
    }
}

/// A journal that cannot be written to means that nothing more can be acknowledged: better dead than wrong.
fn die(why: String) {
    error!(why, "the broker ends: what was acknowledged is safe, nothing more can be");
    std::process::exit(1);
}

fn broker(identity: &BrokerIdentity) -> Broker {
    let group_bytes_max = (identity.memory_bytes / 16 * GROUPS_SIXTEENTHS) as usize;
    Broker {
        id: BrokerId(identity.meta.node_id),
        cluster_id: identity.meta.cluster_id.clone(),
        group_memory: MachineMemory::new(group_bytes_max),
        rewrite_memory: RewriteMemory::new((identity.memory_bytes / 32 * REWRITES_32NDS) as usize),
        quota_use: Arc::default(),
        cluster: identity
            .config
            .cluster
            .of_several()
            .then(|| Arc::new(Cluster::new(identity.config.cluster.voters.clone()))),
    }
}

fn registration(identity: &BrokerIdentity) -> Registration {
    let end_points = identity.advertised.iter().map(|told| BrokerEndpoint {
        name: told.listener.clone(),
        host: told.host.clone(),
        port: told.port,
        security_protocol: 0,
    });
    let directory = identity.meta.directory_id.parse().map_or(Uuid::nil(), |TopicId(id)| id);
    Registration { end_points: end_points.collect(), directory }
}

fn log_settings(context: &CoreContext) -> LogSettings {
    let identity = &context.identity;
    let of_core = identity.memory_bytes / context.cores as u64;
    LogSettings {
        journal_max_bytes: identity.config.storage.journal_bytes,
        dirty_max_bytes: (of_core / 16 * DIRTY_SIXTEENTHS) as usize,
        cache_max_bytes: (of_core / 32 * RECORDS_32NDS) as usize,
        open_files_max: (identity.segment_files_max as usize / context.cores).max(OPEN_FILES_MIN),
        ..LogSettings::default()
    }
}

/// Nobody panics while holding it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
