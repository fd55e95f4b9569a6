//! The sidecar: sockets, files and threads around the engine. The only crate that knows them.

pub mod access;
pub mod api;
pub mod bucket;
pub mod budget;
pub mod config;
pub mod control;
pub mod counters;
pub mod cpu;
pub mod datagrams;
pub mod deliver;
pub mod examples;
pub mod exporters;
pub mod exposition;
pub mod files;
pub mod fleet;
pub mod http;
pub mod idle;
pub mod ingest;
pub mod link;
pub mod load;
pub mod measurement;
pub mod model;
pub mod models;
pub mod note;
pub mod outbox;
pub(crate) mod page;
pub mod pairing;
pub mod pending;
pub mod privacy;
pub mod problem;
pub mod push;
pub mod record;
pub mod rows;
pub mod secret;
pub mod serve;
pub mod shape;
pub mod shard;
pub mod sidecar;
pub mod sinks;
pub mod store;
pub mod strays;
pub mod streams;
pub(crate) mod tables;
pub mod wal;

/// What can be asked, as an `OpenAPI` document.
pub const OPENAPI: &str = include_str!("openapi.json");
