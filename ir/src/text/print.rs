//! Printing the pretty form.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::terms::{attr_text, symbol_text};
use crate::attr::Attrs;
use crate::diag::{Loc, quote};
use crate::func::{Func, OpId, RegionId, ValueId};
use crate::module::Module;
use crate::op::{OpDef, Traits};

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($($arg:tt)*) => { let _ = write!($($arg)*); };
}

/// The module as text.
pub fn print(m: &Module) -> String {
    let mut s = format!("module {}", symbol_text(&m.name));
    if !m.attrs.is_empty() {
        put!(s, " {}", attrs_text(&m.attrs, None));
    }
    s.push_str(" {\n");
    for w in &m.weights {
        put!(s, "  weight {} : {} = {}\n", symbol_text(&w.name), w.ty, w.expr);
    }
    for st in &m.states {
        put!(s, "  state {} : {}\n", symbol_text(&st.name), st.ty);
    }
    for f in &m.funcs {
        func(&mut s, f);
    }
    s.push_str("}\n");
    s
}

/// One function as text.
pub fn print_func(f: &Func) -> String {
    let mut s = String::new();
    func(&mut s, f);
    s
}

/// One op as text, with the value names it has in its function; for messages.
pub fn print_op(f: &Func, op: OpId) -> String {
    let names = Names::new(f);
    let mut s = String::new();
    op_text(&mut s, f, &names, op, 0);
    s
}

/// Names of the values of a function, unique in it.
pub(super) struct Names(HashMap<ValueId, String>);

impl Names {
    pub fn new(f: &Func) -> Names {
        let mut n = Namer { names: HashMap::new(), taken: HashSet::new(), next: 0 };
        for (v, name) in f.args().iter().zip(&f.arg_names) {
            let hint = f.value(*v).name.clone();
            n.name(f, *v, Some(hint.as_deref().unwrap_or(name)));
        }
        n.region(f, f.body, true);
        Names(n.names)
    }

    pub fn get(&self, v: ValueId) -> &str {
        self.0.get(&v).map_or("<undefined>", |s| s)
    }
}

struct Namer {
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
    next: usize,
}

impl Namer {
    fn name(&mut self, f: &Func, v: ValueId, hint: Option<&str>) {
        let hint = hint.or(f.value(v).name.as_deref()).map(identifier).filter(|h| !h.is_empty());
        let name = match hint {
            Some(h) if self.taken.insert(h.clone()) => h,
            Some(h) => {
                let free = (1..).map(|i| format!("{h}_{i}")).find(|n| self.taken.insert(n.clone()));
                free.unwrap_or(h)
            }
            None => {
                self.next += 1;
                (self.next - 1).to_string()
            }
        };
        self.names.insert(v, name);
    }

    fn region(&mut self, f: &Func, r: RegionId, body: bool) {
        if !body {
            for &a in &f.region(r).args {
                self.name(f, a, None);
            }
        }
        for &op in &f.region(r).ops {
            // Inner regions first: the text of the results' types comes after them, but their names
            // stand in front, so the order here only has to be the same each time.
            for &v in &f.op(op).results {
                self.name(f, v, None);
            }
            for &inner in &f.op(op).regions {
                self.region(f, inner, false);
            }
        }
    }
}

/// A name made of letters, digits and `_`, not starting with a digit.
fn identifier(name: &str) -> String {
    let mut s: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if s.starts_with(|c: char| c.is_ascii_digit()) {
        s.insert(0, 'v');
    }
    s
}

/// A name as is if it is an identifier, quoted otherwise.
fn word_text(s: &str) -> String {
    if !s.is_empty() && identifier(s) == s { s.to_string() } else { quote(s) }
}

