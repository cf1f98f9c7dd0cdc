use super::*;
use crate::base::Offset;

fn key(index: i32) -> SessionKey {
    (TopicRef::Name("t".into()), index)
}

fn want(offset: i64) -> FetchPartition {
    FetchPartition {
        fetch_offset: Offset(offset),
        partition_max_bytes: 100,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        log_start_offset: Offset(-1),
    }
}

fn request(session_id: i32, session_epoch: i32, partitions: &[i32]) -> SessionRequest {
    let partitions = partitions.iter().map(|index| (key(*index), want(0))).collect();
    SessionRequest { session_id, session_epoch, partitions, ..SessionRequest::default() }
}

const QUIET: PartitionAnswer = PartitionAnswer {
    has_records: false,
    has_error: false,
    has_redirect: false,
    high_watermark: 5,
    log_start_offset: 0,
};
const RECORDS: PartitionAnswer = PartitionAnswer { has_records: true, ..QUIET };
const ERROR: PartitionAnswer = PartitionAnswer { has_error: true, high_watermark: -1, ..QUIET };

fn indexes(context: &FetchContext) -> Vec<i32> {
    context.partitions.iter().map(|((_, index), _)| *index).collect()
}

/// A session over partitions 0, 1, 2; its id.
fn established(sessions: &mut FetchSessions) -> i32 {
    let context = sessions.open(request(0, 0, &[0, 1, 2]), 0).unwrap();
    let reply = sessions.reply(&context, &[QUIET; 3], 0, 41).unwrap();
    assert_eq!(reply, SessionReply { session_id: 42, include: vec![true; 3] });
    42
}

#[test]
fn a_session_lists_only_what_changed() {
    let mut sessions = FetchSessions::new(10);
    let id = established(&mut sessions);
    let moved = PartitionAnswer { high_watermark: 6, ..QUIET };
    let trimmed = PartitionAnswer { high_watermark: 6, log_start_offset: 2, ..QUIET };
    let redirect = PartitionAnswer { has_redirect: true, ..QUIET };
    for (epoch, answers, expected) in [
        (1, [QUIET, QUIET, QUIET], [false, false, false]),
        (2, [QUIET, moved, QUIET], [false, true, false]),
        (3, [QUIET, moved, QUIET], [false, false, false]),
        (4, [QUIET, trimmed, redirect], [false, true, true]),
        (5, [ERROR, trimmed, QUIET], [true, false, false]),
        (6, [ERROR, trimmed, QUIET], [true, false, false]),
        // The error has gone: the partition is listed once more.
        (7, [QUIET, trimmed, QUIET], [true, false, false]),
        (8, [QUIET, trimmed, QUIET], [false, false, false]),
    ] {
        let context = sessions.open(request(id, epoch, &[]), 0).unwrap();
        assert_eq!(indexes(&context), [0, 1, 2]);
        let reply = sessions.reply(&context, &answers, 0, 0).unwrap();
        assert_eq!((reply.session_id, reply.include), (id, expected.to_vec()), "epoch {epoch}");
    }
}

#[test]
fn partitions_with_records_go_behind_the_others() {
    let mut sessions = FetchSessions::new(10);
    let id = established(&mut sessions);
    for (epoch, answers, order) in [
        (1, [RECORDS, QUIET, QUIET], [0, 1, 2]),
        (2, [RECORDS, RECORDS, QUIET], [1, 2, 0]),
        (3, [QUIET, QUIET, QUIET], [0, 1, 2]),
    ] {
        let context = sessions.open(request(id, epoch, &[]), 0).unwrap();
        assert_eq!(indexes(&context), order, "epoch {epoch}");
        sessions.reply(&context, &answers, 0, 0).unwrap();
    }
}

#[test]
fn partitions_come_change_and_go() {
    let mut sessions = FetchSessions::new(10);
    let id = established(&mut sessions);
    let mut change = request(id, 1, &[7]);
    change.partitions.push((key(1), want(9)));
    change.forgotten = vec![key(0), key(99)];
    let context = sessions.open(change, 0).unwrap();
    assert_eq!(indexes(&context), [1, 2, 7]);
    assert_eq!(context.partitions[0].1, want(9));
    let reply = sessions.reply(&context, &[QUIET; 3], 0, 0).unwrap();
    assert_eq!(reply.include, [false, false, true], "the client knows nothing of the new partition yet");
    let mut none = request(id, 2, &[]);
    none.forgotten = vec![key(1), key(2), key(7)];
    let context = sessions.open(none, 0).unwrap();
    assert_eq!(sessions.reply(&context, &[], 0, 0).unwrap().session_id, 0, "an empty session is closed");
    assert_eq!((sessions.len(), sessions.partitions), (0, 0));
}

