//! Mergeable summaries of one stream.
//!
//! | sketch | answers | merge | error |
//! |---|---|---|---|
//! | [`ExponentialHistogram`] | quantiles, shares below a value | exact | 0.54 % of the value at scale 6 |
//! | [`Moments`] | sum, mean, variance | exact, order-free | rounded once |
//! | [`Hll`] | distinct values | exact | 1.04 / sqrt(2^lg_k) |
//! | [`Kll`] | quantiles | bounded | 1.65 % of ranks at k = 200 |
//! | [`Theta`] | distinct values of unions, intersections, differences | exact | about 1 / sqrt(2^lg_k) |
//! | [`FrequentItems`] | names that come often | bounded | 3.5 / 2^lg_size of all counts |
//! | [`Sample`] | a uniform sample of ids | exact | none |
//! | [`Categories`] | counts per name, top-k | exact up to its cap | count error bounded beyond it |

pub mod categories;
pub mod exponential_histogram;
pub mod frequent_items;
pub mod hll;
#[cfg(target_arch = "x86_64")]
mod ifma;
pub mod kll;
pub mod moments;
pub mod sample;
pub mod theta;

pub use categories::Categories;
pub use exponential_histogram::ExponentialHistogram;
pub use frequent_items::FrequentItems;
pub use hll::Hll;
pub use kll::Kll;
pub use moments::Moments;
pub use sample::Sample;
pub use theta::Theta;
