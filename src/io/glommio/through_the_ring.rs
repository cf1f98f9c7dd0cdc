//! The tests of an executor, through the ring.

use super::*;

const DOOR: Door = Door::Ring;

#[path = "tests.rs"]
mod tests;
