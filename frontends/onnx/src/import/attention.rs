//! Scaled dot-product attention: what the operators of all domains share, `Attention` and
//! `FlexAttention`. An attention whose scores nobody sees is one `graph.attention`; where the scores
//! are an output, are changed by a subgraph or have a precision of their own, it is written in steps.

use silure_ir::dialects::arith;
use silure_ir::{Attr, Attrs, Dim, Elem, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::{Graph, Node};

pub(super) const TABLE: &[Record] = &[
    record("Attention", attention),
    Record {
        domain: "ai.onnx.preview",
        op: "FlexAttention",
        since: (1, i64::MAX),
        convert: flex_attention,
    },
];

/// One attention: q `[b, h, s, d]`, k `[b, g, t, d]`, v `[b, g, t, e]` with h a multiple of g.
pub(super) struct Heads {
    pub q: ValueId,
    pub k: ValueId,
    pub v: ValueId,
    /// Factor of the scores; 1/√d if absent.
    pub scale: Option<f64>,
    /// Scores become c·tanh(scores/c) if positive.
    pub softcap: f64,
    /// Bool (false hides) or float (added), broadcast to `[b, h, s, t]`.
    pub mask: Option<ValueId>,
    /// Row i sees columns up to i + this, if given.
    pub causal: Option<Dim>,
}

/// Which columns a row sees: row i stands at position i + `offset`.
pub(super) struct Sight {
    /// Rank 0, or `[b, 1, 1, 1]`.
    pub offset: ValueId,
    /// How far back a row sees, if there is a limit.
    pub left: Option<i64>,
    /// How far ahead a row sees, if there is a limit.
    pub right: Option<i64>,
    /// Number of columns that hold something: `[b, 1, 1, 1]`.
    pub length: Option<ValueId>,
}

impl Cx<'_, '_> {
    /// `[b, s, h·d]` as `[b, h, s, d]`.
    pub fn split_heads(&mut self, x: ValueId, heads: i64) -> Result<ValueId> {
        let d = self.dims(x)?;
        if d.len() != 3 || heads < 1 || d[2].as_const().is_some_and(|d| d % heads != 0) {
            return Err(self
                .wrong("the operand does not divide into heads")
                .needed(format!("[batch, sequence, {heads} × size]"))
                .present(self.ty(x)?.to_string()));
        }
        let each = d[2].floordiv(&Dim::Const(heads));
        let x = self.reshape(x, vec![d[0].clone(), d[1].clone(), Dim::Const(heads), each])?;
        self.transpose(x, &[0, 2, 1, 3])
    }

    /// `[b, h, s, d]` as `[b, s, h·d]`.
    pub fn join_heads(&mut self, x: ValueId) -> Result<ValueId> {
        let x = self.transpose(x, &[0, 2, 1, 3])?;
        self.merge(x, 2, 4)
    }

    /// 0, 1, … as `i64[n]`.
    pub fn positions(&mut self, n: &Dim) -> Result<ValueId> {
        let end = self.op("graph.dim", &[], attrs! { value: vec![n.clone()] })?;
        let (zero, one) = (self.number(Elem::I64, 0.0)?, self.number(Elem::I64, 1.0)?);
        self.op("graph.range", &[zero, end, one], attrs! {})
    }

    /// A rank-0 i64 with the value of a dim.
    pub fn dim_value(&mut self, d: &Dim) -> Result<ValueId> {
        match d.as_const() {
            Some(c) => self.number(Elem::I64, c as f64),
            None => self.op("graph.dim", &[], attrs! { value: vec![d.clone()] }),
        }
    }

    /// Which of t columns each of s rows sees: bool, broadcasts to `[b, h, s, t]`.
    pub fn visible(&mut self, s: &Dim, t: &Dim, sight: &Sight) -> Result<Option<ValueId>> {
        let columns = self.positions(t)?;
        let rows = self.positions(s)?;
        let rows = self.reshape(rows, vec![s.clone(), Dim::Const(1)])?;
        let rows = self.two(&arith::ADD, rows, sight.offset)?;
        let mut parts = Vec::new();
        if let Some(far) = sight.right {
            let last = if far == 0 { rows } else { self.with(&arith::ADD, rows, far as f64)? };
            parts.push(self.two(&arith::LE, columns, last)?);
        }
        if let Some(far) = sight.left {
            let first = self.with(&arith::SUB, rows, far as f64)?;
            parts.push(self.two(&arith::GE, columns, first)?);
        }
        if let Some(length) = sight.length {
            parts.push(self.two(&arith::LT, columns, length)?);
        }
        self.all_of(parts)
    }

    /// The conjunction of masks; nothing of nothing.
    pub fn all_of(&mut self, masks: Vec<ValueId>) -> Result<Option<ValueId>> {
        let mut all = None;
        for m in masks {
            all = Some(match all {
                None => m,
                Some(a) => self.two(&arith::AND, a, m)?,
            });
        }
        Ok(all)
    }

    /// A mask (bool or float of `elem`) that hides what `seen` does not show.
    pub fn hide(
        &mut self,
        mask: Option<ValueId>,
        seen: Option<ValueId>,
        elem: Elem,
    ) -> Result<Option<ValueId>> {
        let (mask, seen) = match (mask, seen) {
            (Some(m), Some(s)) => (m, s),
            (m, s) => return Ok(m.or(s)),
        };
        Ok(Some(if self.elem(mask)? == Elem::Bool {
            self.two(&arith::AND, mask, seen)?
        } else {
            let least = self.number(elem, f64::NEG_INFINITY)?;
            self.elementwise(&arith::SELECT, &[seen, mask, least], attrs! {})?
        }))
    }

    /// Makes the operands' sizes agree, and the mask's with the scores'.
    pub fn agree(&mut self, a: &mut Heads) -> Result<()> {
        for v in [a.q, a.k, a.v] {
            if self.rank(v)? != 4 || self.elem(v)? != self.elem(a.q)? {
                return Err(self
                    .unsupported("attention of operands that differ in rank or type")
                    .present(format!("{}, {}", self.ty(a.q)?, self.ty(v)?)));
            }
        }
        self.same_size(&mut a.q, 0, &mut a.k, 0, "batch sizes of queries and keys")?;
        self.same_size(&mut a.k, 0, &mut a.v, 0, "batch sizes of keys and values")?;
        self.same_size(&mut a.q, 3, &mut a.k, 3, "sizes of the heads of queries and keys")?;
        for d in 0..3 {
            self.same_size(&mut a.k, d, &mut a.v, d, "sizes of keys and values")?;
        }
        let (q, k) = (self.dims(a.q)?, self.dims(a.k)?);
        if q[1].modulo(&k[1]) != Dim::Const(0) {
            return Err(self
                .wrong("the heads of the queries are not a multiple of the keys'")
                .present(format!("{} and {}", q[1], k[1])));
        }
        let Some(mut m) = a.mask else { return Ok(()) };
        let rank = self.rank(m)?;
        if rank > 4 {
            return Err(self.wrong("the mask has more than four axes"));
        }
        for i in 0..rank {
            if self.dims(m)?[i] == Dim::Const(1) {
                continue;
            }
            let (q, k) = (self.dims(a.q)?, self.dims(a.k)?);
            let full = [&q[0], &q[1], &q[2], &k[2]];
            let to = full[4 - rank + i].clone();
            self.expect_size(&mut m, i, &to, "sizes of the scores and of the mask")?;
        }
        a.mask = Some(m);
        Ok(())
    }

    /// The factor of the scores as a rank-0 f32, or as a number where it is known.
    fn factor(&mut self, a: &Heads) -> Result<std::result::Result<f64, ValueId>> {
        let size = self.dims(a.q)?[3].clone();
        Ok(match (a.scale, size.as_const()) {
            (Some(s), _) => Ok(s),
            // No element is multiplied by it.
            (None, Some(0)) => Ok(1.0),
            (None, Some(d)) => Ok(1.0 / (d as f64).sqrt()),
            (None, None) => {
                let d = self.dim_value(&size)?;
                let d = self.cast(d, Elem::F32)?;
                let root = self.one(&arith::SQRT, &[d], attrs! {})?;
                Err(self.one(&arith::RECIP, &[root], attrs! {})?)
            }
        })
    }

    /// Queries and keys times the root of the factor: their product stays in a narrow type's range.
    fn prescale(&mut self, a: &mut Heads) -> Result<()> {
        let elem = self.elem(a.q)?;
        match self.factor(a)? {
            Ok(1.0) => {}
            // A negative factor has no root.
            Ok(f) if f < 0.0 => a.q = self.with(&arith::MUL, a.q, f)?,
            Ok(f) => {
                a.q = self.with(&arith::MUL, a.q, f.sqrt())?;
                a.k = self.with(&arith::MUL, a.k, f.sqrt())?;
            }
            Err(f) => {
                let root = self.one(&arith::SQRT, &[f], attrs! {})?;
                let root = self.cast(root, elem)?;
                a.q = self.two(&arith::MUL, a.q, root)?;
                a.k = self.two(&arith::MUL, a.k, root)?;
            }
        }
        a.scale = Some(1.0);
        Ok(())
    }

    /// The attention as one op. A row that sees nothing is NaN.
    pub fn attend(&mut self, mut a: Heads) -> Result<ValueId> {
        self.agree(&mut a)?;
        if matches!(self.elem(a.q)?, Elem::F16 | Elem::Bf16) {
            self.prescale(&mut a)?;
        }
        let scale = match self.factor(&a)? {
            Ok(f) => f,
            Err(_) => {
                self.prescale(&mut a)?;
                1.0
            }
        };
        let mut attrs = attrs! { scale: scale, causal: a.causal.is_some(), softcap: a.softcap };
        if let Some(offset) = a.causal.filter(|o| *o != Dim::Const(0)) {
            attrs.set("offset", Attr::Dims(vec![offset]));
        }
        let operands = [Some(a.q), Some(a.k), Some(a.v), a.mask];
        Ok(self.ops("graph.attention", &operands, attrs)?[0])
    }

    /// Keys or values with each head repeated for the queries that share it.
    pub fn repeat_heads(&mut self, x: ValueId, heads: &Dim) -> Result<ValueId> {
        let d = self.dims(x)?;
        if d[1] == *heads {
            return Ok(x);
        }
        let x = self.unsqueeze(x, &[2])?;
        let mut five = self.dims(x)?;
        five[2] = heads.floordiv(&d[1]);
        let x = self.broadcast(x, &five)?;
        self.reshape(x, vec![d[0].clone(), heads.clone(), d[2].clone(), d[3].clone()])
    }

    /// The scores before mask and softcap, and the values, of one head for each head of the queries.
    /// `causal` has to be in the mask.
    pub fn scores(&mut self, a: &mut Heads) -> Result<ValueId> {
        self.agree(a)?;
        self.prescale(a)?;
        let heads = self.dims(a.q)?[1].clone();
        let k = self.repeat_heads(a.k, &heads)?;
        a.v = self.repeat_heads(a.v, &heads)?;
        let k = self.transpose(k, &[0, 1, 3, 2])?;
        self.op("graph.matmul", &[a.q, k], attrs! {})
    }

    /// c·tanh(x/c), or x if c is not positive.
    pub fn softcapped(&mut self, x: ValueId, cap: f64) -> Result<ValueId> {
        if cap <= 0.0 {
            return Ok(x);
        }
        let x = self.with(&arith::DIV, x, cap)?;
        let x = self.one(&arith::TANH, &[x], attrs! {})?;
        self.with(&arith::MUL, x, cap)
    }

    /// Scores with a mask applied.
    pub fn masked(&mut self, x: ValueId, mask: Option<ValueId>) -> Result<ValueId> {
        let Some(m) = mask else { return Ok(x) };
        if self.elem(m)? != Elem::Bool {
            return self.two(&arith::ADD, x, m);
        }
        let elem = self.elem(x)?;
        let least = self.number(elem, f64::NEG_INFINITY)?;
        self.elementwise(&arith::SELECT, &[m, x, least], attrs! {})
    }

    /// `y` with 0 in the rows that the mask hides entirely; y is one row per row of the mask.
    pub fn nothing_where_hidden(&mut self, y: ValueId, mask: Option<ValueId>) -> Result<ValueId> {
        let Some(m) = mask else { return Ok(y) };
        let bias = if self.elem(m)? == Elem::Bool {
            let zero = self.number(Elem::F32, 0.0)?;
            self.masked(zero, Some(m))?
        } else {
            self.cast(m, Elem::F32)?
        };
        let last = self.rank(bias)?;
        if last == 0 {
            return Err(self.wrong("the mask has no axes"));
        }
        let most = self.reduce(bias, "max", &[last - 1], true)?;
        let hidden = self.with(&arith::EQ, most, f64::NEG_INFINITY)?;
        let elem = self.elem(y)?;
        let zero = self.number(elem, 0.0)?;
        self.elementwise(&arith::SELECT, &[hidden, zero, y], attrs! {})
    }
}

/// Past and new entries of a cache, one after the other.
pub(super) fn joined(cx: &mut Cx<'_, '_>, past: Option<ValueId>, new: ValueId) -> Result<ValueId> {
    match past {
        Some(past) => cx.concat(&[past, new], 2),
        None => Ok(new),
    }
}

/// A float type that an attribute asks for.
fn precision(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Option<Elem>> {
    let p = cx.elem_attr(n, "softmax_precision")?;
    if let Some(p) = p
        && !matches!(p, Elem::F16 | Elem::Bf16 | Elem::F32 | Elem::F64)
    {
        return Err(cx.wrong("attribute `softmax_precision` is not a float").present(p.name()));
    }
    Ok(p)
}

fn attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let scale = cx.float(n, "scale")?;
    let softcap = cx.float_or(n, "softcap", 0.0)?;
    let causal = cx.flag_or(n, "is_causal", false)?;
    let mode = cx.int_or(n, "qk_matmul_output_mode", 0)?;
    let precision = precision(cx, n)?;
    let counts = [cx.int(n, "q_num_heads")?, cx.int(n, "kv_num_heads")?];
    let mut window = [None, None];
    if n.op.version >= 25 {
        for (w, name) in window.iter_mut().zip(["left_window_size", "right_window_size"]) {
            *w = match cx.int_or(n, name, -1)? {
                -1 => None,
                far if (0..1 << 31).contains(&far) => Some(far),
                far => {
                    let what = format!("attribute `{name}` is out of range");
                    return Err(cx.wrong(what).present(far.to_string()));
                }
            };
        }
    }
    let mut x = [cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?];
    let elem = cx.elem(x[0])?;
    let packed = cx.rank(x[0])? == 3;
    for (i, v) in x.iter_mut().enumerate() {
        let count = counts[i.min(1)];
        if packed {
            let Some(count) = count else {
                return Err(cx.wrong("operands of rank 3 need the numbers of heads"));
            };
            *v = cx.split_heads(*v, count)?;
        } else if let Some(count) = count
            && cx.rank(*v)? == 4
        {
            cx.expect_size(v, 1, &Dim::Const(count), "the number of heads and axis 1")?;
        }
    }
    let [q, k, v] = x;
    let (past_k, past_v) = (cx.maybe(n, 4)?, cx.maybe(n, 5)?);
    if past_k.is_some() != past_v.is_some() {
        return Err(cx.wrong("past keys and past values are given together or not at all"));
    }
    let length = if n.op.version >= 24 { cx.maybe(n, 6)? } else { None };
    let past = match past_k {
        Some(p) if cx.rank(p)? == 4 => Some(cx.dims(p)?[2].clone()),
        Some(_) => return Err(cx.wrong("past keys need four axes")),
        None => None,
    };
    if past.is_some() && length.is_some() {
        return Err(cx.wrong("past keys and `nonpad_kv_seqlen` exclude each other"));
    }
    let (k, v) = (joined(cx, past_k, k)?, joined(cx, past_v, v)?);
    let mut a = Heads { q, k, v, scale, softcap, mask: None, causal: None };
    cx.agree(&mut a)?;
    let (k, v) = (a.k, a.v);
    let (s, t) = (cx.dims(a.q)?[2].clone(), cx.dims(k)?[2].clone());
    let mut mask = cx.maybe(n, 3)?;
    if let Some(m) = mask {
        mask = Some(long_mask(cx, m, &t, elem)?);
    }
    let steps = cx.wants(n, 3) || precision.is_some_and(|p| p != elem);
    let windowed = window.iter().any(Option::is_some) || length.is_some();
    if causal && !windowed && mask.is_none() && !steps {
        // Every row sees at least the first column.
        a.causal = Some(past.unwrap_or(Dim::Const(0)));
    } else if causal || windowed {
        let length = match length {
            Some(l) => {
                let batch = cx.dims(a.q)?[0].clone();
                let one = Dim::Const(1);
                Some(cx.reshape(l, vec![batch, one.clone(), one.clone(), one])?)
            }
            None => None,
        };
        let offset = match (length, past) {
            (Some(l), _) => {
                let rows = cx.dim_value(&s)?;
                cx.two(&arith::SUB, l, rows)?
            }
            (None, past) => cx.dim_value(&past.unwrap_or(Dim::Const(0)))?,
        };
        let right = if causal { Some(0) } else { window[1] };
        let seen = cx.visible(&s, &t, &Sight { offset, left: window[0], right, length })?;
        mask = cx.hide(mask, seen, elem)?;
    }
    a.mask = mask;
    cx.agree(&mut a)?;
    let mask = a.mask;
    let mut scores = None;
    let y = if steps {
        let raw = cx.scores(&mut a)?;
        let capped = cx.softcapped(raw, softcap)?;
        let biased = cx.masked(capped, mask)?;
        let x = cx.cast(biased, precision.unwrap_or(elem))?;
        let p = cx.op("graph.softmax", &[x], attrs! { axis: 3 })?;
        let p = cx.cast(p, elem)?;
        let p = cx.nothing_where_hidden(p, mask)?;
        scores = Some(match mode {
            0 => raw,
            1 => capped,
            2 => biased,
            3 => p,
            m => {
                return Err(cx
                    .wrong("attribute `qk_matmul_output_mode` is out of range")
                    .needed("0 to 3")
                    .present(m.to_string()));
            }
        });
        cx.op("graph.matmul", &[p, a.v], attrs! {})?
    } else {
        let y = cx.attend(a)?;
        cx.nothing_where_hidden(y, mask)?
    };
    let y = if packed { cx.join_heads(y)? } else { y };
    let mut out = vec![y, k, v];
    out.extend(scores);
    Ok(out)
}

/// A mask of t columns, hidden where it has none, that is bool or float of `elem`.
fn long_mask(cx: &mut Cx<'_, '_>, m: ValueId, t: &Dim, elem: Elem) -> Result<ValueId> {
    let m = if cx.elem(m)? == Elem::Bool { m } else { cx.cast(m, elem)? };
    let dims = cx.dims(m)?;
    let Some(columns) = dims.last().filter(|c| *c != t) else { return Ok(m) };
    let missing = t.clone() - columns.clone();
    if missing.as_const().is_some_and(|m| m < 0) {
        return Err(cx
            .wrong("the mask has more columns than there are keys")
            .needed(t.to_string())
            .present(columns.to_string()));
    }
    let mut pads = vec![Dim::Const(0); 2 * dims.len()];
    *pads.last_mut().unwrap_or(&mut Dim::Const(0)) = missing;
    let of = cx.elem(m)?;
    let hidden = if of == Elem::Bool { 0.0 } else { f64::NEG_INFINITY };
    let hidden = cx.number(of, hidden)?;
    let pads = Attrs::new().with("pads", Attr::Dims(pads));
    Ok(cx.ops("graph.pad", &[Some(m), Some(hidden), None], pads)?[0])
}

/// A subgraph applied to scores or probabilities.
fn modified(cx: &mut Cx<'_, '_>, g: Option<&Graph<'_>>, x: ValueId) -> Result<ValueId> {
    let Some(g) = g else { return Ok(x) };
    let dims = cx.dims(x)?;
    let out = cx.nested(|cx| cx.body(g, &[x]))?;
    let &[y] = out.as_slice() else {
        return Err(cx.wrong("a modifier gives one value").present(out.len().to_string()));
    };
    let mut y = y;
    if cx.rank(y)? != dims.len() || cx.elem(y)? != cx.elem(x)? {
        return Err(cx
            .wrong("a modifier changes the type of what it modifies")
            .needed(cx.ty(x)?.to_string())
            .present(cx.ty(y)?.to_string()));
    }
    for (i, d) in dims.iter().enumerate() {
        cx.expect_size(&mut y, i, d, "sizes of what a modifier takes and gives")?;
    }
    Ok(y)
}

fn flex_attention(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let scale = cx.float(n, "scale")?;
    let precision = precision(cx, n)?;
    cx.ignore("score_mod");
    cx.ignore("prob_mod");
    let (score, prob) = (n.graph("score_mod"), n.graph("prob_mod"));
    let (q, k, v) = (cx.input(n, 0)?, cx.input(n, 1)?, cx.input(n, 2)?);
    let elem = cx.elem(q)?;
    let at = precision.unwrap_or(if elem == Elem::F64 { elem } else { Elem::F32 });
    let mut a = Heads { q, k, v, scale, softcap: 0.0, mask: None, causal: None };
    if score.is_none() && prob.is_none() && at == elem {
        return Ok(vec![cx.attend(a)?]);
    }
    let x = cx.scores(&mut a)?;
    let x = cx.cast(x, at)?;
    let x = modified(cx, score, x)?;
    let p = cx.op("graph.softmax", &[x], attrs! { axis: 3 })?;
    let p = modified(cx, prob, p)?;
    let v = cx.cast(a.v, at)?;
    let y = cx.op("graph.matmul", &[p, v], attrs! {})?;
    Ok(vec![cx.cast(y, elem)?])
}
