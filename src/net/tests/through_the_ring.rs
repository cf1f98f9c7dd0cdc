//! The tests over sockets, through the ring.

use super::*;
use crate::io::glommio::Door;

const DOOR: Door = Door::Ring;

#[path = "sockets.rs"]
mod sockets;
