//! Tail probabilities and combinations against scipy: `tests/golden/scores.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use barograph_core::combination::{benjamini_hochberg, benjamini_yekutieli};
use barograph_core::distributions::{binomial_lower, binomial_upper, noncentral_chi_square_cdf, noncentral_chi_square_sf};
use serde_json::Value;

fn golden() -> Value {
    // Cargo runs a test in the folder of its crate; a path of the build could be another checkout's.
    serde_json::from_str(&std::fs::read_to_string("../../tests/golden/scores.json").unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn close(got: f64, want: f64, relative: f64, case: &[f64]) {
    assert!((got - want).abs() <= relative * want.abs() + 1e-300, "{got} {want} {case:?}");
}

#[test]
fn the_noncentral_chi_square_law_agrees_down_to_1e_11() {
    let golden = golden();
    let cases = golden["ncx2"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases.iter().map(numbers) {
        let [x, k, lambda, sf, cdf] = case[..] else { panic!("{case:?}") };
        close(noncentral_chi_square_sf(x, k, lambda), sf, 1e-6, &case);
        close(noncentral_chi_square_cdf(x, k, lambda), cdf, 1e-9, &case);
    }
}

#[test]
fn clopper_pearson_limits_agree() {
    for case in golden()["clopper_pearson"].as_array().unwrap().iter().map(numbers) {
        let [count, total, alpha, lower, upper] = case[..] else { panic!("{case:?}") };
        close(binomial_lower(count, total, alpha), lower, 1e-8, &case);
        close(binomial_upper(count, total, alpha), upper, 1e-8, &case);
    }
}

#[test]
fn combinations_agree() {
    for family in golden()["combination"].as_array().unwrap() {
        let p = numbers(&family["p"]);
        for (got, want) in benjamini_hochberg(&p).iter().zip(numbers(&family["bh"])) {
            close(*got, want, 1e-12, &p);
        }
        for (got, want) in benjamini_yekutieli(&p).iter().zip(numbers(&family["by"])) {
            close(*got, want, 1e-12, &p);
        }
    }
}
