//! The log on the simulator: a model of what was promised, and crashes at random moments.

mod crash;
mod model;
mod story;
