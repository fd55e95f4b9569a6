//! Mergeable summaries of one stream.
//!
//! | sketch | answers | merge | error |
//! |---|---|---|---|
//! | [`ExponentialHistogram`] | quantiles, shares below a value | exact | 0.54 % of the value at scale 6 |
//! | [`Moments`] | sum, mean, variance | exact, order-free | rounded once |
//! | [`Hll`] | distinct values | exact | 1.04 / sqrt(2^lg_k) |
//! | [`Kll`] | quantiles | bounded | 1.65 % of ranks at k = 200 |
//! | [`Categories`] | counts per name, top-k | exact up to its cap | count error bounded beyond it |

pub mod categories;
pub mod exponential_histogram;
pub mod hll;
#[cfg(target_arch = "x86_64")]
mod ifma;
pub mod kll;
pub mod moments;

pub use categories::Categories;
pub use exponential_histogram::ExponentialHistogram;
pub use hll::Hll;
pub use kll::Kll;
pub use moments::Moments;
