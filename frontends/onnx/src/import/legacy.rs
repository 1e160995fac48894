//! What opsets 1 to 6 do differently in many operators: broadcasting that a node asks for by
//! `broadcast` and `axis`, and attributes that mattered to how the operator was run, not to what it
//! computes. What differs in one operator alone stands with its converter.

use silure_ir::{Dim, Elem, ValueId};

use super::cx::Cx;
use crate::error::Result;
use crate::graph::Node;
use crate::proto::DATA_TYPES;

/// The last opset in which broadcasting is an attribute.
const LAST: i64 = 6;

impl Cx<'_, '_> {
    /// Operands `a` and `b` of an operator of two, ready for numpy's rules. Up to opset 6 their shapes
    /// are equal unless `broadcast` is set; then `b` is one element, or its axes are those of `a` from
    /// `axis` on (the last ones if it is not given). Shapes that differ without it are read by the rules
    /// of later opsets, with a note: function bodies of ONNX itself are written so.
    pub fn pair(&mut self, n: &Node<'_>, a: ValueId, b: ValueId) -> Result<(ValueId, ValueId)> {
        if n.op.version > LAST {
            return Ok((a, b));
        }
        let broadcast = self.flag_or(n, "broadcast", false)?;
        let axis = self.int(n, "axis")?;
        if !broadcast {
            if self.dims(a)? != self.dims(b)? {
                let at = self.at.clone();
                self.note(format!(
                    "{at} has operands of different shapes and does not set `broadcast`: they are \
                     broadcast by the rules of opset 7"
                ));
            }
            return Ok((a, b));
        }
        let (mut a, mut b) = (a, b);
        let (ra, rb) = (self.rank(a)?, self.rank(b)?);
        if self.ty(b)?.count() == Dim::Const(1) {
            return Ok((a, self.reshape(b, vec![])?));
        }
        let start = match axis {
            None => ra as i64 - rb as i64,
            Some(axis) if axis == ra as i64 => axis,
            Some(axis) => self.axis(axis, ra)? as i64,
        };
        if start < 0 || start as usize + rb > ra {
            return Err(self
                .wrong("the shapes do not fit by the rules of opsets 1 to 6")
                .needed("the right one's as a part of the left one's")
                .present(format!("{} and {}", self.ty(a)?, self.ty(b)?)));
        }
        let start = start as usize;
        for i in 0..rb {
            // A size 1 of the right operand is repeated as well: later opsets say so.
            if self.dims(b)?[i] != Dim::Const(1) {
                self.same_size(&mut a, start + i, &mut b, i, "sizes of the operands")?;
            }
        }
        let mut dims = self.dims(b)?;
        dims.resize(ra - start, Dim::Const(1));
        b = self.reshape(b, dims)?;
        Ok((a, b))
    }

    /// An element type attribute: a number, up to opset 5 a name.
    pub fn elem_named(&mut self, n: &Node<'_>, name: &'static str) -> Result<Option<Elem>> {
        if n.op.version > 5 {
            return self.elem_attr(n, name);
        }
        let word = self.word(n, name, "")?;
        if word.is_empty() {
            return Ok(None);
        }
        let upper = word.to_ascii_uppercase();
        let code = DATA_TYPES.iter().position(|n| *n == upper).map_or(-1, |t| t as i32);
        crate::tensor::elem(code).map(Some).map_err(|_| {
            self.unsupported(format!("attribute `{name}` is an element type that is not read"))
                .present(word)
        })
    }

    /// Attributes of early opsets that do not change what is computed.
    pub fn ignore_hints(&mut self, n: &Node<'_>) {
        if n.op.version <= LAST {
            // Which operands may be overwritten.
            self.ignore("consumed_inputs");
            // Whether a recurrent layer's first result is wanted, which its use says.
            self.ignore("output_sequence");
        }
    }
}
