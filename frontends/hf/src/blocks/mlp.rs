//! Feed-forward networks: down(act(gate x) · up x).

use silure_ir::ValueId;
use silure_ir::dialects::arith;

use crate::error::Result;
use crate::net::{Activation, Linear, Net};

/// A gated feed-forward network.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Gated {
    /// Features between the products.
    pub inner: usize,
    pub activation: Activation,
    pub bias: bool,
}

impl Gated {
    /// The network of x [n, hidden], whose tensors begin with `at`.
    pub fn build(&self, net: &mut Net, at: &str, x: ValueId, hidden: usize) -> Result<ValueId> {
        let parts = ["gate_proj", "up_proj"].map(|p| (format!("{at}.{p}"), self.inner));
        let both = Linear { parts: &parts, input: hidden, bias: self.bias };
        let both = net.linear(x, &both)?;
        let split = net.split(both, &[self.inner; 2])?;
        let gate = net.activation(self.activation, split[0])?;
        let y = net.two(&arith::MUL, gate, split[1])?;
        let parts = [(format!("{at}.down_proj"), hidden)];
        net.linear(y, &Linear { parts: &parts, input: self.inner, bias: self.bias })
    }
}
