//! Convolutions and pooling.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::Node;

pub(super) const TABLE: &[Record] = &[
    record("Conv", conv),
    record("ConvInteger", conv_integer),
    record("ConvTranspose", conv_transpose),
    record("MaxPool", max_pool),
    record("AveragePool", average_pool),
    record("LpPool", lp_pool),
    record("GlobalAveragePool", |cx, n| global(cx, n, "mean")),
    record("GlobalMaxPool", |cx, n| global(cx, n, "max")),
    record("GlobalLpPool", global_lp_pool),
];

/// A sliding window as the node describes it.
pub(super) struct Window {
    strides: Vec<i64>,
    dilations: Vec<i64>,
    /// Begins of all spatial axes, then ends.
    pads: Vec<Dim>,
}

impl Cx<'_, '_> {
    /// Reads `strides`, `dilations`, `pads` and `auto_pad` of a window of these sizes over x.
    pub(super) fn window(&mut self, n: &Node<'_>, x: ValueId, kernel: &[Dim]) -> Result<Window> {
        let r = kernel.len();
        let strides = self.ints_or(n, "strides", r, 1)?;
        let dilations = self.ints_or(n, "dilations", r, 1)?;
        let pads = self.ints_or(n, "pads", 2 * r, 0)?;
        let auto = self.word(n, "auto_pad", "NOTSET")?;
        if strides.iter().chain(&dilations).any(|v| !(1..1 << 31).contains(v)) {
            return Err(self.wrong("strides and dilations are positive"));
        }
        if auto != "NOTSET" && pads.iter().any(|p| *p != 0) {
            return Err(self.wrong("`pads` and `auto_pad` are both given"));
        }
        let pads = match auto.as_str() {
            "NOTSET" | "" | "VALID" => pads.into_iter().map(Dim::Const).collect(),
            "SAME_UPPER" | "SAME_LOWER" => {
                let dims = self.dims(x)?;
                let mut pads = vec![Dim::Const(0); 2 * r];
                for i in 0..r {
                    let (size, step) = (&dims[2 + i], Dim::Const(strides[i]));
                    let reach = (kernel[i].clone() + -1) * Dim::Const(dilations[i]) + 1;
                    let need = (size.ceildiv(&step) + -1) * step + reach - size.clone();
                    // Where every window fits, there is nothing to add.
                    let (least, _) = need.bounds(&|s| self.f.symbol_range(s));
                    let need = if least >= 0 { need } else { need.maximum(&Dim::Const(0)) };
                    let half = need.floordiv(&Dim::Const(2));
                    let rest = need - half.clone();
                    let upper = auto == "SAME_UPPER";
                    (pads[i], pads[r + i]) = if upper { (half, rest) } else { (rest, half) };
                }
                pads
            }
            a => return Err(self.wrong("attribute `auto_pad` has no such value").present(a)),
        };
        Ok(Window { strides, dilations, pads })
    }

    /// The attributes of a window, and x with negative pads cut off.
    fn windowed(&mut self, x: ValueId, w: Window) -> Result<(ValueId, Attrs)> {
        let r = w.strides.len();
        let mut x = x;
        let mut pads = w.pads;
        if pads.iter().any(|p| p.as_const().is_some_and(|p| p < 0)) {
            let mut crop = vec![Dim::Const(0); 2 * (r + 2)];
            for i in 0..r {
                for (p, c) in [(i, 2 + i), (r + i, r + 4 + i)] {
                    if pads[p].as_const().is_some_and(|p| p < 0) {
                        crop[c] = std::mem::replace(&mut pads[p], Dim::Const(0));
                    }
                }
            }
            x = self.op("graph.pad", &[x], Attrs::new().with("pads", Attr::Dims(crop)))?;
        }
        let attrs = Attrs::new()
            .with("strides", w.strides)
            .with("dilations", w.dilations)
            .with("pads", Attr::Dims(pads));
        Ok((x, attrs))
    }

    /// A number of groups, 1 if it is not stated.
    pub(super) fn groups(&mut self, n: &Node<'_>, name: &'static str) -> Result<i64> {
        let g = self.int_or(n, name, 1)?;
        if !(1..1 << 31).contains(&g) {
            let e = self.wrong(format!("attribute `{name}` is out of range"));
            return Err(e.present(g.to_string()));
        }
        Ok(g)
    }

