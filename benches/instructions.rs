//! The claims once more, for callgrind: `instructions.sh` runs each case by its name and counts instructions inside of
//! `measured`. Without an argument it lists the names.

#[path = "claims/batch_validation.rs"]
mod batch_validation;
#[path = "claims/case.rs"]
mod case;
#[path = "claims/fetch_plan.rs"]
mod fetch_plan;
#[path = "claims/frame_decode.rs"]
mod frame_decode;
#[path = "claims/group_rebalance.rs"]
mod group_rebalance;
#[path = "claims/index_lookup.rs"]
mod index_lookup;
#[path = "claims/journal_block.rs"]
mod journal_block;

use self::case::Case;

/// Runs before the count begins: lazy tables are made, the allocator has its memory.
const WARM_UP: usize = 3;

/// Counted runs; `instructions.sh` divides by it.
const RUNS: usize = 10;

type Claim = fn() -> Vec<Case>;

const CLAIMS: [(&str, Claim); 6] = [
    ("frame_decode", frame_decode::cases),
    ("batch_validation", batch_validation::cases),
    ("journal_block", journal_block::cases),
    ("fetch_plan", fetch_plan::cases),
    ("group_rebalance", group_rebalance::cases),
    ("index_lookup", index_lookup::cases),
];

fn main() {
    // Cargo adds `--bench`.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let Some(wanted) = wanted else {
        let cases = CLAIMS.into_iter().flat_map(|(_, cases)| cases());
        return cases.for_each(|case| println!("{}", case.name));
    };
    let claim = CLAIMS.into_iter().find(|(claim, _)| wanted.split('/').next() == Some(claim));
    let cases = claim.map_or_else(Vec::new, |(_, cases)| cases());
    let Some(mut case) = cases.into_iter().find(|case| case.name == wanted) else {
        eprintln!("no case is called {wanted}");
        std::process::exit(2);
    };
    for _ in 0..WARM_UP {
        std::hint::black_box((case.run)());
    }
    println!("{}", measured(&mut case, RUNS));
}

/// Everything below this on the stack is counted.
#[inline(never)]
fn measured(case: &mut Case, runs: usize) -> usize {
    let mut seen = 0;
    for _ in 0..runs {
        seen = std::hint::black_box((case.run)());
    }
    seen
}
