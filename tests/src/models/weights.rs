//! A tensor of noise that is the same every time, and the number formats that files hold it in.

use std::fmt::Display;

/// What a tensor is filled with.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// Ones.
    Ones,
    /// Evenly distributed around 0 with this standard deviation; the first so many values are 0.
    Noise { deviation: f32, zeros: usize },
}

/// Tokens 0, 1 and 2 of the demo model's tokenizer are special: end of text, begin and end of a message.
const SPECIAL_TOKENS: usize = 3;

/// A named tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name in the file; also what its noise is derived from.
    pub name: String,
    /// Its dimensions, the one whose neighbours lie side by side last. Matrices: outputs, inputs.
    pub shape: Vec<usize>,
    fill: Fill,
}

impl Tensor {
    fn new(name: String, shape: Vec<usize>, fill: Fill) -> Self {
        Self { name, shape, fill }
    }

    /// The weights of a normalisation. Like most constructors here it takes the layer's name; the tensor's is that with `.weight`.
    pub fn norm(layer: impl Display, size: usize) -> Self {
        Self::new(format!("{layer}.weight"), vec![size], Fill::Ones)
    }

    /// A linear layer that keeps the size of what it is given.
    pub fn matrix(layer: impl Display, outputs: usize, inputs: usize) -> Self {
        Self::new(format!("{layer}.weight"), vec![outputs, inputs], noise(keeping(inputs)))
    }

    /// One of these for every expert.
    pub fn matrices(layer: impl Display, experts: usize, outputs: usize, inputs: usize) -> Self {
        Self::new(format!("{layer}.weight"), vec![experts, outputs, inputs], noise(keeping(inputs)))
    }

    /// The same with inputs before outputs, and under its own name.
    pub fn stacked(name: String, experts: usize, inputs: usize, outputs: usize) -> Self {
        Self::new(name, vec![experts, inputs, outputs], noise(keeping(inputs)))
    }

    /// What is added to the scores of experts before they are chosen. Under its own name.
    pub fn bias(name: String, size: usize) -> Self {
        Self::new(name, vec![size], noise(0.1))
    }

    /// A vector for every token: small, so that the layers decide what comes out rather than the last token.
    pub fn embedding(layer: impl Display, vocabulary: usize, hidden: usize) -> Self {
        Self::new(format!("{layer}.weight"), vec![vocabulary, hidden], noise(0.02))
    }

