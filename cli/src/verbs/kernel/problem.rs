//! Arguments of a tile kernel: from the command line, from the graph form, or from its own views.

use std::collections::BTreeMap;

use silure::ir::dialects::tile::{KernelArg, access, symbol_args, view_of};
use silure::ir::op::{ScalarCx, Traits};
use silure::ir::{Def, Elem, Func, Num, Type, ValueId};
use silure_runtime::{Tensor, npy};

use crate::failure::{Failure, Result};
use crate::oracle::{self, Sizes};
use crate::random::Recipe;
use crate::spec::{Spec, Specs};

/// A kernel's arguments.
pub struct Problem {
    /// In order.
    pub args: Vec<KernelArg>,
    /// Element type and shape of the buffers.
    pub buffers: BTreeMap<usize, (Elem, Vec<usize>)>,
    /// The buffers that it writes.
    pub written: Vec<usize>,
    /// Sizes by symbol.
    pub sizes: Sizes,
    /// Sizes that were chosen here.
    pub chosen: Vec<String>,
}

/// Builds the arguments of a kernel; `graph` is the same problem as a graph.
pub fn build(f: &Func, graph: Option<&Func>, specs: &Specs, seed: u64) -> Result<Problem> {
    let names: Vec<&str> = f.arg_names.iter().map(|n| &**n).collect();
    specs.check(&names)?;
    let (mut sizes, mut chosen) = oracle::sizes(f, &specs.sizes())?;
    let symbols: Vec<&str> = symbol_args(f).iter().map(|(s, _)| &*s.name).collect();
    for (v, name) in f.args().iter().zip(&f.arg_names) {
        if matches!(f.ty(*v), Type::Index) && !symbols.contains(&&**name) {
            let Some(&n) = specs.sizes().get(&**name) else {
                return Err(Failure::usage(format!("size `{name}` is needed: --arg {name}=N")));
            };
            sizes.insert(name.clone(), n);
        }
    }
    chosen.sort();
    let recipe = Recipe {
        seed,
        ranges: specs
            .0
            .iter()
            .filter_map(|(n, s)| match s {
                Spec::Random { range: Some(r), .. } => Some((n.clone(), *r)),
                _ => None,
            })
            .collect(),
    };
    let (loaded, stored) = touched(f)?;
    let mut p = Problem { args: vec![], buffers: BTreeMap::new(), written: vec![], sizes, chosen };
    for (i, (&v, name)) in f.args().iter().zip(&f.arg_names).enumerate() {
        let spec = specs.0.get(&**name);
        let arg = match f.ty(v) {
            Type::Index => KernelArg::Index(p.sizes.get(name).copied().unwrap_or(0)),
            Type::Scalar(e) => match spec {
                Some(Spec::Number(n)) if e.is_float() => KernelArg::Scalar(Num::F(*n)),
                Some(Spec::Number(n)) => KernelArg::Scalar(Num::I(*n as i128)),
                None => {
                    p.chosen.push(format!("{name} = 1"));
                    KernelArg::Scalar(if e.is_float() { Num::F(1.0) } else { Num::I(1) })
                }
                Some(_) => return Err(Failure::usage(format!("--arg {name}: a number is needed"))),
            },
            Type::Ptr(e, _) => {
                let written = stored.contains(&v);
                if written {
                    p.written.push(i);
                }
                let (shape, bytes) = buffer(f, graph, i, *e, spec, &recipe, &p.sizes)?;
                p.buffers.insert(i, (*e, shape));
                match written && !loaded.contains(&v) && !matches!(spec, Some(Spec::File(_))) {
                    true => KernelArg::Output(bytes),
                    false => KernelArg::Buffer(bytes),
                }
            }
            t => return Err(Failure::unsupported(format!("argument `{name}` of type {t}"))),
        };
        p.args.push(arg);
    }
    Ok(p)
}

impl Problem {
    /// The contents of a buffer as a tensor.
    pub fn tensor(&self, arg: usize) -> Result<Tensor> {
        let (e, shape) = &self.buffers[&arg];
        Ok(Tensor::new(*e, shape, self.args[arg].bytes())?)
    }
}

