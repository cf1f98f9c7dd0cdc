//! A scripted broker on the loopback interface: one topic in memory, honest by default, and at fault where a script says so.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsResponse, RequestHeader, ResponseHeader, api_versions_response::ApiVersion},
    protocol::{Decodable, Encodable},
};

mod answers;

use self::answers::World;

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Done or not, the answer bears this code.
    Code(i16),
    /// The answer asks for so many milliseconds of silence.
    Throttle(i32),
    /// The frame arrives byte by byte.
    Pieces,
    /// Only so many bytes of the frame arrive, then the connection ends.
    Cut(usize),
    /// The request is done, the connection ends without an answer.
    Hang,
    /// No answer, and the connection stays.
    Mute,
    /// The answer's body is not one.
    Garble,
    /// The answer is for another request.
    Stranger,
    /// Acknowledged and not stored (Produce).
    Lose,
    /// Stored twice (Produce).
    Double,
    /// A bit of the records is another one (Fetch).
    Flip,
}

/// A fault for the requests of one kind with these numbers, counted from 0 over all connections; fetches from the first record on.
pub type Rule = (ApiKey, std::ops::Range<usize>, Fault);

/// A request that has arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub api: ApiKey,
    pub at: Instant,
    pub connection: usize,
}

/// What the peer announces: key, lowest and highest version.
pub const APIS: [(ApiKey, i16, i16); 14] = [
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 1, 12),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 7),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 4),
];

/// A running peer; its threads end with the test's process.
pub struct Peer {
    pub address: String,
    stage: Arc<Stage>,
}

struct Stage {
    rules: Vec<Rule>,
    apis: Vec<(ApiKey, i16, i16)>,
    world: Mutex<World>,
    seen: Mutex<Vec<Seen>>,
}

impl Peer {
    pub fn start(rules: &[Rule]) -> Self {
        Self::start_with(rules, &APIS)
    }

    /// With other versions than `APIS`.
    pub fn start_with(rules: &[Rule], apis: &[(ApiKey, i16, i16)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stage = Arc::new(Stage {
            rules: rules.to_vec(),
            apis: apis.to_vec(),
            world: Mutex::new(World::new(address.port())),
            seen: Mutex::default(),
        });
        let shared = Arc::clone(&stage);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let stage = Arc::clone(&shared);
                // What the loadgen does to its connection is not this side's failure.
                std::thread::spawn(move || stage.serve(stream, number).unwrap_or_default());
            }
        });
        Self { address: address.to_string(), stage }
    }

    /// The requests of one kind so far, in order of arrival.
    pub fn seen(&self, api: ApiKey) -> Vec<Seen> {
        let seen = self.stage.seen.lock().expect("no holder panics");
        seen.iter().filter(|seen| seen.api == api).cloned().collect()
    }
}

impl Stage {
    fn serve(&self, mut stream: TcpStream, connection: usize) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut input = BytesMut::new();
        loop {
            let mut head = [0; 4];
            stream.read_exact(&mut head)?;
            input.resize(u32::from_be_bytes(head) as usize, 0);
            stream.read_exact(&mut input)?;
            let request = input.split().freeze();
            if !self.one(&mut stream, request, connection)? {
                return Ok(());
            }
        }
    }

    fn note(&self, api: ApiKey, connection: usize) -> Option<Fault> {
        // A consumer asks long before there is anything to read; how often is not the script's.
        if api == ApiKey::Fetch && self.world.lock().expect("no holder panics").is_empty() {
            return None;
        }
        let mut seen = self.seen.lock().expect("no holder panics");
        let number = seen.iter().filter(|seen| seen.api == api).count();
        seen.push(Seen { api, at: Instant::now(), connection });
        let rule = self.rules.iter().find(|(key, numbers, _)| *key == api && numbers.contains(&number));
        rule.map(|(_, _, fault)| *fault)
    }

    /// Answers one request. False: the connection ends here.
    fn one(&self, stream: &mut TcpStream, mut request: Bytes, connection: usize) -> std::io::Result<bool> {
        let api = ApiKey::try_from(request.slice(..2).get_i16()).expect("the loadgen asks for what was announced");
        let version = request.slice(2..4).get_i16();
        let header = RequestHeader::decode(&mut request, api.request_header_version(version)).expect("a header");
        let fault = self.note(api, connection);
        let mut frame = BytesMut::new();
        frame.put_u32(0);
        let stranger = matches!(fault, Some(Fault::Stranger));
        let correlation = header.correlation_id + if stranger { 1_000 } else { 0 };
        let head = ResponseHeader::default().with_correlation_id(correlation);
        head.encode(&mut frame, api.response_header_version(version)).expect("a header");
        let body_at = frame.len();
        let answered = if api == ApiKey::ApiVersions {
            self.versions(version, fault, &mut frame);
            true
        } else {
            answers::answer(&self.world, api, version, request, fault, &mut frame)
        };
        if let Some(Fault::Garble) = fault {
            frame.truncate(body_at);
            frame.extend_from_slice(&[0xff; 40]);
        }
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        match fault {
            Some(Fault::Hang) => return Ok(false),
            Some(Fault::Mute) => return Ok(true),
            Some(Fault::Cut(bytes)) => {
                stream.write_all(&frame[..bytes.min(frame.len() - 1)])?;
                return Ok(false);
            }
            Some(Fault::Pieces) => {
                for byte in &frame {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
            _ if answered => stream.write_all(&frame)?,
            _ => {}
        }
        Ok(true)
    }

    fn versions(&self, version: i16, fault: Option<Fault>, out: &mut BytesMut) {
        let keys = self.apis.iter().chain(&[(ApiKey::ApiVersions, 0, 4)]).map(|(api, low, high)| {
            ApiVersion::default().with_api_key(*api as i16).with_min_version(*low).with_max_version(*high)
        });
        let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
        let response = match fault {
            Some(Fault::Code(code)) => response.with_error_code(code),
            Some(Fault::Throttle(ms)) => response.with_throttle_time_ms(ms),
            _ => response,
        };
        response.encode(out, version).expect("encodes");
    }
}

/// Batches by partition; the offset of the next one.
pub type Log = BTreeMap<i32, (i64, Vec<Bytes>)>;
