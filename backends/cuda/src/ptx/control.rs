//! Loops and choices as labels and predicated branches. A carried value lives in one register: the
//! region's argument and the loop's result.

use silure_ir::{OpId, Type, ValueId};

use super::{Printer, Reg};

impl Printer<'_> {
    fn mov(&mut self, to: &str, v: ValueId) {
        match Reg::of(self.f.ty(v)) {
            Reg::Pred => {
                let x = self.reg(v);
                if x != to {
                    self.line(format!("mov.pred {to}, {x}"));
                }
            }
            class => {
                let x = match class {
                    Reg::B16 => self.reg(v),
                    _ => self.val(v),
                };
                if x != to {
                    self.line(format!("mov{} {to}, {x}", class.suffix()));
                }
            }
        }
    }

    pub(crate) fn run_for(&mut self, op: OpId) {
        let f = self.f;
        let o = f.op(op);
        let body = o.regions[0];
        let args = f.region(body).args.clone();
        let bounds: Vec<ValueId> = o.slots().take(3).flatten().collect();
        let init: Vec<ValueId> = bounds[..1].iter().chain(o.tail()).copied().collect();
        let regs: Vec<String> = args.iter().map(|a| self.def(*a)).collect();
        for (r, v) in regs.iter().zip(init) {
            self.mov(r, v);
        }
        let ty = if *f.ty(args[0]) == Type::Index { "s64" } else { "s32" };
        let n = self.new_label();
        let done = self.fresh(Reg::Pred);
        self.label(&format!("LOOP{n}"));
        let hi = self.val(bounds[1]);
        self.line(format!("setp.ge.{ty} {done}, {}, {hi}", regs[0]));
        self.line(format!("@{done} bra DONE{n}"));
        self.region(body);
        let yields = f.yields(body);
        // A value that is another carried register must be saved before that one is overwritten.
        let mut moves = Vec::new();
        for (to, &v) in regs[1..].iter().zip(&yields) {
            let x = self.constant(v).is_none().then(|| self.reg(v));
            match x {
                Some(x) if x != *to && regs.contains(&x) => {
                    let t = self.fresh(Reg::of(f.ty(v)));
                    self.mov(&t, v);
                    moves.push((to, v, Some(t)));
                }
                _ => moves.push((to, v, None)),
            }
        }
        for (to, v, saved) in moves {
            match saved {
                Some(t) => {
                    let suffix = Reg::of(f.ty(v)).suffix();
                    self.line(format!("mov{suffix} {to}, {t}"));
                }
                None => self.mov(to, v),
            }
        }
        let step = self.val(bounds[2]);
        self.line(format!("add.{ty} {0}, {0}, {step}", regs[0]));
        self.line(format!("bra LOOP{n}"));
        self.label(&format!("DONE{n}"));
        for (v, r) in o.results.iter().zip(&regs[1..]) {
            self.alias(*v, r);
        }
    }

    pub(crate) fn run_if(&mut self, op: OpId) {
        let f = self.f;
        let o = f.op(op);
        let Some(condition) = o.operand(0) else { return };
        let p = self.reg(condition);
        let results: Vec<String> = o.results.iter().map(|v| self.def(*v)).collect();
        let n = self.new_label();
        let other = o.regions[1];
        let empty = f.region(other).ops.len() <= 1 && results.is_empty();
        self.line(format!("@!{p} bra {}{n}", if empty { "END" } else { "ELSE" }));
        for (i, &r) in o.regions.iter().enumerate() {
            if i == 1 {
                if empty {
                    break;
                }
                self.line(format!("bra END{n}"));
                self.label(&format!("ELSE{n}"));
            }
            self.region(r);
            for (to, v) in results.iter().zip(f.yields(r)) {
                self.mov(to, v);
            }
        }
        self.label(&format!("END{n}"));
    }
}
