//! Three and five voters in one simulation: real logs on simulated disks, packets that are lost, doubled and late, links
//! that are cut, processes that are killed, power that fails, disks that fail and disks that are wiped.

mod schedule;
mod traps;
mod world;
