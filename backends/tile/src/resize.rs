//! Resampling: an element of the result sums what lies around its position in x, axis by axis.
//!
//! Positions and weights are computed by the steps of the op's own evaluation, so that a position between two
//! elements is rounded to the same one: in f64, positions of the nearest mode in f32. Floats are summed in f32; integers
//! in f64 and in the same order, as they are
//! truncated at the end.

use silure_ir::dialects::arith;
use silure_ir::{Attrs, Dim, Elem, Func, Num, OpDef, OpId, Result, ValueId, attrs, bail};

use crate::Kernel;
use crate::lanes::{Place, tensor_of};
use crate::points::Points;
use crate::writer::{Title, Writer};

/// Arithmetic on tiles of f64 or f32.
struct Reals<'a> {
    w: &'a mut Writer,
    elem: Elem,
}

/// Arithmetic on tiles of f64.
fn in_f64(w: &mut Writer) -> Reals<'_> {
    Reals { w, elem: Elem::F64 }
}

impl Reals<'_> {
    fn num(&mut self, x: f64) -> Result<ValueId> {
        self.w.all(self.elem, Num::F(x))
    }

    fn of(&mut self, x: ValueId) -> Result<ValueId> {
        self.w.cast_to(x, self.elem)
    }

    fn two(&mut self, def: &'static OpDef, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.w.one(def, &[a, b], attrs! {})
    }

    fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::ADD, a, b)
    }

    fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::SUB, a, b)
    }

    fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::MUL, a, b)
    }

    fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId> {
        self.two(&arith::DIV, a, b)
    }

    fn one(&mut self, def: &'static OpDef, x: ValueId) -> Result<ValueId> {
        self.w.one(def, &[x], attrs! {})
    }

    /// x within 0 and `last`.
    fn kept(&mut self, x: ValueId, last: ValueId) -> Result<ValueId> {
        let zero = self.num(0.0)?;
        let x = self.two(&arith::MAX, x, zero)?;
        self.two(&arith::MIN, x, last)
    }

    fn inside(&mut self, x: ValueId, last: ValueId) -> Result<ValueId> {
        let zero = self.num(0.0)?;
        let (a, b) = (self.two(&arith::GE, x, zero)?, self.two(&arith::LE, x, last)?);
        self.two(&arith::AND, a, b)
    }
}

/// One axis that is resampled.
struct Axis {
    axis: usize,
    /// Its scale, where it is a number.
    factor: Option<f64>,
    /// Where the element is in x, and the last position there.
    x: ValueId,
    last: ValueId,
    /// The first element that takes part, counted from floor(x), and how many do.
    first: i64,
    taps: i64,
}

