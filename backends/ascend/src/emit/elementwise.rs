//! `arith` on tiles, scalars and indices, as MLIR's `arith` and `math`.
//!
//! Where the compiler expands an op with less accuracy than its meaning (expm1 as exp − 1), or has no
//! form for it (rounding to even), it is spelt out here. [`crate::legal`] refuses what remains.

use silure_ir::{Class, Code, Diagnostic, Elem, Num, OpId, Result, Type, ValueId};

use super::Emitter;
use super::text::type_name;

/// One elementwise op under construction: its result type and that type's name.
struct Ew {
    ty: Type,
    name: String,
}

impl Emitter<'_> {
    /// Ops of `arith`.
    pub(super) fn elementwise(&mut self, id: OpId) -> Result<()> {
        let f = self.t.f;
        let op = f.op(id);
        let y = op.result();
        let x = self.operand(id, 0)?;
        let ty = f.ty(x).clone();
        let w = Ew { name: type_name(&ty)?, ty };
        let args: Vec<String> = op.operands().map(|v| self.t.get(v)).collect::<Result<_>>()?;
        let class = match &w.ty {
            Type::Index => Class::Signed,
            t => t.elem().map_or(Class::Float, Elem::class),
        };
        let out = match op.def.name.trim_start_matches("arith.") {
            "eq" | "ne" | "lt" | "le" | "gt" | "ge" => {
                self.compare(&w, op.def.name.trim_start_matches("arith."), class, &args)
            }
            "is_nan" => self.cmp(&w, "une", &args[0], &args[0]),
            "is_inf" => self.is_inf(id, &w, &args[0])?,
            "select" => {
                let of = f.ty(y).clone();
                let (c, t) = (w.name.clone(), type_name(&of)?);
                // A scalar condition chooses by `i1` alone; a tile of conditions names both types.
                let types = if matches!(of, Type::Tile(_)) { format!("{c}, {t}") } else { t };
                let text = format!("arith.select {}, {}, {} : {types}", args[0], args[1], args[2]);
                self.t.let_(&self.hint(y), text)
            }
            "cast" => self.cast_to(id, &w, &args[0])?,
            "bitcast" => {
                let to = type_name(f.ty(y))?;
                if to == w.name {
                    args[0].clone()
                } else {
                    let text = format!("arith.bitcast {} : {} to {to}", args[0], w.name);
                    self.t.let_(&self.hint(y), text)
                }
            }
            name if class == Class::Float => self.float(id, &w, name, &args)?,
            name => self.integer(id, &w, name, class, &args, y)?,
        };
        self.t.alias(y, out);
        Ok(())
    }

    fn hint(&self, v: ValueId) -> String {
        self.t.f.value(v).name.as_deref().unwrap_or("v").to_string()
    }

    fn two(&mut self, w: &Ew, op: &str, a: &str, b: &str) -> String {
        self.t.let_("v", format!("{op} {a}, {b} : {}", w.name))
    }

    fn one(&mut self, w: &Ew, op: &str, a: &str) -> String {
        self.t.let_("v", format!("{op} {a} : {}", w.name))
    }

    fn num(&mut self, w: &Ew, x: f64) -> Result<String> {
        self.t.number(&w.ty, Num::F(x))
    }

    fn cmp(&mut self, w: &Ew, predicate: &str, a: &str, b: &str) -> String {
        let op = if w.ty.elem().is_some_and(Elem::is_float) { "cmpf" } else { "cmpi" };
        self.t.let_("test", format!("arith.{op} {predicate}, {a}, {b} : {}", w.name))
    }

    fn choose(&mut self, w: &Ew, c: &str, a: &str, b: &str) -> Result<String> {
        let types = match w.ty.with_elem(Elem::Bool) {
            Some(t @ Type::Tile(_)) => format!("{}, {}", type_name(&t)?, w.name),
            _ => w.name.clone(),
        };
        Ok(self.t.let_("v", format!("arith.select {c}, {a}, {b} : {types}")))
    }

    fn compare(&mut self, w: &Ew, name: &str, class: Class, args: &[String]) -> String {
        let predicate = match (name, class) {
            ("ne", Class::Float) => "une".to_string(),
            (n, Class::Float) => format!("o{n}"),
            ("eq" | "ne", _) => name.to_string(),
            (n, Class::Unsigned | Class::Bool | Class::Str) => format!("u{n}"),
            (n, Class::Signed) => format!("s{n}"),
        };
        self.cmp(w, &predicate, &args[0], &args[1])
    }

    fn is_inf(&mut self, id: OpId, w: &Ew, x: &str) -> Result<String> {
        let attrs = &self.t.f.op(id).attrs;
        let (plus, minus) = (attrs.bool("positive"), attrs.bool("negative"));
        let side = |e: &mut Self, v: f64| -> Result<String> {
            let k = e.num(w, v)?;
            Ok(e.cmp(w, "oeq", x, &k))
        };
        Ok(match (plus, minus) {
            (true, false) => side(self, f64::INFINITY)?,
            (false, true) => side(self, f64::NEG_INFINITY)?,
            (true, true) => {
                let k = self.num(w, f64::INFINITY)?;
                let a = self.one(w, "math.absf", x);
                self.cmp(w, "oeq", &a, &k)
            }
            (false, false) => {
                let b = w.ty.with_elem(Elem::Bool).unwrap_or(Type::Scalar(Elem::Bool));
                self.t.number(&b, Num::I(0))?
            }
        })
    }

    fn float(&mut self, id: OpId, w: &Ew, name: &str, a: &[String]) -> Result<String> {
        let attrs = self.t.f.op(id).attrs.clone();
        let x = &a[0];
        Ok(match name {
            "add" => self.two(w, "arith.addf", x, &a[1]),
            "sub" => self.two(w, "arith.subf", x, &a[1]),
            "mul" => self.two(w, "arith.mulf", x, &a[1]),
            "div" => self.two(w, "arith.divf", x, &a[1]),
            "min" => self.two(w, "arith.minimumf", x, &a[1]),
            "max" => self.two(w, "arith.maximumf", x, &a[1]),
            "fma" => self.t.let_("v", format!("math.fma {x}, {}, {} : {}", a[1], a[2], w.name)),
            "neg" => self.one(w, "arith.negf", x),
            "abs" => self.one(w, "math.absf", x),
            "exp" | "log" | "sqrt" | "rsqrt" | "sin" | "cos" | "tanh" | "erf" | "floor"
            | "ceil" => self.one(w, &format!("math.{name}"), x),
            "recip" => {
                let one = self.num(w, 1.0)?;
                self.two(w, "arith.divf", &one, x)
            }
            "floordiv" => {
                let q = self.two(w, "arith.divf", x, &a[1]);
                self.one(w, "math.floor", &q)
            }
            "sigmoid" => self.sigmoid(w, x)?,
            "relu" => {
                let zero = self.num(w, 0.0)?;
                self.two(w, "arith.maximumf", x, &zero)
            }
            "clip" => {
                let (lo, hi) = (self.num(w, attrs.float("lo"))?, self.num(w, attrs.float("hi"))?);
                let low = self.two(w, "arith.maximumf", x, &lo);
                self.two(w, "arith.minimumf", &low, &hi)
            }
            "sign" => {
                let (zero, one, minus) = (self.num(w, 0.0)?, self.num(w, 1.0)?, self.num(w, -1.0)?);
                let (above, below) = (self.cmp(w, "ogt", x, &zero), self.cmp(w, "olt", x, &zero));
                let neg = self.choose(w, &below, &minus, x)?;
                self.choose(w, &above, &one, &neg)?
            }
            "trunc" => {
                let zero = self.num(w, 0.0)?;
                let (up, down) = (self.one(w, "math.ceil", x), self.one(w, "math.floor", x));
                let below = self.cmp(w, "olt", x, &zero);
                self.choose(w, &below, &up, &down)?
            }
            // These rely on single roundings, which the compiler does not keep for narrow types.
            "round" | "log1p" | "expm1" | "softplus" | "elu"
                if w.ty.elem().is_some_and(|e| e.bits() < 32) =>
            {
                let (wide, v) = self.step(w, "extf", x, Elem::F32)?;
                let v = self.float(id, &wide, name, &[v])?;
                self.step(&wide, "truncf", &v, w.ty.elem().unwrap_or(Elem::F32))?.1
            }
            "round" => self.round(w, x)?,
            "log1p" => self.log1p(w, x)?,
            "expm1" => self.expm1(w, x)?,
            "softplus" => {
                let zero = self.num(w, 0.0)?;
                let abs = self.one(w, "math.absf", x);
                let minus = self.one(w, "arith.negf", &abs);
                let e = self.one(w, "math.exp", &minus);
                let l = self.log1p(w, &e)?;
                let m = self.two(w, "arith.maximumf", x, &zero);
                self.two(w, "arith.addf", &m, &l)
            }
            "gelu" => self.gelu(w, x, attrs.bool("tanh"))?,
            "leaky_relu" => {
                let (zero, k) = (self.num(w, 0.0)?, self.num(w, attrs.float("alpha"))?);
                let below = self.cmp(w, "olt", x, &zero);
                let scaled = self.two(w, "arith.mulf", x, &k);
                self.choose(w, &below, &scaled, x)?
            }
            "elu" => {
                let (zero, beta) = (self.num(w, 0.0)?, self.num(w, attrs.float("beta"))?);
                let scaled = self.two(w, "arith.mulf", x, &beta);
                // Above zero the exponential is not used; kept finite so that nothing overflows there.
                let low = self.two(w, "arith.minimumf", &scaled, &zero);
                let e = self.expm1(w, &low)?;
                let alpha = self.num(w, attrs.float("alpha"))?;
                let neg = self.two(w, "arith.mulf", &e, &alpha);
                let above = self.cmp(w, "ogt", x, &zero);
                let v = self.choose(w, &above, x, &neg)?;
                let gamma = self.num(w, attrs.float("gamma"))?;
                self.two(w, "arith.mulf", &v, &gamma)
            }
            "hard_sigmoid" => {
                let (alpha, beta) =
                    (self.num(w, attrs.float("alpha"))?, self.num(w, attrs.float("beta"))?);
                let (zero, one) = (self.num(w, 0.0)?, self.num(w, 1.0)?);
                let s = self.two(w, "arith.mulf", x, &alpha);
                let s = self.two(w, "arith.addf", &s, &beta);
                let s = self.two(w, "arith.maximumf", &s, &zero);
                self.two(w, "arith.minimumf", &s, &one)
            }
            _ => return Err(no_form(name, &w.ty)),
        })
    }

    fn sigmoid(&mut self, w: &Ew, x: &str) -> Result<String> {
        let one = self.num(w, 1.0)?;
        let minus = self.one(w, "arith.negf", x);
        let e = self.one(w, "math.exp", &minus);
        let below = self.two(w, "arith.addf", &e, &one);
        Ok(self.two(w, "arith.divf", &one, &below))
    }

    /// x · Φ(x). The argument is kept finite: −∞ · 0 is not a number, and the answer there is −0.
    fn gelu(&mut self, w: &Ew, x: &str, tanh: bool) -> Result<String> {
        let (half, one) = (self.num(w, 0.5)?, self.num(w, 1.0)?);
        let least = w.ty.elem().map_or(f64::MIN, |e| e.range().0);
        let least = self.num(w, least)?;
        let x = self.two(w, "arith.maximumf", x, &least);
        let inner = if tanh {
            let (c, k) =
                (self.num(w, (2.0 / std::f64::consts::PI).sqrt())?, self.num(w, 0.044715)?);
            let square = self.two(w, "arith.mulf", &x, &x);
            let cubic = self.two(w, "arith.mulf", &square, &k);
            let factor = self.two(w, "arith.addf", &cubic, &one);
            let scaled = self.two(w, "arith.mulf", &x, &c);
            let t = self.two(w, "arith.mulf", &scaled, &factor);
            self.one(w, "math.tanh", &t)
        } else {
            let r = self.num(w, std::f64::consts::FRAC_1_SQRT_2)?;
            let scaled = self.two(w, "arith.mulf", &x, &r);
            self.one(w, "math.erf", &scaled)
        };
        let sum = self.two(w, "arith.addf", &inner, &one);
        let phi = self.two(w, "arith.mulf", &sum, &half);
        Ok(self.two(w, "arith.mulf", &x, &phi))
    }

    /// To the nearest, ties to even: adding and subtracting a number whose last place is 1.
    fn round(&mut self, w: &Ew, x: &str) -> Result<String> {
        let Some(e) = w.ty.elem() else { return Err(no_form("round", &w.ty)) };
        let last_place_one = 1.0 / e.epsilon();
        let (big, half) = (self.num(w, 1.5 * last_place_one)?, self.num(w, 0.5 * last_place_one)?);
        let up = self.two(w, "arith.addf", x, &big);
        let near = self.two(w, "arith.subf", &up, &big);
        let abs = self.one(w, "math.absf", x);
        let small = self.cmp(w, "olt", &abs, &half);
        self.choose(w, &small, &near, x)
    }

    /// ln(1 + x) without cancellation: ln(u) · x / (u − 1) for u = 1 + x rounded.
    fn log1p(&mut self, w: &Ew, x: &str) -> Result<String> {
        let (one, inf) = (self.num(w, 1.0)?, self.num(w, f64::INFINITY)?);
        let u = self.two(w, "arith.addf", x, &one);
        let d = self.two(w, "arith.subf", &u, &one);
        let l = self.one(w, "math.log", &u);
        let ratio = self.two(w, "arith.divf", x, &d);
        let v = self.two(w, "arith.mulf", &l, &ratio);
        let (tiny, huge) = (self.cmp(w, "oeq", &u, &one), self.cmp(w, "oeq", &u, &inf));
        let v = self.choose(w, &huge, &l, &v)?;
        self.choose(w, &tiny, x, &v)
    }

    /// eˣ − 1 without cancellation: (u − 1) · x / ln(u) for u = eˣ rounded.
    fn expm1(&mut self, w: &Ew, x: &str) -> Result<String> {
        let (one, inf, minus) =
            (self.num(w, 1.0)?, self.num(w, f64::INFINITY)?, self.num(w, -1.0)?);
        let u = self.one(w, "math.exp", x);
        let d = self.two(w, "arith.subf", &u, &one);
        let l = self.one(w, "math.log", &u);
        let ratio = self.two(w, "arith.divf", x, &l);
        let v = self.two(w, "arith.mulf", &d, &ratio);
        let (tiny, huge) = (self.cmp(w, "oeq", &u, &one), self.cmp(w, "oeq", &u, &inf));
        let gone = self.cmp(w, "oeq", &d, &minus);
        let v = self.choose(w, &huge, &u, &v)?;
        let v = self.choose(w, &gone, &minus, &v)?;
        self.choose(w, &tiny, x, &v)
    }

    fn integer(
        &mut self,
        id: OpId,
        w: &Ew,
        name: &str,
        class: Class,
        a: &[String],
        y: ValueId,
    ) -> Result<String> {
        let attrs = self.t.f.op(id).attrs.clone();
        let x = &a[0];
        let signed = class == Class::Signed;
        let by_sign = |s: &str, u: &str| format!("arith.{}", if signed { s } else { u });
        Ok(match name {
            "add" => self.two(w, "arith.addi", x, &a[1]),
            "sub" => self.two(w, "arith.subi", x, &a[1]),
            "mul" => self.two(w, "arith.muli", x, &a[1]),
            "min" => self.two(w, &by_sign("minsi", "minui"), x, &a[1]),
            "max" => self.two(w, &by_sign("maxsi", "maxui"), x, &a[1]),
            "and" | "bitand" => self.two(w, "arith.andi", x, &a[1]),
            "or" | "bitor" => self.two(w, "arith.ori", x, &a[1]),
            "xor" | "bitxor" => self.two(w, "arith.xori", x, &a[1]),
            "not" => {
                let t = self.t.number(&w.ty, Num::I(1))?;
                self.two(w, "arith.xori", x, &t)
            }
            "bitnot" => {
                let ones = self.t.number(&w.ty, Num::I(-1))?;
                self.two(w, "arith.xori", x, &ones)
            }
            "neg" => {
                let zero = self.t.number(&w.ty, Num::I(0))?;
                self.two(w, "arith.subi", &zero, x)
            }
            "abs" => {
                let zero = self.t.number(&w.ty, Num::I(0))?;
                let minus = self.two(w, "arith.subi", &zero, x);
                if signed { self.two(w, "arith.maxsi", x, &minus) } else { x.clone() }
            }
            "relu" => {
                let zero = self.t.number(&w.ty, Num::I(0))?;
                if signed { self.two(w, "arith.maxsi", x, &zero) } else { x.clone() }
            }
            "sign" if signed => {
                let (one, minus) =
                    (self.t.number(&w.ty, Num::I(1))?, self.t.number(&w.ty, Num::I(-1))?);
                let low = self.two(w, "arith.minsi", x, &one);
                self.two(w, "arith.maxsi", &low, &minus)
            }
            "clip" if signed => {
                let (lo, hi) = (Num::F(attrs.float("lo")).i(), Num::F(attrs.float("hi")).i());
                let (lo, hi) = match w.ty.elem() {
                    Some(e) => {
                        let (least, most) = e.range();
                        (lo.max(least as i128), hi.min(most as i128))
                    }
                    None => (lo.max(i64::MIN as i128), hi.min(i64::MAX as i128)),
                };
                let (lo, hi) =
                    (self.t.number(&w.ty, Num::I(lo))?, self.t.number(&w.ty, Num::I(hi))?);
                let v = self.two(w, "arith.maxsi", x, &lo);
                self.two(w, "arith.minsi", &v, &hi)
            }
            "shl" | "shr" => {
                let bits = w.ty.elem().map_or(64, Elem::bits) as i128;
                let (zero, most) =
                    (self.t.number(&w.ty, Num::I(0))?, self.t.number(&w.ty, Num::I(bits - 1))?);
                let op =
                    if name == "shl" { "arith.shli".into() } else { by_sign("shrsi", "shrui") };
                // A count that is out of range, negative included, gives 0 without shifting by it.
                let (low, high) =
                    (self.cmp(w, "sge", &a[1], &zero), self.cmp(w, "sle", &a[1], &most));
                let bool_ty = w.ty.with_elem(Elem::Bool).unwrap_or(Type::Scalar(Elem::Bool));
                let fine = self
                    .t
                    .let_("test", format!("arith.andi {low}, {high} : {}", type_name(&bool_ty)?));
                let count = self.choose(w, &fine, &a[1], &zero)?;
                let v = self.two(w, &op, x, &count);
                self.choose(w, &fine, &v, &zero)?
            }
            "div" | "rem" | "floordiv" | "mod" => {
                self.divide(w, name, signed, x, &a[1], self.operand(id, 0)?, self.operand(id, 1)?)?
            }
            _ => return Err(no_form(name, self.t.f.ty(y))),
        })
    }

    /// Integer division in its four kinds; division by zero gives 0.
    fn divide(
        &mut self,
        w: &Ew,
        name: &str,
        signed: bool,
        x: &str,
        y: &str,
        x_value: ValueId,
        y_value: ValueId,
    ) -> Result<String> {
        let index = w.ty == Type::Index;
        let positive = index && self.facts.at_least(y_value, 1);
        if positive && self.facts.at_least(x_value, 0) {
            let op = if matches!(name, "div" | "floordiv") { "arith.divsi" } else { "arith.remsi" };
            return Ok(self.two(w, op, x, y));
        }
        let (zero, one) = (self.t.number(&w.ty, Num::I(0))?, self.t.number(&w.ty, Num::I(1))?);
        let mut by = y.to_string();
        let mut by_zero = None;
        if !positive {
            let c = self.cmp(w, "eq", y, &zero);
            by = self.choose(w, &c, &one, y)?;
            by_zero = Some(c);
        }
        let v = match (name, signed) {
            ("div", true) => self.two(w, "arith.divsi", x, &by),
            ("rem", true) => self.two(w, "arith.remsi", x, &by),
            ("div" | "floordiv", false) => self.two(w, "arith.divui", x, &by),
            ("rem" | "mod", false) => self.two(w, "arith.remui", x, &by),
            ("floordiv", true) => self.two(w, "arith.floordivsi", x, &by),
            _ => {
                let q = self.two(w, "arith.floordivsi", x, &by);
                let whole = self.two(w, "arith.muli", &q, &by);
                self.two(w, "arith.subi", x, &whole)
            }
        };
        match by_zero {
            None => Ok(v),
            Some(c) => self.choose(w, &c, &zero, &v),
        }
    }

    /// `arith.cast`.
    fn cast_to(&mut self, id: OpId, w: &Ew, x: &str) -> Result<String> {
        let y = self.t.f.op(id).result();
        let to_ty = self.t.f.ty(y).clone();
        let Some(to) = to_ty.elem() else { return Err(no_form("cast", &to_ty)) };
        let from = match &w.ty {
            Type::Index => {
                let i = if to == Elem::I32 || to == Elem::U32 { Elem::I32 } else { Elem::I64 };
                let s = type_name(&Type::Scalar(i))?;
                let v = self.t.let_("v", format!("arith.index_cast {x} : index to {s}"));
                if i.bits() == to.bits() && !to.is_float() {
                    return Ok(v);
                }
                return self.convert(&Ew { name: s, ty: Type::Scalar(i) }, &v, i, to);
            }
            t => t.elem().unwrap_or(to),
        };
        self.convert(w, x, from, to)
    }

    /// One step of a conversion by an MLIR op.
    fn step(&mut self, w: &Ew, op: &str, x: &str, to: Elem) -> Result<(Ew, String)> {
        let ty = w.ty.with_elem(to).unwrap_or(Type::Scalar(to));
        let name = type_name(&ty)?;
        let v = self.t.let_("v", format!("arith.{op} {x} : {} to {name}", w.name));
        Ok((Ew { ty, name }, v))
    }

    fn convert(&mut self, w: &Ew, x: &str, from: Elem, to: Elem) -> Result<String> {
        let (a, b) = (from.class(), to.class());
        Ok(match (a, b) {
            _ if from == to => x.to_string(),
            (Class::Float, Class::Float) if from.bits() > to.bits() => {
                self.step(w, "truncf", x, to)?.1
            }
            (Class::Float, Class::Float) if from.bits() < to.bits() => {
                self.step(w, "extf", x, to)?.1
            }
            (Class::Float, Class::Float) => {
                let (wide, v) = self.step(w, "extf", x, Elem::F32)?;
                self.step(&wide, "truncf", &v, to)?.1
            }
            (Class::Float, Class::Bool) => {
                let zero = self.num(w, 0.0)?;
                self.cmp(w, "une", x, &zero)
            }
            (_, Class::Bool) => {
                let zero = self.t.number(&w.ty, Num::I(0))?;
                self.cmp(w, "ne", x, &zero)
            }
            (Class::Float, _) => self.float_to_int(w, x, from, to)?,
            (Class::Signed, Class::Float) => self.step(w, "sitofp", x, to)?.1,
            (Class::Bool | Class::Unsigned, Class::Float) if from.bits() < 32 => {
                // Narrow unsigned numbers are exact in i32, whose conversion the library has.
                let (wide, v) = self.step(w, "extui", x, Elem::I32)?;
                self.step(&wide, "sitofp", &v, to)?.1
            }
            (_, Class::Float) => self.step(w, "uitofp", x, to)?.1,
            _ if from == Elem::Bool => self.step(w, "extui", x, to)?.1,
            _ if from.bits() > to.bits() => self.step(w, "trunci", x, to)?.1,
            _ if from.bits() == to.bits() => x.to_string(),
            (Class::Unsigned, _) => self.step(w, "extui", x, to)?.1,
            _ => self.step(w, "extsi", x, to)?.1,
        })
    }

    /// Truncates and saturates, NaN is 0. The hardware's conversion saturates at 32 bits; narrower types
    /// are clamped before it.
    fn float_to_int(&mut self, w: &Ew, x: &str, from: Elem, to: Elem) -> Result<String> {
        if from.bits() < 32 {
            let (wide, v) = self.step(w, "extf", x, Elem::F32)?;
            return self.float_to_int(&wide, &v, Elem::F32, to);
        }
        let (least, most) = to.range();
        let zero = self.num(w, 0.0)?;
        let number = self.cmp(w, "oeq", x, x);
        let mut v = self.choose(w, &number, x, &zero)?;
        if to.bits() >= 32 {
            return Ok(self.step(w, "fptosi", &v, to)?.1);
        }
        let (lo, hi) = (self.num(w, least)?, self.num(w, most)?);
        v = self.two(w, "arith.maximumf", &v, &lo);
        v = self.two(w, "arith.minimumf", &v, &hi);
        let (wide, v) = self.step(w, "fptosi", &v, Elem::I32)?;
        Ok(self.step(&wide, "trunci", &v, to)?.1)
    }
}

fn no_form(name: &str, ty: &Type) -> Diagnostic {
    Diagnostic::new(
        Code::Unsupported,
        format!("`arith.{name}` on {ty} has no form in the Ascend tile ABI"),
    )
}
