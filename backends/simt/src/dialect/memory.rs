//! Shared memory, pointers, accesses, asynchronous copies.

use silure_ir::infer::InferCx;
use silure_ir::op::*;
use silure_ir::{AttrKind, Code, Diagnostic, Elem, Result, Space, Traits, Type, bail};

/// A part of the block's shared memory.
pub static SHARED: OpDef = OpDef {
    name: "simt.shared",
    doc: "Bytes `at` to `at` + `bytes` of the block's shared memory as elements of `elem`. `pitch` records the \
          distance of rows in bytes where the part holds a matrix (padded against bank conflicts). With `again` \
          the part lies over others, whose contents are no longer needed.",
    results: &["p"],
    attrs: &[
        required("at", AttrKind::Int),
        required("bytes", AttrKind::Int),
        required("elem", AttrKind::Elem),
        int("pitch", 0),
        flag("again", false),
    ],
    infer: Some(|cx| Ok(vec![Type::Ptr(cx.elem("elem")?, Space::Shared)])),
    verify: Some(|cx| {
        let (at, bytes) = (cx.attrs().int("at"), cx.attrs().int("bytes"));
        if at < 0 || at % 16 != 0 || bytes < 1 {
            return Err(Diagnostic::new(Code::Verify, "a misplaced part of shared memory").need(
                "an offset in multiples of 16, at least one byte",
                format!("{at}, {bytes}"),
            ));
        }
        Ok(())
    }),
    ..OpDef::NEW
};

/// A pointer moved.
pub static PTR_ADD: OpDef = OpDef {
    name: "simt.ptr_add",
    doc: "p moved by `by` bytes (index or i32) plus the constant `bytes`.",
    operands: &[one("p", Of::Ptr), optional("by", Of::Int)],
    results: &["q"],
    attrs: &[int("bytes", 0)],
    infer: Some(|cx| {
        if cx.operand(1).is_some() && !matches!(cx.ty(1)?, Type::Index | Type::Scalar(Elem::I32)) {
            return Err(cx.wrong(1, "an index or i32", cx.ty(1)?));
        }
        Ok(vec![cx.ty(0)?.clone()])
    }),
    ..OpDef::NEW
};

/// One access to memory of 1 to 16 bytes.
pub static LOAD: OpDef = OpDef {
    name: "simt.load",
    doc: "`count` elements at p + `offset` bytes, in one access of 1, 2, 4, 8 or 16 bytes, aligned to its size. \
          Where the predicate is false nothing is read and every element is `pad`.",
    operands: &[one("p", Of::Ptr), optional("predicate", Of::Bool)],
    results: &["y*"],
    attrs: &[int("count", 1), int("offset", 0), float("pad", 0.0)],
    traits: Traits::READS,
    infer: Some(|cx| {
        let e = pointee(cx, 0)?;
        let n = cx.attrs().int("count");
        access_bytes(e, n)?;
        predicate(cx, 1)?;
        Ok(vec![Type::Scalar(e); n as usize])
    }),
    ..OpDef::NEW
};

/// One write of 1 to 16 bytes.
pub static STORE: OpDef = OpDef {
    name: "simt.store",
    doc: "Writes the values at p + `offset` bytes, in one access as in `simt.load`; nothing where the predicate is \
          false.",
    operands: &[one("p", Of::Ptr), optional("predicate", Of::Bool), many("values", Of::Elem)],
    attrs: &[int("offset", 0)],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let e = pointee(cx, 0)?;
        let values = cx.func.op(cx.op).tail();
        access_bytes(e, values.len() as i64)?;
        predicate(cx, 1)?;
        for v in values {
            if *cx.func.ty(*v) != Type::Scalar(e) {
                let m = "the value is not of the pointer's element type";
                return Err(Diagnostic::new(Code::Type, m).need(e, cx.func.ty(*v)));
            }
        }
        Ok(vec![])
    }),
    ..OpDef::NEW
};

/// What went wrong, for the host.
pub static REPORT: OpDef = OpDef {
    name: "simt.report",
    doc: "Where the predicate is true, the u32 at p becomes at least `code`, atomically.",
    operands: &[one("p", Of::Ptr), one("predicate", Of::Bool)],
    attrs: &[required("code", AttrKind::Int)],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        let Type::Ptr(Elem::U32, Space::Global) = cx.ty(0)? else {
            return Err(cx.wrong(0, "a pointer to u32 in global memory", cx.ty(0)?));
        };
        predicate(cx, 1)?;
        Ok(vec![])
    }),
    ..OpDef::NEW
};

