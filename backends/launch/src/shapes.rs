//! Lowerings that are the same everywhere: they move no bytes, or are about sizes alone.

use silure_ir::dialects::plan;
use silure_ir::{Attr, Attrs, Dim, Result, TensorType, Type, ValueId};

use crate::{Lower, Lowering, always};

/// Reshapes, and tensors that hold sizes.
pub static SHAPES: &[&Lowering] = &[&RESHAPE, &SHAPE_OF, &SIZE_OF, &DIM];

static RESHAPE: Lowering = Lowering {
    op: "graph.reshape",
    can: always,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        // A run-time shape: its symbols take their values, and the sizes must agree.
        if l.b.func.op(op).operand(1).is_some() {
            let shape = l.dims_param(op, "shape", 1)?;
            for (d, v) in y.dims.iter().zip(shape) {
                l.size(d, v)?;
            }
        }
        let (have, want) = (l.t(x)?.count(), y.count());
        if have != want {
            let message = match l.attrs(op).get("message") {
                Some(Attr::Str(message)) => message.clone(),
                _ => "the new shape does not have the elements of the old".into(),
            };
            l.equal(&want, have, &message)?;
        }
        Ok(vec![l.view(x, y)?])
    },
};

/// A shape that is computed with at run time: each size is written into a small tensor.
static SHAPE_OF: Lowering = Lowering {
    op: "graph.shape_of",
    can: always,
    lower: |l, op| {
        let (x, y, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.attrs(op));
        let t = l.t(x)?;
        let end = a.get("end").map_or(t.rank(), |_| a.int("end") as usize);
        let dims = t.dims[a.int("start") as usize..end].to_vec();
        Ok(vec![sizes_tensor(l, y, dims)?])
    },
};

/// A number of elements that is computed with at run time.
static SIZE_OF: Lowering = Lowering {
    op: "graph.size_of",
    can: always,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let count = l.t(x)?.count();
        Ok(vec![sizes_tensor(l, y, vec![count])?])
    },
};

static DIM: Lowering = Lowering {
    op: "graph.dim",
    can: always,
    lower: |l, op| {
        let (y, dims) = (l.out(op, 0)?, l.attrs(op).dims("value").to_vec());
        Ok(vec![sizes_tensor(l, y, dims)?])
    },
};

/// A tensor that holds sizes.
pub fn sizes_tensor(l: &mut Lower, ty: TensorType, dims: Vec<Dim>) -> Result<ValueId> {
    let attrs = Attrs::new().with("dims", dims);
    l.b.typed(&plan::DIMS, [], attrs, Type::Tensor(ty))
}