/// `{a = 1, b = "x"}`; attributes equal to the declared default are left out.
pub(super) fn attrs_text(attrs: &Attrs, def: Option<&OpDef>) -> String {
    let shown: Vec<String> = attrs
        .iter()
        .filter(|(n, a)| {
            let default = def.and_then(|d| d.attr(n)).and_then(|d| d.default.value());
            default.as_ref() != Some(a)
        })
        .map(|(n, a)| format!("{n} = {}", attr_text(a)))
        .collect();
    if shown.is_empty() { String::new() } else { format!("{{{}}}", shown.join(", ")) }
}

fn func(s: &mut String, f: &Func) {
    let names = Names::new(f);
    put!(s, "  {} {}", f.kind.keyword(), symbol_text(&f.name));
    if !f.symbols.is_empty() {
        let syms: Vec<String> = f.symbols.iter().map(|d| d.to_string()).collect();
        put!(s, "<{}>", syms.join(", "));
    }
    s.push('(');
    for (i, (v, name)) in f.args().iter().zip(&f.arg_names).enumerate() {
        put!(s, "{}%{}", if i > 0 { ", " } else { "" }, names.get(*v));
        if names.get(*v) != &**name {
            put!(s, " {}", quote(name));
        }
        put!(s, ": {}", f.ty(*v));
    }
    s.push(')');
    if !f.result_types.is_empty() {
        s.push_str(" -> (");
        for (i, t) in f.result_types.iter().enumerate() {
            let name = f.result_names.get(i).map_or("", |n| n);
            put!(s, "{}{}: {t}", if i > 0 { ", " } else { "" }, word_text(name));
        }
        s.push(')');
    }
    if !f.attrs.is_empty() {
        put!(s, " {}", attrs_text(&f.attrs, None));
    }
    for v in &f.variants {
        let guards: Vec<String> = v.guards.iter().map(|g| g.to_string()).collect();
        put!(s, "\n      variant {} when {}", symbol_text(&v.func), guards.join(", "));
    }
    s.push_str(" {\n");
    for &op in &f.region(f.body).ops {
        op_text(s, f, &names, op, 2);
    }
    s.push_str("  }\n");
}

fn op_text(s: &mut String, f: &Func, names: &Names, op: OpId, depth: usize) {
    let o = f.op(op);
    s.extend(std::iter::repeat_n("  ", depth));
    for (i, v) in o.results.iter().enumerate() {
        put!(s, "{}%{}", if i > 0 { ", " } else { "" }, names.get(*v));
    }
    if !o.results.is_empty() {
        s.push_str(" = ");
    }
    s.push_str(o.def.name.strip_prefix("core.").unwrap_or(o.def.name));
    // Absent operands at the end are not written.
    let mut slots: Vec<Option<ValueId>> = o.slots().collect();
    while slots.last() == Some(&None) {
        slots.pop();
    }
    for (i, v) in slots.iter().enumerate() {
        s.push_str(if i > 0 { ", " } else { " " });
        match v {
            Some(v) => {
                put!(s, "%{}", names.get(*v));
            }
            None => s.push('_'),
        }
    }
    let attrs = attrs_text(&o.attrs, Some(o.def));
    if !attrs.is_empty() {
        put!(s, " {attrs}");
    }
    for &r in &o.regions {
        s.push_str(" do");
        let args = &f.region(r).args;
        if !args.is_empty() {
            s.push('(');
            for (i, a) in args.iter().enumerate() {
                put!(s, "{}%{}: {}", if i > 0 { ", " } else { "" }, names.get(*a), f.ty(*a));
            }
            s.push(')');
        }
        s.push_str(" {\n");
        for &inner in &f.region(r).ops {
            op_text(s, f, names, inner, depth + 1);
        }
        s.extend(std::iter::repeat_n("  ", depth));
        s.push('}');
    }
    for (i, v) in o.results.iter().enumerate() {
        put!(s, "{}{}", if i > 0 { ", " } else { " : " }, f.ty(*v));
    }
    if o.loc != Loc::Unknown && !o.def.is(Traits::TERMINATOR) {
        put!(s, " loc({})", o.loc);
    }
    s.push('\n');
}
