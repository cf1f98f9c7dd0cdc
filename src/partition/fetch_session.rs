//! Fetch sessions (KIP-227): a client names its partitions once, then only what changes, and is told only what changed.
//!
//! One cache a core. A session lives on the core of the connection that made it; a client that comes back on another
//! core is told FETCH_SESSION_ID_NOT_FOUND and begins anew, as after an eviction.

use std::{collections::BTreeMap, rc::Rc};

use super::FetchPartition;
use crate::base::{ErrorCode, Map, TopicId};

/// Most partitions that the sessions of one core remember together. Beyond it there are no new sessions, and one that
/// grows is dropped: both are always legal.
pub const SESSION_PARTITIONS_MAX: usize = 200_000;
/// A session unused for longer may be evicted by any; one younger than this only by a follower's.
const EVICTION_MS: i64 = 120_000;
/// Session epoch that asks for a session.
const EPOCH_INITIAL: i32 = 0;
/// Session epoch that asks for none.
const EPOCH_FINAL: i32 = -1;
/// High watermark that equals none, so that the partition is in the next reply.
const HIGH_WATERMARK_NONE: i64 = -1;

/// A topic as the client calls it: by name up to Fetch 12, by id from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// Its name. Owned: a slice of the request would keep the whole frame.
    Name(Rc<str>),
    /// Its id.
    Id(TopicId),
}

/// A partition as the client calls it.
pub type SessionKey = (TopicRef, i32);

/// The part of a Fetch request that sessions are about.
#[derive(Clone, Debug, Default)]
pub struct SessionRequest {
    /// 0 is none.
    pub session_id: i32,
    /// -1: without a session; 0: a new one; else the next of the session.
    pub session_epoch: i32,
    /// Whether topics are called by id.
    pub by_id: bool,
    /// Whether a follower asks.
    pub follower: bool,
    /// All partitions; in a session those that are new or changed.
    pub partitions: Vec<(SessionKey, FetchPartition)>,
    /// Partitions that the session is to forget.
    pub forgotten: Vec<SessionKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sessionless,
    Full { by_id: bool, follower: bool },
    Incremental { next_epoch: i32 },
}

/// One fetch: what to read. Kept by the handler from [`FetchSessions::open`] to [`FetchSessions::reply`].
#[derive(Clone, Debug)]
pub struct FetchContext {
    session_id: i32,
    kind: Kind,
    /// What to read, in this order.
    pub partitions: Vec<(SessionKey, FetchPartition)>,
}

/// What a partition came to, in the order of [`FetchContext::partitions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Whether there are records.
    pub has_records: bool,
    /// Whether there is an error code.
    pub has_error: bool,
    /// Whether it diverges or names a preferred replica.
    pub has_redirect: bool,
    /// As in the reply.
    pub high_watermark: i64,
    /// As in the reply.
    pub log_start_offset: i64,
}

/// What the reply says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReply {
    /// 0: there is no session.
    pub session_id: i32,
    /// Which partitions to list, in the order of [`FetchContext::partitions`].
    pub include: Vec<bool>,
}

#[derive(Clone, Debug)]
struct Cached {
    /// Its place in the session's order.
    place: u64,
    request: FetchPartition,
    high_watermark: i64,
    log_start_offset: i64,
}

impl Cached {
    /// Whether the reply must list the partition; remembers what the client will then know.
    fn update(&mut self, answer: &PartitionAnswer) -> bool {
        let moved = self.high_watermark != answer.high_watermark || self.log_start_offset != answer.log_start_offset;
        self.high_watermark = if answer.has_error { HIGH_WATERMARK_NONE } else { answer.high_watermark };
        self.log_start_offset = answer.log_start_offset;
        moved || answer.has_records || answer.has_error || answer.has_redirect
    }
}

#[derive(Clone, Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    follower: bool,
    created_ms: i64,
    used_ms: i64,
    partitions: Map<SessionKey, Cached>,
    /// Keys by place. Partitions that returned records go to the end, so that none starves behind them.
    order: BTreeMap<u64, SessionKey>,
    next_place: u64,
}

impl Session {
    fn place(&mut self, key: SessionKey) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.order.insert(place, key);
        place
    }

    fn put(&mut self, key: &SessionKey, request: FetchPartition) {
        if let Some(cached) = self.partitions.get_mut(key) {
            cached.request = request;
            return;
        }
        let place = self.place(key.clone());
        let log_start_offset = -1;
        let cached = Cached { place, request, high_watermark: HIGH_WATERMARK_NONE, log_start_offset };
        self.partitions.insert(key.clone(), cached);
    }

    fn forget(&mut self, key: &SessionKey) {
        if let Some(cached) = self.partitions.remove(key) {
            self.order.remove(&cached.place);
        }
    }

    fn update(&mut self, key: &SessionKey, answer: &PartitionAnswer) -> bool {
        let Some(cached) = self.partitions.get_mut(key) else { return true };
        let listed = cached.update(answer);
        if answer.has_records {
            let old = cached.place;
            self.order.remove(&old);
            let place = self.place(key.clone());
            self.partitions.get_mut(key).expect("it was there a line ago").place = place;
        }
        listed
    }

    fn in_order(&self) -> Vec<(SessionKey, FetchPartition)> {
        self.order.values().map(|key| (key.clone(), self.partitions[key].request)).collect()
    }

    /// What makes one session worth more than another.
    fn rank(&self) -> (bool, usize) {
        (self.follower, self.partitions.len())
    }
}

/// The sessions of one core.
#[derive(Clone, Debug)]
pub struct FetchSessions {
    slots: usize,
    sessions: Map<i32, Session>,
    partitions: usize,
}