/// `graph.resize`.
pub(crate) fn resize(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = f.op(op);
    let Some(x) = o.operand(0) else { bail!(Internal, "no operand") };
    let (x, y) = (tensor_of(f.ty(x))?.dims.clone(), tensor_of(f.ty(o.result()))?.dims.clone());
    let roi_operand = o.attrs.get("roi").is_none() && o.operand(3).is_some();
    if o.attrs.get("scales").is_none() && o.operand(1).is_some() {
        bail!(Unsupported, "scales that only the run knows, in a tile kernel");
    }
    let read: &[usize] = if roi_operand { &[0, 3] } else { &[0] };
    let mut p = Points::new(f, op, name, (read, &[0]), &y)?;
    let roi = if roi_operand { Some(p.operand(3)?) } else { None };
    let (at, mode) = (p.coordinates(&y)?, o.attrs.str("mode"));
    let scales = o.attrs.get("scales").map(|_| o.attrs.floats("scales").to_vec());
    // What does not move stands still, whatever the filter.
    let moving = ["tf_crop_and_resize", "tf_half_pixel_for_nn"];
    let always = moving.contains(&o.attrs.str("coordinates"));
    let mut axes = vec![];
    let mut extrapolated: Option<ValueId> = None;
    for d in 0..y.len() {
        let factor = scales.as_ref().map(|s| s[d]);
        if !always && x[d] == y[d] && factor.is_none_or(|s| s == 1.0) {
            continue;
        }
        let known = y[d].as_const().zip(x[d].as_const());
        let factor_or = factor.or(known.map(|(y, x)| y as f64 / x as f64));
        let a = Axis::new(&mut p, (&at, &x[d], &y[d]), d, (factor, factor_or), roi.as_ref())?;
        if always && o.attrs.str("coordinates") == "tf_crop_and_resize" {
            let inside = in_f64(&mut p.w).inside(a.x, a.last)?;
            extrapolated = p.w.also(extrapolated, inside)?;
        }
        axes.push(a);
    }
    let source = p.operand(0)?;
    let elem = source.elem;
    let mut v = match mode {
        "nearest" => {
            let mut from = at.clone();
            for a in &axes {
                from[a.axis] = a.nearest(&mut in_f64(&mut p.w), o.attrs.str("nearest"))?;
            }
            p.read(0, &from, None, 0.0)?
        }
        _ => {
            let mut from = at.clone();
            let v = filtered(&mut p.w, f, &source, &mut from, (&axes, &o.attrs))?;
            p.w.cast_to(v, elem)?
        }
    };
    if let Some(inside) = extrapolated {
        let value = o.attrs.float("extrapolation");
        let (wide, number) = match elem.is_float() {
            true => (elem, Num::F(value)),
            false => (elem, Num::I(value as i128)),
        };
        let outside = p.w.all(wide, number)?;
        v = p.w.choose(inside, v, outside)?;
    }
    p.done(0, v)
}

/// What lies around the element along these axes, the first of them summed first.
fn filtered(
    w: &mut Writer,
    f: &Func,
    source: &Place,
    from: &mut [ValueId],
    (axes, attrs_of): (&[Axis], &Attrs),
) -> Result<ValueId> {
    let wide = match source.elem {
        e if e.is_float() && e.bits() <= 32 => Elem::F32,
        _ => Elem::F64,
    };
    let Some((a, before)) = axes.split_last() else {
        let v = source.read(w, f, from, None, 0.0)?;
        return w.cast_to(v, wide);
    };
    let zero = w.all(Elem::F64, Num::F(0.0))?;
    let taps = w.index(a.taps)?;
    let mut all = None;
    if attrs_of.bool("exclude_outside") || attrs_of.bool("antialias") {
        // Weights that are left out are shared among the others.
        let sum = w.fold(taps, 1, &[zero], |w, k, sum| {
            let k = w.wide(k)?;
            let (_, part) = a.tap(&mut in_f64(w), k, attrs_of)?;
            Ok(vec![w.one(&arith::ADD, &[sum[0], part], attrs! {})?])
        })?[0];
        let some = w.one(&arith::NE, &[sum, zero], attrs! {})?;
        let one = w.all(Elem::F64, Num::F(1.0))?;
        all = Some(w.choose(some, sum, one)?);
    }
    let nothing = w.all(wide, Num::F(0.0))?;
    let sum = w.fold(taps, 1, &[nothing], |w, k, sum| {
        let k = w.wide(k)?;
        let (place, mut weight) = a.tap(&mut in_f64(w), k, attrs_of)?;
        if let Some(all) = all {
            weight = w.one(&arith::DIV, &[weight, all], attrs! {})?;
        }
        from[a.axis] = place;
        let v = filtered(w, f, source, from, (before, attrs_of))?;
        // A weight of 0 takes no part, whatever it would multiply.
        let some = w.one(&arith::NE, &[weight, zero], attrs! {})?;
        let weight = w.cast_to(weight, wide)?;
        let part = w.one(&arith::MUL, &[weight, v], attrs! {})?;
        let part = w.choose(some, part, nothing)?;
        Ok(vec![w.one(&arith::ADD, &[sum[0], part], attrs! {})?])
    })?;
    Ok(sum[0])
}

