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
//! | [`CoMoments`] | means, covariances and correlations of up to 64 columns | within rounding | rounding |
//! | [`MeanEmbedding`] | the squared MMD of two streams of rows | exact | of the kernel: 1 / √features |
//! | [`SlicedProjections`] | the sliced Wasserstein distance of two streams of rows | exact | certified interval |
//! | [`Categories`] | counts per name, top-k | exact up to its cap | count error bounded beyond it |

pub mod categories;
pub mod co_moments;
pub mod exponential_histogram;
pub mod frequent_items;
pub mod hll;
#[cfg(target_arch = "x86_64")]
mod ifma;
pub mod kll;
pub mod mean_embedding;
pub mod moments;
pub mod sample;
pub mod sliced_projections;
pub mod theta;

pub use categories::Categories;
pub use co_moments::CoMoments;
pub use exponential_histogram::ExponentialHistogram;
pub use frequent_items::FrequentItems;
pub use hll::Hll;
pub use kll::Kll;
pub use mean_embedding::MeanEmbedding;
pub use moments::Moments;
pub use sample::Sample;
pub use sliced_projections::SlicedProjections;
pub use theta::Theta;
