//! Sequences and optionals: which of them the encoder takes as they are.
//!
//! A list of the plan holds tensors, so a sequence of sequences, an optional of an optional and what
//! holds them have no form here.

use silure_ir::{Code, Diagnostic, Func, OpId, Result, Type};

/// Ops on lists; each is a few instructions of the plan.
pub(super) const OPS: &[&str] = &[
    "graph.seq_empty",
    "graph.seq_construct",
    "graph.seq_at",
    "graph.seq_len",
    "graph.seq_insert",
    "graph.seq_erase",
    "graph.concat_from_sequence",
    "graph.split_to_sequence",
    "graph.optional",
    "graph.optional_has",
    "graph.optional_get",
];

/// Whether a value of that type can be held; `lists`: whether any list can.
pub(super) fn legal_type(ty: &Type, lists: bool) -> Result<()> {
    let inner = match ty {
        Type::Opt(t) => match &**t {
            Type::Seq(t) => t,
            _ => t,
        },
        Type::Seq(t) => t,
        _ => return Ok(()),
    };
    match &**inner {
        Type::Tensor(_) | Type::Scalar(_) if lists => Ok(()),
        Type::Tensor(_) | Type::Scalar(_) => {
            Err(Diagnostic::new(Code::Unsupported, "lists cannot be run on this target")
                .need("a tensor", ty))
        }
        _ => {
            Err(Diagnostic::new(Code::Unsupported, "a list of lists cannot be run on this target")
                .need("a sequence, an optional, or an optional sequence, of tensors", ty))
        }
    }
}

/// Whether an op's lists can be held, and its elements cut and joined.
pub(super) fn legal(f: &Func, op: OpId, lists: bool) -> Result<()> {
    let o = f.op(op);
    let args = o.regions.iter().flat_map(|r| &f.region(*r).args);
    for v in o.results.iter().chain(args) {
        legal_type(f.ty(*v), lists)?;
    }
    let moves = ["graph.concat_from_sequence", "graph.split_to_sequence"].contains(&o.def.name);
    let mut elems = o.operands().chain(o.results.iter().copied()).filter_map(|v| f.ty(v).elem());
    match elems.find(|e| moves && e.bytes().is_none()) {
        Some(e) => Err(Diagnostic::new(
            Code::Unsupported,
            format!("`{}`: elements of type {e} are smaller than a byte", o.def.name),
        )),
        None => Ok(()),
    }
}
