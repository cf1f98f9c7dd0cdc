//! The tests over sockets, on glommio alone.

use super::*;
use crate::io::glommio::Door;

const DOOR: Door = Door::Glommio;

#[path = "sockets.rs"]
mod sockets;
