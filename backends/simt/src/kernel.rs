//! What makes a function a simt kernel, and its verifier.
//!
//! Invariants beyond those of the IR:
//! 1. It is a kernel without results; arguments are pointers to global memory, sizes and scalars, and every
//!    symbol of the signature is the index argument of that name. Ops are of `simt`, `arith`, or constants.
//! 2. Attributes: `grid` (1 to 3 dims), `threads` (a multiple of `warp`, at most 1024), `warp` (32 or 64),
//!    `shared` (bytes, at least the end of every `simt.shared`), `target`.
//! 3. Parts of shared memory that a kernel names do not overlap, unless they begin at the same place (one
//!    memory under several element types) or one is marked `again`.
//! 4. Barriers, shuffles, votes, `simt.mma` and `simt.ldmatrix` are reached by all threads (warp-wide ones: by
//!    all lanes) together: no condition or loop bound around them differs between threads.
//! 5. Constant offsets of an access are multiples of its size.
//!
//! Not checked: that addresses are in bounds and aligned at run time, and races; [`crate::interp`] does.

use std::collections::HashSet;

use silure_ir::dialects::tile::{grid_of, symbol_args};
use silure_ir::{
    Code, Diagnostic, Dim, Func, FuncKind, OpId, RegionId, Result, Space, Traits, Type, ValueId,
};

use crate::dialect::{self, access_bytes};

/// How a kernel is launched.
#[derive(Clone, PartialEq, Debug)]
pub struct Launch {
    /// Blocks along x, y, z, over the symbols of the signature.
    pub grid: Vec<Dim>,
    /// Threads of a block.
    pub threads: u32,
    /// Lanes of a warp.
    pub warp: u32,
    /// Bytes of shared memory of a block.
    pub shared: u64,
    /// The target it was made for.
    pub target: String,
}

impl Launch {
    /// Of a kernel's attributes.
    pub fn of(f: &Func) -> Result<Launch> {
        let err = |what: &str, needed: &str, present: i64| {
            Err(Diagnostic::new(Code::Verify, format!("@{}: attribute `{what}`", f.name))
                .need(needed, present))
        };
        let (threads, warp) = (f.attrs.int("threads"), f.attrs.int("warp"));
        if !matches!(warp, 32 | 64) {
            return err("warp", "32 or 64", warp);
        }
        if !(1..=1024).contains(&threads) || threads % warp != 0 {
            return err("threads", "a multiple of the warp, at most 1024", threads);
        }
        let shared = f.attrs.int("shared");
        if shared < 0 {
            return err("shared", "a number of bytes", shared);
        }
        Ok(Launch {
            grid: grid_of(f)?.to_vec(),
            threads: threads as u32,
            warp: warp as u32,
            shared: shared as u64,
            target: f.attrs.str("target").into(),
        })
    }
}

