//! The maths of barograph: sketches that summarise one stream, bins fixed by a reference, scores that compare two
//! profiles. Nothing here knows a clock, a file, a socket, Python or unseeded randomness.

pub mod bins;
pub mod codec;
pub mod combination;
pub mod detectors;
pub mod distributions;
pub mod error;
pub mod estimates;
pub mod hash;
pub mod metrics;
pub mod rows;
pub mod scores;
pub mod sketches;

pub use error::{Error, ErrorKind, Result};
