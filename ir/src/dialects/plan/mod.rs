//! `plan`: a function whose heavy ops are launches. What a backend's lowering leaves is made of these,
//! of `kernel.map` (generated code), `core` and the control flow of `graph`; it is encoded one to one
//! into the engine's plan. A value stands for a buffer: a result is where its launch writes.

use crate::attr::AttrKind;
use crate::bail;
use crate::op::*;

/// All ops of the dialect.
pub static OPS: &[&OpDef] = &[&LAUNCH, &VIEW, &DIMS, &BIND, &SIZE, &CHECK];

/// A macro-kernel launch.
pub static LAUNCH: OpDef = OpDef {
    name: "plan.launch",
    doc: "Runs macro-kernel `kernel`. `args` says what each of its buffer slots holds: n ≥ 0 is operand n, \
          −1 nothing, −2 − n is result n. `sizes` are its parameters in order. With a region, that is \
          the callback on scalars the kernel applies to each finished tile (buffer slot `callback`); its \
          operands (through `maps`) are the last ones. `init[i]` is the operand whose contents result i \
          starts from, −1 for none: the launch then changes part of it. With `grid` (blocks, and elementary \
          operations for reports) the kernel is the module's own, and runs on the target's device; `status` is the buffer \
          slot of a u32 where it reports contents that are outside of their tensors.",
    operands: &[many("x", Of::Any)],
    results: &["y*"],
    attrs: &[
        required("kernel", AttrKind::Str),
        required("args", AttrKind::Ints),
        required("sizes", AttrKind::Dims),
        maybe("maps", AttrKind::Maps),
        maybe("init", AttrKind::Ints),
        maybe("callback", AttrKind::Int),
        maybe("grid", AttrKind::Dims),
        maybe("status", AttrKind::Int),
    ],
    regions: &["callback*"],
    traits: Traits::TYPED.and(Traits::ISOLATED),
    verify: Some(|cx| {
        let o = cx.func.op(cx.op);
        let (n, m) = (o.operands().count() as i64, o.results.len() as i64);
        match cx.attrs().ints("args").iter().find(|&&a| a >= n || a < -1 - m) {
            Some(a) => bail!(Verify, "`args` names slot {a}, which is not there"),
            None => Ok(()),
        }
    }),
    ..OpDef::NEW
};

/// The same bytes as another tensor.
pub static VIEW: OpDef = OpDef {
    name: "plan.view",
    doc: "The bytes of x from element `offset` on as a tensor of the result's type: nothing is copied.",
    operands: &[one("x", Of::Elem)],
    results: &["y"],
    attrs: &[maybe("offset", AttrKind::Dims)],
    traits: Traits::TYPED,
    verify: Some(|cx| match (cx.tensor(0)?.elem, cx.results()[0].elem()) {
        (a, Some(b)) if a.bits() == b.bits() => Ok(()),
        _ => bail!(Verify, "a view keeps the width of the elements"),
    }),
    ..OpDef::NEW
};

/// Sizes as a tensor.
pub static DIMS: OpDef = OpDef {
    name: "plan.dims",
    doc: "A small integer tensor that holds the dims `dims`, for sizes that are computed with as data.",
    results: &["y"],
    attrs: &[required("dims", AttrKind::Dims)],
    traits: Traits::TYPED,
    values: Some(|cx| Some(cx.attrs().dims("dims").to_vec())),
    ..OpDef::NEW
};

/// A size that an earlier launch computed.
pub static BIND: OpDef = OpDef {
    name: "plan.bind",
    doc: "Run-time symbol `symbol` takes the value of element `index` of x.",
    operands: &[one("x", Of::Num)],
    attrs: &[required("symbol", AttrKind::Str), int("index", 0)],
    traits: Traits::EFFECT,
    verify: Some(|cx| {
        let name = cx.attrs().str("symbol");
        match cx.func.symbols.iter().find(|s| *s.name == *name) {
            Some(s) if s.runtime => Ok(()),
            _ => bail!(Verify, "`{name}` is not a run-time symbol of @{}", cx.func.name),
        }
    }),
    ..OpDef::NEW
};

/// A size that follows from others.
pub static SIZE: OpDef = OpDef {
    name: "plan.size",
    doc: "Run-time symbol `symbol` takes the value of the dim `value`.",
    attrs: &[required("symbol", AttrKind::Str), required("value", AttrKind::Dims)],
    traits: Traits::EFFECT,
    verify: Some(|cx| match cx.attrs().dims("value") {
        [_] => Ok(()),
        d => bail!(Verify, "one dim is needed, {} are present", d.len()),
    }),
    ..OpDef::NEW
};

/// A condition that the run checks.
pub static CHECK: OpDef = OpDef {
    name: "plan.check",
    doc: "Ends the run with `message` unless the two dims are equal.",
    attrs: &[required("dims", AttrKind::Dims), required("message", AttrKind::Str)],
    traits: Traits::EFFECT,
    verify: Some(|cx| match cx.attrs().dims("dims") {
        [_, _] => Ok(()),
        d => bail!(Verify, "two dims are needed, {} are present", d.len()),
    }),
    ..OpDef::NEW
};