    /// Checks a convolution's operands and gives the window's sizes.
    pub(super) fn kernel(&mut self, n: &Node<'_>, x: ValueId, w: ValueId) -> Result<Vec<Dim>> {
        let (tx, tw) = (self.ty(x)?, self.ty(w)?);
        if tx.rank() < 3 || tw.rank() != tx.rank() {
            return Err(self
                .wrong("the operands of a convolution do not fit")
                .needed("an input [n, c, spatial…] and a filter of the same rank")
                .present(format!("{tx} and {tw}")));
        }
        let kernel = tw.dims[2..].to_vec();
        if let Some(stated) = self.ints(n, "kernel_shape")? {
            let fits = stated.len() == kernel.len()
                && stated.iter().zip(&kernel).all(|(a, b)| b.as_const().is_none_or(|b| b == *a));
            if !fits {
                return Err(self
                    .wrong("attribute `kernel_shape` is not the filter's")
                    .needed(format!("{kernel:?}"))
                    .present(format!("{stated:?}")));
            }
        }
        Ok(kernel)
    }
}

pub(super) fn conv(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    Ok(vec![conv_of(cx, n, x, w, bias)?])
}

/// The convolution of a node, whose operands these are.
pub(super) fn conv_of(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
    x: ValueId,
    w: ValueId,
    bias: Option<ValueId>,
) -> Result<ValueId> {
    let g = cx.groups(n, "group")?;
    let (mut x, mut w, mut bias) = (x, w, bias);
    let kernel = cx.kernel(n, x, w)?;
    let channels = cx.dims(w)?[1].clone() * Dim::Const(g);
    cx.expect_size(&mut x, 1, &channels, "channels of the input and of the filter")?;
    if let Some(b) = &mut bias {
        cx.same_size(&mut w, 0, b, 0, "output channels of the filter and of the bias")?;
    }
    let window = cx.window(n, x, &kernel)?;
    let (x, attrs) = cx.windowed(x, window)?;
    Ok(cx.ops("graph.conv", &[Some(x), Some(w), bias], attrs.with("groups", g))?[0])
}

fn conv_integer(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let zeros = (cx.maybe(n, 2)?, cx.maybe(n, 3)?);
    let (x, w) = (cx.input(n, 0)?, cx.input(n, 1)?);
    Ok(vec![integer(cx, n, x, w, zeros)?])
}

/// The integer convolution of a node, whose operands these are.
pub(super) fn integer(
    cx: &mut Cx<'_, '_>,
    n: &Node<'_>,
    x: ValueId,
    w: ValueId,
    zeros: (Option<ValueId>, Option<ValueId>),
) -> Result<ValueId> {
    let g = cx.groups(n, "group")?;
    let mut x = x;
    let kernel = cx.kernel(n, x, w)?;
    let channels = cx.dims(w)?[1].clone() * Dim::Const(g);
    cx.expect_size(&mut x, 1, &channels, "channels of the input and of the filter")?;
    let window = cx.window(n, x, &kernel)?;
    let (x, attrs) = cx.windowed(x, window)?;
    let operands = [Some(x), Some(w), zeros.0, zeros.1];
    Ok(cx.ops("graph.conv_integer", &operands, attrs.with("groups", g))?[0])
}

fn conv_transpose(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let g = cx.groups(n, "group")?;
    let (mut x, w, mut bias) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.maybe(n, 2)?);
    let kernel = cx.kernel(n, x, w)?;
    let r = kernel.len();
    if let Some(b) = &mut bias {
        let features = cx.dims(w)?[1].clone() * Dim::Const(g);
        cx.expect_size(b, 0, &features, "output channels of the filter and of the bias")?;
    }
    let channels = cx.dims(w)?[0].clone();
    cx.expect_size(&mut x, 1, &channels, "channels of the input and of the filter")?;
    let strides = cx.ints_or(n, "strides", r, 1)?;
    let dilations = cx.ints_or(n, "dilations", r, 1)?;
    let mut extra = cx.ints_or(n, "output_padding", r, 0)?;
    let pads = cx.ints_or(n, "pads", 2 * r, 0)?;
    let auto = cx.word(n, "auto_pad", "NOTSET")?;
    let wanted = cx.ints(n, "output_shape")?;
    let mut pads: Vec<Dim> = pads.into_iter().map(Dim::Const).collect();
    let same = matches!(auto.as_str(), "SAME_UPPER" | "SAME_LOWER");
    if wanted.is_some() || same {
        // Exporters state the spatial sizes, some all of them.
        let wanted = wanted.map(|w| w[w.len().saturating_sub(r)..].to_vec());
        if wanted.as_ref().is_some_and(|w| w.len() != r) {
            return Err(cx.wrong("attribute `output_shape` has the wrong length"));
        }
        let dims = cx.dims(x)?;
        for i in 0..r {
            let (size, step) = (&dims[2 + i], Dim::Const(strides[i]));
            let reach = (kernel[i].clone() + -1) * Dim::Const(dilations[i]) + 1;
            let full = (size.clone() + -1) * step.clone() + reach + extra[i];
            let out = match &wanted {
                Some(w) => Dim::Const(w[i]),
                None => size.clone() * step,
            };
            let mut total = full - out;
            if let Some(t) = total.as_const()
                && t < 0
            {
                extra[i] -= t;
                total = Dim::Const(0);
            }
            let half = total.floordiv(&Dim::Const(2));
            let rest = total.clone() - half.clone();
            // Where a run needs more than there is, the rest comes at the end.
            let begin = if auto == "SAME_UPPER" { half } else { rest };
            let begin = begin.maximum(&Dim::Const(0));
            (pads[i], pads[r + i]) = (begin.clone(), total - begin);
        }
    } else if !matches!(auto.as_str(), "NOTSET" | "VALID" | "") {
        return Err(cx.wrong("attribute `auto_pad` has no such value").present(auto));
    }
    let attrs = Attrs::new()
        .with("strides", strides)
        .with("dilations", dilations)
        .with("pads", Attr::Dims(pads))
        .with("output_padding", extra)
        .with("groups", g);
    cx.ops("graph.conv_transpose", &[Some(x), Some(w), bias], attrs)
}