impl Axis {
    /// `factors`: what the op says, and the same or the quotient of the sizes where they are numbers.
    fn new(
        p: &mut Points,
        (at, n, out): (&[ValueId], &Dim, &Dim),
        axis: usize,
        factors: (Option<f64>, Option<f64>),
        roi: Option<&Place>,
    ) -> Result<Axis> {
        let (f, a, rank) = (p.f, &p.o.attrs, at.len());
        let elem = if a.str("mode") == "nearest" { Elem::F32 } else { Elem::F64 };
        let mut bounds = vec![];
        for i in [axis, axis + rank] {
            let v = match roi {
                Some(roi) => {
                    let i = p.w.index(i as i64)?;
                    let v = roi.single(&mut p.w, f, i, 0.0)?;
                    p.w.every(v)?
                }
                None => {
                    let list = a.floats("roi");
                    let v = list.get(i).copied().unwrap_or(if i < rank { 0.0 } else { 1.0 });
                    p.w.all(elem, Num::F(v))?
                }
            };
            bounds.push(p.w.cast_to(v, elem)?);
        }
        let (n, out) = (p.w.place_of(f, n)?, p.w.place_of(f, out)?);
        let r = &mut Reals { w: &mut p.w, elem };
        let (i, size, length) = (r.of(at[axis])?, r.of(n)?, r.of(out)?);
        let (one, half) = (r.num(1.0)?, r.num(0.5)?);
        let (s, target) = match factors.0 {
            Some(s) => {
                let s = r.num(s)?;
                (s, r.mul(s, size)?)
            }
            None => (r.div(length, size)?, length),
        };
        let end = r.sub(size, one)?;
        let centre = |r: &mut Reals| {
            let i = r.add(i, half)?;
            r.div(i, s)
        };
        let half_pixel = |r: &mut Reals| {
            let c = centre(r)?;
            r.sub(c, half)
        };
        let x = match a.str("coordinates") {
            "asymmetric" => r.div(i, s)?,
            "tf_half_pixel_for_nn" => centre(r)?,
            "align_corners" => {
                let (walked, steps) = (r.mul(i, end)?, r.sub(target, one)?);
                let (x, zero) = (r.div(walked, steps)?, r.num(0.0)?);
                let first = r.two(&arith::EQ, i, zero)?;
                r.w.choose(first, zero, x)?
            }
            "pytorch_half_pixel" => {
                let (x, zero) = (half_pixel(r)?, r.num(0.0)?);
                let single = r.two(&arith::LE, length, one)?;
                r.w.choose(single, zero, x)?
            }
            "half_pixel_symmetric" => {
                let two = r.num(2.0)?;
                let (middle, covered) = (r.div(size, two)?, r.div(length, target)?);
                let left = r.sub(one, covered)?;
                let (offset, c) = (r.mul(middle, left)?, centre(r)?);
                let x = r.add(offset, c)?;
                r.sub(x, half)?
            }
            "tf_crop_and_resize" => {
                let [begin, until] = bounds[..] else { bail!(Internal, "two bounds") };
                let (first, span) = (r.mul(begin, end)?, r.sub(until, begin)?);
                let walked = r.mul(i, span)?;
                let (walked, steps) = (r.mul(walked, end)?, r.sub(target, one)?);
                let walked = r.div(walked, steps)?;
                let x = r.add(first, walked)?;
                let both = r.add(begin, until)?;
                let middle = r.mul(half, both)?;
                let middle = r.mul(middle, end)?;
                let single = r.two(&arith::EQ, target, one)?;
                r.w.choose(single, middle, x)?
            }
            _ => half_pixel(r)?,
        };
        // A position and what follows from it is a number in f64.
        let (x, n) = (p.w.cast_to(x, Elem::F64)?, p.w.cast_to(n, Elem::F64)?);
        let r = &mut in_f64(&mut p.w);
        let one = r.num(1.0)?;
        let last = r.sub(n, one)?;
        // Filters widen when shrinking with antialiasing.
        let reach = if a.str("mode") == "linear" { 1.0 } else { 2.0 };
        let widened = match (a.bool("antialias"), factors.1) {
            (false, _) => 1.0,
            (true, Some(s)) => s.min(1.0),
            (true, None) => bail!(
                Unsupported,
                "an antialiased resize by a factor that only the run knows, in a tile kernel"
            ),
        };
        let first = (-reach / widened).floor() as i64 + 1;
        let taps = (reach / widened).ceil() as i64 + 1 - first;
        Ok(Axis { axis, factor: factors.1, x, last, first, taps })
    }

