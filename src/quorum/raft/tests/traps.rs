//! What others have fallen into, one by one.

use std::{path::Path, time::Duration};

use super::world::World;

fn three(seed: u64) -> World {
    let world = World::new(seed, 3);
    (0..3).for_each(|me| world.start(me, false));
    lead(&world);
    world
}

fn lead(world: &World) -> i32 {
    let leads = world.run_until(20, |world| world.leader().is_some());
    assert!(leads, "RINGTAIL_SEED={}: {}", world.sim.seed(), world.told());
    world.leader().expect("just seen")
}

/// Two voters that do not lead.
fn followers(leader: i32) -> (i32, i32) {
    ((leader + 1) % 3, (leader + 2) % 3)
}

fn cut_off(world: &World, me: i32) {
    let mut net = world.net.borrow_mut();
    for other in world.voters.iter().filter(|other| **other != me) {
        net.cut.extend([(me, *other), (*other, me)]);
    }
}

fn acknowledged(world: &World) -> u64 {
    world.model.borrow().acknowledged
}

#[test]
fn another_leader_is_there_within_about_a_second() {
    for seed in 0..8 {
        let world = three(seed);
        let leader = lead(&world);
        world.kill(leader);
        let killed = world.sim.now();
        lead(&world);
        let took = world.sim.now().since(killed);
        assert!(took < Duration::from_millis(1600), "RINGTAIL_SEED={seed}: {took:?}");
        world.settle();
    }
}

#[test]
fn a_leader_that_stops_gives_leadership_away() {
    let world = three(3);
    let leader = lead(&world);
    let quorum = world.lives.borrow()[&leader].quorum.clone();
    let begun = world.sim.now();
    let given = quorum.clone();
    world.sim.block_on(leader as usize, 0, |_| async move { given.transfer().await });
    let took = world.sim.now().since(begun);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert!(quorum.leader().is_some_and(|(other, _)| other.0 != leader));
    world.settle();
}

#[test]
fn a_leader_that_reaches_nobody_gives_up() {
    let world = three(4);
    let leader = lead(&world);
    cut_off(&world, leader);
    let other = world.run_until(10, |world| {
        let lives = world.lives.borrow();
        lives.iter().any(|(me, life)| *me != leader && life.quorum.told.leads.get().is_some())
            && lives[&leader].quorum.told.leads.get().is_none()
    });
    assert!(other, "{}", world.told());
    world.settle();
}

/// A snapshot that has come counts once it is on the disk, and whoever has got one may lead.
#[test]
fn a_voter_that_is_too_far_behind_gets_a_snapshot_and_may_lead() {
    let world = three(5);
    let leader = lead(&world);
    let (late, other) = followers(leader);
    world.kill(late);
    let far = world.run_until(300, |world| {
        let lives = world.lives.borrow();
        let end = world.model.borrow().log.len();
        [leader, other].iter().all(|me| {
            let base = lives[me].quorum.node.borrow().store().base();
            base.end_offset.0 > lives[&leader].told.get() / 2 && end > 300
        })
    });
    assert!(far, "{}", world.told());
    world.start(late, false);
    let has_come = world.run_until(30, |world| world.model.borrow().replaced > 0);
    assert!(has_come, "{}", world.told());
    world.run_until(10, |world| world.lives.borrow()[&late].told.get() == world.model.borrow().log.len() as i64);
    // It starts again from what it has got, and is the only one that may lead.
    world.power_cut(late);
    world.start(late, false);
    assert!(world.run_until(10, |world| world.runs(late)), "{:?}", world.ended.borrow());
    world.settle();
}

/// It may have voted before, and what was committed with its help may be on one other disk alone.
#[test]
fn a_wiped_voter_does_not_vote_before_it_has_heard_all_others() {
    for seed in 10..16 {
        let world = three(seed);
        let leader = lead(&world);
        let (wiped, behind) = followers(leader);
        cut_off(&world, behind);
        let before = acknowledged(&world);
        assert!(world.run_until(20, |world| acknowledged(world) > before + 5), "RINGTAIL_SEED={seed}");
        world.kill(leader);
        world.kill(wiped);
        world.start(wiped, true);
        world.net.borrow_mut().cut.clear();
        world.sim.run_for(Duration::from_secs(15));
        assert_eq!((world.leader(), world.votes(wiped)), (None, false), "RINGTAIL_SEED={seed}");
        world.start(leader, false);
        lead(&world);
        let votes = world.run_until(20, |world| world.votes(wiped));
        assert!(votes, "RINGTAIL_SEED={seed}: {}", world.told());
        world.settle();
    }
}

/// A leader goes on counting on what a voter has acknowledged; a voter that has lost it ends, and does not vote.
#[test]
fn a_voter_whose_log_was_taken_back_ends_with_words() {
    let world = three(6);
    let leader = lead(&world);
    let (voter, _) = followers(leader);
    let log = Path::new("data/quorum/quorum.log");
    world.kill(voter);
    let before =
        world.sim.block_on(voter as usize, 0, |io| async move { io.disk.read_file(log).await.expect("there") });
    world.start(voter, false);
    let end = world.model.borrow().log.len() as i64 + 20;
    assert!(world.run_until(30, |world| world.lives.borrow().get(&voter).is_some_and(|it| it.told.get() > end)));
    world.kill(voter);
    world.sim.block_on(voter as usize, 0, |io| async move {
        io.disk.replace_file(log, &before).await.expect("written");
    });
    world.start(voter, false);
    assert!(world.run_until(10, |world| world.ended.borrow().contains_key(&voter)), "{}", world.told());
    let why = world.ended.borrow_mut().remove(&voter).expect("just seen");
    assert!(why.contains("and the quorum's log to"), "{why}");
    // Its disk is given up as a whole: it begins anew.
    world.kill(voter);
    world.start(voter, true);
    assert!(world.run_until(20, |world| world.votes(voter)), "{}", world.told());
    world.settle();
}

#[test]
fn the_first_start_waits_for_all_and_later_ones_for_most() {
    let world = World::new(8, 3);
    world.start(0, false);
    world.start(1, false);
    world.sim.run_for(Duration::from_secs(10));
    assert_eq!(world.leader(), None, "the third disk may be the one that knows");
    world.start(2, false);
    lead(&world);
    (0..3).for_each(|me| world.kill(me));
    world.start(0, false);
    world.start(2, false);
    lead(&world);
    world.settle();
}

#[test]
fn packets_of_strangers_are_refused() {
    let world = three(9);
    let lives = world.lives.borrow();
    let quorum = &lives[&0].quorum;
    let question = lives[&1].quorum.encode(crate::base::BrokerId(0), &super::super::wire::Packet::Question);
    for from in [0, 7, -1] {
        let refused = quorum.receive(crate::base::BrokerId(from), &question).expect_err("no other voter");
        assert!(refused.to_string().contains("is no other voter"), "{refused}");
    }
    assert!(quorum.receive(crate::base::BrokerId(1), &question[..9]).is_err());
}
