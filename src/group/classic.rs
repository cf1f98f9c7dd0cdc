//! The membership of a classic group: members join, the leader assigns, all fetch their part.

pub(super) mod join;
pub(super) mod member;
mod rebalance;
pub(super) mod session;
pub(super) mod state;
mod subscription;
pub(super) mod sync;

pub(super) use self::state::Classic;
