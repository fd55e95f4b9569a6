//! Classifier two-sample test: how well a model tells current rows from reference rows.

use super::{Interval, Score};
use crate::distributions::{normal_quantile, normal_sf};
use crate::error::{Error, Result};
use crate::rows::{Rows, Scale, alike};

const FOLDS: usize = 5;
const ROUNDS: usize = 12;
/// Columns and their products: what a fold's fit costs grows with the cube.
const MOST_TERMS: usize = 300;

/// Area under the ROC curve of a logistic regression on columns, squares and products, each row scored by a model that never
/// saw it (five folds): 0.5 for equal laws, 1 for samples that never overlap.
///
/// `lower` and `upper`: at `confidence`, one-sided each (`DeLong`). `p_value`: of "both sides have the same law", one-sided. Needs
/// rows of both sides; nothing of them is kept. Columns of more than 300 terms are used without products. Cost: five fits of
/// at most 12 Newton steps. Source: Lopez-Paz & Oquab, ICLR 2017, arXiv 1610.06545; intervals: DeLong et al., Biometrics 1988.
///
/// # Errors
/// `InvalidArgument` for different columns or more than 300 of them.
pub fn domain_classifier(reference: Rows<'_>, current: Rows<'_>, confidence: f64) -> Result<Score> {
    alike(reference, current)?;
    if !(confidence > 0.5 && confidence < 1.0) {
        return Err(Error::invalid(format!("`confidence` must lie between 0.5 and 1, got {confidence}")));
    }
    let width = reference.width();
    if width > MOST_TERMS {
        return Err(Error::invalid(format!("`reference` must have at most {MOST_TERMS} columns, got {width}")));
    }
    let scale = Scale::of(reference);
    let products = width * (width + 3) / 2 <= MOST_TERMS;
    let terms = 1 + if products { width * (width + 3) / 2 } else { width };
    let mut inputs = Vec::with_capacity((reference.len() + current.len()) * terms);
    let mut labels = Vec::with_capacity(reference.len() + current.len());
    for (rows, label) in [(reference, 0.0), (current, 1.0)] {
        for row in rows.standardised(&scale).chunks_exact(width) {
            // Far outliers must not carry the fit away.
            let row: Vec<f64> = row.iter().map(|x| x.clamp(-5.0, 5.0)).collect();
            inputs.push(1.0);
            inputs.extend(&row);
            if products {
                inputs.extend((0..width).flat_map(|i| (i..width).map(move |j| (i, j))).map(|(i, j)| row[i] * row[j]));
            }
            labels.push(label);
        }
    }
    // Every fifth row of each side; the sides weigh the same.
    let fold = |at: usize| if at < reference.len() { at % FOLDS } else { (at - reference.len()) % FOLDS };
    let weights = [0.5 / reference.len() as f64, 0.5 / current.len() as f64];
    let mut scores = vec![0.0; labels.len()];
    for out in 0..FOLDS {
        let inside = |at: &usize| fold(*at) != out;
        let model = fitted(&inputs, &labels, terms, weights, &inside);
        for at in (0..labels.len()).filter(|at| fold(*at) == out) {
            scores[at] = inputs[at * terms..(at + 1) * terms].iter().zip(&model).map(|(x, w)| x * w).sum();
        }
    }
    let (value, variance) = area(&scores, reference.len());
    let deviation = libm::sqrt(variance);
    let reach = normal_quantile(confidence) * deviation;
    let p_value = if deviation > 0.0 { normal_sf((value - 0.5) / deviation) } else { f64::from(u8::from(value <= 0.5)) };
    Ok(Score {
        lower: Some((value - reach).max(0.0)),
        upper: Some((value + reach).min(1.0)),
        interval: Some(Interval::Confidence),
        p_value: Some(p_value),
        ..Score::plain(value, Vec::new())
    })
}

/// Logistic regression with a light ridge by Newton's method.
fn fitted(inputs: &[f64], labels: &[f64], terms: usize, weights: [f64; 2], inside: &dyn Fn(&usize) -> bool) -> Vec<f64> {
    let mut model = vec![0.0; terms];
    for _ in 0..ROUNDS {
        let mut slope: Vec<f64> = model.iter().map(|w| -1e-4 * w).collect();
        let mut curve = vec![0.0; terms * terms];
        for at in (0..labels.len()).filter(inside) {
            let row = &inputs[at * terms..(at + 1) * terms];
            let score: f64 = row.iter().zip(&model).map(|(x, w)| x * w).sum();
            let chance = 1.0 / (1.0 + libm::exp(-score));
            let weight = weights[usize::from(labels[at] > 0.5)];
            let (push, bend) = (weight * (labels[at] - chance), weight * chance * (1.0 - chance));
            for (i, x) in row.iter().enumerate() {
                slope[i] += push * x;
                let pull = bend * x;
                curve[i * terms..=i * terms + i].iter_mut().zip(row).for_each(|(to, y)| *to += pull * y);
            }
        }
        (0..terms).for_each(|i| curve[i * terms + i] += 1e-4);
        let step = solved(curve, slope, terms);
        let size = step.iter().fold(0.0f64, |most, part| most.max(part.abs()));
        model.iter_mut().zip(&step).for_each(|(w, part)| *w += part);
        if size < 1e-6 || !size.is_finite() {
            break;
        }
    }
    model
}

/// Solves a positive definite system given by its lower triangle (Cholesky).
fn solved(mut lower: Vec<f64>, mut right: Vec<f64>, n: usize) -> Vec<f64> {
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| lower[i * n + k] * lower[j * n + k]).sum();
            let rest = lower[i * n + j] - sum;
            lower[i * n + j] = if i == j { libm::sqrt(rest.max(1e-12)) } else { rest / lower[j * n + j] };
        }
    }
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| lower[i * n + k] * right[k]).sum();
        right[i] = (right[i] - sum) / lower[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| lower[k * n + i] * right[k]).sum();
        right[i] = (right[i] - sum) / lower[i * n + i];
    }
    right
}

/// Area under the curve of scores whose first `negatives` belong to the reference, and `DeLong`'s variance of it.
fn area(scores: &[f64], negatives: usize) -> (f64, f64) {
    let (mut low, mut high) = (scores[..negatives].to_vec(), scores[negatives..].to_vec());
    low.sort_unstable_by(f64::total_cmp);
    high.sort_unstable_by(f64::total_cmp);
    // The share of the other side that is below a score, ties counted half.
    let below = |sorted: &[f64], score: f64| {
        let (under, upto) = (sorted.partition_point(|x| *x < score), sorted.partition_point(|x| *x <= score));
        (under + upto) as f64 / (2 * sorted.len()) as f64
    };
    let spread = |placed: &[f64]| {
        let mean = placed.iter().sum::<f64>() / placed.len() as f64;
        let variance = placed.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (placed.len() - 1) as f64;
        (mean, variance / placed.len() as f64)
    };
    let ups: Vec<f64> = high.iter().map(|score| below(&low, *score)).collect();
    let downs: Vec<f64> = low.iter().map(|score| 1.0 - below(&high, *score)).collect();
    let (mean, one) = spread(&ups);
    (mean, one + spread(&downs).1)
}