impl FetchSessions {
    /// A cache of `slots` sessions: this core's share of `max.incremental.fetch.session.cache.slots`.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { slots, sessions: Map::default(), partitions: 0 }
    }

    /// Sessions there are.
    #[cfg(test)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[cfg(test)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Works out what a fetch reads. `now_ms` is of any clock that does not go back.
    /// # Errors  `FetchSessionIdNotFound`, `InvalidFetchSessionEpoch`, `FetchSessionTopicIdError` (name and id mixed):
    /// the whole reply is then this code, without partitions, and session id 0.
    pub fn open(&mut self, request: SessionRequest, now_ms: i64) -> Result<FetchContext, ErrorCode> {
        let full = request.session_epoch == EPOCH_INITIAL || request.session_epoch == EPOCH_FINAL;
        if full {
            self.close(request.session_id);
            let kind = match request.session_epoch {
                EPOCH_FINAL => Kind::Sessionless,
                _ => Kind::Full { by_id: request.by_id, follower: request.follower },
            };
            return Ok(FetchContext { session_id: 0, kind, partitions: request.partitions });
        }
        self.open_incremental(&request, now_ms)
    }

    fn open_incremental(&mut self, request: &SessionRequest, now_ms: i64) -> Result<FetchContext, ErrorCode> {
        let id = request.session_id;
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != request.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        for (key, partition) in &request.partitions {
            session.put(key, *partition);
        }
        for key in &request.forgotten {
            session.forget(key);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        session.used_ms = now_ms;
        let next_epoch = session.epoch;
        let partitions = session.in_order();
        self.partitions = self.partitions + partitions.len() - before;
        if self.partitions > SESSION_PARTITIONS_MAX {
            self.close(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        if partitions.is_empty() {
            self.close(id);
            return Ok(FetchContext { session_id: 0, kind: Kind::Sessionless, partitions });
        }
        Ok(FetchContext { session_id: id, kind: Kind::Incremental { next_epoch }, partitions })
    }

    /// Says what of the answers to send, and makes the session that a full fetch asked for, if there is room.
    /// `random` picks its id. `answers` are in the order of the context's partitions.
    /// # Errors  `InvalidFetchSessionEpoch` if another fetch of the same session came in between.
    pub fn reply(
        &mut self,
        context: &FetchContext,
        answers: &[PartitionAnswer],
        now_ms: i64,
        random: u64,
    ) -> Result<SessionReply, ErrorCode> {
        assert_eq!(answers.len(), context.partitions.len(), "one answer a partition");
        let everything = vec![true; answers.len()];
        let next_epoch = match context.kind {
            Kind::Sessionless => return Ok(SessionReply { session_id: 0, include: everything }),
            Kind::Full { by_id, follower } => {
                let session_id = self.create(context, answers, by_id, follower, now_ms, random).unwrap_or(0);
                return Ok(SessionReply { session_id, include: everything });
            }
            Kind::Incremental { next_epoch } => next_epoch,
        };
        let session_id = context.session_id;
        // Evicted meanwhile: the next fetch will hear of it.
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return Ok(SessionReply { session_id, include: everything });
        };
        if session.epoch != next_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        let pairs = context.partitions.iter().zip(answers);
        let include = pairs.map(|((key, _), answer)| session.update(key, answer)).collect();
        Ok(SessionReply { session_id, include })
    }

    fn close(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.partitions -= session.partitions.len();
        }
    }

    fn create(
        &mut self,
        context: &FetchContext,
        answers: &[PartitionAnswer],
        by_id: bool,
        follower: bool,
        now_ms: i64,
        random: u64,
    ) -> Option<i32> {
        let rank = (follower, context.partitions.len());
        if context.partitions.is_empty() || !self.make_room(rank, now_ms) {
            return None;
        }
        let mut session = Session {
            epoch: EPOCH_INITIAL + 1,
            by_id,
            follower,
            created_ms: now_ms,
            used_ms: now_ms,
            partitions: Map::default(),
            order: BTreeMap::new(),
            next_place: 0,
        };
        for (key, request) in &context.partitions {
            session.put(key, *request);
        }
        for ((key, _), answer) in context.partitions.iter().zip(answers) {
            session.update(key, answer);
        }
        let id = self.fresh_id(random);
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        Some(id)
    }

    /// Evicts a session if that is needed and right: a stale one, or one that is worth less.
    fn make_room(&mut self, (follower, partitions): (bool, usize), now_ms: i64) -> bool {
        if self.sessions.len() >= self.slots {
            let Some(id) = self.evictable(follower, partitions, now_ms) else { return false };
            self.close(id);
        }
        self.partitions + partitions <= SESSION_PARTITIONS_MAX
    }

    fn evictable(&self, follower: bool, partitions: usize, now_ms: i64) -> Option<i32> {
        let oldest = self.sessions.iter().min_by_key(|(id, session)| (session.used_ms, **id))?;
        if now_ms - oldest.1.used_ms > EVICTION_MS {
            return Some(*oldest.0);
        }
        let fair = |session: &Session| now_ms - session.created_ms > EVICTION_MS || (follower && !session.follower);
        let candidates = self.sessions.iter().filter(|(_, session)| fair(session));
        let (id, least) = candidates.min_by_key(|(id, session)| (session.rank(), **id))?;
        (least.rank() < (follower, partitions)).then_some(*id)
    }

    /// An id that is not in use; at most one try more than there are sessions.
    fn fresh_id(&self, random: u64) -> i32 {
        let mut id = (random % (i32::MAX as u64)) as i32 + 1;
        while self.sessions.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        id
    }
}

#[cfg(test)]
mod tests;
