//! What the products of an entry read whose weights the pass `precision` narrows: sums over a run.
//!
//! [`products`] finds them, by the value that they read: products of one value share its sum. [`observe`] adds a
//! state for each, [k, k] in f32, to which every run of the entry adds xᵀ x of the value's rows. What stands in
//! regions, and the products of experts, have no one sum and are not among them; nor are results of the
//! entry, which keep 8 bits.

use std::sync::Arc;

use silure_ir::bail;
use silure_ir::diag::Result;
use silure_ir::dialects::{arith, core, graph};
use silure_ir::{
    Attr, Attrs, Builder, Elem, Module, OpId, State, TensorType, Type, ValueId, WeightExpr, attrs,
};

use crate::precision::{chooses, gives, scaled, turned, weight};

/// A value that products read.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The state of its sum.
    pub state: Arc<str>,
    /// Elements of a row.
    pub k: usize,
    /// The matrices that it is multiplied with, as `precision` takes them: expressions of [n, k], as text.
    pub rows: Vec<String>,
    value: ValueId,
}

/// The values that products of an entry read, in order.
pub fn products(m: &Module, entry: &str) -> Vec<Inputs> {
    let Some(f) = m.func(entry) else { return vec![] };
    let mut all: Vec<Inputs> = vec![];
    let body = |op: &OpId| f.parent_op(*op).is_none();
    for op in f.walk().into_iter().filter(body) {
        let o = f.op(op);
        if o.def.name == graph::EXPERT_MATMUL.name || chooses(f, op) || gives(f, op) {
            continue;
        }
        let Some(e) = weight(m, f, op).or_else(|| scaled(m, f, op)) else { continue };
        let shape = e.ty().ok().and_then(|t| t.shape());
        let (Some(value), Some(&[k, _])) = (o.operand(0), shape.as_deref()) else { continue };
        if f.ty(value).as_tensor().is_none_or(|t| t.rank() != 2) {
            continue;
        }
        let rows = turned(e).to_string();
        match all.iter_mut().find(|i| i.value == value) {
            Some(known) if known.rows.contains(&rows) => {}
            Some(known) => known.rows.push(rows),
            None => {
                let state = format!("inputs.{}", all.len()).into();
                all.push(Inputs { state, k, rows: vec![rows], value });
            }
        }
    }
    all
}

/// Adds the sums of some of [`products`] to an entry.
///
/// # Errors
/// A module without that entry, or with states of these names.
pub fn observe(m: &mut Module, entry: &str, which: &[Inputs]) -> Result<()> {
    let Some(f) = m.funcs.iter_mut().find(|f| *f.name == *entry) else {
        bail!(Invalid, "there is no entry `{entry}`")
    };
    let last = f.walk().into_iter().rev().find(|op| f.op(*op).def.name == core::RETURN.name);
    let Some(last) = last else { bail!(Internal, "entry `{entry}` does not return") };
    for i in which {
        if m.states.iter().any(|s| s.name == i.state) {
            bail!(Invalid, "there is a state `{}`", i.state);
        }
        let ty = TensorType::fixed(Elem::F32, &[i.k, i.k]);
        m.states.push(State { name: i.state.clone(), ty: ty.clone() });
        let named = || Attrs::new().with("name", Attr::Symbol(i.state.clone()));
        let mut b = Builder::before(f, last);
        let state = b.typed(&core::STATE, [], named(), Type::State(ty))?;
        let before = b.one(&core::STATE_READ, [state], Attrs::new())?;
        let columns = b.one(&graph::TRANSPOSE, [i.value], attrs! { perm: vec![1, 0] })?;
        let sums = b.one(&graph::MATMUL, [columns, i.value], attrs! {})?;
        let sums = b.one(&arith::ADD, [before, sums], attrs! {})?;
        let next = b.one(&core::STATE_WRITE, [state, sums], attrs! { axis: 0i64 })?;
        b.op(&core::STATE_STORE, [next], named())?;
    }
    Ok(())
}

/// The rows of which a weight of the pass `precision` in u4 is a part.
pub fn rows(e: &WeightExpr) -> Option<&WeightExpr> {
    match e {
        WeightExpr::Codes(rows, Elem::U4, _)
        | WeightExpr::Scales(rows, Elem::U4, _)
        | WeightExpr::Offsets(rows, Elem::U4, _) => Some(rows),
        _ => None,
    }
}