    /// What gives every token its logit, and special tokens 0.
    pub fn head(layer: impl Display, vocabulary: usize, hidden: usize) -> Self {
        let fill = Fill::Noise { deviation: keeping(hidden), zeros: SPECIAL_TOKENS * hidden };
        Self::new(format!("{layer}.weight"), vec![vocabulary, hidden], fill)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values, in the order of the file.
    pub fn values(&self) -> impl Iterator<Item = f32> + use<> {
        let fill = self.fill;
        let mut state = seed(&self.name);
        (0..self.len()).map(move |at| match fill {
            Fill::Ones => 1.0,
            Fill::Noise { zeros, .. } if at < zeros => 0.0,
            Fill::Noise { deviation, .. } => deviation * even(&mut state),
        })
    }
}

fn noise(deviation: f32) -> Fill {
    Fill::Noise { deviation, zeros: 0 }
}

/// The deviation of weights whose sum over so many inputs is about as large as an input.
fn keeping(inputs: usize) -> f32 {
    (inputs as f32).sqrt().recip()
}

/// FNV-1a.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The next value of an even distribution with mean 0 and deviation 1, by SplitMix64 (Steele, Lea, Flood 2014).
fn even(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // 24 bits are what a float holds exactly.
    let unit = (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0;
    unit * 3.0_f32.sqrt()
}

/// The nearest bfloat16, ties to even: the upper half of a float. Not for NaN.
pub fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The nearest IEEE 754 half, ties to even. Not for NaN.
pub fn f16(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = value.abs();
    // Below 2^-14 a half counts steps of 2^-24.
    if magnitude < 2.0_f32.powi(-14) {
        return sign | (magnitude * 2.0_f32.powi(24)).round_ties_even() as u16;
    }
    let bits = magnitude.to_bits();
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    // The exponent's bias is 15 rather than 127; what is too large becomes infinite.
    sign | ((rounded - (112 << 23)) >> 13).min(0x7c00) as u16
}

/// Values in a block of [`q8_0`] and [`q4_0`].
pub const BLOCK: usize = 32;

/// GGML's Q8_0: a scale as a half, then a signed byte for each of 32 values. 34 bytes.
pub fn q8_0(block: &[f32], into: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    into.extend(f16(scale).to_le_bytes());
    let steps = |value: &f32| if scale == 0.0 { 0 } else { (value / scale).round() as i8 };
    into.extend(block.iter().map(|value| steps(value).cast_unsigned()));
}

/// GGML's Q4_0: a scale as a half, then four bits for each of 32 values, 8 more than the multiple of the scale; a byte holds one of the first
/// half below one of the second. 18 bytes.
pub fn q4_0(block: &[f32], into: &mut Vec<u8>) {
    let largest =
        block.iter().fold(0.0_f32, |largest, value| if value.abs() > largest.abs() { *value } else { largest });
    // The value furthest from 0 gets the step furthest from 0, which is -8.
    let scale = largest / -8.0;
    into.extend(f16(scale).to_le_bytes());
    let steps = |value: f32| if scale == 0.0 { 8 } else { ((value / scale + 8.5) as u8).min(15) };
    let (low, high) = block.split_at(block.len() / 2);
    into.extend(low.iter().zip(high).map(|(low, high)| steps(*low) | steps(*high) << 4));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_as_ieee_754_says() {
        let tie = |steps: f32| 1.0 + steps / 2048.0;
        let known =
            [(0.0, 0), (1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (65520.0, 0x7c00), (1e9, 0x7c00), (6e-8, 1)];
        let rounded = [(2.0_f32.powi(-14), 0x0400), (1.0 / 3.0, 0x3555), (tie(1.0), 0x3c00), (tie(3.0), 0x3c02)];
        for (value, half) in known.into_iter().chain(rounded) {
            assert_eq!(f16(value), half, "{value}");
        }
        assert_eq!([1.0, -0.5, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].map(bf16), [0x3f80, 0xbf00, 0x3f80, 0x3f82]);
    }

    #[test]
    fn blocks_are_as_ggml_says() {
        let block: Vec<f32> = (0..32).map(|at| at as f32 - 16.0).collect();
        let (mut eight, mut four) = (Vec::new(), Vec::new());
        q8_0(&block, &mut eight);
        q4_0(&block, &mut four);
        // 16 / 127 and 16 / 8.
        assert_eq!(
            (eight.len(), &eight[..2], eight[2] as i8, eight[33] as i8),
            (34, &f16(16.0 / 127.0).to_le_bytes()[..], -127, 119)
        );
        assert_eq!((four.len(), &four[..2], four[2], four[17]), (18, &0x4000_u16.to_le_bytes()[..], 0x80, 0xf8));
        four.clear();
        q4_0(&[0.0; 32], &mut four);
        assert_eq!(four[2..], [0x88; 16]);
    }

    #[test]
    fn noise_has_the_deviation_that_was_asked_for() {
        let tensor = Tensor::matrix("some", 256, 64);
        let (sum, squares) =
            tensor.values().fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
        let count = tensor.len() as f32;
        assert!((sum / count).abs() < 0.003 && ((squares / count).sqrt() - 0.125).abs() < 0.003, "{sum} {squares}");
        assert!(tensor.values().eq(tensor.values()) && tensor.values().ne(Tensor::matrix("other", 256, 64).values()));
    }
}
