//! Several classes, named by their position.

use super::binary::WEIGHT_UNITS;
use super::fixed::Fixed;
use super::{Metric, RocAuc, ratio};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Most classes: the confusion matrix is square.
pub const MOST_CLASSES: usize = 1000;

/// Confusion matrix and one-versus-rest AUC over any number of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct MulticlassMetrics {
    classes: usize,
    rows: u64,
    unlabelled: u64,
    /// Sum of the squares of what each row stands for.
    stood: u64,
    /// Weight by label, then prediction.
    confusion: Vec<Fixed>,
    /// One per class once scores came.
    cells: Vec<RocAuc>,
}

/// Precision, recall and F1 of one class; `None` where a division by zero leaves nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct OfClass {
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub f1: Option<f64>,
    pub support: f64,
    pub roc_auc: Option<f64>,
}

impl MulticlassMetrics {
    /// For so many classes, 2 to 1000.
    ///
    /// # Errors
    /// `InvalidArgument` outside that range.
    pub fn new(classes: usize) -> Result<Self> {
        if !(2..=MOST_CLASSES).contains(&classes) {
            return Err(Error::invalid(format!("`classes` must number 2 to {MOST_CLASSES}, got {classes}")));
        }
        Ok(Self { classes, rows: 0, unlabelled: 0, stood: 0, confusion: vec![Fixed::default(); classes * classes], cells: Vec::new() })
    }

