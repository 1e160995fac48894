//! Positions, memory, exchange between lanes, fragments.

use silure_ir::{Elem, Num, OpId, Space, Type, ValueId};

use super::{Printer, Refusal, Reg, refuse};

impl Printer<'_> {
    pub(crate) fn memory(&mut self, op: OpId) -> Refusal {
        let o = self.f.op(op);
        let arg = |i: usize| o.operand(i).ok_or_else(|| refuse("an operand is missing"));
        let axis = || ["x", "y", "z"][o.attrs.int("axis").clamp(0, 2) as usize];
        match o.def.name {
            "simt.thread_id" => {
                let r = self.def(o.result());
                self.line(format!("mov.u32 {r}, %tid.x"));
            }
            "simt.lane_id" | "simt.warp_id" => {
                let r = self.def(o.result());
                self.line(format!("mov.u32 {r}, %tid.x"));
                match o.def.name {
                    "simt.lane_id" => self.line(format!("and.b32 {r}, {r}, 31")),
                    _ => self.line(format!("shr.u32 {r}, {r}, 5")),
                }
            }
            "simt.block_id" | "simt.num_blocks" => {
                let (d, r) = (self.def(o.result()), self.fresh(Reg::B32));
                let special = if o.def.name == "simt.block_id" { "ctaid" } else { "nctaid" };
                self.line(format!("mov.u32 {r}, %{special}.{}", axis()));
                self.line(format!("cvt.u64.u32 {d}, {r}"));
            }
            "simt.shared" => {
                let (r, at) = (self.def(o.result()), o.attrs.int("at"));
                let smem = self.smem.clone();
                self.line(format!("mov.u32 {r}, {smem}"));
                if at != 0 {
                    self.line(format!("add.s32 {r}, {r}, {at}"));
                }
            }
            "simt.ptr_add" => self.ptr_add(op, arg(0)?),
            "simt.load" => self.load(op, arg(0)?),
            "simt.store" => self.store(op, arg(0)?),
            "simt.report" => {
                let (p, when, r) = (self.reg(arg(0)?), self.reg(arg(1)?), self.fresh(Reg::B32));
                self.line(format!("mov.u32 {r}, {}", o.attrs.int("code")));
                self.line(format!("@{when} red.global.max.u32 [{p}], {r}"));
            }
            "simt.async_copy" => {
                let n = o.attrs.int("bytes");
                let (dst, src) = (self.reg(arg(0)?), self.reg(arg(1)?));
                let kind = if n == 16 { "cg" } else { "ca" };
                let size = match o.operand(2) {
                    Some(p) => {
                        let (p, r) = (self.reg(p), self.fresh(Reg::B32));
                        self.line(format!("selp.b32 {r}, {n}, 0, {p}"));
                        format!(", {r}")
                    }
                    None => String::new(),
                };
                let at = address(&dst, o.attrs.int("offset"));
                let from = address(&src, o.attrs.int("from"));
                let guard = match o.operand(3) {
                    Some(p) => format!("@{} ", self.reg(p)),
                    None => String::new(),
                };
                self.line(format!("{guard}cp.async.{kind}.shared.global {at}, {from}, {n}{size}"));
            }
            "simt.async_commit" => self.line("cp.async.commit_group"),
            "simt.async_wait" => {
                self.line(format!("cp.async.wait_group {}", o.attrs.int("pending")))
            }
            "simt.barrier" => self.line("bar.sync 0"),
            "simt.ldmatrix" => {
                let p = self.reg(arg(0)?);
                let regs: Vec<String> = o.results.iter().map(|v| self.def(*v)).collect();
                let trans = if o.attrs.bool("trans") { ".trans" } else { "" };
                let at = address(&p, o.attrs.int("offset"));
                self.line(format!(
                    "ldmatrix.sync.aligned.m8n8.x{}{trans}.shared.b16 {{{}}}, {at}",
                    regs.len(),
                    regs.join(", ")
                ));
            }
            "simt.mma" => return self.mma(op),
            "simt.shuffle" => return self.shuffle(op),
            "simt.vote" => {
                let (p, r) = (self.reg(arg(0)?), self.def(o.result()));
                let kind = o.attrs.str("kind");
                self.line(format!("vote.sync.{kind}.pred {r}, {p}, 0xffffffff"));
            }
            "simt.pack" => {
                let x: Vec<String> = o.tail().iter().map(|v| self.reg(*v)).collect();
                let r = self.def(o.result());
                self.pack(&r, &x);
            }
            "simt.unpack" => {
                let x = self.reg(arg(0)?);
                let out: Vec<String> = o.results.iter().map(|v| self.def(*v)).collect();
                self.unpack(&x, &out);
            }
            name => return Err(refuse(format!("`{name}` has no PTX"))),
        }
        Ok(())
    }

    /// 2 or 4 values of 16-bit registers, or one of 32 bits, into one of 32 bits.
    fn pack(&mut self, to: &str, x: &[String]) {
        if let [one] = x {
            return self.line(format!("mov.b32 {to}, {one}"));
        }
        let halves: Vec<String> = match x {
            [_, _] => x.to_vec(),
            _ => x
                .chunks(2)
                .map(|c| {
                    let t = self.fresh(Reg::B16);
                    self.line(format!("shl.b16 {t}, {}, 8", c[1]));
                    self.line(format!("or.b16 {t}, {t}, {}", c[0]));
                    t
                })
                .collect(),
        };
        self.line(format!("mov.b32 {to}, {{{}}}", halves.join(", ")));
    }

    fn unpack(&mut self, x: &str, to: &[String]) {
        if let [one] = to {
            return self.line(format!("mov.b32 {one}, {x}"));
        }
        if let [a, b] = to {
            return self.line(format!("mov.b32 {{{a}, {b}}}, {x}"));
        }
        let (lo, hi) = (self.fresh(Reg::B16), self.fresh(Reg::B16));
        self.line(format!("mov.b32 {{{lo}, {hi}}}, {x}"));
        for (half, pair) in [lo, hi].iter().zip(to.chunks(2)) {
            self.split(half, pair);
        }
    }

    /// Two bytes out of 16 bits.
    fn split(&mut self, half: &str, to: &[String]) {
        self.line(format!("and.b16 {}, {half}, 255", to[0]));
        self.line(format!("shr.u16 {}, {half}, 8", to[1]));
    }

    fn ptr_add(&mut self, op: OpId, p: ValueId) {
        let o = self.f.op(op);
        let bytes = o.attrs.int("bytes");
        let (mut x, r) = (self.reg(p), self.def(o.result()));
        let ty = if Reg::of(self.ty(p)) == Reg::B64 { "s64" } else { "s32" };
        if let Some(by) = o.operand(1) {
            let narrow = *self.ty(by) != Type::Index;
            let y = match (narrow, ty, self.constant(by).is_some()) {
                (_, _, true) | (true, "s32", _) | (false, "s64", _) => self.val(by),
                (true, ..) => {
                    let (y, d) = (self.reg(by), self.fresh(Reg::B64));
                    self.line(format!("cvt.s64.s32 {d}, {y}"));
                    d
                }
                (false, ..) => {
                    let (y, d) = (self.reg(by), self.fresh(Reg::B32));
                    self.line(format!("cvt.u32.u64 {d}, {y}"));
                    d
                }
            };
            self.line(format!("add.{ty} {r}, {x}, {y}"));
            x = r.clone();
        }
        if bytes != 0 || o.operand(1).is_none() {
            self.line(format!("add.{ty} {r}, {x}, {bytes}"));
        }
    }

    fn space(&self, p: ValueId) -> &'static str {
        match self.ty(p) {
            Type::Ptr(_, Space::Shared) => "shared",
            Type::Ptr(_, Space::Local) => "local",
            _ => "global",
        }
    }

    /// The machine registers of an access of `n` elements: their class and number.
    fn carriers(e: Elem, n: usize) -> (Reg, usize, &'static str) {
        match (e, e.bits() * n) {
            (Elem::F32 | Elem::Tf32, _) => (Reg::F32, n, "f32"),
            (Elem::F64, _) => (Reg::F64, n, "f64"),
            (_, 8) => (Reg::B16, 1, "u8"),
            (_, 16) => (Reg::B16, 1, "b16"),
            (e, _) if e.bits() == 64 => (Reg::B64, n, "b64"),
            (_, bits) => (Reg::B32, bits / 32, "b32"),
        }
    }

    fn load(&mut self, op: OpId, p: ValueId) {
        let o = self.f.op(op);
        let (e, n) = (self.elem(p), o.results.len());
        let (class, count, ty) = Self::carriers(e, n);
        let base = self.reg(p);
        let at = address(&base, o.attrs.int("offset"));
        let to: Vec<String> = o.results.iter().map(|v| self.def(*v)).collect();
        let direct = count == n && e != Elem::Bool;
        let raw: Vec<String> = match direct {
            true => to.clone(),
            false => (0..count).map(|_| self.fresh(class)).collect(),
        };
        let mut guard = String::new();
        if let Some(c) = o.operand(1) {
            let c = self.reg(c);
            let pad = Num::F(o.attrs.float("pad")).encode(e);
            let value = match class {
                Reg::F32 | Reg::F64 => Self::immediate(e, pad),
                _ => {
                    let width = if matches!(class, Reg::B16) { 16.min(e.bits() * n) } else { 32 };
                    let times = if e.bits() >= width { 1 } else { width / e.bits() };
                    (0..times).map(|i| pad << (i * e.bits())).sum::<u64>().to_string()
                }
            };
            for r in &raw {
                self.line(format!("mov{} {r}, {value}", class.suffix()));
            }
            guard = format!("@{c} ");
        }
        let (v, list) = vector(&raw);
        self.line(format!("{guard}ld.{}{v}.{ty} {list}, {at}", self.space(p)));
        if direct {
            return;
        }
        match (e.bits(), n) {
            (_, 1) => self.line(format!("setp.ne.b16 {}, {}, 0", to[0], raw[0])),
            (16, _) => raw.iter().zip(to.chunks(2)).for_each(|(r, t)| self.unpack(r, t)),
            (_, n) => {
                let bytes = self.unless_bool(e, &to);
                match n {
                    2 => self.split(&raw[0], &bytes),
                    _ => raw.iter().zip(bytes.chunks(4)).for_each(|(r, t)| self.unpack(r, t)),
                }
                if e == Elem::Bool {
                    for (p, b) in to.iter().zip(&bytes) {
                        self.line(format!("setp.ne.b16 {p}, {b}, 0"));
                    }
                }
            }
        }
    }

    fn unless_bool(&mut self, e: Elem, to: &[String]) -> Vec<String> {
        match e {
            Elem::Bool => to.iter().map(|_| self.fresh(Reg::B16)).collect(),
            _ => to.to_vec(),
        }
    }

    fn store(&mut self, op: OpId, p: ValueId) {
        let o = self.f.op(op);
        let (e, n) = (self.elem(p), o.tail().len());
        let (class, count, ty) = Self::carriers(e, n);
        let mut x: Vec<String> = o.tail().iter().map(|v| self.reg(*v)).collect();
        if e == Elem::Bool {
            for x in &mut x {
                let b = self.fresh(Reg::B16);
                self.line(format!("selp.b16 {b}, 1, 0, {x}"));
                *x = b;
            }
        }
        if count != n {
            x = match (class, e.bits()) {
                (Reg::B16, _) => {
                    let t = self.fresh(Reg::B16);
                    self.line(format!("shl.b16 {t}, {}, 8", x[1]));
                    self.line(format!("or.b16 {t}, {t}, {}", x[0]));
                    vec![t]
                }
                (_, bits) => x
                    .chunks(32 / bits)
                    .map(|part| {
                        let r = self.fresh(Reg::B32);
                        self.pack(&r, part);
                        r
                    })
                    .collect(),
            };
        }
        let guard = match o.operand(1) {
            Some(c) => format!("@{} ", self.reg(c)),
            None => String::new(),
        };
        let base = self.reg(p);
        let at = address(&base, o.attrs.int("offset"));
        let (v, list) = vector(&x);
        self.line(format!("{guard}st.{}{v}.{ty} {at}, {list}", self.space(p)));
    }

    fn mma(&mut self, op: OpId) -> Refusal {
        let o = self.f.op(op);
        let (a, b) = (self.elem(o.tail()[0]), self.elem(o.tail()[4]));
        let word = |e: Elem| match e {
            Elem::F16 => Ok("f16"),
            Elem::Bf16 => Ok("bf16"),
            Elem::E4m3fn => Ok("e4m3"),
            Elem::E5m2 => Ok("e5m2"),
            Elem::I8 => Ok("s8"),
            Elem::U8 => Ok("u8"),
            Elem::Tf32 => Ok("tf32"),
            e => Err(refuse(format!("mma.sync has no operands of {e}"))),
        };
        let (wa, wb) = (word(a)?, word(b)?);
        if a.is_float() && a.bits() == 8 {
            if self.sm < 89 {
                return Err(refuse(format!("mma.sync of {a} is not in sm_{}", self.sm))
                    .need("sm_89 or later", format!("sm_{}", self.sm))
                    .note("convert to f16: every value is exact in it"));
            }
            self.needs(8, 4);
        }
        let k = 256 / a.bits();
        let acc = if a.is_float() { "f32" } else { "s32" };
        let x: Vec<String> = o.tail().iter().map(|v| self.reg(*v)).collect();
        let y: Vec<String> = o.results.iter().map(|v| self.def(*v)).collect();
        let list = |r: &[String]| format!("{{{}}}", r.join(", "));
        self.line(format!(
            "mma.sync.aligned.m16n8k{k}.row.col.{acc}.{wa}.{wb}.{acc} {}, {}, {}, {}",
            list(&y),
            list(&x[..4]),
            list(&x[4..6]),
            list(&x[6..])
        ));
        Ok(())
    }

    fn shuffle(&mut self, op: OpId) -> Refusal {
        let o = self.f.op(op);
        let Some(v) = o.operand(0) else { return Err(refuse("an operand is missing")) };
        let (mode, by) = match (o.attrs.str("mode"), o.operand(1)) {
            ("idx", Some(l)) => {
                let by = match self.ty(l) {
                    Type::Index => {
                        let (l, r) = (self.reg(l), self.fresh(Reg::B32));
                        self.line(format!("cvt.u32.u64 {r}, {l}"));
                        r
                    }
                    _ => self.val(l),
                };
                ("idx", by)
            }
            ("down", _) => ("down", o.attrs.int("by").to_string()),
            _ => ("bfly", o.attrs.int("by").to_string()),
        };
        let (x, class) = (self.reg(v), Reg::of(self.ty(v)));
        let y = self.def(o.result());
        let move_one = |p: &mut Self, from: &str, to: &str| {
            p.line(format!("shfl.sync.{mode}.b32 {to}, {from}, {by}, 31, 0xffffffff"));
        };
        let (s, t) = (self.fresh(Reg::B32), self.fresh(Reg::B32));
        match class {
            Reg::B32 | Reg::F32 => move_one(self, &x, &y),
            Reg::B16 => {
                self.line(format!("cvt.u32.u16 {s}, {x}"));
                move_one(self, &s, &t);
                self.line(format!("cvt.u16.u32 {y}, {t}"));
            }
            Reg::Pred => {
                self.line(format!("selp.b32 {s}, 1, 0, {x}"));
                move_one(self, &s, &t);
                self.line(format!("setp.ne.b32 {y}, {t}, 0"));
            }
            Reg::B64 | Reg::F64 => {
                let (a, b) = (self.fresh(Reg::B32), self.fresh(Reg::B32));
                self.line(format!("mov.b64 {{{s}, {t}}}, {x}"));
                move_one(self, &s, &a);
                move_one(self, &t, &b);
                self.line(format!("mov.b64 {y}, {{{a}, {b}}}"));
            }
        }
        Ok(())
    }
}

fn address(base: &str, offset: i64) -> String {
    match offset {
        0 => format!("[{base}]"),
        o => format!("[{base}+{o}]"),
    }
}

/// The vector suffix and the operand list of an access.
fn vector(regs: &[String]) -> (String, String) {
    match regs {
        [one] => (String::new(), one.clone()),
        many => (format!(".v{}", many.len()), format!("{{{}}}", many.join(", "))),
    }
}
