//! Scripts that read like the specification, for the tests of this room.
//!
//! Commands are separated by `;` or lines. `a` is a client; its member id, once it has one, shows as `a-1`.
//! ```text
//! join a [v3] [static=i] [protos=range:meta,rr:x] [session=10s] [rebalance=60s] [type=consumer] [id=a-7] [group=g]
//! sync a [a=x,b=y] [gen=3] [v5]   hb a [gen=3]   leave a b [v1]   leave static=i   both take [id=…] [static=…]
//! commit a t/0=5[@metadata] [gen=1] [retention=5s] [v2]   commit - t/0=5   fetch t/0,t/1 | all
//! describe [v5]   list [states=Stable] [types=classic]   delete   offsets-delete t/0   topic-gone t
//! +3s   restart   abandon a   size-max 2
//! ```

use std::{collections::BTreeMap, fmt::Write};

use bytes::Bytes;
use expect_test::Expect;
use kafka_protocol::{
    messages::{
        GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
        SyncGroupRequest, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{Effects, GroupAnswer, GroupConfig, GroupRequest, Groups, Joiner};
use crate::{
    base::{ErrorCode, RawRecord, Timestamp},
    protocol::{
        offsets_records::{self, GroupValue, OffsetValue, RecordKey},
        primitives::Writer,
    },
};

/// Runs a script with Kafka's defaults and compares what came out of it, line by line.
pub(super) fn check(script: &str, expected: Expect) {
    check_with(GroupConfig::default(), script, expected);
}

pub(super) fn check_with(config: GroupConfig, script: &str, expected: Expect) {
    let mut bench = Bench::new(config);
    for command in script.split([';', '\n']).map(str::trim).filter(|command| !command.is_empty()) {
        bench.run(command);
        bench.groups.check_books(command);
    }
    bench.check_replay(script);
    expected.assert_eq(&bench.out);
}

pub(super) struct Bench {
    pub groups: Groups,
    config: GroupConfig,
    pub now: Timestamp,
    random: u128,
    token: u64,
    /// Who asked, by token.
    asked: BTreeMap<u64, String>,
    member_ids: BTreeMap<String, StrBytes>,
    generations: BTreeMap<String, i32>,
    pub log: Vec<RawRecord>,
    pub out: String,
}

impl Bench {
    pub fn new(config: GroupConfig) -> Self {
        let mut groups = Groups::new(config.clone());
        let effects = groups.loaded(0);
        assert!(effects.records.is_empty() && effects.answers.is_empty(), "nothing was loaded");
        Self {
            groups,
            config,
            now: 0,
            random: 0,
            token: 0,
            asked: BTreeMap::new(),
            member_ids: BTreeMap::new(),
            generations: BTreeMap::new(),
            log: Vec::new(),
            out: String::new(),
        }
    }

    /// The log so far, replayed into a fresh machine, gives what is durable; so does the live machine's snapshot.
    pub fn check_replay(&self, hint: &str) {
        for log in [&self.log, &self.groups.snapshot()] {
            let mut fresh = Groups::new(self.config.clone());
            for (key, value) in log {
                fresh.replay(key, value.as_deref()).expect("our own records");
            }
            fresh.check_books(hint);
            assert_eq!(fresh.snapshot(), self.groups.snapshot(), "{hint}");
        }
    }

    pub fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let args = Args(&words[1..]);
        match words[0] {
            "join" => self.join(&args),
            "sync" => self.sync(&args),
            "hb" => self.heartbeat(&args),
            "leave" => self.leave(&args),
            "commit" => self.commit(&args),
            "fetch" => self.fetch(&args),
            "describe" => self.ask("describe", GroupRequest::Describe(args.group(), args.version(6))),
            "list" => self.ask("list", GroupRequest::List(args.texts("states"), args.texts("types"))),
            "delete" => self.ask("delete", GroupRequest::DeleteGroup(args.group())),
            "offsets-delete" => self.offsets_delete(&args),
            "topic-gone" => {
                let effects = self.groups.topic_deleted(&text(args.0[0]), self.now);
                self.take(effects);
            }
            "restart" => self.restart(),
            "size-max" => {
                self.config.size_max = args.0[0].parse().expect("a number");
                self.groups.configure(self.config.clone());
            }
            "abandon" => {
                let token = self.asked.iter().rev().find(|(_, who)| *who == args.0[0]).map(|(token, _)| *token);
                self.groups.abandon(token.expect("it asked something"));
            }
            time => self.pass(ms(time.strip_prefix('+').unwrap_or_else(|| panic!("no command: {command}")))),
        }
    }

    fn ask(&mut self, who: &str, request: GroupRequest) {
        self.token += 1;
        self.random += 1;
        self.asked.insert(self.token, who.to_owned());
        let effects = self.groups.request(self.token, request, self.now, Uuid::from_u128(self.random));
        self.take(effects);
    }

    /// Lets time pass, from deadline to deadline.
    pub fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        while let Some(deadline) = self.groups.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            let effects = self.groups.tick(self.now);
            self.take(effects);
        }
        self.now = end;
    }

    fn restart(&mut self) {
        let mut fresh = Groups::new(self.config.clone());
        for (key, value) in &self.log {
            fresh.replay(key, value.as_deref()).expect("our own records");
        }
        self.groups = fresh;
        let effects = self.groups.loaded(self.now);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects) {
        for (key, value) in &effects.records {
            let line = shown_record(key, value.as_deref());
            self.say(&line);
        }
        self.log.extend(effects.records);
        for (token, answer) in effects.answers {
            let who = self.asked.remove(&token).expect("every request is answered once");
            if let GroupAnswer::Join(answer) = &answer {
                if !answer.member_id.is_empty() {
                    self.member_ids.insert(who.clone(), answer.member_id.clone());
                }
                if answer.error_code == 0 {
                    self.generations.insert(who.clone(), answer.generation_id);
                }
            }
            let line = format!("{who}: {}", shown_answer(&answer));
            self.say(&line);
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.out, "{} {line}", self.now).expect("a string takes all");
    }

    fn member_id(&self, who: &str, args: &Args<'_>) -> StrBytes {
        args.find("id").map_or_else(|| self.member_ids.get(who).cloned().unwrap_or_default(), long_id)
    }

    fn generation(&self, who: &str, args: &Args<'_>) -> i32 {
        args.find("gen")
            .map_or_else(|| self.generations.get(who).copied().unwrap_or(-1), |text| text.parse().expect("a number"))
    }

    fn join(&mut self, args: &Args<'_>) {
        let who = args.0[0];
        let protocols = args.find("protos").unwrap_or("range:m").split(',').filter(|one| !one.is_empty()).map(|one| {
            let (name, metadata) = one.split_once(':').unwrap_or((one, ""));
            JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(metadata_of(metadata))
        });
        let request = JoinGroupRequest::default()
            .with_group_id(args.group())
            .with_session_timeout_ms(args.find("session").map_or(45_000, ms) as i32)
            .with_rebalance_timeout_ms(args.find("rebalance").map_or(300_000, ms) as i32)
            .with_member_id(self.member_id(who, args))
            .with_group_instance_id(args.find("static").map(text))
            .with_protocol_type(text(args.find("type").unwrap_or("consumer")))
            .with_protocols(protocols.collect());
        let joiner = Joiner { client_id: text(who), client_host: text("/h"), version: args.version(9) };
        self.ask(who, GroupRequest::Join(request, joiner));
    }

    fn sync(&mut self, args: &Args<'_>) {
        let who = args.0[0];
        let assignments =
            args.0.get(1).filter(|list| !list.starts_with("gen=") && list.contains('=')).map_or("", |list| list);
        let assignments = assignments.split(',').filter_map(|one| one.split_once('=')).map(|(name, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(self.member_ids.get(name).cloned().unwrap_or_default())
                .with_assignment(Bytes::copy_from_slice(assignment.as_bytes()))
        });
        let version = args.version(4);
        let request = SyncGroupRequest::default()
            .with_group_id(args.group())
            .with_generation_id(self.generation(who, args))
            .with_member_id(self.member_id(who, args))
            .with_group_instance_id(args.find("static").map(text))
            .with_protocol_type(args.find("type").map(text))
            .with_protocol_name(args.find("proto").map(text))
            .with_assignments(assignments.collect());
        self.ask(who, GroupRequest::Sync(request, version));
    }

    fn heartbeat(&mut self, args: &Args<'_>) {
        let who = args.0[0];
        let request = HeartbeatRequest::default()
            .with_group_id(args.group())
            .with_generation_id(self.generation(who, args))
            .with_member_id(self.member_id(who, args))
            .with_group_instance_id(args.find("static").map(text));
        self.ask(who, GroupRequest::Heartbeat(request));
    }

    fn leave(&mut self, args: &Args<'_>) {
        let version = args.version(5);
        let names = args.0.iter().filter(|word| !word.contains('=') && !is_version(word));
        let mut members: Vec<_> =
            names.clone().map(|name| MemberIdentity::default().with_member_id(self.member_id(name, args))).collect();
        if let Some(instance) = args.find("static") {
            members.push(MemberIdentity::default().with_group_instance_id(Some(text(instance))));
        }
        let who = names.clone().next().copied().unwrap_or("admin").to_owned();
        let request = LeaveGroupRequest::default().with_group_id(args.group());
        let request = if version < 3 {
            request.with_member_id(members[0].member_id.clone())
        } else {
            request.with_members(members)
        };
        self.ask(&who, GroupRequest::Leave(request, version));
    }

    fn commit(&mut self, args: &Args<'_>) {
        let who = args.0[0];
        let topics = args.0[1].split(',').map(|one| {
            let (place, offset) = one.split_once('=').expect("t/0=5");
            let (topic, partition) = place.split_once('/').expect("t/0");
            let (offset, metadata) = offset.split_once('@').unwrap_or((offset, ""));
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(partition.parse().expect("a partition"))
                .with_committed_offset(offset.parse().expect("an offset"))
                .with_committed_metadata(Some(text(metadata)));
            OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition])
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(args.group())
            .with_generation_id_or_member_epoch(self.generation(who, args))
            .with_member_id(self.member_id(who, args))
            .with_retention_time_ms(args.find("retention").map_or(-1, ms))
            .with_topics(topics.collect());
        self.ask(who, GroupRequest::Commit(request, args.version(9)));
    }

    fn fetch(&mut self, args: &Args<'_>) {
        let topics = (args.0[0] != "all").then(|| {
            let places = args.0[0].split(',').map(|one| one.split_once('/').expect("t/0"));
            places
                .map(|(topic, partition)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(TopicName(text(topic)))
                        .with_partition_indexes(vec![partition.parse().expect("a partition")])
                })
                .collect()
        });
        let request = OffsetFetchRequestGroup::default().with_group_id(args.group()).with_topics(topics);
        self.ask("fetch", GroupRequest::Fetch(request));
    }

    fn offsets_delete(&mut self, args: &Args<'_>) {
        let (topic, partition) = args.0[0].split_once('/').expect("t/0");
        let partition =
            OffsetDeleteRequestPartition::default().with_partition_index(partition.parse().expect("a partition"));
        let topic =
            OffsetDeleteRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default().with_group_id(args.group()).with_topics(vec![topic]);
        self.ask("offsets-delete", GroupRequest::OffsetDelete(request));
    }
}