    /// Adds rows. Labels and predictions are positions of classes, labels -1 for missing; `scores` one row of probabilities per
    /// row of labels, flattened; `weights` not negative.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_many(&mut self, labels: &[i64], predictions: &[i64], scores: Option<&[f64]>, weights: Option<&[f64]>) -> Result<()> {
        let known = |class: i64| usize::try_from(class).is_ok_and(|class| class < self.classes);
        if predictions.len() != labels.len() {
            return Err(Error::invalid(format!(
                "`y_pred` must have as many rows as `y_true`, got {} and {}",
                predictions.len(),
                labels.len()
            )));
        }
        for (name, classes, missing) in [("y_true", labels, true), ("y_pred", predictions, false)] {
            if let Some(at) = classes.iter().position(|class| !(known(*class) || missing && *class == -1)) {
                return Err(Error::invalid(format!("`{name}` must hold known classes, got class {} at position {at}", classes[at])));
            }
        }
        super::binary::check("weight", weights, labels.len(), "in [0, 1e12]", |value| (0.0..=1e12).contains(&value))?;
        if let Some(scores) = scores {
            if scores.len() != labels.len() * self.classes {
                return Err(Error::invalid(format!(
                    "`y_score` must have {} columns, got {} numbers for {} rows",
                    self.classes,
                    scores.len(),
                    labels.len()
                )));
            }
            super::binary::check("y_score", Some(scores), scores.len(), "in [0, 1]", |value| (0.0..=1.0).contains(&value))?;
            self.cells.resize(self.classes, RocAuc::default());
        }
        self.rows += labels.len() as u64;
        self.stood = self.stood.saturating_add(labels.len() as u64);
        for (row, (label, prediction)) in labels.iter().zip(predictions).enumerate() {
            let Ok(label) = usize::try_from(*label) else {
                self.unlabelled += 1;
                continue;
            };
            self.confusion[label * self.classes + *prediction as usize].add(weights.map_or(1.0, |weights| weights[row]));
            if let Some(scores) = scores {
                for (class, cells) in self.cells.iter_mut().enumerate() {
                    cells.update(scores[row * self.classes + class], class == label);
                }
            }
        }
        Ok(())
    }

    /// Adds rows without labels: each class counts with its probability. `probabilities` and `scores` hold one row per prediction,
    /// flattened; the AUC ranks by `scores`.
    ///
    /// # Errors
    /// `InvalidArgument` naming argument and position; nothing is added then.
    pub fn update_expected(&mut self, probabilities: &[f64], predictions: &[i64], scores: &[f64]) -> Result<()> {
        let known = |class: i64| usize::try_from(class).is_ok_and(|class| class < self.classes);
        if let Some(at) = predictions.iter().position(|class| !known(*class)) {
            return Err(Error::invalid(format!("`y_pred` must hold known classes, got class {} at position {at}", predictions[at])));
        }
        for (name, values) in [("probabilities", probabilities), ("scores", scores)] {
            if values.len() != predictions.len() * self.classes {
                let (got, rows) = (values.len(), predictions.len());
                return Err(Error::invalid(format!("`{name}` must have {} columns, got {got} numbers for {rows} rows", self.classes)));
            }
            super::binary::check(name, Some(values), values.len(), "in [0, 1]", |value| (0.0..=1.0).contains(&value))?;
        }
        self.cells.resize(self.classes, RocAuc::default());
        self.rows += predictions.len() as u64;
        self.stood = self.stood.saturating_add(predictions.len() as u64);
        for (row, prediction) in predictions.iter().enumerate() {
            for class in 0..self.classes {
                let (chance, score) = (probabilities[row * self.classes + class], scores[row * self.classes + class]);
                self.confusion[class * self.classes + *prediction as usize].add(chance);
                let positive = libm::rint(chance * WEIGHT_UNITS) as u64;
                self.cells[class].add(score, true, positive);
                self.cells[class].add(score, false, WEIGHT_UNITS as u64 - positive);
            }
        }
        Ok(())
    }

    /// Adds another's rows.
    ///
    /// # Errors
    /// `Incompatible` for another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.classes != other.classes {
            return Err(Error::incompatible(format!("metrics must have the same classes, got {} and {}", self.classes, other.classes)));
        }
        self.rows += other.rows;
        self.stood = self.stood.saturating_add(other.stood);
        self.unlabelled += other.unlabelled;
        self.confusion.iter_mut().zip(&other.confusion).for_each(|(to, from)| to.merge(*from));
        self.cells.resize(self.cells.len().max(other.cells.len()), RocAuc::default());
        self.cells.iter_mut().zip(&other.cells).for_each(|(to, from)| to.merge(from));
        Ok(())
    }

    /// Takes rows away that were added before, as another's rows of the same classes.
    pub fn subtract(&mut self, other: &Self) {
        self.rows = self.rows.saturating_sub(other.rows);
        self.stood = self.stood.saturating_sub(other.stood);
        self.unlabelled = self.unlabelled.saturating_sub(other.unlabelled);
        self.confusion.iter_mut().zip(&other.confusion).for_each(|(from, sum)| from.subtract(*sum));
        self.cells.iter_mut().zip(&other.cells).for_each(|(from, cells)| from.subtract(cells));
    }

    /// Every row stands for twice as many, the others having been left out by fair coins: values stay.
    ///
    /// # Errors
    /// None in practice.
    pub fn double(&mut self) -> Result<()> {
        let stood = self.stood.saturating_mul(4);
        self.merge(&self.clone())?;
        self.stood = stood;
        Ok(())
    }

    /// How many rows count as one independent row because each stands for several: at least 1.
    pub fn thinning(&self) -> f64 {
        super::binary::thinning(self.rows, self.stood)
    }

    /// Rows seen, and those of them without a label.
    pub fn rows(&self) -> (u64, u64) {
        (self.rows, self.unlabelled)
    }

    /// Weight by label (row) and prediction (column).
    pub fn confusion(&self) -> Vec<Vec<f64>> {
        self.confusion.chunks(self.classes).map(|row| row.iter().map(|sum| sum.value()).collect()).collect()
    }

    /// Per class.
    pub fn per_class(&self) -> Vec<OfClass> {
        let confusion = self.confusion();
        (0..self.classes)
            .map(|class| {
                let hit = confusion[class][class];
                let support: f64 = confusion[class].iter().sum();
                let predicted: f64 = confusion.iter().map(|row| row[class]).sum();
                let roc_auc = self.cells.get(class).and_then(|cells| cells.score(0.95)).map(|score| score.value);
                OfClass {
                    precision: ratio(hit, predicted),
                    recall: ratio(hit, support),
                    f1: ratio(2.0 * hit, support + predicted),
                    support,
                    roc_auc,
                }
            })
            .collect()
    }

    /// Averages over classes: macro over those with rows or predictions, weighted by rows; a class without predictions counts as 0, as
    /// in scikit-learn. Micro averages are the accuracy.
    pub fn metrics(&self) -> Vec<Metric> {
        let classes = self.per_class();
        let total: f64 = classes.iter().map(|class| class.support).sum();
        let hit: f64 = (0..self.classes).map(|class| self.confusion[class * self.classes + class].value()).sum();
        // A class that neither came nor was predicted is not there.
        let there: Vec<&OfClass> = classes.iter().filter(|class| class.support > 0.0 || class.precision.is_some()).collect();
        let flat =
            |of: &dyn Fn(&OfClass) -> Option<f64>| ratio(there.iter().map(|class| of(class).unwrap_or(0.0)).sum(), there.len() as f64);
        let weighted =
            |of: &dyn Fn(&OfClass) -> Option<f64>| ratio(there.iter().map(|class| class.support * of(class).unwrap_or(0.0)).sum(), total);
        let supported: Vec<f64> = classes.iter().filter(|class| class.support > 0.0).filter_map(|class| class.recall).collect();
        let aucs: Option<Vec<f64>> = classes.iter().map(|class| class.roc_auc).collect();
        vec![
            Metric::new("accuracy", ratio(hit, total)),
            Metric::new("balanced_accuracy", ratio(supported.iter().sum(), supported.len() as f64)),
            Metric::new("precision_macro", flat(&|class| class.precision)),
            Metric::new("recall_macro", flat(&|class| class.recall)),
            Metric::new("f1_macro", flat(&|class| class.f1)),
            Metric::new("precision_weighted", weighted(&|class| class.precision)),
            Metric::new("recall_weighted", weighted(&|class| class.recall)),
            Metric::new("f1_weighted", weighted(&|class| class.f1)),
            Metric::new("roc_auc_ovr", aucs.and_then(|aucs| ratio(aucs.iter().sum(), aucs.len() as f64))),
        ]
    }

    /// Appends the state to a snapshot.
    pub fn encode(&self, writer: &mut Writer) {
        writer.len(self.classes);
        writer.u64(self.rows);
        writer.u64(self.unlabelled);
        writer.u64(self.stood);
        self.confusion.iter().for_each(|sum| sum.encode(writer));
        writer.bool(!self.cells.is_empty());
        self.cells.iter().for_each(|cells| cells.encode(writer));
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// `Decode` for bytes that no `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let classes = reader.u64()?;
        let mut out = Self::new(usize::try_from(classes).unwrap_or(usize::MAX)).map_err(|error| Error::decode(error.message))?;
        (out.rows, out.unlabelled, out.stood) = (reader.count()?, reader.count()?, reader.u64()?);
        for sum in &mut out.confusion {
            *sum = Fixed::decode(reader)?;
        }
        if reader.bool()? {
            out.cells = (0..out.classes).map(|_| RocAuc::decode(reader)).collect::<Result<_>>()?;
        }
        Ok(out)
    }
}