/// `kernel_shape` of a pooling node whose operand is x: x with negative pads cut off, and the window's
/// attributes.
pub(super) fn pooled(cx: &mut Cx<'_, '_>, n: &Node<'_>, x: ValueId) -> Result<(ValueId, Attrs)> {
    let rank = cx.rank(x)?;
    let Some(kernel) = cx.ints(n, "kernel_shape")? else {
        return Err(cx.wrong("attribute `kernel_shape` is missing"));
    };
    if rank < 3 || kernel.len() != rank - 2 || kernel.iter().any(|k| !(1..1 << 31).contains(k)) {
        return Err(cx
            .wrong("attribute `kernel_shape` does not fit the operand")
            .needed("a positive size for each axis after the first two")
            .present(format!("{kernel:?} for {}", cx.ty(x)?)));
    }
    let sizes: Vec<Dim> = kernel.iter().map(|k| Dim::Const(*k)).collect();
    let ceil = cx.flag_or(n, "ceil_mode", false)?;
    let window = cx.window(n, x, &sizes)?;
    let (x, attrs) = cx.windowed(x, window)?;
    Ok((x, attrs.with("kernel", kernel).with("ceil", ceil)))
}

fn max_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let column = cx.flag_or(n, "storage_order", false)?;
    let (x, attrs) = {
        let x = cx.input(n, 0)?;
        pooled(cx, n, x)?
    };
    let indices = cx.wants(n, 1);
    let attrs = attrs.with("indices", indices).with("column_major", column && indices);
    cx.ops("graph.max_pool", &[Some(x)], attrs)
}

fn average_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let padding = cx.flag_or(n, "count_include_pad", false)?;
    let (x, attrs) = {
        let x = cx.input(n, 0)?;
        pooled(cx, n, x)?
    };
    Ok(vec![cx.op("graph.average_pool", &[x], attrs.with("count_include_pad", padding))?])
}

/// `p` of a norm: in opset 1 a float.
fn exponent(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<i64> {
    if n.op.version > 1 {
        return cx.int_or(n, "p", 2);
    }
    match cx.float_or(n, "p", 2.0)? {
        p if p.fract() == 0.0 && p.abs() < 1e9 => Ok(p as i64),
        p => Err(cx.unsupported("a norm with a fractional exponent").present(p.to_string())),
    }
}

fn lp_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let p = exponent(cx, n)?;
    let (x, attrs) = {
        let x = cx.input(n, 0)?;
        pooled(cx, n, x)?
    };
    Ok(vec![cx.op("graph.lp_pool", &[x], attrs.with("p", p))?])
}

/// The axes after the first two.
fn spatial(cx: &Cx<'_, '_>, x: ValueId) -> Result<Vec<usize>> {
    let rank = cx.rank(x)?;
    if rank < 3 {
        return Err(cx.wrong("pooling needs an operand [n, c, spatial…]"));
    }
    Ok((2..rank).collect())
}

fn global(cx: &mut Cx<'_, '_>, n: &Node<'_>, kind: &str) -> Result<Vec<ValueId>> {
    let x = cx.input(n, 0)?;
    let axes = spatial(cx, x)?;
    Ok(vec![cx.reduce(x, kind, &axes, true)?])
}

fn global_lp_pool(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let p = exponent(cx, n)?;
    let x = cx.input(n, 0)?;
    let axes = spatial(cx, x)?;
    Ok(vec![match p {
        1 => cx.reduce(x, "l1", &axes, true)?,
        2 => cx.reduce(x, "l2", &axes, true)?,
        p => {
            let a = cx.one(&arith::ABS, &[x], attrs! {})?;
            let a = cx.with(&arith::POW, a, p as f64)?;
            let s = cx.reduce(a, "sum", &axes, true)?;
            cx.with(&arith::POW, s, 1.0 / p as f64)?
        }
    }])
}
