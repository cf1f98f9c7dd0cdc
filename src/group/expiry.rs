//! Offsets expire when nobody has used them for long, and groups when nothing is left of them (KIP-211).

use std::ops::Bound;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{
    Effects,
    classic::state::{Classic, State},
    machine::Groups,
    state::{Group, Membership, Step},
};
use crate::{base::Timestamp, protocol::offsets_records::OffsetValue};

/// Groups and offsets that one step looks at; the next step goes on there, so that no step takes long.
const SCANNED_MAX: usize = 10_000;

/// From when an offset's retention counts.
#[derive(Clone, Copy)]
enum Since {
    /// Since it was committed.
    Commit,
    /// Since the group became empty, or the commit if that is not known.
    Empty(Option<Timestamp>),
}

impl Classic {
    fn retention_since(&self) -> Option<Since> {
        match (&self.protocol_type, self.state) {
            // Nobody was ever in it.
            (None, State::Empty) => Some(Since::Commit),
            (Some(_), State::Empty) => Some(Since::Empty(self.state_timestamp)),
            // What a group no longer reads expires, if we can tell what it reads.
            (Some(_), State::Stable) if self.uses_consumer_protocol() && self.subscribed.is_some() => {
                Some(Since::Commit)
            }
            (Some(_) | None, State::PreparingRebalance { .. } | State::CompletingRebalance | State::Stable) => None,
        }
    }

    /// Whether nobody is in it, or was told to come back.
    fn is_deserted(&self) -> bool {
        self.state == State::Empty && self.pending_members.is_empty()
    }
}

impl Membership {
    /// From when the retention of the group's offsets counts; None if they do not expire now.
    fn retention_since(&self) -> Option<Since> {
        match self {
            // A group that only keeps offsets here.
            Self::Empty => Some(Since::Commit),
            Self::Classic(classic) => classic.retention_since(),
        }
    }

    fn is_deserted(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Classic(classic) => classic.is_deserted(),
        }
    }
}

impl Group {
    /// Deletes offsets that have expired. Whether none is left that could matter.
    fn expire_offsets(&mut self, step: &mut Step<'_>) -> bool {
        let Some(since) = self.membership.retention_since() else { return false };
        let retention_ms = step.config.offsets_retention_ms;
        let expired = |value: &OffsetValue| {
            if let Some(expire_timestamp) = value.expire_timestamp {
                return step.now >= expire_timestamp;
            }
            let base = match since {
                Since::Commit => value.commit_timestamp,
                Since::Empty(since) => since.unwrap_or(value.commit_timestamp),
            };
            step.now.saturating_sub(base) >= retention_ms
        };
        let due: Vec<(StrBytes, i32)> = self
            .offsets
            .iter()
            .filter(|(topic, _, value)| !self.membership.is_subscribed(topic) && expired(value))
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect();
        for (topic, partition) in due {
            self.offsets.forget(&topic, partition, step);
        }
        self.offsets.is_empty()
    }

    fn expire(&mut self, step: &mut Step<'_>) {
        let nothing_left = self.expire_offsets(step);
        if nothing_left && self.membership.is_deserted() {
            self.delete(step);
        }
    }
}

impl Groups {
    /// Goes through some of the groups behind `from`. Returns where to go on, or None at the end.
    pub(super) fn expire_some(
        &mut self,
        from: Option<StrBytes>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<StrBytes> {
        let lower = from.map_or(Bound::Unbounded, Bound::Excluded);
        let mut scanned = 0;
        let some: Vec<StrBytes> = self
            .groups
            .range::<StrBytes, _>((lower, Bound::Unbounded))
            .take_while(|(_, group)| {
                let go_on = scanned < SCANNED_MAX;
                scanned += 1 + group.offsets.count();
                go_on
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &some {
            self.with_group(id, now, Uuid::nil(), effects, |group, step| group.expire(step));
        }
        let last = some.last().cloned();
        last.filter(|last| self.groups.range::<StrBytes, _>((Bound::Excluded(last), Bound::Unbounded)).next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::group::{
        GroupConfig,
        script::{check, check_with},
    };

    #[test]
    fn offsets_of_an_empty_group_expire_with_the_group() {
        check(
            "join a v3; +3s; sync a a=x; commit a t/0=5; leave a; +6d; list; fetch all; +1d; list; +20min; list; restart; list",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:m]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 + g:t/0=5
                3000 a: commit ok
                3000 + g gen=2 []
                3000 a: leave ok [ok]
                518403000 list: [g:consumer:Empty:classic]
                518403000 fetch: ok [t/0=5@]
                604803000 list: [g:consumer:Empty:classic]
                605400000 - g:t/0
                605400000 - g
                606003000 list: []
                606003000 list: []
            "#]],
        );
    }

    #[test]
    fn a_group_that_only_keeps_offsets_loses_them_one_by_one() {
        check(
            "commit - t/0=5; +3d; commit - t/1=5; +4d; +20min; fetch all; +4d; list",
            expect![[r#"
            0 + g:t/0=5
            0 -: commit ok
            259200000 + g:t/1=5
            259200000 -: commit ok
            604800000 - g:t/0
            606000000 fetch: ok [t/1=5@]
            864000000 - g:t/1
            951600000 list: []
        "#]],
        );
    }

    #[test]
    fn a_time_of_its_own_comes_first() {
        check(
            "commit - t/0=5 retention=30min v2; commit - t/1=5; +29min; fetch all; +30min; fetch all; restart; fetch all",
            expect![[r#"
                0 + g:t/0=5 expires=1800000
                0 -: commit ok
                0 + g:t/1=5
                0 -: commit ok
                1740000 fetch: ok [t/0=5@ t/1=5@]
                1800000 - g:t/0
                3540000 fetch: ok [t/1=5@]
                3540000 fetch: ok [t/1=5@]
            "#]],
        );
    }

    #[test]
    fn a_stable_group_loses_what_it_does_not_read_and_nothing_else() {
        check_with(
            GroupConfig { offsets_retention_ms: 60_000, ..GroupConfig::default() },
            "join a v3 protos=range:subscribed+t session=1800s; +3s; sync a a=x; commit a t/0=5,u/0=6; restart; +25min; hb a; fetch all",
            expect![[r#"
                3000 a: joined id=a-1 gen=1 leader=a-1 range [a-1:........t����]
                3000 + g gen=1 [a-1=x]
                3000 a: synced 'x'
                3000 + g:t/0=5
                3000 + g:u/0=6
                3000 a: commit ok ok
                603000 - g:u/0
                1503000 a: heartbeat ok
                1503000 fetch: ok [t/0=5@]
            "#]],
        );
    }
}
