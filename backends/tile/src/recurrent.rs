//! Recurrent layers: `graph.lstm`, `graph.gru`, `graph.rnn`.
//!
//! | kernel | what a program does |
//! |---|---|
//! | `…_inputs` | has a tile of what the inputs of all steps give to the gates: x · wᵀ + b, in the workspace |
//! | the layer | has one sequence in one direction and takes its steps one after the other |
//!
//! h lies in the workspace twice, for the step before and for this one; c lies in its result. Behind every step is a
//! [`tile::FENCE`]: what some threads have written others read.

use silure_ir::dialects::{arith, tile};
use silure_ir::func::Op;
use silure_ir::{Attr, Dim, Elem, Func, Num, OpId, Result, TensorType, Type, ValueId, attrs, bail};

use crate::attention::within;
use crate::lanes::{Place, tensor_of};
use crate::points::places;
use crate::product::{extent, matrix, turned};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel, TOKENS};

/// Units of h that a program makes at once, and elements of h that it reads at once.
const UNITS: usize = 32;
const DEEP: usize = 64;
/// Warps of a layer's program.
const WARPS: i64 = 8;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rnn,
    Gru,
    Lstm,
}

/// An activation and its parameters.
type Act = (String, f64, f64);

struct Layer<'a> {
    f: &'a Func,
    o: &'a Op,
    kind: Kind,
    acts: Vec<Act>,
    clip: Option<f64>,
    directions: i64,
    steps: Dim,
    batch: Dim,
    input: Dim,
    units: Dim,
    gates: i64,
}

/// The two kernels.
pub(crate) fn kernels(f: &Func, op: OpId, title: Title) -> Result<Vec<Kernel>> {
    let l = Layer::of(f, op)?;
    let name = format!("{}_inputs", title.name);
    let inputs = l.inputs(Title { name: &name, reports: false, ..title })?;
    Ok(vec![inputs, l.layer(title)?])
}

/// The activations of all directions, which are those of each.
fn activations(o: &Op, each: &[&str], directions: i64) -> Result<Vec<Act>> {
    let names: Vec<String> = match o.attrs.get("activations") {
        Some(Attr::Strs(s)) if !s.is_empty() => s.iter().map(|s| s.to_lowercase()).collect(),
        _ => (0..directions).flat_map(|_| each.iter().map(|s| s.to_string())).collect(),
    };
    let (mut alpha, mut beta) = (o.attrs.floats("alpha").iter(), o.attrs.floats("beta").iter());
    let mut all = vec![];
    for name in names {
        let (a, b) = match &*name {
            "relu" | "tanh" | "sigmoid" | "softsign" => (None, None),
            "affine" => (Some(1.0), Some(0.0)),
            "leakyrelu" => (Some(0.01), None),
            "thresholdedrelu" => (Some(1.0), None),
            "scaledtanh" => (Some(1.0), Some(1.0)),
            "hardsigmoid" => (Some(0.2), Some(0.5)),
            n => bail!(Unsupported, "the activation `{n}` of a layer in a tile kernel"),
        };
        let a = a.map_or(0.0, |d| alpha.next().copied().unwrap_or(d));
        let b = b.map_or(0.0, |d| beta.next().copied().unwrap_or(d));
        all.push((name, a, b));
    }
    let (first, rest) = all.split_at(each.len().min(all.len()));
    if !rest.is_empty() && rest != first {
        bail!(Unsupported, "directions of different activations in a tile kernel");
    }
    Ok(first.to_vec())
}

