//! How events come in: one file per protocol.

pub mod arrow;
pub mod cloudevents;
pub mod columns;
pub mod ndjson;
pub mod open_inference;
pub mod otlp;
mod plain;
pub mod sagemaker;
pub mod statsd;
