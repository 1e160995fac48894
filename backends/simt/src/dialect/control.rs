//! Structured control flow of one thread.

use silure_ir::op::*;
use silure_ir::{Code, Diagnostic, Elem, Result, Traits, Type, bail};

/// A counted loop.
pub static FOR: OpDef = OpDef {
    name: "simt.for",
    doc: "Runs the region for i = lo, lo + step, … while i < hi (step at least 1; index or i32). The region's \
          arguments are i and the carried values; what it yields is carried on.",
    operands: &[
        one("lo", Of::Int),
        one("hi", Of::Int),
        one("step", Of::Int),
        many("carried", Of::Any),
    ],
    results: &["y*"],
    regions: &["body"],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let carried: Vec<Type> =
            cx.func.op(cx.op).tail().iter().map(|v| cx.func.ty(*v).clone()).collect();
        let Some(r) = cx.region(0) else { bail!(Type, "the loop has no region") };
        let counter = cx.ty(0)?;
        if !matches!(counter, Type::Index | Type::Scalar(Elem::I32))
            || cx.ty(1)? != counter
            || cx.ty(2)? != counter
        {
            bail!(Type, "the bounds of a loop are all index or all i32");
        }
        let args: Vec<&Type> = cx.func.region(r).args.iter().map(|v| cx.func.ty(*v)).collect();
        let wanted: Vec<&Type> = std::iter::once(counter).chain(&carried).collect();
        same(&wanted, &args, "the region's arguments are not the counter and the carried values")?;
        same(&wanted[1..], &cx.yields(0), "the region does not yield the carried values")?;
        Ok(carried)
    }),
    ..OpDef::NEW
};

/// A choice, each lane by itself.
pub static IF: OpDef = OpDef {
    name: "simt.if",
    doc: "Runs the first region if the condition holds, the second if not; the results are what it yields.",
    operands: &[one("condition", Of::Bool)],
    results: &["y*"],
    regions: &["then", "else"],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let (a, b) = (cx.yields(0), cx.yields(1));
        same(&a, &b, "the regions yield different types")?;
        Ok(a.into_iter().cloned().collect())
    }),
    ..OpDef::NEW
};

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