impl<'a> Layer<'a> {
    fn of(f: &'a Func, op: OpId) -> Result<Layer<'a>> {
        let o = f.op(op);
        let (kind, gates, each): (_, i64, &[&str]) = match o.def.name {
            "graph.lstm" => (Kind::Lstm, 4, &["sigmoid", "tanh", "tanh"]),
            "graph.gru" => (Kind::Gru, 3, &["sigmoid", "tanh"]),
            _ => (Kind::Rnn, 1, &["tanh"]),
        };
        let (Some(x), Some(r)) = (o.operand(0), o.operand(2)) else {
            bail!(Internal, "a layer has inputs and weights")
        };
        let (x, r) = (tensor_of(f.ty(x))?, tensor_of(f.ty(r))?);
        if x.elem != Elem::F32 {
            bail!(Unsupported, "a recurrent layer of {} in a tile kernel", x.elem);
        }
        let ([steps, batch, input], [_, _, units]) = (&x.dims[..], &r.dims[..]) else {
            bail!(Internal, "three axes")
        };
        let directions = if o.attrs.str("direction") == "bidirectional" { 2 } else { 1 };
        Ok(Layer {
            f,
            o,
            kind,
            acts: activations(o, each, directions)?,
            clip: o.attrs.get("clip").map(|_| o.attrs.float("clip")),
            directions,
            steps: steps.clone(),
            batch: batch.clone(),
            input: input.clone(),
            units: units.clone(),
            gates,
        })
    }

    /// Rows of the weights of one direction.
    fn height(&self) -> Dim {
        self.units.clone() * Dim::Const(self.gates)
    }

    fn lines(&self) -> Dim {
        self.batch.clone() * Dim::Const(self.directions)
    }

    /// What lies between and within the kernels: of the inputs, h of two steps, what a reset leaves of h.
    fn workspace(&self, w: &mut Writer, i: usize) -> Result<Place> {
        let rows = self.steps.clone() * self.batch.clone();
        let dims = match i {
            0 => vec![Dim::Const(self.directions), rows, self.height()],
            1 => vec![Dim::Const(2), self.lines(), self.units.clone()],
            _ => vec![self.lines(), self.units.clone()],
        };
        let t = TensorType::new(Elem::F32, dims);
        Place::of(w, Arg::Workspace(i, t.clone()), &Type::Tensor(t))
    }

    fn inputs(&self, title: Title) -> Result<Kernel> {
        let f = self.f;
        let mut w = Writer::new(title);
        w.at(&self.o.loc);
        let (x, _) = places(&mut w, f, self.o, &[0, 1, 3], &[])?;
        let (Some(Some(x)), Some(Some(v)), b) = (x.first(), x.get(1), x.get(3).cloned().flatten())
        else {
            bail!(Internal, "a layer has inputs and weights")
        };
        let to = self.workspace(&mut w, 0)?;
        let rows = self.steps.clone() * self.batch.clone();
        w.axis(f, &Dim::Const(self.directions));
        w.axis(f, &rows);
        w.axis(f, &self.height());
        let shape = [extent(&rows), extent(&self.height())];
        w.place(vec![1, shape[0], shape[1]], false)?;
        w.spread_over(shape[0] * shape[1]);
        let [d, top, left] = [0, 1, 2].map(|i| w.offset(i));
        let (rows, height) = (w.size(1)?, w.size(2)?);
        let k = w.axis(f, &self.input);
        let deep = w.size(k)?;
        let lines = matrix(&mut w, x.base, rows, deep)?;
        let weights = w.view(v.base, &[0, 2, k])?;
        let none = w.filled(Elem::F32, Num::F(0.0))?;
        let mut sum = w.fold(deep, 32, &[none], |w, at, sum| {
            let form = attrs! { tile: vec![shape[0] as i64, 32] };
            let x = w.one(&tile::LOAD, &[lines, top, at], form)?;
            let form = attrs! { tile: vec![shape[1] as i64, 32], axes: vec![1i64, 2] };
            let v = w.one(&tile::LOAD, &[weights, d, left, at], form)?;
            let v = turned(w, v)?;
            Ok(vec![w.one(&tile::DOT, &[x, v, sum[0]], attrs! {})?])
        })?[0];
        if let Some(b) = b {
            let (two, count) = (w.index(2)?, w.size(0)?);
            let both = w.one(&arith::MUL, &[height, two], attrs! {})?;
            let view = matrix(&mut w, b.base, count, both)?;
            let form = attrs! { tile: vec![shape[1] as i64], axes: vec![1i64] };
            let b = w.one(&tile::LOAD, &[view, d, left], form)?;
            w.span(&shape);
            let b = w.spread(b, 1)?;
            sum = w.two(&arith::ADD, sum, b)?;
        }
        w.store(to.base, sum, &[0, 1, 2])?;
        w.done()
    }

    fn layer(&self, title: Title) -> Result<Kernel> {
        let (f, o) = (self.f, self.o);
        let mut w = Writer::new(title);
        w.at(&o.loc);
        let results: &[usize] = if self.kind == Kind::Lstm { &[0, 1, 2] } else { &[0, 1] };
        let (x, y) = places(&mut w, f, o, &[2, 3, 4, 5, 6, 7], results)?;
        let operand = |i: usize| x.get(i).cloned().flatten();
        let (Some(r), [Some(y), Some(h), c @ ..]) = (operand(2), &y[..]) else {
            bail!(Internal, "a layer has weights and results")
        };
        let lens = operand(4);
        if lens.is_some() {
            w.word();
        }
        let (given, twice) = (self.workspace(&mut w, 0)?, self.workspace(&mut w, 1)?);
        let plain = !o.attrs.bool("linear_before_reset");
        let gated = match self.kind == Kind::Gru && plain {
            true => Some(self.workspace(&mut w, 2)?),
            false => None,
        };
        w.axis(f, &Dim::Const(self.directions));
        w.axis(f, &self.batch);
        w.place(vec![1, 1], false)?;
        w.warps(WARPS);
        let (d, i) = (w.offset(0), w.offset(1));
        let (directions, batch) = (w.size(0)?, w.size(1)?);
        let steps = w.dim(f, &self.steps)?;
        let (height, lines) = (w.dim(f, &self.height())?, w.dim(f, &self.lines())?);
        let (zero, one, two) = (w.index(0)?, w.index(1)?, w.index(2)?);
        let line = within(&mut w, d, batch, i)?;
        let mut length = steps;
        if let Some(lens) = lens {
            let n = lens.single(&mut w, f, i, 0.0)?;
            let n = w.one(&tile::INDEX, &[n], attrs! {})?;
            let (above, below) = (
                w.one(&arith::GE, &[n, zero], attrs! {})?,
                w.one(&arith::LE, &[n, steps], attrs! {})?,
            );
            let fits = w.one(&arith::AND, &[above, below], attrs! {})?;
            w.demand(fits, None, TOKENS)?;
            length = w.one(&arith::SELECT, &[fits, n, zero], attrs! {})?;
        }
        let rows = w.one(&arith::MUL, &[steps, batch], attrs! {})?;
        let all = w.one(&arith::MUL, &[rows, directions], attrs! {})?;
        let tall = w.one(&arith::MUL, &[height, directions], attrs! {})?;
        let both = w.one(&arith::MUL, &[lines, two], attrs! {})?;
        let wide = w.one(&arith::MUL, &[height, two], attrs! {})?;
        let n = w.dim(f, &self.units)?;
        let mut s = Step {
            l: self,
            at: zero,
            tile: cover(&self.units, UNITS),
            deep: cover(&self.units, DEEP),
            d,
            units: n,
            height,
            line,
            given: matrix(&mut w, given.base, all, height)?,
            row: zero,
            weights: matrix(&mut w, r.base, tall, n)?,
            bias: match operand(3) {
                Some(b) => Some(matrix(&mut w, b.base, directions, wide)?),
                None => None,
            },
            peep: None,
            state: matrix(&mut w, twice.base, both, n)?,
        };
        if let (Some(p), Kind::Lstm) = (operand(7), self.kind) {
            let three = w.index(3)?;
            let width = w.one(&arith::MUL, &[n, three], attrs! {})?;
            s.peep = Some(matrix(&mut w, p.base, directions, width)?);
        }
        let vy = matrix(&mut w, y.base, all, n)?;
        let vh = matrix(&mut w, h.base, lines, n)?;
        let vc = match c.first().cloned().flatten() {
            Some(c) => Some(matrix(&mut w, c.base, lines, n)?),
            None => None,
        };
        let gated = match gated {
            Some(g) => Some(matrix(&mut w, g.base, lines, n)?),
            None => None,
        };
        // What there is before the first step.
        let mut first = vec![(operand(5), s.state)];
        first.extend(vc.map(|c| (operand(6), c)));
        for (from, to) in first {
            let from = match from {
                Some(p) => Some(matrix(&mut w, p.base, lines, n)?),
                None => None,
            };
            s.each(&mut w, |s, w| {
                let v = match from {
                    Some(v) => s.load(w, v, line, s.at)?,
                    None => w.all(Elem::F32, Num::F(0.0))?,
                };
                s.keep(w, to, v, line)
            })?;
        }
        w.range([length, steps], 1, &[], |w, t, _| {
            let row = self.row(w, [t, directions, d, batch, i])?;
            s.each(w, |s, w| {
                let v = w.all(Elem::F32, Num::F(0.0))?;
                s.keep(w, vy, v, row)
            })?;
            Ok(vec![])
        })?;
        w.effect(&tile::FENCE, &[])?;
        w.range([zero, length], 1, &[], |w, step, _| {
            let mut t = step;
            let back = w.one(&arith::SUB, &[length, step], attrs! {})?;
            let back = w.one(&arith::SUB, &[back, one], attrs! {})?;
            match o.attrs.str("direction") {
                "reverse" => t = back,
                "bidirectional" => {
                    let forth = w.one(&arith::EQ, &[d, zero], attrs! {})?;
                    t = w.one(&arith::SELECT, &[forth, step, back], attrs! {})?;
                }
                _ => {}
            }
            let own = within(w, t, batch, i)?;
            s.row = within(w, d, rows, own)?;
            let row = self.row(w, [t, directions, d, batch, i])?;
            let now = w.one(&arith::MOD, &[step, two], attrs! {})?;
            let then = w.one(&arith::SUB, &[one, now], attrs! {})?;
            let (from, to) = (within(w, now, lines, line)?, within(w, then, lines, line)?);
            if let Some(gated) = gated {
                s.each(w, |s, w| {
                    let sums = s.sums(w, &[1], s.state, from)?;
                    let reset = s.gate(w, 1, Some(sums[0]), None)?;
                    let old = s.load(w, s.state, from, s.at)?;
                    let v = w.two(&arith::MUL, reset, old)?;
                    s.keep(w, gated, v, s.line)
                })?;
                w.effect(&tile::FENCE, &[])?;
            }
            s.each(w, |s, w| {
                let v = match self.kind {
                    Kind::Rnn => {
                        let sums = s.sums(w, &[0], s.state, from)?;
                        s.gate(w, 0, Some(sums[0]), None)?
                    }
                    Kind::Gru => s.gru(w, from, gated)?,
                    Kind::Lstm => {
                        let Some(c) = vc else { bail!(Internal, "no c") };
                        s.lstm(w, from, c)?
                    }
                };
                s.keep(w, s.state, v, to)?;
                s.keep(w, vy, v, row)
            })?;
            w.effect(&tile::FENCE, &[])?;
            Ok(vec![])
        })?;
        let last = w.one(&arith::MOD, &[length, two], attrs! {})?;
        let last = within(&mut w, last, lines, line)?;
        s.each(&mut w, |s, w| {
            let v = s.load(w, s.state, last, s.at)?;
            s.keep(w, vh, v, line)
        })?;
        w.done()
    }

    /// The line of y of a step.
    fn row(&self, w: &mut Writer, [t, directions, d, batch, i]: [ValueId; 5]) -> Result<ValueId> {
        let at = within(w, t, directions, d)?;
        within(w, at, batch, i)
    }
}

/// One step of one sequence, some units at a time.
struct Step<'a> {
    l: &'a Layer<'a>,
    /// The first of the units.
    at: ValueId,
    tile: usize,
    deep: usize,
    d: ValueId,
    units: ValueId,
    height: ValueId,
    line: ValueId,
    /// What the inputs give, and the step's line of it.
    given: ValueId,
    row: ValueId,
    weights: ValueId,
    bias: Option<ValueId>,
    /// Weights of c in the gates.
    peep: Option<ValueId>,
    /// h of two steps.
    state: ValueId,
}