/// Pointers that are loaded from, and that are stored to.
fn touched(f: &Func) -> Result<(Vec<ValueId>, Vec<ValueId>)> {
    let (mut loaded, mut stored) = (vec![], vec![]);
    for op in f.walk() {
        match f.op(op).def.name {
            "tile.load" => loaded.push(access(f, op)?.view.base),
            "tile.store" => stored.push(access(f, op)?.view.base),
            _ => {}
        }
    }
    Ok((loaded, stored))
}

/// Shape and contents of a buffer.
fn buffer(
    f: &Func,
    graph: Option<&Func>,
    arg: usize,
    elem: Elem,
    spec: Option<&Spec>,
    recipe: &Recipe,
    sizes: &Sizes,
) -> Result<(Vec<usize>, Vec<u8>)> {
    let name = &*f.arg_names[arg];
    let shape = match spec {
        Some(Spec::File(path)) => {
            let t = npy::read(path)?.into_tensor(elem)?;
            return Ok((t.shape.clone(), t.bytes().to_vec()));
        }
        Some(Spec::Random { shape: Some(s), .. }) => s.clone(),
        Some(Spec::Number(_)) => {
            return Err(Failure::usage(format!("--arg {name}: a shape or @FILE.npy is needed")));
        }
        _ => match graph.and_then(|g| type_of(g, name)) {
            Some(t) => oracle::shape(t, sizes)?.1,
            None => vec![extent(f, f.args()[arg], sizes).ok_or_else(|| {
                Failure::usage(format!("the size of `{name}` is not known: --arg {name}=SHAPE"))
            })?],
        },
    };
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.ok_or_else(|| Failure::usage(format!("--arg {name}: too large")))?;
    Ok((shape, recipe.bytes(name, arg, elem, count)?))
}

/// The type of an argument or result by name.
fn type_of<'f>(g: &'f Func, name: &str) -> Option<&'f Type> {
    let arg = g.arg_names.iter().position(|n| &**n == name).map(|i| g.ty(g.args()[i]));
    let result = || g.result_names.iter().position(|n| &**n == name).map(|i| &g.result_types[i]);
    arg.or_else(result)
}

/// Elements that the views of a pointer reach over, as far as the sizes alone say.
fn extent(f: &Func, pointer: ValueId, sizes: &Sizes) -> Option<usize> {
    let mut most: Option<i64> = None;
    for op in f.walk() {
        if f.op(op).def.name != "tile.view" {
            continue;
        }
        let Ok(view) = view_of(f, f.op(op).result()) else { continue };
        if view.base != pointer {
            continue;
        }
        let reach = view.sizes.iter().zip(view.strides).try_fold(1i64, |n, (s, t)| {
            let (s, t) = (index(f, *s, sizes)?, index(f, *t, sizes)?);
            match s {
                0 => Some(0),
                _ => n.checked_add((s - 1).checked_mul(t)?),
            }
        });
        most = most.max(reach);
    }
    most.and_then(|n| usize::try_from(n).ok())
}

/// The value of an index that depends on sizes alone.
fn index(f: &Func, v: ValueId, sizes: &Sizes) -> Option<i64> {
    let op = match f.value(v).def {
        Def::Arg(r, n) if r == f.body => return sizes.get(f.arg_names.get(n)?).copied(),
        Def::Arg(..) => return None,
        Def::Result(op, _) => op,
    };
    let o = f.op(op);
    if o.def.name == "core.scalar" {
        return i64::try_from(o.attrs.tensor("value")?.get(0).i()).ok();
    }
    let scalar = o.def.scalar.filter(|_| o.def.is(Traits::ELEMENTWISE))?;
    let nums: Vec<Num> = o
        .operands()
        .map(|v| index(f, v, sizes).map(|i| Num::I(i as i128)))
        .collect::<Option<_>>()?;
    let elems = vec![Elem::I64; nums.len()];
    let cx = ScalarCx { attrs: &o.attrs, elems: &elems, out: Elem::I64 };
    i64::try_from(scalar(&cx, &nums).i()).ok()
}
