//! Positions, exchange between lanes, matrix fragments.

use silure_ir::op::*;
use silure_ir::{AttrKind, Code, Diagnostic, Elem, Num, Tolerance, Traits, Type, bail};

macro_rules! position {
    ($($id:ident $name:literal $doc:literal;)*) => {$(
        #[doc = $doc]
        pub static $id: OpDef = OpDef {
            name: $name,
            doc: $doc,
            results: &["i"],
            infer: Some(|_| Ok(vec![Type::Scalar(Elem::I32)])),
            ..OpDef::NEW
        };
    )*};
}
position! {
    THREAD_ID "simt.thread_id" "The thread's number in its block.";
    LANE_ID "simt.lane_id" "The thread's number in its warp: thread_id modulo the warp size.";
    WARP_ID "simt.warp_id" "The warp's number in its block, the same in all its lanes.";
}

/// The block's position in the grid.
pub static BLOCK_ID: OpDef = OpDef {
    name: "simt.block_id",
    doc: "The block's position along grid axis `axis`.",
    results: &["i"],
    attrs: &[int("axis", 0)],
    infer: Some(|cx| match cx.attrs().int("axis") {
        0..3 => Ok(vec![Type::Index]),
        a => bail!(Type, "the grid has no axis {a}"),
    }),
    ..OpDef::NEW
};

/// The size of the grid.
pub static NUM_BLOCKS: OpDef = OpDef {
    name: "simt.num_blocks",
    doc: "The number of blocks along grid axis `axis`.",
    results: &["n"],
    attrs: &[int("axis", 0)],
    infer: Some(|cx| match cx.attrs().int("axis") {
        0..3 => Ok(vec![Type::Index]),
        a => bail!(Type, "the grid has no axis {a}"),
    }),
    ..OpDef::NEW
};

/// A product of fragments.
pub static MMA: OpDef = OpDef {
    name: "simt.mma",
    doc: "One warp's matrix product: operands are 4 registers of a (16×K), 2 of b (K×8), 4 of c (16×8), results \
          those of c + a·b; K is 16 for 16-bit elements, 32 for 8-bit ones, 8 for tf32. With g = lane/4, t = lane%4 and e \
          elements in a register: a₀ is row g, columns e·t…; a₁ row g+8; a₂, a₃ the same with columns + K/2; b₀ \
          column g, rows e·t…; b₁ rows + K/2; c₀, c₁ row g, columns 2t, 2t+1; c₂, c₃ row g+8.",
    operands: &[many("abc", Of::Elem)],
    results: &["y*"],
    infer: Some(|cx| {
        let ops = cx.func.op(cx.op).tail();
        let ty: Vec<&Type> = ops.iter().map(|v| cx.func.ty(*v)).collect();
        if ty.len() != 10 {
            return Err(Diagnostic::new(Code::Type, "a fragment product has ten operands")
                .need(10, ty.len()));
        }
        let (Type::Vec(n, a), Type::Vec(m, b)) = (ty[0], ty[4]) else {
            bail!(Type, "fragments are short vectors, not {} and {}", ty[0], ty[4]);
        };
        let same = ty[..4].iter().all(|t| *t == ty[0]) && ty[4..6].iter().all(|t| *t == ty[4]);
        let acc = silure_ir::dialects::tile::dot_accumulator(*a, *b);
        let whole = *n == 1 && *a == Elem::Tf32;
        let known = (whole || matches!((n, a.bits()), (2, 16) | (4, 8))) && n == m && same;
        match acc {
            Some(e) if known && ty[6..].iter().all(|t| **t == Type::Scalar(e)) => {
                Ok(vec![Type::Scalar(e); 4])
            }
            _ => {
                bail!(Type, "there is no fragment product of {} by {} into {}", ty[0], ty[4], ty[6])
            }
        }
    }),
    tolerance: Tolerance::Reduction,
    ..OpDef::NEW
};

