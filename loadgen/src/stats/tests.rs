//! Synthetic data of known truth: the rates are counted, under everything that machines do.

use super::*;

/// Pairs of two arms on a machine with its troubles; the candidate is slower by `shift` (log). Order drawn per pair.
fn pairs(trouble: &str, n: usize, shift: f64, rng: &mut Rng) -> Vec<f64> {
    let mut level = 0.0;
    let mut differences = Vec::new();
    for pair in 0..n {
        let mut noise = |rng: &mut Rng| match trouble {
            "normal" => 0.03 * rng.normal(),
            // A machine that gets slower by 60 % over the run.
            "drift" => 0.02 * rng.normal(),
            "bimodal" => 0.01 * rng.normal() + if rng.unit() < 0.3 { 0.12 } else { 0.0 },
            "heavy" => 0.02 * rng.normal() / rng.unit().max(0.02),
            "autocorrelated" => {
                level = 0.9 * level + 0.02 * rng.normal();
                level
            }
            other => panic!("{other}"),
        };
        let (first, mut second) = (noise(rng), noise(rng));
        if trouble == "drift" {
            second += 0.6 / n as f64 * (1.0 + pair as f64 / n as f64);
        }
        let (base, candidate) = if rng.unit() < 0.5 { (first, second) } else { (second, first) };
        differences.push(candidate + shift - base);
    }
    differences
}

const TROUBLES: [&str; 5] = ["normal", "drift", "bimodal", "heavy", "autocorrelated"];

#[test]
fn the_test_holds_its_level_under_every_trouble() {
    for trouble in TROUBLES {
        for n in [10, 30] {
            let mut rng = Rng::new(11, n as u64);
            let rounds = if n <= EXACT_MAX { 600 } else { 150 };
            let false_alarms = (0..rounds)
                .filter(|_| {
                    let differences = pairs(trouble, n, 0.0, &mut rng);
                    sign_flip(&differences, 0.0, Side::Above, FLIPS_FEW, &mut rng) <= 0.05
                })
                .count();
            let rate = false_alarms as f64 / f64::from(rounds);
            // Three standard errors above 5 %.
            let limit = 0.05 + 3.0 * (0.05 * 0.95 / f64::from(rounds)).sqrt();
            assert!(rate <= limit, "{trouble}, {n} pairs: {rate}");
        }
    }
}

#[test]
fn the_test_of_two_samples_holds_its_level_and_finds_a_shift() {
    let mut rng = Rng::new(14, 1);
    let mut sample = |shift: f64| -> Vec<f64> { (0..12).map(|_| shift + 0.02 * rng.normal()).collect() };
    let runs = 200;
    let samples: Vec<[Vec<f64>; 3]> = (0..runs).map(|_| [sample(0.3), sample(0.3), sample(0.35)]).collect();
    let mut rng = Rng::new(14, 2);
    let mut count = |now: usize, then: usize| {
        let p_values = samples.iter().map(|lists| two_sample(&lists[now], &lists[then], 0.0, Side::Above, &mut rng));
        p_values.filter(|p| *p <= 0.05).count()
    };
    let (false_alarms, found) = (count(0, 1), count(2, 1));
    // Three standard errors above 5 % of 200.
    assert!(false_alarms <= 19, "{false_alarms} of {runs}");
    assert!(found >= 190, "{found} of {runs}");
}

#[test]
fn a_real_shift_is_found() {
    for (trouble, n, shift) in [("normal", 30, 0.05), ("bimodal", 30, 0.1), ("heavy", 30, 0.15), ("drift", 30, 0.05)] {
        let mut rng = Rng::new(12, 1);
        let found = (0..60)
            .filter(|_| {
                let differences = pairs(trouble, n, shift, &mut rng);
                sign_flip(&differences, 0.0, Side::Above, FLIPS_FEW, &mut rng) <= 0.05
            })
            .count();
        assert!(found >= 54, "{trouble}: {found} of 60");
    }
}

#[test]
fn exact_p_values_are_the_known_ones() {
    let mut rng = Rng::new(1, 1);
    let differences = [0.1, 0.2, 0.3, 0.4, 0.5];
    // Only the pattern that was seen is as large: 1 of 32.
    assert_eq!(sign_flip(&differences, 0.0, Side::Above, FLIPS_FEW, &mut rng), 1.0 / 32.0);
    assert_eq!(sign_flip(&differences, 0.0, Side::Below, FLIPS_FEW, &mut rng), 1.0);
    assert_eq!(sign_flip(&[0.0; 5], 0.0, Side::Above, FLIPS_FEW, &mut rng), 1.0);
    assert_eq!(sign_flip(&[], 0.0, Side::Above, FLIPS_FEW, &mut rng), 1.0);
}

#[test]
fn intervals_cover_the_truth() {
    for trouble in ["normal", "heavy", "bimodal"] {
        let mut rng = Rng::new(13, 1);
        let rounds = 60;
        let covered = (0..rounds)
            .filter(|_| {
                let differences = pairs(trouble, 20, 0.04, &mut rng);
                let (low, high) = interval(&differences, 0.95, &mut rng).expect("20 pairs are enough");
                (low..=high).contains(&0.04)
            })
            .count();
        assert!(covered >= 52, "{trouble}: {covered} of {rounds}");
    }
}

#[test]
fn too_few_pairs_have_no_interval() {
    assert_eq!(interval(&[0.1, 0.2, 0.3, 0.4, 0.5], 0.95, &mut Rng::new(1, 1)), None);
}

#[test]
fn holm_is_holm() {
    assert_eq!(holm(&[0.01, 0.04, 0.03], 0.05), [true, false, false]);
    assert_eq!(holm(&[0.01, 0.02, 0.03], 0.05), [true, true, true]);
    assert_eq!(holm(&[], 0.05), Vec::<bool>::new());
}

#[test]
fn looks_together_spend_alpha() {
    let parts = spend(0.01, &[0.4, 0.7, 1.0]);
    assert!((parts.iter().sum::<f64>() - 0.01).abs() < 1e-12);
    assert!(parts.is_sorted());
}