#[test]
fn refusals() {
    let mut sessions = FetchSessions::new(10);
    let id = established(&mut sessions);
    let by_id = SessionRequest { by_id: true, ..request(id, 1, &[]) };
    for (name, bad, expected) in [
        ("unknown id", request(id + 1, 1, &[]), ErrorCode::FetchSessionIdNotFound),
        ("no id", request(0, 1, &[]), ErrorCode::FetchSessionIdNotFound),
        ("next epoch", request(id, 2, &[]), ErrorCode::InvalidFetchSessionEpoch),
        ("negative epoch", request(id, -2, &[]), ErrorCode::InvalidFetchSessionEpoch),
        ("ids in a session of names", by_id, ErrorCode::FetchSessionTopicIdError),
    ] {
        assert_eq!(sessions.open(bad, 0).unwrap_err(), expected, "{name}");
    }
    let first = sessions.open(request(id, 1, &[]), 0).unwrap();
    assert_eq!(sessions.open(request(id, 1, &[]), 0).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
    let second = sessions.open(request(id, 2, &[]), 0).unwrap();
    assert_eq!(sessions.reply(&first, &[QUIET; 3], 0, 0).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
    assert!(sessions.reply(&second, &[QUIET; 3], 0, 0).is_ok());
}

#[test]
fn epochs_wrap_to_one() {
    let mut sessions = FetchSessions::new(10);
    let id = established(&mut sessions);
    sessions.sessions.get_mut(&id).unwrap().epoch = i32::MAX;
    sessions.open(request(id, i32::MAX, &[]), 0).unwrap();
    assert!(sessions.open(request(id, 1, &[]), 0).is_ok());
}

#[test]
fn closing_and_beginning_again() {
    let mut sessions = FetchSessions::new(10);
    let id = established(&mut sessions);
    let context = sessions.open(request(id, -1, &[3]), 0).unwrap();
    assert_eq!(sessions.reply(&context, &[QUIET], 0, 0).unwrap().session_id, 0);
    assert!(sessions.is_empty());
    let id = established(&mut sessions);
    let context = sessions.open(request(id, 0, &[3]), 0).unwrap();
    assert_eq!(sessions.reply(&context, &[QUIET], 0, 7).unwrap().session_id, 8);
    assert_eq!((sessions.len(), sessions.partitions), (1, 1));
}

#[test]
fn a_full_cache_evicts_only_what_is_stale_or_worth_less() {
    let minute = 60_000;
    // Sessions as (follower, partitions, created, used); whether a new one (follower, partitions) at 10 min gets in.
    for (name, there, new, expected) in [
        ("all young and busy", (false, 1, 9 * minute, 10 * minute), (false, 9), false),
        ("stale", (true, 9, 0, 7 * minute), (false, 1), true),
        ("old and smaller", (false, 1, 0, 10 * minute), (false, 2), true),
        ("old and as large", (false, 2, 0, 10 * minute), (false, 2), false),
        ("young, but we are a follower", (false, 9, 9 * minute, 10 * minute), (true, 1), true),
        ("a follower's is worth more", (true, 1, 0, 10 * minute), (false, 9), false),
    ] {
        let mut sessions = FetchSessions::new(1);
        let partitions: Vec<_> = (0..there.1).collect();
        let old = SessionRequest { follower: there.0, ..request(0, 0, &partitions) };
        let context = sessions.open(old, there.2).unwrap();
        let id = sessions.reply(&context, &vec![QUIET; partitions.len()], there.2, 1).unwrap().session_id;
        sessions.sessions.get_mut(&id).unwrap().used_ms = there.3;
        let partitions: Vec<_> = (0..new.1).collect();
        let context =
            sessions.open(SessionRequest { follower: new.0, ..request(0, 0, &partitions) }, 10 * minute).unwrap();
        let reply = sessions.reply(&context, &vec![QUIET; partitions.len()], 10 * minute, 1).unwrap();
        assert_eq!(reply.session_id != 0, expected, "{name}");
        assert_eq!(sessions.len(), 1, "{name}");
    }
}

#[test]
fn sessions_remember_a_bounded_number_of_partitions() {
    let mut sessions = FetchSessions::new(10);
    let most: Vec<_> = (0..SESSION_PARTITIONS_MAX as i32).collect();
    let context = sessions.open(request(0, 0, &most), 0).unwrap();
    let id = sessions.reply(&context, &vec![QUIET; most.len()], 0, 1).unwrap().session_id;
    let context = sessions.open(request(0, 0, &[0]), 0).unwrap();
    assert_eq!(sessions.reply(&context, &[QUIET], 0, 1).unwrap().session_id, 0);
    let grown = sessions.open(request(id, 1, &[-1]), 0);
    assert_eq!(grown.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert_eq!((sessions.len(), sessions.partitions), (0, 0));
}
