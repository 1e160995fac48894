//! Machine code for elementwise kernels, by Cranelift.
//!
//! [`Codegen`] turns `kernel.map` ops and the callbacks of `plan.launch` into functions of the CPU
//! kernel ABI (`silure_kernels_cpu::abi`), collected in one position-independent [`Object`] without
//! relocations: constants lie behind the code that uses them, helpers are called through the table
//! in the context. The same input gives the same bytes.
//!
//! * [`Space`]: which axes of the iteration space are walked as one.
//! * `prepare`: the region in the form that is emitted.
//! * `stage`: steps of plain arithmetic and of elementary functions over strips.
//! * `nest`: loops; `emit`: values in registers; `ops`, `cast`: instructions of each op.
//!
//! An op of another crate gets CPU code by a [`ScalarLowering`] given to [`Codegen::register`], or by
//! its `decompose`. What has neither is refused by [`Codegen::can`], with the user's location.
//!
//! ```
//! use silure_cpu::codegen::{Codegen, IsaLevel};
//! let cg = Codegen::new(IsaLevel::parse("x86-64-v3").unwrap()).unwrap();
//! assert!(cg.finish().unwrap().bytes.is_empty());
//! ```

pub(crate) mod cast;
pub(crate) mod emit;
mod level;
pub(crate) mod nest;
mod object;
mod ops;
pub(crate) mod prepare;
mod space;
mod stage;

use std::collections::HashMap;

use silure_ir::dialects::{kernel, plan};
use silure_ir::{Diagnostic, Dim, Elem, Func, OpId, Result, TensorType, math};

/// Cranelift's IR, which a [`ScalarLowering`] writes.
pub use cranelift_codegen::ir;
pub use emit::Emit;
pub use level::IsaLevel;
pub use object::{Codegen, Object};
pub use ops::ScalarLowering;
pub use silure_launch::encode::{Callback, Functions, MapCode};
pub use space::Space;

use prepare::{Body, prepare, unsupported};

