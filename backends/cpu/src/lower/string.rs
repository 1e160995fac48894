//! Strings, finding elements by their bits, and encoded images.

use silure_ir::{Dim, Elem, Result, Tensor, TensorType, ValueId, bail};
use silure_kernels_cpu::image::{Image, Layout};
use silure_kernels_cpu::strings::convert::{Convert, Each};
use silure_kernels_cpu::strings::lookup::{Lookup, NgramCounts};
use silure_kernels_cpu::strings::split::Split;

use super::{Lower, Lowering, Sizes, addressable, always, product, width};

/// Lowerings of this file.
pub(super) static TABLE: &[&Lowering] = &[
    &TO_STRING,
    &PARSE_NUMBER,
    &STRING_CASE,
    &STRING_CONCAT,
    &REGEX_FULL_MATCH,
    &STRING_SPLIT,
    &LOOKUP,
    &NGRAM_COUNTS,
    &DECODE_IMAGE,
];

fn convert(n: Dim, elem: Elem) -> Result<Vec<Dim>> {
    Sizes::of(Convert::FIELDS).set("n", n).code("elem", elem as usize).done()
}

static TO_STRING: Lowering = Lowering {
    op: "graph.to_string",
    can: always,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let sizes = convert(y.count(), l.t(x)?.elem)?;
        Ok(vec![l.launch1("string.format", &[Some(x)], y, sizes)?])
    },
};

static PARSE_NUMBER: Lowering = Lowering {
    op: "graph.parse_number",
    can: always,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let sizes = convert(y.count(), y.elem)?;
        Ok(vec![l.launch1("string.parse", &[Some(x)], y, sizes)?])
    },
};

fn each(n: Dim, upper: bool) -> Result<Vec<Dim>> {
    Sizes::of(Each::FIELDS).set("n", n).flag("upper", upper).done()
}

static STRING_CASE: Lowering = Lowering {
    op: "graph.string_case",
    can: always,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let sizes = each(y.count(), l.attrs(op).bool("upper"))?;
        Ok(vec![l.launch1("string.case", &[Some(x)], y, sizes)?])
    },
};

static STRING_CONCAT: Lowering = Lowering {
    op: "graph.string_concat",
    can: always,
    lower: |l, op| {
        let (a, b, y) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?);
        let sizes = each(y.count(), false)?;
        Ok(vec![l.launch1("string.concat", &[Some(a), Some(b)], y, sizes)?])
    },
};

/// One string as an operand.
fn constant(l: &mut Lower, s: &str) -> Result<ValueId> {
    l.constant(Tensor::from_strs(&[], &[s])?)
}

static REGEX_FULL_MATCH: Lowering = Lowering {
    op: "graph.regex_full_match",
    can: always,
    lower: |l, op| {
        let (x, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let pattern = constant(l, l.attrs(op).str("pattern"))?;
        let sizes = each(y.count(), false)?;
        Ok(vec![l.launch1("string.regex", &[Some(x), Some(pattern)], y, sizes)?])
    },
};

static STRING_SPLIT: Lowering = Lowering {
    op: "graph.string_split",
    can: always,
    lower: |l, op| {
        let (x, parts, counts, a) = (l.operand(op, 0)?, l.out(op, 0)?, l.out(op, 1)?, l.attrs(op));
        let delimiter = constant(l, a.str("delimiter"))?;
        let (n, size) = (counts.count(), parts.dims[parts.rank() - 1].clone());
        let most = a.get("most").map_or(i64::MAX, |_| a.int("most"));
        let sizes = |count: Dim| {
            Sizes::of(Split::FIELDS)
                .set("n", n.clone())
                .set("most", Dim::Const(most))
                .set("count", count)
                .done()
        };
        let ins = [Some(x), Some(delimiter)];
        let one = TensorType::new(Elem::I64, vec![Dim::Const(1)]);
        let count = l.launch1("string.split.count", &ins, one, sizes(Dim::Const(0))?)?;
        l.bind(&size, count, 0)?;
        l.launch("string.split.fill", &ins, &[Some(parts), Some(counts)], sizes(size.clone())?)
    },
};

static LOOKUP: Lowering = Lowering {
    op: "graph.lookup",
    can: |cx| {
        addressable(cx)?;
        match cx.tensor(0).map_err(|e| e.message)?.elem {
            e if e.is_float() && !matches!(e, Elem::F32 | Elem::F64) => {
                Err(format!("elements of type {e}; of the floats f32 and f64 are supported"))
            }
            _ => Ok(()),
        }
    },
    lower: |l, op| {
        let (x, keys, y) = (l.operand(op, 0)?, l.operand(op, 1)?, l.out(op, 0)?);
        let (elem, count) = (l.t(x)?.elem, l.t(keys)?.count());
        let sizes = Sizes::of(Lookup::FIELDS)
            .set("n", y.count())
            .set("keys", count)
            .set("bytes", width(elem)?)
            .flag("float", elem.is_float())
            .done()?;
        Ok(vec![l.launch1("lookup", &[Some(x), Some(keys)], y, sizes)?])
    },
};

static NGRAM_COUNTS: Lowering = Lowering {
    op: "graph.ngram_counts",
    can: always,
    lower: |l, op| {
        let (x, pool, grams, y) =
            (l.operand(op, 0)?, l.operand(op, 1)?, l.operand(op, 2)?, l.out(op, 0)?);
        let (t, a, last) = (l.t(x)?, l.attrs(op), y.rank() - 1);
        let sizes = Sizes::of(NgramCounts::FIELDS)
            .set("rows", product(&t.dims[..last]))
            .set("len", t.dims[last].clone())
            .set("pool", l.t(pool)?.count())
            .set("grams", l.t(grams)?.dims[0].clone())
            .set("columns", y.dims[last].clone())
            .set("skip", a.int("skip"))
            .done()?;
        Ok(vec![l.launch1("ngram_counts", &[Some(x), Some(pool), Some(grams)], y, sizes)?])
    },
};

static DECODE_IMAGE: Lowering = Lowering {
    op: "graph.decode_image",
    can: always,
    lower: |l, op| {
        let (data, y) = (l.operand(op, 0)?, l.out(op, 0)?);
        let (n, name) = (l.t(data)?.count(), l.attrs(op).str("layout").to_string());
        let Some(layout) = Layout::ALL.iter().position(|l| l.name() == name) else {
            bail!(Internal, "no layout `{name}`")
        };
        let sizes = |height: Dim, width: Dim| {
            Sizes::of(Image::FIELDS)
                .set("n", n.clone())
                .set("layout", layout as i64)
                .set("height", height)
                .set("width", width)
                .done()
        };
        let two = TensorType::new(Elem::I64, vec![Dim::Const(2)]);
        let none = || Dim::Const(0);
        let size = l.launch1("image.size", &[Some(data)], two, sizes(none(), none())?)?;
        let (height, width) = (y.dims[0].clone(), y.dims[1].clone());
        l.bind(&height, size, 0)?;
        l.bind(&width, size, 1)?;
        Ok(vec![l.launch1("image.pixels", &[Some(data)], y, sizes(height, width)?)?])
    },
};
