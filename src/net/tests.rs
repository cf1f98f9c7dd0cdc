//! Connections that are served by an echo that can be told to misbehave: over sockets, and over a simulated network.

mod simulated;
// The same file twice: what is shown through one door is shown through the other.
#[cfg(feature = "glommio")]
#[allow(clippy::duplicate_mod)]
mod through_glommio;
#[cfg(feature = "glommio")]
#[allow(clippy::duplicate_mod)]
mod through_the_ring;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_lite::future::poll_fn;

use super::*;
use crate::{
    api::ListenerKind,
    io::{Slice, StreamOptions},
    shard::ReplyMemory,
};

/// Answers each frame with itself, in pieces. The first byte says how: `p` pipelines, `w` waits until `r` releases it,
/// `k` waits for ever and does not pipeline, `x` closes, `n` has no reply, `b` answers with 4 MiB, `l` tells how many requests of other kinds were begun.
#[derive(Clone, Default)]
struct Echo {
    parked: Rc<RefCell<Vec<std::task::Waker>>>,
    released: Rc<std::cell::Cell<bool>>,
    begun: Rc<std::cell::Cell<u32>>,
}

impl Service for Echo {
    type Client = ();

    fn client(&self, _: &Peer) {}

    fn pipelines(&self, frame: &[u8]) -> bool {
        matches!(frame[0], b'p' | b'w' | b'r')
    }

    fn memory_estimate(&self, _: &[u8], frame_bytes: usize) -> usize {
        frame_bytes
    }

    async fn handle(&self, (): &(), frame: Bytes) -> Pending {
        if frame[0] != b'l' {
            self.begun.set(self.begun.get() + 1);
        }
        let echo = self.clone();
        match frame[0] {
            b'x' => Box::pin(async { Outcome::Close("told to".into()) }),
            b'n' => Box::pin(async { Outcome::Nothing }),
            b'k' => Box::pin(std::future::pending()),
            b'b' => Box::pin(async { Outcome::Reply(big_reply(), Duration::ZERO) }),
            b'l' => {
                let begun = self.begun.get();
                Box::pin(async move { Outcome::Reply(vec![begun.to_be_bytes().to_vec().into()], Duration::ZERO) })
            }
            b'r' => {
                self.released.set(true);
                self.parked.take().into_iter().for_each(std::task::Waker::wake);
                Box::pin(async move { reply(frame) })
            }
            b'w' => Box::pin(async move {
                poll_fn(|context| {
                    if echo.released.get() {
                        return std::task::Poll::Ready(());
                    }
                    echo.parked.borrow_mut().push(context.waker().clone());
                    std::task::Poll::Pending
                })
                .await;
                reply(frame)
            }),
            _ => Box::pin(async move { reply(frame) }),
        }
    }
}

fn reply(frame: Bytes) -> Outcome {
    // A client whose frame begins so is throttled.
    let mute = if frame[0] == b'm' { MUTE } else { Duration::ZERO };
    let middle = frame.len() / 2;
    let length = Bytes::from((frame.len() as i32).to_be_bytes().to_vec());
    Outcome::Reply([length, frame.slice(..middle), Bytes::new(), frame.slice(middle..)].map(Slice::from).into(), mute)
}

const MUTE: Duration = Duration::from_secs(1);

/// 4 MiB in a thousand pieces of uneven sizes.
fn big_reply() -> Vec<Slice> {
    let whole: Bytes = (0..4_usize << 20).map(|at| ((at * 31) >> 3) as u8).collect();
    let mut cuts: Vec<usize> = (1..1000).map(|piece| (piece * 7919 * 104_729) % whole.len()).collect();
    cuts.extend([0, whole.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| whole.slice(cut[0]..cut[1]).into()).collect()
}

fn settings() -> NetSettings {
    NetSettings {
        frame_bytes_max: 8 << 20,
        idle_max: Duration::from_secs(600),
        small_request_bytes: 3 << 20,
        large_requests: LargeRequests::new(13 << 20, 8 << 20),
        replies: ReplyMemory::new(1, 64 << 20, 64 << 20),
        core: 0,
        stream: StreamOptions::default(),
    }
}
