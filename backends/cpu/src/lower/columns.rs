//! Products that are read by columns, and rows quantised as a product's register tile takes them.
//!
//! Projections that share their input are one product (queries, keys and values; the two halves of a gated network), whose
//! result is cut into ranges of columns, each a copy. Where nothing else reads it, a product for each range
//! writes that range itself, from the panels of the same packed weights, and no copy is left. Ranges begin at whole
//! panels.
//!
//! Rows that [`QuantizeRows`] makes for such products alone are stored moved up by 128 ([`MatmulI8::a_moved`]), so that not
//! every task moves them again.

use silure_ir::dialects::plan;
use silure_ir::func::Op;
use silure_ir::{Attrs, Builder, Dim, Func, OpId, Result, ValueId};
use silure_kernels_cpu::gemm::NR;
use silure_kernels_cpu::gemm::int8::MatmulI8;
use silure_kernels_cpu::movement::copy::Copy;
use silure_kernels_cpu::quant::QuantizeRows;

use super::slices::slot;

type Fields = &'static [(&'static str, usize)];

/// Products that can begin at any panel of their weights.
const PRODUCTS: [&str; 13] = [
    "matmul.f32.packed",
    "matmul.f32.scaled",
    "matmul.f32.u4",
    "matmul.f32.u4.f16",
    "matmul.f32.i8",
    "matmul.f32.i8.f16",
    "matmul.f32.bf16",
    "matmul.f32.e4m3",
    "matmul.i8.packed",
    "matmul.i8.u4",
    "matmul.i8.u4.f16",
    "matmul.i8.i8",
    "matmul.i8.i8.f16",
];

/// The fields of a launch's sizes, if it is one of [`PRODUCTS`].
fn product(o: &Op) -> Option<Fields> {
    let kernel = o.attrs.str("kernel");
    let one = o.def.name == plan::LAUNCH.name && o.regions.is_empty() && PRODUCTS.contains(&kernel);
    one.then(|| silure_kernels_cpu::find(kernel)).flatten().map(|k| k.fields)
}

/// Lets products write the ranges of columns that are read, and quantised rows be moved for them.
pub(super) fn divide(f: &mut Func) -> Result<()> {
    let products: Vec<_> =
        f.walk().into_iter().filter_map(|op| Some((op, product(f.op(op))?))).collect();
    for (op, fields) in products {
        let Some(copies) = ranges(f, op, fields) else { continue };
        let o = f.op(op).clone();
        let operands: Vec<_> = o.operands().map(Some).collect();
        for (copy, first, width) in copies {
            let mut attrs: Attrs = o.attrs.clone();
            let mut sizes = attrs.dims("sizes").to_vec();
            sizes[slot(fields, "n")] = Dim::from(width);
            sizes[slot(fields, "c_row")] = Dim::from(width);
            sizes[slot(fields, "b_first")] = Dim::from(first);
            attrs.set("sizes", sizes);
            let part = f.op(copy).result();
            let ty = f.ty(part).clone();
            let new = Builder::before(f, op).build(o.def, &operands, attrs, &[], &[ty])?;
            f.op_mut(new).loc = o.loc.clone();
            let own = f.op(new).result();
            f.value_mut(own).name = f.value(part).name.clone();
            f.replace_uses(part, own);
            f.erase(copy);
        }
        f.erase(op);
    }
    for op in f.walk() {
        move_rows(f, op);
    }
    Ok(())
}

/// The copies that read a product's result, with the first column and the number of columns of each, if nothing else
/// reads it.
fn ranges(f: &Func, op: OpId, fields: Fields) -> Option<Vec<(OpId, i64, i64)>> {
    let o = f.op(op);
    let sizes = o.attrs.dims("sizes");
    let n = sizes[slot(fields, "n")].as_const()?;
    let whole = sizes[slot(fields, "c_row")].as_const() == Some(n);
    let first = sizes[slot(fields, "b_first")].as_const() == Some(0);
    let single = fields[0].0 != "batch" || (0..6).all(|i| sizes[i] == Dim::Const(1));
    // What is added or called for each element knows the place of the element in the whole.
    let plain = o.attrs.ints("init").is_empty() && !has_more(o);
    if !(whole && first && single && plain) || o.results.len() != 1 {
        return None;
    }
    let y = o.result();
    let rows = &sizes[slot(fields, "m")];
    let mut all: Vec<_> =
        f.uses(y).iter().map(|c| range(f, op, *c, n, rows)).collect::<Option<_>>()?;
    all.sort_by_key(|r| r.1);
    // Ranges that overlap would be computed again.
    let (columns, count) = (all.iter().map(|r| r.2).sum::<i64>(), f.uses(y).len());
    (count > 0 && columns <= n).then_some(all)
}

/// Whether a product has a residual or a callback.
fn has_more(o: &Op) -> bool {
    let slots: &[usize] = match o.attrs.str("kernel") {
        "matmul.i8.packed" => &[9],
        _ => &[3, 4],
    };
    let args = o.attrs.ints("args");
    slots.iter().any(|s| args.get(*s).is_none_or(|a| *a != -1))
}