/// The lowerings in force, by op.
#[derive(Clone)]
pub(crate) struct Registry(HashMap<&'static str, ScalarLowering>);

impl Default for Registry {
    fn default() -> Self {
        Registry(ops::builtin().map(|l| (l.op, *l)).collect())
    }
}

/// Ops on f32, f64 that `silure_ir::math` always replaces.
const EXPANDED: &[&str] = &[
    "arith.gelu",
    "arith.softplus",
    "arith.elu",
    "arith.leaky_relu",
    "arith.hard_sigmoid",
    "arith.rsqrt",
    "arith.recip",
];

impl Registry {
    pub(crate) fn has(&self, op: &str) -> bool {
        self.0.contains_key(op) || EXPANDED.contains(&op)
    }

    pub(crate) fn get(&self, op: &str) -> Option<&ScalarLowering> {
        self.0.get(op)
    }

    pub(crate) fn add(&mut self, l: &ScalarLowering) {
        self.0.insert(l.op, *l);
    }
}

/// Whether elementwise code can be generated for an op: `kernel.map`, or `plan.launch` with a
/// callback. With the lowerings of this crate; see [`Codegen::can`].
pub fn can(f: &Func, op: OpId) -> Result<()> {
    legal(f, op, &Registry::default())
}

pub(crate) fn legal(f: &Func, op: OpId, registry: &Registry) -> Result<()> {
    let o = f.op(op);
    let check = || -> Result<()> {
        for v in o.operands().chain(o.results.iter().copied()) {
            let Some(t) = f.ty(v).as_tensor() else { continue };
            if o.def.name == kernel::MAP.name {
                check_tensor(t)?;
            }
        }
        let Some(&r) = o.regions.first() else {
            return Err(unsupported(format!("`{}` has no region to compile", o.def.name)));
        };
        let body = prepare(f, r, registry, &math::Options::default())?;
        check_body(&body, registry)?;
        if o.def.name == plan::LAUNCH.name {
            callback_space(f, op, &body)?;
        }
        Ok(())
    };
    check().map_err(|e| e.at(&o.loc))
}

fn check_tensor(t: &TensorType) -> Result<()> {
    match t.encoding() {
        Some(e) => {
            Err(unsupported(format!("elementwise code on layout `{e}`")).need("a dense tensor", t))
        }
        None => Ok(()),
    }
}

/// Every op has a lowering for its types.
pub(crate) fn check_body(body: &Body, registry: &Registry) -> Result<()> {
    use silure_ir::{Traits, Type};
    for &op in body.ops() {
        let o = body.func.op(op);
        let mut elems = Vec::new();
        for v in o.operands().chain(o.results.iter().copied()) {
            match body.func.ty(v) {
                Type::Scalar(_) => {}
                t => {
                    return Err(unsupported(format!(
                        "`{}` on {t} in elementwise code",
                        o.def.name
                    ))
                    .at(&o.loc));
                }
            }
            elems.extend(body.func.ty(v).elem());
        }
        if o.def.is(Traits::CONSTANT) && elems.iter().any(|e| e.is_str()) {
            // A handle is an engine's own number: strings are read from memory.
            return Err(unsupported("a string constant in elementwise code".into()).at(&o.loc));
        }
        if o.def.is(Traits::TERMINATOR) || o.def.is(Traits::CONSTANT) {
            continue;
        }
        if stage::function(&body.func, op).is_some() {
            continue;
        }
        if registry.get(o.def.name).is_none() || o.results.len() != 1 {
            let types: Vec<&str> = elems.iter().map(|e| e.name()).collect();
            return Err(unsupported(format!(
                "`{}` on {} has no lowering to CPU code",
                o.def.name,
                types.join(", ")
            ))
            .at(&o.loc));
        }
    }
    Ok(())
}

/// Strides of the operands and results of a map.
fn map_strides(f: &Func, op: OpId) -> (Vec<Dim>, Vec<Vec<Dim>>) {
    let o = f.op(op);
    let shape = o.attrs.dims("shape").to_vec();
    let mut strides = Vec::new();
    for (v, map) in o.operands().zip(o.attrs.maps("maps")) {
        let dims = f.ty(v).as_tensor().map(|t| t.dims.as_slice()).unwrap_or(&[]);
        strides.push(Space::strides_of(dims, map, shape.len()));
    }
    let own: Vec<i64> = (0..shape.len() as i64).collect();
    for _ in &o.results {
        strides.push(Space::strides_of(&shape, &own, shape.len()));
    }
    (shape, strides)
}

/// The space of a callback: the result's axes as rows and columns, with the strides of its operands.
///
/// The columns are the last axis, for a convolution of channels first the spatial axes; operands must
/// follow the columns by one stride.
fn callback_space(f: &Func, op: OpId, body: &Body) -> Result<Space> {
    let o = f.op(op);
    let maps = o.attrs.maps("maps");
    let operands: Vec<_> = o.operands().collect();
    let Some(extra) = operands.len().checked_sub(maps.len()) else {
        return Err(emit::internal("a callback has more index maps than operands"));
    };
    let out = o.results.first().and_then(|&v| f.ty(v).as_tensor());
    let Some(out) = out else {
        return Err(emit::internal("a launch with a callback has no tensor result"));
    };
    if body.args.len() != maps.len() + 1 || body.args[0] != Elem::F32 || body.results != [Elem::F32]
    {
        return Err(unsupported("a callback on tiles that are not f32".into()).at(&o.loc));
    }
    let rank = out.rank();
    let kernel = o.attrs.str("kernel");
    let first = kernel.starts_with("conv") && !kernel.contains(".last");
    let columns = if first { rank.saturating_sub(2) } else { 1 };
    let columns = columns.min(rank);
    let mut strides = Vec::new();
    for (&v, map) in operands[extra..].iter().zip(maps) {
        let Some(t) = f.ty(v).as_tensor() else {
            return Err(emit::internal("an operand of a callback is no tensor"));
        };
        check_tensor(t)?;
        strides.push(Space::strides_of(&t.dims, map, rank));
    }
    let space = Space::collapse(&out.dims, &strides, rank - columns);
    if space.sizes.len() > space.leading + 1 {
        return Err(unsupported(
            "a callback with an operand that follows only some of the columns' axes".into(),
        )
        .at(&o.loc)
        .note("run it as a kernel of its own"));
    }
    Ok(space)
}

/// A message of Cranelift, which is a defect of this crate.
fn defect(what: &str, e: impl std::fmt::Display) -> Diagnostic {
    emit::internal(format!("{what}: {e}"))
}
