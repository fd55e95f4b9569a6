//! Quality of predictions against labels.

pub mod roc_auc;
