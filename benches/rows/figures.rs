//! What is told of many measurements.

use crate::Failed;

/// The median, with the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Summary {
    /// Of these. There must be at least one.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = if figures.len().is_multiple_of(2) {
            f64::midpoint(figures[middle - 1], figures[middle])
        } else {
            figures[middle]
        };
        Self { median, least: figures[0], most: figures[figures.len() - 1] }
    }

    /// Of the one divided by the other, round by round.
    pub fn of_ratios(above: &[f64], below: &[f64]) -> Self {
        Self::of(above.iter().zip(below).map(|(above, below)| above / below))
    }

    /// A single figure.
    pub fn exactly(figure: f64) -> Self {
        Self::of([figure])
    }
}

/// The least figure that this share of them does not exceed.
pub fn percentile(figures: impl IntoIterator<Item = f64>, share: f64) -> Result<f64, Failed> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let place = ((figures.len() as f64 * share).ceil() as usize).max(1) - 1;
    figures.get(place).copied().ok_or_else(|| "nothing was measured".into())
}

/// Random numbers that are the same in every run: SplitMix64, of a place in a sequence.
pub fn drawn(seed: u64, place: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0xd1b5_4a32_d192_ed03)
        .wrapping_add(place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One of so many, at random.
pub fn one_of(number: usize, seed: u64, place: usize) -> usize {
    // Both fit: neither is larger than memory.
    (drawn(seed, place as u64) % number as u64) as usize
}
