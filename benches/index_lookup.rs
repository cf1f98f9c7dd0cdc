//! Times of `claims/index_lookup.rs`.

#[path = "claims/case.rs"]
mod case;
#[path = "claims/index_lookup.rs"]
mod claim;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(benches, times);
criterion_main!(benches);

fn times(criterion: &mut Criterion) {
    for mut case in claim::cases() {
        criterion.bench_function(case.name, |bencher| bencher.iter(|| (case.run)()));
    }
}