struct Args<'a>(&'a [&'a str]);

impl<'a> Args<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn group(&self) -> GroupId {
        GroupId(text(self.find("group").unwrap_or("g")))
    }

    fn version(&self, default: i16) -> i16 {
        self.0.iter().find(|word| is_version(word)).map_or(default, |word| word[1..].parse().expect("a version"))
    }

    fn texts(&self, name: &str) -> Vec<StrBytes> {
        self.find(name).into_iter().flat_map(|list| list.split(',')).map(text).collect()
    }
}

fn is_version(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|digits| digits.parse::<i16>().is_ok())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn ms(text: &str) -> i64 {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "d" => 86_400_000,
        other => panic!("no unit: {other}"),
    };
    number.parse::<i64>().expect("a number") * unit
}

/// `subscribed+a+b` stands for a subscription to the topics a and b.
fn metadata_of(words: &str) -> Bytes {
    let Some(topics) = words.strip_prefix("subscribed+") else { return Bytes::copy_from_slice(words.as_bytes()) };
    let topics: Vec<&str> = topics.split('+').collect();
    let mut writer = Writer::new();
    writer.i16(0);
    writer.array_count(topics.len());
    topics.iter().for_each(|topic| writer.string(topic));
    writer.nullable_bytes(None);
    writer.into_bytes()
}