/// Checks a simt kernel as a whole; `limit` is the shared memory that a block of the target may have.
/// The ops themselves are checked by `silure_ir::verify`.
pub fn verify(f: &Func, limit: Option<u64>) -> Result<(), Vec<Diagnostic>> {
    let mut errors = Vec::new();
    silure_ir::verify::verify_func(None, f, &mut errors);
    let mut err = |e: Diagnostic| errors.push(e);
    let bad = |m: String| Diagnostic::new(Code::Verify, format!("@{}: {m}", f.name));
    if f.kind != FuncKind::Kernel || !f.result_types.is_empty() {
        err(bad("a simt kernel is a `kernel` without results".into()));
    }
    for (v, name) in f.args().iter().zip(&f.arg_names) {
        if !matches!(f.ty(*v), Type::Ptr(_, Space::Global) | Type::Index | Type::Scalar(_)) {
            err(bad(format!("argument `{name}` is {}", f.ty(*v))));
        }
    }
    for (s, arg) in symbol_args(f) {
        if arg.is_none() {
            err(bad(format!("no index argument is named as the symbol `{}`", s.name)));
        }
    }
    match Launch::of(f) {
        Err(e) => err(e),
        Ok(l) => {
            if let Some(limit) = limit.filter(|limit| l.shared > *limit) {
                let e =
                    Diagnostic::new(Code::Limit, format!("@{}: too much shared memory", f.name));
                err(e.need(format!("at most {limit} bytes"), l.shared));
            }
            shared_parts(f, l.shared as i64, &mut err);
        }
    }
    for op in f.walk() {
        let o = f.op(op);
        let fine = matches!(o.def.dialect(), "simt" | "arith")
            || matches!(o.def.name, "core.scalar" | "core.yield" | "core.return");
        if !fine {
            err(bad(format!("`{}` is not an op of simt kernels", o.def.name)).at(&o.loc));
        }
        if let Some((bytes, offset)) = access(f, op)
            && offset % bytes as i64 != 0
        {
            let e = bad(format!("`{}` is misaligned", o.def.name)).at(&o.loc);
            err(e.need(format!("an offset in multiples of {bytes}"), offset));
        }
    }
    let divergent = divergent(f);
    together(f, f.body, false, &divergent, &mut err);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Size and constant offset of an access.
fn access(f: &Func, op: OpId) -> Option<(usize, i64)> {
    let o = f.op(op);
    let count = match o.def.name {
        "simt.load" => o.attrs.int("count"),
        "simt.store" => o.tail().len() as i64,
        "simt.async_copy" => {
            let n = o.attrs.int("bytes");
            // Both offsets count: one that is no multiple makes their sum none, or is misaligned itself.
            let odd = [o.attrs.int("offset"), o.attrs.int("from")].into_iter().find(|x| x % n != 0);
            return Some((n as usize, odd.unwrap_or(0)));
        }
        "simt.ldmatrix" => return Some((16, o.attrs.int("offset"))),
        _ => return None,
    };
    let e = f.ty(o.operand(0)?).elem()?;
    Some((access_bytes(e, count).ok()?, o.attrs.int("offset")))
}

fn shared_parts(f: &Func, total: i64, err: &mut dyn FnMut(Diagnostic)) {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for op in f.walk() {
        let o = f.op(op);
        if o.def != &dialect::SHARED {
            continue;
        }
        let (at, bytes) = (o.attrs.int("at"), o.attrs.int("bytes"));
        let end = at.saturating_add(bytes);
        if end > total {
            let e = Diagnostic::new(Code::Verify, "a part behind the end of shared memory");
            err(e.at(&o.loc).need(format!("at most {total} bytes"), end));
        }
        if o.attrs.bool("again") {
            continue;
        }
        let clash = parts.iter().find(|p| p.0 != at && p.0 < end && at < p.1);
        if let Some(p) = clash {
            let e = Diagnostic::new(Code::Verify, "two parts of shared memory overlap");
            err(e.at(&o.loc).note(format!("{at}..{end} and {}..{}", p.0, p.1)));
        }
        parts.push((at, end));
    }
}

/// The values that may differ between threads of a block.
pub fn divergent(f: &Func) -> HashSet<ValueId> {
    let mut out = HashSet::new();
    loop {
        let before = out.len();
        spread(f, f.body, &mut out);
        if out.len() == before {
            return out;
        }
    }
}

fn spread(f: &Func, r: RegionId, out: &mut HashSet<ValueId>) {
    for &op in &f.region(r).ops {
        let o = f.op(op);
        let any = o.operands().any(|v| out.contains(&v));
        match o.def.name {
            "simt.thread_id" | "simt.lane_id" | "simt.warp_id" | "simt.mma" | "simt.ldmatrix"
            | "simt.shuffle" => out.extend(&o.results),
            "simt.for" => {
                let bounds = o.slots().take(3).flatten().any(|v| out.contains(&v));
                let args = f.region(o.regions[0]).args.clone();
                let yields = f.yields(o.regions[0]);
                for (i, &arg) in args.iter().enumerate().skip(1) {
                    let carried = [o.tail().get(i - 1), yields.get(i - 1)];
                    if bounds || carried.into_iter().flatten().any(|v| out.contains(v)) {
                        out.insert(arg);
                        out.extend(o.results.get(i - 1));
                    }
                }
                if bounds {
                    out.insert(args[0]);
                }
            }
            "simt.if" => {
                for (i, v) in o.results.iter().enumerate() {
                    let mut from = o.regions.iter().filter_map(|r| f.yields(*r).get(i).copied());
                    if any || from.any(|v| out.contains(&v)) {
                        out.insert(*v);
                    }
                }
            }
            // Memory may hold anything, but one address gives one value.
            _ if any => out.extend(&o.results),
            _ => {}
        }
        for &inner in &o.regions {
            spread(f, inner, out);
        }
    }
}

fn together(
    f: &Func,
    r: RegionId,
    apart: bool,
    divergent: &HashSet<ValueId>,
    err: &mut dyn FnMut(Diagnostic),
) {
    for &op in &f.region(r).ops {
        let o = f.op(op);
        let collective = matches!(
            o.def.name,
            "simt.barrier" | "simt.shuffle" | "simt.vote" | "simt.mma" | "simt.ldmatrix"
        );
        if collective && apart {
            let m = format!("`{}` where threads may have parted", o.def.name);
            err(Diagnostic::new(Code::Verify, m)
                .at(&o.loc)
                .note("no condition around it may depend on the thread"));
        }
        let deciding = if o.def == &dialect::FOR { 3 } else { 1 };
        let parts = !o.regions.is_empty()
            && o.slots().take(deciding).flatten().any(|v| divergent.contains(&v));
        for &inner in &o.regions {
            together(f, inner, apart || parts, divergent, err);
        }
    }
}

/// Removes ops without effect whose results nothing uses.
pub fn remove_dead(f: &mut Func) {
    for op in f.walk().into_iter().rev() {
        let o = f.op(op);
        let needed = o.def.is(Traits::EFFECT) || o.parent().is_none();
        if !needed && o.results.iter().all(|v| f.uses(*v).is_empty()) {
            f.erase(op);
        }
    }
}
