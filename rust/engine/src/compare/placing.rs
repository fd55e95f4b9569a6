//! Which bin of a comparison a single value lies in, by the name that the bin has in a report.

use barograph_core::bins::Bins;

use super::columns::{ABOVE, BELOW, INFINITE, MINUS_INFINITE, NAN, NULL, UNSEEN, union_label};
use super::pairs::LEAST_IN_BIN;
use crate::reference::ReferenceColumn;
use crate::settings::Settings;

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Single {
    Null,
    Number(f64),
    Name(String),
}

/// The bins of one column of a reference.
#[derive(Debug)]
pub struct Placing<'a> {
    column: &'a ReferenceColumn,
    /// The union of each bin.
    unions: Vec<usize>,
}

impl<'a> Placing<'a> {
    /// Those that a comparison by these settings counts in.
    pub fn new(column: &'a ReferenceColumn, settings: &Settings) -> Self {
        let counts = column.profile.numbers().and_then(|numbers| numbers.bins.as_ref());
        let unions = counts.map(|counts| Bins::unions(counts, settings.unions, LEAST_IN_BIN)).unwrap_or_default();
        Self { column, unions }
    }

    /// What the bin of a value is called; a name that has no bin of its own is called by itself. `None` for a value of another kind.
    pub fn of(&self, value: &Single) -> Option<String> {
        let fixed = |name: &str| Some(name.to_owned());
        match (value, self.column.profile.numbers(), self.column.profile.names()) {
            (Single::Null, ..) => fixed(NULL),
            (Single::Number(x), Some(_), _) if x.is_nan() => fixed(NAN),
            (Single::Number(x), Some(_), _) if x.is_infinite() => fixed(if *x > 0.0 { INFINITE } else { MINUS_INFINITE }),
            (Single::Number(x), Some(_), _) => {
                let bins = self.column.bins.as_ref()?;
                let at = bins.index(*x);
                if at == 0 {
                    return fixed(BELOW);
                }
                if at + 1 == self.unions.len() {
                    return fixed(ABOVE);
                }
                Some(union_label(bins.edges(), &self.unions, *self.unions.get(at)?))
            }
            (Single::Name(name), _, Some(names)) => fixed(if names.error() == 0 && names.count(name) == 0 { UNSEEN } else { name }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray};

    use super::*;
    use crate::{Profile, ReferenceBuilder, Schema, compare_column};

    fn frame(rows: impl Iterator<Item = usize> + Clone, shift: f64) -> RecordBatch {
        let x: Float64Array = rows
            .clone()
            .map(|at| match at % 50 {
                0 => None,
                1 => Some(f64::NAN),
                2 => Some(7.0),
                _ => Some((at % 977) as f64 / 97.7 + shift),
            })
            .collect();
        let c: StringArray = rows.map(|at| Some(["a", "b", "c", "new"][if at % 7 == 0 && shift > 0.0 { 3 } else { at % 3 }])).collect();
        RecordBatch::try_from_iter_with_nullable([("x", Arc::new(x) as ArrayRef, true), ("c", Arc::new(c) as ArrayRef, true)]).unwrap()
    }

    /// Every value is counted where it is placed: shares by placing are those of the report.
    #[test]
    fn values_are_placed_where_a_comparison_counts_them() {
        let whole = frame(0..20_000, 0.0);
        let mut builder = ReferenceBuilder::new(&Schema::infer(&whole).unwrap(), None, None).unwrap();
        builder.update(&whole).unwrap();
        while builder.fix().unwrap() {
            builder.count(&whole).unwrap();
        }
        let reference = builder.finish(Some(0)).unwrap();
        let settings = Settings::default();
        let now = frame(0..3000, 2.5);
        let mut profile = Profile::new(&reference.schema(), Some(&reference)).unwrap();
        profile.update(&now, Some(&reference)).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for name in ["x", "c"] {
            let placing = Placing::new(reference.column(name).unwrap(), &settings);
            let column = now.column_by_name(name).unwrap();
            let single = |row: usize| {
                if column.is_null(row) {
                    return Single::Null;
                }
                match column.as_any().downcast_ref::<Float64Array>() {
                    Some(numbers) => Single::Number(numbers.value(row)),
                    None => Single::Name(column.as_any().downcast_ref::<StringArray>().unwrap().value(row).to_owned()),
                }
            };
            let placed: Vec<String> = (0..3000).map(|row| placing.of(&single(row)).unwrap()).collect();
            let (report, _) = compare_column(&reference, &profile, &settings, name).unwrap().unwrap();
            assert!(report.moved.len() > 2, "{:?}", report.moved);
            for moved in &report.moved {
                let share = placed.iter().filter(|bin| **bin == moved.bin).count() as f64 / 3000.0;
                assert!((share - moved.current).abs() < 1e-12, "{name} {moved:?} {share}");
                seen.insert(moved.bin.clone());
            }
        }
        for bin in [ABOVE, UNSEEN] {
            assert!(seen.contains(bin), "{seen:?}");
        }
        let placing = Placing::new(reference.column("x").unwrap(), &settings);
        assert_eq!(placing.of(&Single::Name("a".into())), None);
        assert_eq!(placing.of(&Single::Number(f64::NEG_INFINITY)).as_deref(), Some(MINUS_INFINITE));
        assert_eq!(placing.of(&Single::Number(-1e9)).as_deref(), Some(BELOW));
    }
}
