//! The tests of an executor, on glommio alone.

use super::*;

const DOOR: Door = Door::Glommio;

#[path = "tests.rs"]
mod tests;