    /// The element that the position is nearest to.
    fn nearest(&self, r: &mut Reals, word: &str) -> Result<ValueId> {
        let half = r.num(0.5)?;
        let p = match word {
            "round_prefer_floor" => {
                let x = r.sub(self.x, half)?;
                r.one(&arith::CEIL, x)?
            }
            "round_prefer_ceil" => {
                let x = r.add(self.x, half)?;
                r.one(&arith::FLOOR, x)?
            }
            "floor" => r.one(&arith::FLOOR, self.x)?,
            _ => r.one(&arith::CEIL, self.x)?,
        };
        let p = r.kept(p, self.last)?;
        r.w.cast_to(p, Elem::I64)
    }

    /// Place and weight of tap `k`.
    fn tap(&self, r: &mut Reals, k: ValueId, a: &Attrs) -> Result<(ValueId, ValueId)> {
        let (base, first) = (r.one(&arith::FLOOR, self.x)?, r.num(self.first as f64)?);
        let (k, rest) = (r.of(k)?, r.sub(self.x, base)?);
        let k = r.add(k, first)?;
        let mut t = r.sub(k, rest)?;
        if let (true, Some(s)) = (a.bool("antialias"), self.factor.filter(|s| *s < 1.0)) {
            let s = r.num(s)?;
            t = r.mul(t, s)?;
        }
        let t = r.one(&arith::ABS, t)?;
        let mut weight = match a.str("mode") {
            "linear" => {
                let (one, zero) = (r.num(1.0)?, r.num(0.0)?);
                let left = r.sub(one, t)?;
                r.two(&arith::MAX, left, zero)?
            }
            _ => cubic(r, a.float("cubic_a"), t)?,
        };
        let p = r.add(base, k)?;
        if a.bool("exclude_outside") {
            let (inside, zero) = (r.inside(p, self.last)?, r.num(0.0)?);
            weight = r.w.choose(inside, weight, zero)?;
        }
        let p = r.kept(p, self.last)?;
        Ok((r.w.cast_to(p, Elem::I64)?, weight))
    }
}

/// The cubic convolution kernel at distance `t` (Keys 1981).
fn cubic(r: &mut Reals, a: f64, t: ValueId) -> Result<ValueId> {
    // Polynomials by Horner's rule, the highest power first.
    let value = |r: &mut Reals, parts: [f64; 4]| -> Result<ValueId> {
        let mut v = r.num(parts[0])?;
        for part in &parts[1..] {
            let part = r.num(*part)?;
            v = r.mul(v, t)?;
            v = r.add(v, part)?;
        }
        Ok(v)
    };
    let near = value(r, [a + 2.0, -(a + 3.0), 0.0, 1.0])?;
    let far = value(r, [a, -5.0 * a, 8.0 * a, -4.0 * a])?;
    let (one, two, zero) = (r.num(1.0)?, r.num(2.0)?, r.num(0.0)?);
    let (first, second) = (r.two(&arith::LE, t, one)?, r.two(&arith::LT, t, two)?);
    let outer = r.w.choose(second, far, zero)?;
    r.w.choose(first, near, outer)
}
