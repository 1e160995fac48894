//! Parts of a concatenation that are written where they belong.
//!
//! A concatenation of channels last is a chain of copies into one tensor. Where a part is made by a
//! convolution that nothing else reads, the convolution writes its channels of the whole itself
//! ([`Conv::y_row`]), and the copy goes. The convolution moves to the copy's place, behind the parts that
//! come before it.

use silure_ir::dialects::plan;
use silure_ir::{Attrs, Builder, Dim, Func, OpId, Result};
use silure_kernels_cpu::conv::float::Conv;
use silure_kernels_cpu::movement::copy::Copy;

use super::product;

/// Slots of the kernel's buffers: residual, callback, output.
const TAIL: [usize; 3] = [3, 4, 5];

/// Lets convolutions write their parts of concatenations.
pub(super) fn write_in_place(f: &mut Func) -> Result<()> {
    for copy in f.walk() {
        let Some((conv, row, at)) = part(f, copy) else { continue };
        let (o, c) = (f.op(conv).clone(), f.op(copy).clone());
        let mut operands: Vec<_> = o.operands().map(Some).collect();
        let mut attrs: Attrs = o.attrs.clone();
        let mut sizes = attrs.dims("sizes").to_vec();
        sizes[slot(Conv::FIELDS, "y_row")] = row;
        sizes[slot(Conv::FIELDS, "y_at")] = at;
        attrs.set("sizes", sizes);
        if let Some(&start) = c.attrs.ints("init").first() {
            attrs.set("init", vec![operands.len() as i64]);
            operands.push(c.operand(start as usize));
        }
        let ty = f.ty(c.result()).clone();
        let new = Builder::before(f, copy).build(o.def, &operands, attrs, &[], &[ty])?;
        f.op_mut(new).loc = o.loc;
        let (old, whole) = (c.result(), f.op(new).result());
        if let Some(name) = f.value(old).name.clone() {
            f.value_mut(whole).name = Some(name);
        }
        f.replace_uses(old, whole);
        f.erase(copy);
        f.erase(conv);
    }
    Ok(())
}

/// The first slot of a field of kernel sizes.
pub(super) fn slot(fields: &[(&str, usize)], name: &str) -> usize {
    fields.iter().take_while(|f| f.0 != name).map(|f| f.1).sum()
}

/// The convolution whose whole result a copy puts among the channels of another tensor, with the elements
/// from pixel to pixel there and the first channel's place.
fn part(f: &Func, copy: OpId) -> Option<(OpId, Dim, Dim)> {
    let c = f.op(copy);
    let launches = |o: &silure_ir::func::Op, kernel: &str| {
        o.def.name == plan::LAUNCH.name && o.attrs.str("kernel") == kernel && o.regions.is_empty()
    };
    if !launches(c, "copy.4") || c.attrs.ints("args") != [0, -2] {
        return None;
    }
    let x = c.operand(0)?;
    let conv = f.def_op(x)?;
    let o = f.op(conv);
    let alone = f.uses(x) == [copy] && o.parent() == c.parent();
    if !launches(o, "conv.f32.last") || !alone || !o.attrs.ints("init").is_empty() {
        return None;
    }
    let args = o.attrs.ints("args");
    if TAIL.map(|i| args.get(i).copied()) != [Some(-1), Some(-1), Some(-2)] {
        return None;
    }
    // The last two dims of the copy are pixels and channels, as they lie in the source.
    let sizes = c.attrs.dims("sizes");
    let size = |name: &str, i: usize| &sizes[slot(Copy::FIELDS, name) + i];
    let dims = &f.ty(x).as_tensor()?.dims;
    let (channels, one) = (dims.last()?, Dim::Const(1));
    let dense = (0..6).all(|i| *size("dims", i) == one)
        && size("dims", 7) == channels
        && size("dims", 6).clone() * channels.clone() == product(dims)
        && size("src", 6) == channels
        && *size("src", 7) == one
        && *size("dst", 7) == one
        && *size("src_offset", 0) == Dim::Const(0);
    dense.then(|| (conv, size("dst", 6).clone(), size("dst_offset", 0).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Lowerings, lower};
    use silure_ir::Context;
    use silure_ir::text::parse_verified;

    /// Kernels of the launches of two convolutions joined as `join` says, with the slice that each
    /// convolution writes.
    fn launches(results: &str, join: &str) -> Vec<(String, Option<(i64, i64)>)> {
        let kernel = |o: usize, k: usize| {
            let values = vec!["0.5"; o * 4 * k].join(", ");
            format!("constant {{value = dense<f32[{o}, 4, {k}]: {values}>}} : f32[{o}, 4, {k}]")
        };
        let text = format!(
            "module @m {{\n  entry @main(%x: f32[1, 9, 4]) -> ({results}) {{\n    %k = {}\n    %l = {}\n    \
             %a = graph.conv %x, %k {{channels_last = true}} : f32[1, 9, 5]\n    \
             %b = graph.conv %x, %l {{channels_last = true, pads = dims[1, 1]}} : f32[1, 9, 8]\n    \
             {join}\n  }}\n}}\n",
            kernel(5, 1),
            kernel(8, 3)
        );
        let mut m = parse_verified(&Context::new(), "m.sir", &text).unwrap();
        lower(&mut m, &Lowerings::default()).unwrap();
        let f = &m.funcs[0];
        let ops = f.walk().into_iter().map(|op| f.op(op));
        ops.filter(|o| o.def.name == plan::LAUNCH.name)
            .map(|o| {
                let (kernel, sizes) = (o.attrs.str("kernel"), o.attrs.dims("sizes"));
                let size = |n| sizes[slot(Conv::FIELDS, n)].as_const().unwrap();
                let slice = kernel.starts_with("conv").then(|| (size("y_row"), size("y_at")));
                (kernel.to_string(), slice)
            })
            .collect()
    }

    fn conv(row: i64, at: i64) -> (String, Option<(i64, i64)>) {
        ("conv.f32.last".into(), Some((row, at)))
    }

    #[test]
    fn parts_are_written_in_place() {
        let join = "%y = graph.concat %b, %a {axis = 2} : f32[1, 9, 13]\n    return %y";
        assert_eq!(launches("y: f32[1, 9, 13]", join), [conv(13, 0), conv(13, 8)]);
    }

    #[test]
    fn what_something_else_reads_is_copied() {
        let join = "%y = graph.concat %b, %a {axis = 2} : f32[1, 9, 13]\n    return %y, %a";
        let all = launches("y: f32[1, 9, 13], z: f32[1, 9, 5]", join);
        assert_eq!(all, [conv(0, 0), conv(13, 0), ("copy.4".into(), None)]);
    }
}