/// Values from other lanes.
pub static SHUFFLE: OpDef = OpDef {
    name: "simt.shuffle",
    doc: "x of another lane: lane xor `by` (mode xor), lane + `by` (down; x itself past the end), or the lane \
          given (idx). All lanes of the warp execute it.",
    operands: &[one("x", Of::Elem), optional("lane", Of::Int)],
    results: &["y"],
    attrs: &[required("mode", AttrKind::Str), int("by", 0)],
    infer: Some(|cx| {
        if !(0..64).contains(&cx.attrs().int("by")) {
            bail!(Type, "`by` is {}, not a distance between lanes", cx.attrs().int("by"));
        }
        match (cx.attrs().str("mode"), cx.operand(1)) {
            ("xor" | "down", None) | ("idx", Some(_)) => {}
            (m, _) => bail!(Type, "`mode` is \"{m}\": xor and down have `by`, idx has a lane"),
        }
        Ok(vec![cx.ty(0)?.clone()])
    }),
    ..OpDef::NEW
};

/// A condition over a warp.
pub static VOTE: OpDef = OpDef {
    name: "simt.vote",
    doc: "Whether the condition holds in any or all lanes of the warp (`kind`).",
    operands: &[one("condition", Of::Bool)],
    results: &["y"],
    attrs: &[required("kind", AttrKind::Str)],
    infer: Some(|cx| match cx.attrs().str("kind") {
        "any" | "all" => Ok(vec![Type::Scalar(Elem::Bool)]),
        k => bail!(Type, "`kind` is \"{k}\", not any or all"),
    }),
    ..OpDef::NEW
};

/// Scalars into one register.
pub static PACK: OpDef = OpDef {
    name: "simt.pack",
    doc: "2 scalars of 16 bits, 4 of 8 bits or one of 32 in one 32-bit register, the first lowest.",
    operands: &[many("x", Of::Elem)],
    results: &["y"],
    infer: Some(|cx| {
        let ops = cx.func.op(cx.op).tail();
        match ops.first().map(|v| cx.func.ty(*v)) {
            Some(Type::Scalar(e))
                if ops.len() * e.bits() == 32
                    && ops.iter().all(|v| *cx.func.ty(*v) == Type::Scalar(*e)) =>
            {
                Ok(vec![Type::Vec(ops.len() as u32, *e)])
            }
            _ => bail!(Type, "packed values are scalars of one type, 32 bits together"),
        }
    }),
    ..OpDef::NEW
};

/// The scalars of one register.
pub static UNPACK: OpDef = OpDef {
    name: "simt.unpack",
    doc: "The elements of a short vector, lowest first.",
    operands: &[one("x", Of::Elem)],
    results: &["y*"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Vec(n, e) => Ok(vec![Type::Scalar(*e); *n as usize]),
        t => Err(cx.wrong(0, "a short vector", t)),
    }),
    ..OpDef::NEW
};

/// An integer as a position.
pub static INDEX: OpDef = OpDef {
    name: "simt.index",
    doc: "The integer scalar x as an index. (`arith.cast` goes the other way.)",
    operands: &[one("x", Of::Int)],
    results: &["y"],
    infer: Some(|cx| match cx.ty(0)? {
        Type::Scalar(_) => Ok(vec![Type::Index]),
        t => Err(cx.wrong(0, "an integer scalar", t)),
    }),
    ..OpDef::NEW
};

/// Two to a power, by the machine's instruction.
pub static EX2: OpDef = OpDef {
    name: "simt.ex2",
    doc: "2 to the power x in f32 by the target's own instruction: relative error at most 2⁻²², denormal results \
          kept (0 with `flush`), integers exact.",
    operands: &[one("x", Of::Float)],
    results: &["y"],
    attrs: &[flag("flush", false)],
    traits: Traits::ELEMENTWISE,
    infer: Some(|cx| match cx.ty(0)? {
        t @ Type::Scalar(Elem::F32) => Ok(vec![t.clone()]),
        t => Err(cx.wrong(0, "f32", t)),
    }),
    scalar: Some(|cx, x| match x[0].f() {
        v if cx.attrs.bool("flush") && v < -126.0 => Num::F(0.0),
        v => Num::F(v.exp2()),
    }),
    tolerance: Tolerance::Elementwise,
    ..OpDef::NEW
};
