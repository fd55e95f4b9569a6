//! Events and the time go in, profiles, reports and alerts come out. Deterministic: no clock, no I/O, no Python.

pub mod alert;
pub mod bets;
pub mod coarse;
pub mod compare;
pub mod dependence;
pub mod events;
pub mod frame;
pub mod labels;
mod lattice;
pub mod ledger;
pub mod monitor;
mod nearest;
pub mod policy;
pub mod profile;
mod pulse;
pub mod quality;
pub mod reference;
pub mod report;
pub mod rules;
pub mod schema;
pub mod seasons;
mod segments;
pub mod settings;
mod text;
mod watching;
pub mod window;

pub use compare::{compare, compare_column, compare_tested};
pub use monitor::Monitor;
pub use profile::{ColumnProfile, Profile};
pub use reference::{Reference, ReferenceBuilder};
pub use report::Report;
pub use schema::{Kind, Role, Schema};
pub use settings::Settings;
