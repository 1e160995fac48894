//! Where a program is in the grid, and control flow.

use crate::bail;
use crate::diag::{Code, Diagnostic, Result};
use crate::infer::InferCx;
use crate::op::*;
use crate::types::Type;

/// The program's position in the grid.
pub static PROGRAM_ID: OpDef = OpDef {
    name: "tile.program_id",
    doc: "This program's position along grid axis `axis`.",
    results: &["i"],
    attrs: &[int("axis", 0)],
    infer: Some(infer_grid),
    ..OpDef::NEW
};

/// The size of the grid.
pub static NUM_PROGRAMS: OpDef = OpDef {
    name: "tile.num_programs",
    doc: "The number of programs along grid axis `axis`.",
    results: &["n"],
    attrs: &[int("axis", 0)],
    infer: Some(infer_grid),
    ..OpDef::NEW
};

fn infer_grid(cx: &InferCx) -> Result<Vec<Type>> {
    let (axis, axes) = (cx.attrs().int("axis"), super::grid_of(cx.func)?.len());
    if axis < 0 || axis >= axes as i64 {
        let m = format!("the grid has no axis {axis}");
        return Err(Diagnostic::new(Code::Type, m).need(format!("0..{}", axes.max(1) - 1), axis));
    }
    Ok(vec![Type::Index])
}

/// A counted loop.
pub static FOR: OpDef = OpDef {
    name: "tile.for",
    doc: "Runs the region for i = lo, lo + step, … while i < hi (step at least 1). The region's arguments are i and \
          the carried values; what it yields is carried to the next round, and out at the end.",
    operands: &[
        one("lo", Of::Index),
        one("hi", Of::Index),
        one("step", Of::Index),
        many("carried", Of::Any),
    ],
    results: &["y*"],
    regions: &["body"],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let carried: Vec<Type> =
            cx.func.op(cx.op).tail().iter().map(|v| cx.func.ty(*v).clone()).collect();
        carried.iter().try_for_each(carriable)?;
        let Some(r) = cx.region(0) else { bail!(Type, "the loop has no region") };
        let args: Vec<&Type> = cx.func.region(r).args.iter().map(|v| cx.func.ty(*v)).collect();
        let wanted: Vec<&Type> = std::iter::once(&Type::Index).chain(&carried).collect();
        same(&wanted, &args, "the region's arguments are not the counter and the carried values")?;
        same(&wanted[1..], &cx.yields(0), "the region does not yield the carried values")?;
        Ok(carried)
    }),
    ..OpDef::NEW
};

/// A choice.
pub static IF: OpDef = OpDef {
    name: "tile.if",
    doc: "Runs the first region if the condition holds, the second if not; the results are what it yields.",
    operands: &[one("condition", Of::Bool)],
    results: &["y*"],
    regions: &["then", "else"],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        if !matches!(cx.ty(0)?, Type::Scalar(_)) {
            return Err(cx.wrong(0, "a bool scalar", cx.ty(0)?));
        }
        let (a, b) = (cx.yields(0), cx.yields(1));
        same(&a, &b, "the regions yield different types")?;
        for r in [cx.region(0), cx.region(1)].into_iter().flatten() {
            if !cx.func.region(r).args.is_empty() {
                bail!(Type, "the regions of tile.if have no arguments");
            }
        }
        a.iter().try_for_each(|t| carriable(t))?;
        Ok(a.into_iter().cloned().collect())
    }),
    ..OpDef::NEW
};

/// Control flow carries values of the program, never views: their definition stays in sight.
fn carriable(t: &Type) -> Result<()> {
    if matches!(t, Type::Tile(_) | Type::Scalar(_) | Type::Index) {
        return Ok(());
    }
    Err(Diagnostic::new(Code::Type, "control flow cannot carry this")
        .need("a tile, a scalar or an index", t)
        .note("make the view inside, from carried offsets"))
}

fn same(wanted: &[&Type], present: &[&Type], message: &str) -> Result<()> {
    if wanted == present {
        return Ok(());
    }
    let list = |t: &[&Type]| {
        let t: Vec<String> = t.iter().map(|t| t.to_string()).collect();
        format!("({})", t.join(", "))
    };
    Err(Diagnostic::new(Code::Type, message).need(list(wanted), list(present)))
}
