//! Feed-forward networks: one for all tokens, or experts.

use super::Layout;
use super::weights::Tensor;

/// A gated network.
pub fn one(name: &str, hidden: usize, inner: usize) -> [Tensor; 3] {
    [
        Tensor::matrix(format!("{name}.gate_proj"), inner, hidden),
        Tensor::matrix(format!("{name}.up_proj"), inner, hidden),
        Tensor::matrix(format!("{name}.down_proj"), hidden, inner),
    ]
}

/// The experts of a layer, without the router.
pub fn experts(name: &str, layout: Layout, count: usize, hidden: usize, inner: usize) -> Vec<Tensor> {
    match layout {
        Layout::Released => (0..count).flat_map(|expert| one(&format!("{name}.{expert}"), hidden, inner)).collect(),
        Layout::Cpu => vec![
            Tensor::stacked(format!("{name}.gate_up_proj"), count, hidden, 2 * inner),
            Tensor::stacked(format!("{name}.down_proj"), count, inner, hidden),
        ],
    }
}