impl Step<'_> {
    /// Goes through the units.
    fn each(
        &mut self,
        w: &mut Writer,
        part: impl FnOnce(&Self, &mut Writer) -> Result<()>,
    ) -> Result<()> {
        let (n, step) = (self.units, self.tile as i64);
        w.fold(n, step, &[], |w, at, _| {
            self.at = at;
            w.span(&[self.tile]);
            part(self, w)?;
            Ok(vec![])
        })?;
        Ok(())
    }

    /// Some elements of a line of a matrix.
    fn load(&self, w: &mut Writer, view: ValueId, line: ValueId, at: ValueId) -> Result<ValueId> {
        let form = attrs! { tile: vec![self.tile as i64], axes: vec![1i64] };
        w.one(&tile::LOAD, &[view, line, at], form)
    }

    fn keep(&self, w: &mut Writer, view: ValueId, v: ValueId, line: ValueId) -> Result<()> {
        w.keep(&[view, v, line, self.at], attrs! { axes: vec![1i64] })
    }

    /// Where the units of a gate begin in a line of all gates.
    fn of_gate(&self, w: &mut Writer, gate: i64) -> Result<ValueId> {
        let gate = w.index(gate)?;
        within(w, gate, self.units, self.at)
    }

    /// A line of a matrix times the weights of gates, and the bias of that product.
    fn sums(
        &self,
        w: &mut Writer,
        gates: &[i64],
        from: ValueId,
        line: ValueId,
    ) -> Result<Vec<ValueId>> {
        let mut begins = vec![];
        for g in gates {
            begins.push(self.of_gate(w, *g)?);
        }
        w.span(&[self.tile, self.deep]);
        let none = w.all(Elem::F32, Num::F(0.0))?;
        let first = vec![none; gates.len()];
        let all = w.fold(self.units, self.deep as i64, &first, |w, at, sums| {
            let form = attrs! { tile: vec![self.deep as i64], axes: vec![1i64] };
            let x = w.one(&tile::LOAD, &[from, line, at], form)?;
            w.span(&[self.tile, self.deep]);
            let x = w.spread(x, 1)?;
            let mut out = vec![];
            for (begin, sum) in begins.iter().zip(sums) {
                let row = within(w, self.d, self.height, *begin)?;
                let form = attrs! { tile: vec![self.tile as i64, self.deep as i64] };
                let v = w.one(&tile::LOAD, &[self.weights, row, at], form)?;
                let v = w.two(&arith::MUL, v, x)?;
                out.push(w.two(&arith::ADD, *sum, v)?);
            }
            Ok(out)
        })?;
        w.span(&[self.tile]);
        let mut out = vec![];
        for (sum, begin) in all.into_iter().zip(begins) {
            let mut v = w.one(&tile::REDUCE, &[sum], attrs! { axis: 1i64, kind: "sum" })?;
            if let Some(b) = self.bias {
                let at = w.one(&arith::ADD, &[self.height, begin], attrs! {})?;
                let b = self.load(w, b, self.d, at)?;
                v = w.two(&arith::ADD, v, b)?;
            }
            out.push(v);
        }
        Ok(out)
    }

    /// The activation of a gate: what the inputs give, and two more sums.
    fn gate(
        &self,
        w: &mut Writer,
        gate: i64,
        sum: Option<ValueId>,
        more: Option<ValueId>,
    ) -> Result<ValueId> {
        let at = self.of_gate(w, gate)?;
        let mut v = self.load(w, self.given, self.row, at)?;
        for x in [sum, more].into_iter().flatten() {
            v = w.two(&arith::ADD, v, x)?;
        }
        // The last gate has the second activation where there are several.
        let own = gate + 1 == self.l.gates && self.l.gates > 1;
        self.on(w, own as usize, v)
    }

    /// An activation.
    fn on(&self, w: &mut Writer, which: usize, mut x: ValueId) -> Result<ValueId> {
        let c = |w: &mut Writer, n: f64| w.all(Elem::F32, Num::F(n));
        if let Some(clip) = self.l.clip {
            let (least, most) = (c(w, -clip)?, c(w, clip)?);
            x = w.one(&arith::MAX, &[x, least], attrs! {})?;
            x = w.one(&arith::MIN, &[x, most], attrs! {})?;
        }
        let (name, a, b) = &self.l.acts[which];
        let (zero, one) = (c(w, 0.0)?, c(w, 1.0)?);
        let (a, b) = (c(w, *a)?, c(w, *b)?);
        match &**name {
            "tanh" => w.one(&arith::TANH, &[x], attrs! {}),
            "sigmoid" => {
                let x = w.one(&arith::NEG, &[x], attrs! {})?;
                let x = w.one(&arith::EXP, &[x], attrs! {})?;
                let x = w.two(&arith::ADD, x, one)?;
                w.two(&arith::DIV, one, x)
            }
            "softsign" => {
                let size = w.one(&arith::ABS, &[x], attrs! {})?;
                let size = w.two(&arith::ADD, size, one)?;
                w.two(&arith::DIV, x, size)
            }
            "relu" | "leakyrelu" => {
                let other = if name == "relu" { zero } else { w.two(&arith::MUL, a, x)? };
                let below = w.two(&arith::LT, x, zero)?;
                w.choose(below, other, x)
            }
            "thresholdedrelu" => {
                let above = w.two(&arith::GT, x, a)?;
                w.choose(above, x, zero)
            }
            "scaledtanh" => {
                let x = w.two(&arith::MUL, b, x)?;
                let x = w.one(&arith::TANH, &[x], attrs! {})?;
                w.two(&arith::MUL, a, x)
            }
            name => {
                let x = w.two(&arith::MUL, a, x)?;
                let x = w.two(&arith::ADD, x, b)?;
                if name == "affine" {
                    return Ok(x);
                }
                let x = w.one(&arith::MAX, &[x, zero], attrs! {})?;
                w.one(&arith::MIN, &[x, one], attrs! {})
            }
        }
    }

    fn gru(&self, w: &mut Writer, from: ValueId, gated: Option<ValueId>) -> Result<ValueId> {
        let (z, inner) = match gated {
            Some(gated) => {
                let z = self.sums(w, &[0], self.state, from)?[0];
                let inner = self.sums(w, &[2], gated, self.line)?[0];
                (self.gate(w, 0, Some(z), None)?, inner)
            }
            None => {
                let sums = self.sums(w, &[0, 1, 2], self.state, from)?;
                let z = self.gate(w, 0, Some(sums[0]), None)?;
                let reset = self.gate(w, 1, Some(sums[1]), None)?;
                (z, w.two(&arith::MUL, reset, sums[2])?)
            }
        };
        let new = self.gate(w, 2, Some(inner), None)?;
        let old = self.load(w, self.state, from, self.at)?;
        let one = w.all(Elem::F32, Num::F(1.0))?;
        let rest = w.two(&arith::SUB, one, z)?;
        let (new, old) = (w.two(&arith::MUL, rest, new)?, w.two(&arith::MUL, z, old)?);
        w.two(&arith::ADD, new, old)
    }

    fn lstm(&self, w: &mut Writer, from: ValueId, c: ValueId) -> Result<ValueId> {
        let sums = self.sums(w, &[0, 1, 2, 3], self.state, from)?;
        let old = self.load(w, c, self.line, self.at)?;
        let peep = |w: &mut Writer, i: i64, c: ValueId| match self.peep {
            Some(p) => {
                let at = self.of_gate(w, i)?;
                let p = self.load(w, p, self.d, at)?;
                w.two(&arith::MUL, p, c).map(Some)
            }
            None => Ok(None),
        };
        let more = peep(w, 0, old)?;
        let i = self.gate(w, 0, Some(sums[0]), more)?;
        let forget = match self.l.o.attrs.bool("input_forget") {
            true => {
                let one = w.all(Elem::F32, Num::F(1.0))?;
                w.two(&arith::SUB, one, i)?
            }
            false => {
                let more = peep(w, 2, old)?;
                self.gate(w, 2, Some(sums[2]), more)?
            }
        };
        let new = self.gate(w, 3, Some(sums[3]), None)?;
        let (kept, new) = (w.two(&arith::MUL, forget, old)?, w.two(&arith::MUL, i, new)?);
        let now = w.two(&arith::ADD, kept, new)?;
        let more = peep(w, 1, now)?;
        let o = self.gate(w, 1, Some(sums[1]), more)?;
        self.keep(w, c, now, self.line)?;
        let v = self.on(w, 2, now)?;
        w.two(&arith::MUL, o, v)
    }
}
