//! Arithmetic. Float operations round each by itself (`.rn`), so that what runs is what was written; integer
//! division by zero gives 0 and shifts past the width give 0, as everywhere in the IR.

use silure_ir::{Class, Elem, OpId, Type, ValueId};

use super::{Printer, Refusal, Reg, refuse};

/// How an operand is computed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float(&'static str),
    /// Width, signed.
    Int(u32, bool),
    Bool,
    Other,
}

impl Printer<'_> {
    fn kind(&self, v: ValueId) -> Kind {
        match self.ty(v) {
            Type::Index => Kind::Int(64, true),
            Type::Scalar(e) => match (e, e.class()) {
                (Elem::F32, _) => Kind::Float("f32"),
                (Elem::F64, _) => Kind::Float("f64"),
                (_, Class::Bool) => Kind::Bool,
                (_, Class::Signed) if e.bits() >= 16 => Kind::Int(e.bits() as u32, true),
                (_, Class::Unsigned) if e.bits() >= 16 => Kind::Int(e.bits() as u32, false),
                _ => Kind::Other,
            },
            _ => Kind::Other,
        }
    }

    pub(crate) fn arith(&mut self, op: OpId) -> Refusal {
        let o = self.f.op(op);
        let word = o.def.name.split('.').nth(1).unwrap_or("");
        let args: Vec<ValueId> = o.operands().collect();
        if word == "select" {
            return self.select(op, &args);
        }
        match self.kind(args[0]) {
            Kind::Float(t) => self.float(op, word, t, &args),
            Kind::Int(w, signed) => self.int(op, word, w, signed, &args),
            Kind::Bool => self.logic(op, word, &args),
            Kind::Other => {
                Err(refuse(format!("arithmetic on {} has no PTX here", self.ty(args[0])))
                    .note("cast to f32 or i32 first"))
            }
        }
    }

    fn select(&mut self, op: OpId, args: &[ValueId]) -> Refusal {
        let o = self.f.op(op);
        let c = self.reg(args[0]);
        let class = Reg::of(self.ty(args[1]));
        if class == Reg::Pred {
            let (a, b) = (self.reg(args[1]), self.reg(args[2]));
            let (n, y) = (self.fresh(Reg::Pred), self.def(o.result()));
            let t = self.fresh(Reg::Pred);
            self.line(format!("not.pred {n}, {c}"));
            self.line(format!("and.pred {n}, {n}, {b}"));
            self.line(format!("and.pred {t}, {c}, {a}"));
            self.line(format!("or.pred {y}, {t}, {n}"));
            return Ok(());
        }
        let (a, b) = (self.val(args[1]), self.val(args[2]));
        let y = self.def(o.result());
        self.line(format!("selp{} {y}, {a}, {b}, {c}", class.suffix()));
        Ok(())
    }

    fn logic(&mut self, op: OpId, word: &str, args: &[ValueId]) -> Refusal {
        let x: Vec<String> = args.iter().map(|v| self.reg(*v)).collect();
        let y = self.def(self.f.op(op).result());
        match word {
            "and" | "or" | "xor" => self.line(format!("{word}.pred {y}, {}, {}", x[0], x[1])),
            "ne" => self.line(format!("xor.pred {y}, {}, {}", x[0], x[1])),
            "eq" => {
                self.line(format!("xor.pred {y}, {}, {}", x[0], x[1]));
                self.line(format!("not.pred {y}, {y}"));
            }
            "not" => self.line(format!("not.pred {y}, {}", x[0])),
            _ => return Err(refuse(format!("`{word}` on bool has no PTX here"))),
        }
        Ok(())
    }

    fn float(&mut self, op: OpId, word: &str, t: &str, args: &[ValueId]) -> Refusal {
        let o = self.f.op(op);
        let wide = t == "f64";
        let class = if wide { Reg::F64 } else { Reg::F32 };
        let imm = |v: f64| {
            Self::immediate(
                if wide { Elem::F64 } else { Elem::F32 },
                match wide {
                    true => v.to_bits(),
                    false => (v as f32).to_bits() as u64,
                },
            )
        };
        let x: Vec<String> = args.iter().map(|v| self.val(*v)).collect();
        let two = |s: &str| format!("{s}.{t}");
        let compare = match word {
            "eq" | "lt" | "le" | "gt" | "ge" => Some(word),
            "ne" => Some("neu"),
            _ => None,
        };
        let y = self.def(o.result());
        if let Some(c) = compare {
            self.line(format!("setp.{c}.{t} {y}, {}, {}", x[0], x[1]));
            return Ok(());
        }
        match word {
            "add" | "sub" | "mul" | "div" => {
                self.line(format!("{word}.rn.{t} {y}, {}, {}", x[0], x[1]))
            }
            "fma" => self.line(format!("fma.rn.{t} {y}, {}, {}, {}", x[0], x[1], x[2])),
            "neg" | "abs" => self.line(format!("{} {y}, {}", two(word), x[0])),
            "sqrt" | "rcp" => self.line(format!("{word}.rn.{t} {y}, {}", x[0])),
            "recip" => self.line(format!("rcp.rn.{t} {y}, {}", x[0])),
            "ex2" if !wide => {
                let flush = if o.attrs.bool("flush") { ".ftz" } else { "" };
                self.line(format!("ex2.approx{flush}.f32 {y}, {}", x[0]));
            }
            "floor" => self.line(format!("cvt.rmi.{t}.{t} {y}, {}", x[0])),
            "ceil" => self.line(format!("cvt.rpi.{t}.{t} {y}, {}", x[0])),
            "round" => self.line(format!("cvt.rni.{t}.{t} {y}, {}", x[0])),
            "trunc" => self.line(format!("cvt.rzi.{t}.{t} {y}, {}", x[0])),
            "min" | "max" => self.extremum(word, t, class, &y, &x[0], &x[1]),
            "relu" => self.extremum("max", t, class, &y, &x[0], &imm(0.0)),
            "clip" => {
                let (lo, hi) = (imm(o.attrs.float("lo")), imm(o.attrs.float("hi")));
                let m = self.fresh(class);
                self.extremum("max", t, class, &m, &x[0], &lo);
                self.extremum("min", t, class, &y, &m, &hi);
            }
            "sign" => {
                // ±1 by comparison; what compares to nothing (0, NaN) is itself.
                let (p, m) = (self.fresh(Reg::Pred), self.fresh(class));
                self.line(format!("setp.gt.{t} {p}, {}, {}", x[0], imm(0.0)));
                self.line(format!("selp.{t} {m}, {}, {}, {p}", imm(1.0), x[0]));
                self.line(format!("setp.lt.{t} {p}, {}, {}", x[0], imm(0.0)));
                self.line(format!("selp.{t} {y}, {}, {m}, {p}", imm(-1.0)));
            }
            "floordiv" => {
                let m = self.fresh(class);
                self.line(format!("div.rn.{t} {m}, {}, {}", x[0], x[1]));
                self.line(format!("cvt.rmi.{t}.{t} {y}, {m}"));
            }
            "is_nan" => self.line(format!("setp.nan.{t} {y}, {0}, {0}", x[0])),
            "is_inf" => {
                let inf = imm(f64::INFINITY);
                match (o.attrs.bool("positive"), o.attrs.bool("negative")) {
                    (true, true) => {
                        let m = self.fresh(class);
                        self.line(format!("abs.{t} {m}, {}", x[0]));
                        self.line(format!("setp.eq.{t} {y}, {m}, {inf}"));
                    }
                    (true, false) => self.line(format!("setp.eq.{t} {y}, {}, {inf}", x[0])),
                    (false, true) => {
                        let low = imm(f64::NEG_INFINITY);
                        self.line(format!("setp.eq.{t} {y}, {}, {low}", x[0]));
                    }
                    _ => self.line(format!("setp.ne.u32 {y}, 0, 0")),
                }
            }
            _ => return Err(refuse(format!("`{}` on {t} has no PTX here", o.def.name))),
        }
        Ok(())
    }

    /// min or max that is NaN if either is.
    fn extremum(&mut self, word: &str, t: &str, class: Reg, y: &str, a: &str, b: &str) {
        if class == Reg::F32 {
            return self.line(format!("{word}.NaN.f32 {y}, {a}, {b}"));
        }
        let (p, m) = (self.fresh(Reg::Pred), self.fresh(class));
        self.line(format!("{word}.{t} {m}, {a}, {b}"));
        self.line(format!("setp.nan.{t} {p}, {a}, {b}"));
        self.line(format!("selp.{t} {y}, 0d7FF8000000000000, {m}, {p}"));
    }

    fn int(&mut self, op: OpId, word: &str, w: u32, signed: bool, args: &[ValueId]) -> Refusal {
        let o = self.f.op(op);
        let s = if signed { format!("s{w}") } else { format!("u{w}") };
        let class = match w {
            16 => Reg::B16,
            32 => Reg::B32,
            _ => Reg::B64,
        };
        let known =
            args.get(1).and_then(|v| self.constant(*v)).map(|(e, b)| e.decode_int(b) as i64);
        let x: Vec<String> = args.iter().map(|v| self.val(*v)).collect();
        let y = self.def(o.result());
        match word {
            "add" | "sub" => self.line(format!("{word}.{s} {y}, {}, {}", x[0], x[1])),
            "mul" => self.line(format!("mul.lo.{s} {y}, {}, {}", x[0], x[1])),
            "min" | "max" => self.line(format!("{word}.{s} {y}, {}, {}", x[0], x[1])),
            "relu" => self.line(format!("max.{s} {y}, {}, 0", x[0])),
            "neg" | "abs" if signed => self.line(format!("{word}.{s} {y}, {}", x[0])),
            "bitand" => self.line(format!("and.b{w} {y}, {}, {}", x[0], x[1])),
            "bitor" => self.line(format!("or.b{w} {y}, {}, {}", x[0], x[1])),
            "bitxor" => self.line(format!("xor.b{w} {y}, {}, {}", x[0], x[1])),
            "bitnot" => self.line(format!("not.b{w} {y}, {}", x[0])),
            "eq" | "ne" | "lt" | "le" | "gt" | "ge" => {
                self.line(format!("setp.{word}.{s} {y}, {}, {}", x[0], x[1]))
            }
            "shl" | "shr" => {
                let code = if word == "shl" { format!("shl.b{w}") } else { format!("shr.{s}") };
                match known {
                    Some(n) if n >= 0 && n < w as i64 => {
                        self.line(format!("{code} {y}, {}, {n}", x[0]))
                    }
                    Some(_) => self.line(format!("mov.b{w} {y}, 0")),
                    None => {
                        let (n, p, m) =
                            (self.fresh(Reg::B32), self.fresh(Reg::Pred), self.fresh(class));
                        match w {
                            32 => self.line(format!("mov.b32 {n}, {}", x[1])),
                            64 => self.line(format!("cvt.u32.u64 {n}, {}", x[1])),
                            _ => self.line(format!("cvt.u32.u16 {n}, {}", x[1])),
                        }
                        self.line(format!("setp.lt.u{w} {p}, {}, {w}", x[1]));
                        self.line(format!("{code} {m}, {}, {n}", x[0]));
                        self.line(format!("selp.b{w} {y}, {m}, 0, {p}"));
                    }
                }
            }
            "div" | "rem" | "floordiv" | "mod" => {
                self.division(word, w, signed, class, &y, &x, known)
            }
            _ => return Err(refuse(format!("`{}` on {s} has no PTX here", o.def.name))),
        }
        Ok(())
    }

    /// Integer division; by a power of two it is a shift or a mask where the results agree.
    fn division(
        &mut self,
        word: &str,
        w: u32,
        signed: bool,
        class: Reg,
        y: &str,
        x: &[String],
        known: Option<i64>,
    ) {
        let s = if signed { format!("s{w}") } else { format!("u{w}") };
        let floors = matches!(word, "floordiv" | "mod") || !signed;
        if let Some(d) = known.filter(|d| *d > 0 && d.count_ones() == 1 && floors) {
            return match word {
                "mod" | "rem" => self.line(format!("and.b{w} {y}, {}, {}", x[0], d - 1)),
                _ => self.line(format!("shr.{s} {y}, {}, {}", x[0], d.trailing_zeros())),
            };
        }
        // A zero divisor becomes one, and the result zero.
        let safe = known.is_some_and(|d| d != 0);
        let (zero, b) = if safe {
            (None, x[1].clone())
        } else {
            let (p, b) = (self.fresh(Reg::Pred), self.fresh(class));
            self.line(format!("setp.eq.{s} {p}, {}, 0", x[1]));
            self.line(format!("selp.b{w} {b}, 1, {}, {p}", x[1]));
            (Some(p), b)
        };
        let (q, r) = (self.fresh(class), self.fresh(class));
        self.line(format!("div.{s} {q}, {}, {b}", x[0]));
        let quotient = matches!(word, "div" | "floordiv");
        let mut out = q.clone();
        if floors && signed || !quotient {
            self.line(format!("mul.lo.{s} {r}, {q}, {b}"));
            self.line(format!("sub.{s} {r}, {}, {r}", x[0]));
            out = if quotient { q } else { r.clone() };
        }
        if floors && signed {
            // Not exact and of the other sign: one step down.
            let (p, n, t) = (self.fresh(Reg::Pred), self.fresh(Reg::Pred), self.fresh(class));
            self.line(format!("xor.b{w} {t}, {r}, {b}"));
            self.line(format!("setp.ne.{s} {p}, {r}, 0"));
            self.line(format!("setp.lt.and.{s} {n}, {t}, 0, {p}"));
            match quotient {
                true => self.line(format!("@{n} sub.{s} {out}, {out}, 1")),
                false => self.line(format!("@{n} add.{s} {out}, {out}, {b}")),
            }
        }
        match zero {
            Some(p) => self.line(format!("selp.b{w} {y}, 0, {out}, {p}")),
            None => self.line(format!("mov.b{w} {y}, {out}")),
        }
    }
}
