//! Sine, cosine and tangent of f32, of any magnitude, in f64.
//!
//! x · 2/π is taken modulo 4 in parts: 2/π stands as numbers of 29 bits, so that each product with the 24 bits of x is
//! exact, and so is what is left of it without multiples of 4. Their sum is off by about 2⁻⁵², and no f32 is nearer to a
//! multiple of π/2 than 2⁻³⁰.

use silure_ir::dialects::{arith, tile};
use silure_ir::{Builder, Elem, Num, OpDef, OpId, Result, Type, ValueId, attrs};

/// 2/π = Σ PARTS[i] · 2^(−29·(i + 1)).
const PARTS: [u32; 7] =
    [0x145F_306D, 0x1939_1054, 0x14FE_13AB, 0x1D1F_534D, 0x1B81_B6C5, 0x0566_4F10, 0x1C82_0FF2];

struct Angle<'b, 'f> {
    b: &'b mut Builder<'f>,
    ty: Type,
}

impl Angle<'_, '_> {
    fn op(&mut self, def: &'static OpDef, of: &[ValueId]) -> Result<ValueId> {
        self.b.one(def, of.iter().copied(), attrs! {})
    }

    fn value(&mut self, elem: Elem, v: Num) -> Result<ValueId> {
        let v = self.b.scalar(elem, v)?;
        match &self.ty {
            Type::Tile(t) => {
                let shape: Vec<i64> = t.shape.iter().map(|n| *n as i64).collect();
                self.b.one(&tile::FULL, [v], attrs! { shape: shape })
            }
            _ => Ok(v),
        }
    }

    fn num(&mut self, v: f64) -> Result<ValueId> {
        self.value(Elem::F64, Num::F(v))
    }

    fn cast(&mut self, x: ValueId, to: Elem) -> Result<ValueId> {
        self.b.one(&arith::CAST, [x], attrs! { to: to })
    }

    /// A polynomial, the highest coefficient first.
    fn poly(&mut self, x: ValueId, c: &[f64]) -> Result<ValueId> {
        let mut y = self.num(c[0])?;
        for c in &c[1..] {
            let c = self.num(*c)?;
            y = self.op(&arith::FMA, &[y, x, c])?;
        }
        Ok(y)
    }

    /// The quarter turns in x modulo 4, as i32, and what is left, in radians.
    fn reduced(&mut self, x: ValueId) -> Result<(ValueId, ValueId)> {
        let (quarter, four) = (self.num(0.25)?, self.num(-4.0)?);
        let (mut turns, mut rest) = (self.num(0.0)?, self.num(0.0)?);
        for (i, part) in PARTS.iter().enumerate() {
            let part = self.num(*part as f64 * 2f64.powi(-29 * (i as i32 + 1)))?;
            let p = self.op(&arith::MUL, &[x, part])?;
            let whole = self.op(&arith::MUL, &[p, quarter])?;
            let whole = self.op(&arith::ROUND, &[whole])?;
            let p = self.op(&arith::FMA, &[whole, four, p])?;
            let sum = self.op(&arith::ADD, &[rest, p])?;
            let n = self.op(&arith::ROUND, &[sum])?;
            turns = self.op(&arith::ADD, &[turns, n])?;
            rest = self.op(&arith::SUB, &[sum, n])?;
        }
        let n = self.cast(turns, Elem::I32)?;
        let unit = self.num(std::f64::consts::FRAC_PI_2)?;
        Ok((n, self.op(&arith::MUL, &[rest, unit])?))
    }

    fn bit(&mut self, n: ValueId, bit: i128) -> Result<ValueId> {
        let (bit, zero) = (self.value(Elem::I32, Num::I(bit))?, self.value(Elem::I32, Num::I(0))?);
        let n = self.op(&arith::BITAND, &[n, bit])?;
        self.op(&arith::NE, &[n, zero])
    }

    fn negated(&mut self, when: ValueId, x: ValueId) -> Result<ValueId> {
        let minus = self.op(&arith::NEG, &[x])?;
        self.op(&arith::SELECT, &[when, minus, x])
    }

    fn function(&mut self, name: &str, x: ValueId) -> Result<ValueId> {
        let wide = self.cast(x, Elem::F64)?;
        let (n, r) = self.reduced(wide)?;
        let s = self.op(&arith::MUL, &[r, r])?;
        // The series up to r¹¹ and r¹²: for |r| ≤ π/4 what is missing is below 2⁻³⁷.
        let p = self.poly(
            s,
            &[-1.0 / 39_916_800.0, 1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0],
        )?;
        let p = self.op(&arith::MUL, &[p, s])?;
        let sin = self.op(&arith::FMA, &[p, r, r])?;
        let cos = self.poly(
            s,
            &[
                1.0 / 479_001_600.0,
                -1.0 / 3_628_800.0,
                1.0 / 40_320.0,
                -1.0 / 720.0,
                1.0 / 24.0,
                -0.5,
                1.0,
            ],
        )?;
        let odd = self.bit(n, 1)?;
        let y = match name {
            "arith.tan" => {
                let minus = self.op(&arith::NEG, &[cos])?;
                let (p, q) = (
                    self.op(&arith::SELECT, &[odd, minus, sin])?,
                    self.op(&arith::SELECT, &[odd, sin, cos])?,
                );
                self.op(&arith::DIV, &[p, q])?
            }
            "arith.cos" => {
                let one = self.value(Elem::I32, Num::I(1))?;
                let next = self.op(&arith::ADD, &[n, one])?;
                let (y, down) = (self.op(&arith::SELECT, &[odd, sin, cos])?, self.bit(next, 2)?);
                self.negated(down, y)?
            }
            _ => {
                let (y, down) = (self.op(&arith::SELECT, &[odd, cos, sin])?, self.bit(n, 2)?);
                self.negated(down, y)?
            }
        };
        let y = self.cast(y, Elem::F32)?;
        if name == "arith.cos" {
            return Ok(y);
        }
        // −0 stays.
        let zero = self.value(Elem::F32, Num::F(0.0))?;
        let none = self.op(&arith::EQ, &[x, zero])?;
        self.op(&arith::SELECT, &[none, x, y])
    }
}

/// The arithmetic of such an op at the builder's position; `None` if it is another one.
pub fn expand(b: &mut Builder, op: OpId) -> Option<Result<ValueId>> {
    let o = b.func.op(op);
    let (name, x) = (o.def.name, o.operand(0)?);
    let ty = b.func.ty(x).clone();
    let fits = matches!(name, "arith.sin" | "arith.cos" | "arith.tan");
    if !fits || ty.elem() != Some(Elem::F32) {
        return None;
    }
    Some(Angle { b, ty }.function(name, x))
}