/// `a-1` for `a-00000000-0000-0000-0000-000000000001`.
fn short(id: &str) -> String {
    let split = id.len().checked_sub(37).and_then(|at| id.split_at_checked(at));
    match split.and_then(|(name, rest)| Some((name, Uuid::parse_str(rest.strip_prefix('-')?).ok()?))) {
        Some((name, uuid)) => format!("{name}-{}", uuid.as_u128()),
        None => format!("'{id}'"),
    }
}

fn long_id(short: &str) -> StrBytes {
    let number = short.rsplit_once('-').and_then(|(name, number)| Some((name, number.parse().ok()?)));
    number.map_or_else(|| text(short), |(name, number)| text(&format!("{name}-{}", Uuid::from_u128(number))))
}

fn shown_code(code: i16) -> String {
    ErrorCode::try_from_code(code).map_or_else(|| "ok".to_owned(), |error| error.to_string())
}

fn shown_bytes(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

fn shown_answer(answer: &GroupAnswer) -> String {
    match answer {
        GroupAnswer::Join(join) if join.error_code != 0 => {
            format!("join {} id={}", shown_code(join.error_code), short(&join.member_id))
        }
        GroupAnswer::Join(join) => {
            let members: Vec<String> = join
                .members
                .iter()
                .map(|one| {
                    let instance = one.group_instance_id.as_ref().map(|id| format!("({})", &**id)).unwrap_or_default();
                    format!("{}{instance}:{}", short(&one.member_id), shown_bytes(&one.metadata))
                })
                .collect();
            format!(
                "joined id={} gen={} leader={} {} [{}]{}",
                short(&join.member_id),
                join.generation_id,
                short(&join.leader),
                join.protocol_name.as_deref().unwrap_or("null"),
                members.join(" "),
                if join.skip_assignment { " skip" } else { "" }
            )
        }
        GroupAnswer::Sync(sync) if sync.error_code != 0 => format!("sync {}", shown_code(sync.error_code)),
        GroupAnswer::Sync(sync) => format!("synced '{}'", shown_bytes(&sync.assignment)),
        GroupAnswer::Heartbeat(heartbeat) => format!("heartbeat {}", shown_code(heartbeat.error_code)),
        GroupAnswer::Leave(leave) => {
            let members = leave.members.iter().map(|one| shown_code(one.error_code)).collect::<Vec<_>>().join(" ");
            format!("leave {} [{members}]", shown_code(leave.error_code))
        }
        GroupAnswer::Commit(commit) => {
            let codes = commit.topics.iter().flat_map(|topic| &topic.partitions).map(|one| shown_code(one.error_code));
            format!("commit {}", codes.collect::<Vec<_>>().join(" "))
        }
        GroupAnswer::Fetch(fetch) => {
            let places = fetch.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |one| (topic, one)));
            let places = places.map(|(topic, one)| {
                let metadata = one.metadata.as_deref().unwrap_or("null");
                format!("{}/{}={}@{metadata}", &*topic.name, one.partition_index, one.committed_offset)
            });
            format!("{} [{}]", shown_code(fetch.error_code), places.collect::<Vec<_>>().join(" "))
        }
        GroupAnswer::Describe(group) => {
            let members = group.members.iter().map(|one| {
                let (metadata, assignment) = (shown_bytes(&one.member_metadata), shown_bytes(&one.member_assignment));
                format!("{}@{}:{metadata}:{assignment}", short(&one.member_id), &*one.client_host)
            });
            format!(
                "{} {} '{}' '{}' [{}]",
                shown_code(group.error_code),
                &*group.group_state,
                &*group.protocol_type,
                &*group.protocol_data,
                members.collect::<Vec<_>>().join(" ")
            )
        }
        GroupAnswer::List(groups) => {
            let groups = groups.iter().map(|one| {
                format!("{}:{}:{}:{}", &**one.group_id, &*one.protocol_type, &*one.group_state, &*one.group_type)
            });
            format!("[{}]", groups.collect::<Vec<_>>().join(" "))
        }
        GroupAnswer::DeleteGroup(deleted) => shown_code(deleted.error_code),
        GroupAnswer::OffsetDelete(deleted) => {
            let codes = deleted.topics.iter().flat_map(|topic| &topic.partitions).map(|one| shown_code(one.error_code));
            format!("{} [{}]", shown_code(deleted.error_code), codes.collect::<Vec<_>>().join(" "))
        }
    }
}

fn shown_record(key: &[u8], value: Option<&[u8]>) -> String {
    match (offsets_records::read_key(key).expect("our own key"), value) {
        (RecordKey::Offset { group, topic, partition }, Some(value)) => {
            let value = OffsetValue::read(value).expect("our own value");
            let expires = value.expire_timestamp.map(|at| format!(" expires={at}")).unwrap_or_default();
            format!("+ {}:{}/{partition}={}{expires}", &*group, &*topic, value.offset)
        }
        (RecordKey::Offset { group, topic, partition }, None) => format!("- {}:{}/{partition}", &*group, &*topic),
        (RecordKey::Group { group }, Some(value)) => {
            let value = GroupValue::read(value).expect("our own value");
            let members: Vec<String> = value
                .members
                .iter()
                .map(|one| format!("{}={}", short(&one.member_id), shown_bytes(&one.assignment)))
                .collect();
            format!("+ {} gen={} [{}]", &*group, value.generation, members.join(" "))
        }
        (RecordKey::Group { group }, None) => format!("- {}", &*group),
        (RecordKey::Other(kind), _) => panic!("we write no records of type {kind}"),
    }
}