/// A copy from global to shared memory in the background.
pub static ASYNC_COPY: OpDef = OpDef {
    name: "simt.async_copy",
    doc: "Copies `bytes` (4, 8 or 16) from global `src` + `from` to shared `dst` + `offset`; zeros where the \
          predicate is false, and then src is not read; where `when` is false nothing is written. It is done for \
          this thread after `simt.async_wait`, for others after a barrier behind that.",
    operands: &[
        one("dst", Of::Ptr),
        one("src", Of::Ptr),
        optional("predicate", Of::Bool),
        optional("when", Of::Bool),
    ],
    attrs: &[required("bytes", AttrKind::Int), int("offset", 0), int("from", 0)],
    traits: Traits::EFFECT,
    infer: Some(|cx| {
        if !matches!(cx.attrs().int("bytes"), 4 | 8 | 16) {
            bail!(Type, "an asynchronous copy of {} bytes", cx.attrs().int("bytes"));
        }
        let spaces = (cx.ty(0)?, cx.ty(1)?);
        let (Type::Ptr(_, Space::Shared), Type::Ptr(_, Space::Global)) = spaces else {
            bail!(Type, "asynchronous copies go from global to shared memory");
        };
        predicate(cx, 2)?;
        predicate(cx, 3)?;
        Ok(vec![])
    }),
    ..OpDef::NEW
};

/// Ends a group of copies.
pub static ASYNC_COMMIT: OpDef = OpDef {
    name: "simt.async_commit",
    doc: "The asynchronous copies since the last commit become one group.",
    traits: Traits::EFFECT,
    ..OpDef::NEW
};

/// Waits for groups of copies.
pub static ASYNC_WAIT: OpDef = OpDef {
    name: "simt.async_wait",
    doc: "Waits until at most `pending` of this thread's groups are unfinished, the latest ones.",
    attrs: &[int("pending", 0)],
    traits: Traits::EFFECT,
    ..OpDef::NEW
};

/// All threads of the block meet.
pub static BARRIER: OpDef = OpDef {
    name: "simt.barrier",
    doc: "Every thread of the block waits here for all others; writes before it are seen after it.",
    traits: Traits::EFFECT,
    ..OpDef::NEW
};

/// 8×8 matrices out of shared memory into fragments.
pub static LDMATRIX: OpDef = OpDef {
    name: "simt.ldmatrix",
    doc: "`count` (1, 2, 4) matrices of eight rows of 16 bytes; lane 8·j + r points at row r of matrix j. Each \
          lane gets four bytes of each: of row lane/4, bytes 4·(lane%4); with `trans` (16-bit elements) the matrix \
          is transposed first.",
    operands: &[one("p", Of::Ptr)],
    results: &["y*"],
    attrs: &[required("count", AttrKind::Int), flag("trans", false), int("offset", 0)],
    traits: Traits::READS,
    infer: Some(|cx| {
        let (e, n) = (pointee(cx, 0)?, cx.attrs().int("count"));
        let Type::Ptr(_, Space::Shared) = cx.ty(0)? else {
            return Err(cx.wrong(0, "a pointer to shared memory", cx.ty(0)?));
        };
        if !matches!(n, 1 | 2 | 4) || !matches!(e.bits(), 8 | 16 | 32) {
            bail!(Type, "no load of {n} matrices of {e}");
        }
        if cx.attrs().bool("trans") && e.bits() != 16 {
            bail!(Type, "only 16-bit elements are transposed, not {e}");
        }
        Ok(vec![Type::Vec(32 / e.bits() as u32, e); n as usize])
    }),
    ..OpDef::NEW
};

/// The element type that operand `i` points at.
fn pointee(cx: &InferCx, i: usize) -> Result<Elem> {
    match cx.ty(i)? {
        Type::Ptr(e, _) => Ok(*e),
        t => Err(cx.wrong(i, "a pointer", t)),
    }
}

/// Bytes of an access of `n` elements, which are a power of two up to 16.
pub fn access_bytes(e: Elem, n: i64) -> Result<usize> {
    let bytes = e.bytes().and_then(|b| usize::try_from(n).ok().map(|n| n * b));
    match bytes {
        Some(b @ (1 | 2 | 4 | 8 | 16)) => Ok(b),
        _ => Err(Diagnostic::new(Code::Type, "an access of no machine size")
            .need("1, 2, 4, 8 or 16 bytes", format!("{n} elements of {e}"))),
    }
}

fn predicate(cx: &InferCx, i: usize) -> Result<()> {
    match cx.operand(i) {
        Some(_) if *cx.ty(i)? != Type::Scalar(Elem::Bool) => {
            Err(cx.wrong(i, "a bool scalar", cx.ty(i)?))
        }
        _ => Ok(()),
    }
}
