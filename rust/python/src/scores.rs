//! Scores on arrays of bin counts, on column profiles, and on rows of several numbers.

use barograph_core::rows::Rows;
use barograph_core::scores::psi::{PsiTest, psi_total};
use barograph_core::scores::share::ShareTest;
use barograph_core::scores::{
    Interval, Score, chi_square, domain_classifier, hellinger, jensen_shannon, kolmogorov_smirnov, kullback_leibler, l_infinity, mmd,
    pca_reconstruction, sliced_wasserstein, total_variation,
};
use barograph_engine::compare::pairs;
use barograph_engine::report::Method;
use numpy::ndarray::ArrayView2;
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::errors::Raise;
use crate::profiles::PyColumnProfile;

/// Scores that are used alone; those of reports are listed in the engine.
pub const ALONE: [&str; 8] =
    ["kullback_leibler", "hellinger", "chi_square", "cramers_v", "mmd", "sliced_wasserstein", "pca_reconstruction", "domain_classifier"];

type Counts<'py> = PyReadonlyArray1<'py, f64>;
pub type Fields = (f64, Option<f64>, Option<f64>, Option<&'static str>, Option<f64>, Vec<f64>);

pub fn fields(score: Score) -> Fields {
    let interval = score.interval.map(|interval| if interval == Interval::Certain { "certain" } else { "confidence" });
    (score.value, score.lower, score.upper, interval, score.p_value, score.contributions)
}

fn values(counts: &Counts<'_>) -> Vec<f64> {
    counts.as_array().iter().copied().collect()
}

#[pyfunction]
fn psi(reference: Counts<'_>, current: Counts<'_>, tolerance: f64, confidence: f64, smoothing: f64) -> PyResult<Fields> {
    PsiTest::new(&values(&reference), &values(&current), smoothing).raise().map(|test| fields(test.score(tolerance, confidence)))
}

#[pyfunction]
fn share(reference: (f64, f64), current: (f64, f64), tolerance: f64, confidence: f64) -> PyResult<Fields> {
    ShareTest::new(reference.0, reference.1, current.0, current.1).raise().map(|test| fields(test.score(tolerance, confidence)))
}

/// The scores that take nothing but counts.
#[pyfunction]
fn score(name: &str, reference: Counts<'_>, current: Counts<'_>) -> PyResult<Fields> {
    let (p, q) = (values(&reference), values(&current));
    match name {
        "psi_total" => psi_total(&p, &q),
        "jensen_shannon" => jensen_shannon::jensen_shannon(&p, &q),
        "total_variation" => total_variation::total_variation(&p, &q),
        "l_infinity" => l_infinity::l_infinity(&p, &q),
        "kullback_leibler" => kullback_leibler::kullback_leibler(&p, &q),
        "hellinger" => hellinger::hellinger(&p, &q),
        "chi_square" => chi_square::chi_square(&p, &q),
        "cramers_v" => chi_square::cramers_v(&p, &q),
        _ => Err(barograph_core::Error::invalid(format!("unknown score {name:?}"))),
    }
    .raise()
    .map(fields)
}

#[pyfunction]
fn kolmogorov(reference: Counts<'_>, current: Counts<'_>, single: Vec<bool>) -> PyResult<Fields> {
    let whole = |counts: Vec<f64>| counts.into_iter().map(|count| count as u64).collect::<Vec<_>>();
    kolmogorov_smirnov::kolmogorov_smirnov(&whole(values(&reference)), &whole(values(&current)), &single, 1.0).raise().map(fields)
}

/// The scores of rows of several numbers.
#[pyfunction]
#[pyo3(signature = (name, reference, current, seed, share, confidence))]
fn of_rows(
    py: Python<'_>,
    name: &str,
    reference: PyReadonlyArray2<'_, f64>,
    current: PyReadonlyArray2<'_, f64>,
    seed: u64,
    share: f64,
    confidence: f64,
) -> PyResult<Fields> {
    let (a, b) = (reference.as_array(), current.as_array());
    py.detach(|| {
        let flat = |array: &ArrayView2<'_, f64>| array.iter().copied().collect::<Vec<_>>();
        let (p, q) = (flat(&a), flat(&b));
        let (p, q) = (Rows::new("reference", &p, a.ncols())?, Rows::new("current", &q, b.ncols())?);
        match name {
            "mmd" => mmd::mmd(p, q, seed),
            "sliced_wasserstein" => sliced_wasserstein::sliced_wasserstein(p, q, seed),
            "pca_reconstruction" => pca_reconstruction::pca_reconstruction(p, q, share, confidence),
            "domain_classifier" => domain_classifier::domain_classifier(p, q, confidence),
            _ => Err(barograph_core::Error::invalid(format!("unknown score {name:?}"))),
        }
    })
    .raise()
    .map(fields)
}

/// Counts of two column profiles in the same bins, and which bins hold one value only.
#[pyfunction]
#[pyo3(signature = (reference, current, unions))]
fn pair(reference: &PyColumnProfile, current: &PyColumnProfile, unions: Option<usize>) -> PyResult<(Vec<f64>, Vec<f64>, Vec<bool>)> {
    let exact = reference.reference.is_some() && reference.reference == current.reference;
    let pair = pairs::counts(&reference.inner, &current.inner, exact, unions).raise()?;
    let doubles = |counts: Vec<u64>| counts.into_iter().map(|count| count as f64).collect();
    Ok((doubles(pair.reference), doubles(pair.current), pair.single))
}

/// A distance of the values, or the change of a share, of two column profiles.
#[pyfunction]
fn distance(name: &str, reference: &PyColumnProfile, current: &PyColumnProfile, tolerance: f64, confidence: f64) -> PyResult<Fields> {
    let method = Method::SCORES.iter().find(|(known, _)| *known == name).map(|(_, method)| *method);
    let method = method.ok_or_else(|| barograph_core::Error::invalid(format!("unknown score {name:?}"))).raise()?;
    pairs::distance(method, &reference.inner, &current.inner, tolerance, confidence).raise().map(fields)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(psi, module)?)?;
    module.add_function(wrap_pyfunction!(share, module)?)?;
    module.add_function(wrap_pyfunction!(score, module)?)?;
    module.add_function(wrap_pyfunction!(pair, module)?)?;
    module.add_function(wrap_pyfunction!(distance, module)?)?;
    module.add_function(wrap_pyfunction!(of_rows, module)?)?;
    module.add_function(wrap_pyfunction!(kolmogorov, module)?)
}