/// The columns that a copy takes from a product of `n` columns, if it takes those of all rows and makes a dense tensor.
fn range(f: &Func, op: OpId, copy: OpId, n: i64, rows: &Dim) -> Option<(OpId, i64, i64)> {
    let c = f.op(copy);
    let simple = c.def.name == plan::LAUNCH.name
        && c.attrs.str("kernel") == "copy.4"
        && c.attrs.ints("args") == [0, -2]
        && c.attrs.ints("init").is_empty()
        && c.regions.is_empty()
        && c.parent() == f.op(op).parent();
    if !simple {
        return None;
    }
    let sizes = c.attrs.dims("sizes");
    let size = |name: &str, i: usize| &sizes[slot(Copy::FIELDS, name) + i];
    let number = |name: &str, i: usize| size(name, i).as_const();
    let (width, first) = (number("dims", 7)?, number("src_offset", 0)?);
    let dense = (0..6).all(|i| number("dims", i) == Some(1))
        && size("dims", 6) == rows
        && (number("src", 6), number("src", 7)) == (Some(n), Some(1))
        && (number("dst", 6), number("dst", 7)) == (Some(width), Some(1))
        && number("dst_offset", 0) == Some(0);
    (dense && width > 0 && first >= 0 && first % NR as i64 == 0 && first + width <= n)
        .then_some((copy, first, width))
}

/// Moves the rows of a quantisation that only products of bytes read.
fn move_rows(f: &mut Func, op: OpId) {
    let launches =
        |o: &Op, kernel: &str| o.def.name == plan::LAUNCH.name && o.attrs.str("kernel") == kernel;
    let o = f.op(op);
    let Some(y) = launches(o, "quantize_rows.i8").then(|| o.results.first().copied()).flatten()
    else {
        return;
    };
    let signed = slot(MatmulI8::FIELDS, "a_signed");
    let takes = |p: &OpId| {
        let p = f.op(*p);
        launches(p, "matmul.i8.packed")
            && p.operands().filter(|v| *v == y).count() == 1
            && operand(p, 0) == Some(y)
            && p.attrs.dims("sizes")[signed] == Dim::Const(1)
    };
    let readers: Vec<OpId> = f.uses(y).to_vec();
    if readers.is_empty() || !readers.iter().all(takes) {
        return;
    }
    set(f, op, slot(QuantizeRows::FIELDS, "moved"));
    for reader in readers {
        set(f, reader, slot(MatmulI8::FIELDS, "a_moved"));
    }
}

/// The operand in a slot of a launch.
fn operand(o: &Op, slot: usize) -> Option<ValueId> {
    let at = *o.attrs.ints("args").get(slot)?;
    o.operand(usize::try_from(at).ok()?)
}

/// Sets a flag among the sizes of a launch.
fn set(f: &mut Func, op: OpId, slot: usize) {
    let mut sizes = f.op(op).attrs.dims("sizes").to_vec();
    sizes[slot] = Dim::Const(1);
    f.op_mut(op).attrs.set("sizes", sizes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Lowerings, lower};
    use silure_ir::Context;
    use silure_ir::text::parse_verified;

    /// Kernels of the launches of a product with 48 columns that `rest` reads; of products, their first column and
    /// how many.
    fn launches(results: &str, rest: &str) -> Vec<(String, i64, i64)> {
        let weights = vec!["0.5"; 4 * 48].join(", ");
        let text = format!(
            "module @m {{\n  entry @main<n: 1..9>(%x: f32[n, 4]) -> ({results}) {{\n    \
             %w = constant {{value = dense<f32[4, 48]: {weights}>}} : f32[4, 48]\n    \
             %p = graph.matmul %x, %w : f32[n, 48]\n    {rest}\n  }}\n}}\n"
        );
        let mut m = parse_verified(&Context::new(), "m.sir", &text).unwrap();
        lower(&mut m, &Lowerings::default()).unwrap();
        let f = &m.funcs[0];
        let launches = f.walk().into_iter().filter(|op| f.op(*op).def.name == plan::LAUNCH.name);
        let kernel = |op: OpId| {
            let (o, sizes) = (f.op(op), f.op(op).attrs.dims("sizes"));
            let size = |fields, n| sizes[slot(fields, n)].as_const().unwrap();
            let of = product(o).map_or((0, 0), |k| (size(k, "b_first"), size(k, "n")));
            (o.attrs.str("kernel").to_string(), of.0, of.1)
        };
        launches.map(kernel).collect()
    }

    fn slice(name: &str, from: usize, to: usize) -> String {
        let n = to - from;
        format!(
            "%{name} = graph.slice %p {{axes = [1], starts = dims[{from}], ends = dims[{to}]}} : f32[n, {n}]\n    "
        )
    }

    fn product_of(first: i64, n: i64) -> (String, i64, i64) {
        ("matmul.f32.packed".into(), first, n)
    }

    #[test]
    fn each_range_has_its_product() {
        let rest = slice("a", 0, 32) + &slice("b", 32, 48) + "return %a, %b";
        let all = launches("a: f32[n, 32], b: f32[n, 16]", &rest);
        assert_eq!(all, [product_of(0, 32), product_of(32, 16)]);
    }

    #[test]
    fn ranges_begin_at_panels_and_nothing_else_reads_the_product() {
        let copied = |a: (usize, usize), more: &str, results: &str| {
            let rest = slice("a", a.0, a.1) + &slice("b", 16, 48) + "return %a, %b" + more;
            let all = launches(&format!("a: f32[n, {}], b: f32[n, 32]{results}", a.1 - a.0), &rest);
            assert_eq!(all[0], product_of(0, 48));
            assert!(all[1..].iter().all(|l| l.0 == "copy.4") && all.len() == 3, "{all:?}");
        };
        copied((8, 16), "", "");
        copied((0, 32), "", "");
        copied((0, 16), ", %p", ", p: f32[n, 48]");
    }

    #[test]
    fn products_have_the_fields_that_are_set() {
        for name in PRODUCTS {
            let fields = silure_kernels_cpu::find(name).unwrap().fields;
            let has = |n: &str| fields.iter().any(|f| f.0 == n && f.1 == 1);
            assert!(["m", "n", "c_row", "b_first"].into_iter().all(has), "{name}");
        }
    }
}
