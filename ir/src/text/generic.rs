//! The generic form: MLIR syntax that `mlir-opt --allow-unregistered-dialect` accepts.
//!
//! Module, weights, states and functions are ops too, and every op is of the dialect `silure`
//! (`"silure.arith.add"`), which MLIR does not know. Integers, bools and strings are MLIR's own
//! attributes; everything else is `#silure<"…">` around the pretty spelling, and every type is
//! `!silure<"…">`. Value names are numbers. Locations may be given in place or as aliases
//! (`#loc1 = loc(...)`), as `mlir-opt --mlir-print-debuginfo` writes them.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use super::cursor::Cursor;
use super::parse::{arc, complete, make_op};
use super::terms::{self, attr_text};
use crate::attr::{Attr, Attrs};
use crate::context::Context;
use crate::diag::{Loc, Result, quote};
use crate::func::{Func, FuncKind, OpId, RegionId, ValueId, Variant};
use crate::module::{Module, State};
use crate::op::Traits;
use crate::types::Type;
use crate::weight::Weight;

/// In front of every op's name: MLIR has an `arith` of its own, with other ops and rules.
const PREFIX: &str = "silure.";

/// Attributes of a function, in order.
const FUNC_ATTRIBUTES: [&str; 8] = [
    "arg_names",
    "attrs",
    "kind",
    "result_names",
    "result_types",
    "sym_name",
    "symbols",
    "variants",
];

macro_rules! put {
    ($($arg:tt)*) => { let _ = write!($($arg)*); };
}

/// The module in generic form.
pub fn print(m: &Module) -> String {
    let mut s = String::from("\"builtin.module\"() ({\n");
    let mut head = Attrs::new().with("sym_name", &*m.name);
    head.set("attrs", packed(&m.attrs));
    put!(s, "  \"silure.module\"() {} : () -> ()\n", dict(&head, &[]));
    for w in &m.weights {
        let a = Attrs::new()
            .with("expr", Attr::Str(w.expr.to_string().into()))
            .with("sym_name", &*w.name)
            .with("type", Type::Tensor(w.ty.clone()));
        put!(s, "  \"silure.weight\"() {} : () -> ()\n", dict(&a, &[]));
    }
    for st in &m.states {
        let a = Attrs::new().with("sym_name", &*st.name).with("type", Type::Tensor(st.ty.clone()));
        put!(s, "  \"silure.state\"() {} : () -> ()\n", dict(&a, &[]));
    }
    for f in &m.funcs {
        func(&mut s, f);
    }
    s.push_str("}) : () -> ()\n");
    s
}

/// Attributes as one string, so that they keep their own syntax.
fn packed(a: &Attrs) -> Attr {
    Attr::Str(super::print::attrs_text(a, None).into())
}

fn strings(v: impl IntoIterator<Item = String>) -> Attr {
    Attr::Strs(v.into_iter().map(|s| arc(&s)).collect())
}

fn ty(t: &Type) -> String {
    format!("!silure<{}>", quote(&t.to_string()))
}

fn dict(attrs: &Attrs, absent: &[i64]) -> String {
    let mut parts: Vec<String> = attrs
        .iter()
        .map(|(n, a)| match a {
            Attr::Bool(v) => format!("{n} = {v}"),
            Attr::Int(v) => format!("{n} = {v} : i64"),
            Attr::Str(v) => format!("{n} = {}", quote(v)),
            a => format!("{n} = #silure<{}>", quote(&attr_text(a))),
        })
        .collect();
    if !absent.is_empty() {
        parts
            .push(format!("absent = #silure<{}>", quote(&attr_text(&Attr::Ints(absent.to_vec())))));
    }
    format!("{{{}}}", parts.join(", "))
}

fn func(s: &mut String, f: &Func) {
    let a = Attrs::new()
        .with("arg_names", strings(f.arg_names.iter().map(|n| n.to_string())))
        .with("attrs", packed(&f.attrs))
        .with("kind", f.kind.keyword())
        .with("result_names", strings(f.result_names.iter().map(|n| n.to_string())))
        .with("result_types", strings(f.result_types.iter().map(|t| t.to_string())))
        .with("sym_name", &*f.name)
        .with("symbols", strings(f.symbols.iter().map(|d| d.to_string())))
        .with(
            "variants",
            strings(f.variants.iter().map(|v| {
                let g: Vec<String> = v.guards.iter().map(|g| g.to_string()).collect();
                format!("{} when {}", terms::symbol_text(&v.func), g.join(", "))
            })),
        );
    s.push_str("  \"silure.func\"() (");
    let mut p = Printer { f, names: HashMap::new(), next: 0, args: 0 };
    p.region(s, f.body, 2);
    put!(s, ") {} : () -> ()\n", dict(&a, &[]));
}

struct Printer<'a> {
    f: &'a Func,
    names: HashMap<ValueId, String>,
    next: usize,
    args: usize,
}

impl Printer<'_> {
    fn region(&mut self, s: &mut String, r: RegionId, depth: usize) {
        s.push_str("{\n");
        let args = &self.f.region(r).args;
        if !args.is_empty() {
            s.extend(std::iter::repeat_n("  ", depth - 1));
            s.push_str("^bb0(");
            for (i, a) in args.iter().enumerate() {
                self.names.insert(*a, format!("arg{}", self.args));
                let sep = if i > 0 { ", " } else { "" };
                put!(s, "{sep}%arg{}: {}", self.args, ty(self.f.ty(*a)));
                self.args += 1;
            }
            s.push_str("):\n");
        }
        for &op in &self.f.region(r).ops {
            self.op(s, op, depth);
        }
        s.extend(std::iter::repeat_n("  ", depth - 1));
        s.push('}');
    }

    fn op(&mut self, s: &mut String, op: OpId, depth: usize) {
        let o = self.f.op(op);
        s.extend(std::iter::repeat_n("  ", depth));
        if !o.results.is_empty() {
            put!(s, "%{}", self.next);
            if o.results.len() > 1 {
                put!(s, ":{}", o.results.len());
            }
            s.push_str(" = ");
        }
        let base = self.next;
        put!(s, "\"{PREFIX}{}\"(", o.def.name);
        for (i, v) in o.operands().enumerate() {
            let name = self.names.get(&v).map_or("undefined", |n| n);
            put!(s, "{}%{name}", if i > 0 { ", " } else { "" });
        }
        s.push(')');
        self.next += !o.results.is_empty() as usize;
        if !o.regions.is_empty() {
            s.push_str(" (");
            for (i, &r) in o.regions.iter().enumerate() {
                s.push_str(if i > 0 { ", " } else { "" });
                self.region(s, r, depth + 1);
            }
            s.push(')');
        }
        let absent: Vec<i64> =
            o.slots().enumerate().filter(|(_, v)| v.is_none()).map(|(i, _)| i as i64).collect();
        if !o.attrs.is_empty() || !absent.is_empty() {
            put!(s, " {}", dict(&o.attrs, &absent));
        }
        let types = |v: Vec<ValueId>| {
            let t: Vec<String> = v.iter().map(|v| ty(self.f.ty(*v))).collect();
            t.join(", ")
        };
        put!(s, " : ({}) -> ", types(o.operands().collect()));
        match o.results.len() {
            1 => s.push_str(&types(o.results.to_vec())),
            _ => {
                put!(s, "({})", types(o.results.to_vec()));
            }
        }
        // Stated even if unknown: MLIR takes a missing one for the place in its input.
        if !o.def.is(Traits::TERMINATOR) {
            put!(s, " loc({})", o.loc);
        }
        s.push('\n');
        for (i, v) in o.results.iter().enumerate() {
            let name = if o.results.len() > 1 { format!("{base}#{i}") } else { base.to_string() };
            self.names.insert(*v, name);
        }
    }
}

/// Parses the generic form.
pub(super) fn parse(cx: &Context, file: &str, text: &str) -> Result<Module> {
    let aliases = aliases(file, text)?;
    let mut c = Cursor::new(file, text);
    let mut p = Parser { cx, c: &mut c, aliases, values: vec![] };
    p.skip_aliases()?;
    p.c.need("\"builtin.module\"")?;
    p.c.need("()")?;
    p.attributes("<{", "}>")?;
    p.c.need("(")?;
    p.c.need("{")?;
    if p.c.eat("^") {
        p.c.until(b":\n");
        p.c.need(":")?;
    }
    let mut m = Module::default();
    while !p.c.eat("}") {
        p.item(&mut m)?;
    }
    p.c.need(")")?;
    p.attributes("{", "}")?;
    p.c.need(":")?;
    p.c.need("() -> ()")?;
    p.loc()?;
    p.skip_aliases()?;
    p.c.end()?;
    Ok(m)
}

/// `#loc3 = loc(...)` lines, which may refer to each other in any order.
fn aliases(file: &str, text: &str) -> Result<HashMap<String, Loc>> {
    let mut pending: Vec<(String, &str)> = text
        .lines()
        .filter(|l| l.starts_with("#loc"))
        .filter_map(|l| l.split_once(" = ").map(|(n, v)| (n[1..].to_string(), v)))
        .collect();
    let mut done = HashMap::new();
    while !pending.is_empty() {
        let before = pending.len();
        let mut rest = Vec::new();
        for (name, value) in pending {
            let mut c = Cursor::new(file, value);
            c.need("loc(")?;
            match loc_term(&mut c, &done)? {
                Some(l) => {
                    done.insert(name, l);
                }
                None => rest.push((name, value)),
            }
        }
        if rest.len() == before {
            return Err(Cursor::new(file, rest[0].1).error("location aliases refer in a circle"));
        }
        pending = rest;
    }
    Ok(done)
}

/// A location that may use aliases; `None` if one is not known yet.
fn loc_term(c: &mut Cursor, known: &HashMap<String, Loc>) -> Result<Option<Loc>> {
    if c.eat("#") {
        let name = c.ident()?;
        return Ok(known.get(name).cloned());
    }
    let save = c.save();
    if c.keyword("fused") {
        let parts = terms::list(c, "[", "]", |c| c.nest(|c| loc_term(c, known)))?;
        let parts: Option<Vec<Loc>> = parts.into_iter().collect();
        return Ok(parts.map(|p| Loc::Fused(p.into())));
    }
    c.restore(save);
    terms::loc_term(c).map(Some)
}

struct Parser<'a, 'b> {
    cx: &'a Context,
    c: &'a mut Cursor<'b>,
    aliases: HashMap<String, Loc>,
    values: Vec<HashMap<String, ValueId>>,
}

impl Parser<'_, '_> {
    fn skip_aliases(&mut self) -> Result<()> {
        while self.c.at("#loc") {
            self.c.until(b"\n");
        }
        Ok(())
    }

    fn loc(&mut self) -> Result<Loc> {
        if !self.c.eat("loc(") {
            return Ok(Loc::Unknown);
        }
        let l = loc_term(self.c, &self.aliases)?;
        self.c.need(")")?;
        l.ok_or_else(|| self.c.error("unknown location alias"))
    }

    /// A dictionary between the given brackets, if it is there.
    fn attributes(&mut self, open: &str, close: &str) -> Result<Attrs> {
        let mut out = Attrs::new();
        if !self.c.at(open) {
            return Ok(out);
        }
        let items = terms::list(self.c, open, close, |c| {
            let name = if c.at("\"") { c.string()? } else { c.ident()?.to_string() };
            c.need("=")?;
            let value = if c.eat("#silure<") {
                let text = c.string()?;
                c.need(">")?;
                let mut inner = Cursor::new("attribute", &text);
                let a = terms::attr(&mut inner)?;
                inner.end()?;
                a
            } else {
                let a = terms::attr(c)?;
                if c.eat(":") {
                    c.ident()?;
                }
                a
            };
            Ok((name, value))
        })?;
        for (n, v) in items {
            out.set(&n, v);
        }
        Ok(out)
    }

    fn ty(&mut self) -> Result<Type> {
        self.c.need("!silure<")?;
        let text = self.c.string()?;
        self.c.need(">")?;
        super::parse_type(&text)
    }

    fn item(&mut self, m: &mut Module) -> Result<()> {
        let what = self.c.string()?;
        self.c.need("()")?;
        let mut f = Func::new("", FuncKind::Private);
        if what == "silure.func" {
            self.c.need("(")?;
            self.values = vec![HashMap::new()];
            let body = f.body;
            self.region(&mut f, body)?;
            self.c.need(")")?;
        }
        let a = self.attributes("{", "}")?;
        self.c.need(":")?;
        self.c.need("() -> ()")?;
        self.loc()?;
        self.attributes_of(&what, &a)?;
        let name: Arc<str> = a.str("sym_name").into();
        let tensor = |a: &Attrs| match a.get("type") {
            Some(Attr::Type(t)) => t.as_tensor().cloned(),
            _ => None,
        };
        match what.as_str() {
            "silure.module" => {
                m.name = name;
                m.attrs = inner_attrs(a.str("attrs"))?;
            }
            "silure.weight" => {
                let ty = tensor(&a).ok_or_else(|| self.c.error("a weight has a type"))?;
                let mut c = Cursor::new("weight", a.str("expr"));
                m.weights.push(Weight { name, ty, expr: terms::weight_expr(&mut c)? });
            }
            "silure.state" => {
                let ty = tensor(&a).ok_or_else(|| self.c.error("a state has a type"))?;
                m.states.push(State { name, ty });
            }
            "silure.func" => {
                self.finish_func(&mut f, name, &a)?;
                m.funcs.push(f);
            }
            _ => return Err(self.c.error(format!("`{what}` is not part of a module"))),
        }
        Ok(())
    }

    /// Parts of a module carry their attributes, all of them and no others.
    fn attributes_of(&self, what: &str, a: &Attrs) -> Result<()> {
        let wanted: &[&str] = match what {
            "silure.module" => &["attrs", "sym_name"],
            "silure.weight" => &["expr", "sym_name", "type"],
            "silure.state" => &["sym_name", "type"],
            "silure.func" => &FUNC_ATTRIBUTES,
            _ => return Err(self.c.error(format!("`{what}` is not part of a module"))),
        };
        if a.iter().map(|(n, _)| n).eq(wanted.iter().copied()) {
            return Ok(());
        }
        let have: Vec<&str> = a.iter().map(|(n, _)| n).collect();
        Err(self
            .c
            .error(format!("`{what}` has the wrong attributes"))
            .need(wanted.join(", "), have.join(", ")))
    }

    fn finish_func(&mut self, f: &mut Func, name: Arc<str>, a: &Attrs) -> Result<()> {
        let strs = |n: &str| match a.get(n) {
            Some(Attr::Strs(v)) => v.clone(),
            _ => vec![],
        };
        f.name = name;
        f.kind = match a.str("kind") {
            "entry" => FuncKind::Entry,
            "kernel" => FuncKind::Kernel,
            "func" => FuncKind::Private,
            k => return Err(self.c.error(format!("`{k}` is not a kind of function"))),
        };
        f.arg_names = strs("arg_names");
        f.result_names = strs("result_names");
        for t in strs("result_types") {
            f.result_types.push(super::parse_type(&t)?);
        }
        for s in strs("symbols") {
            f.symbols.push(super::parse_symbol(&s)?);
        }
        f.attrs = inner_attrs(a.str("attrs"))?;
        for v in strs("variants") {
            let mut c = Cursor::new("variant", &v);
            let func = c.symbol()?;
            c.keyword("when");
            let mut guards = vec![terms::guard(&mut c)?];
            while c.eat(",") {
                guards.push(terms::guard(&mut c)?);
            }
            f.variants.push(Variant { func, guards });
        }
        Ok(())
    }

    fn region(&mut self, f: &mut Func, r: RegionId) -> Result<()> {
        self.c.need("{")?;
        if self.c.eat("^") {
            self.c.until(b"(:");
            if self.c.eat("(") {
                while !self.c.eat(")") {
                    let name = self.c.sigil("%")?.to_string();
                    self.c.need(":")?;
                    let t = self.ty()?;
                    let v = f.add_region_arg(r, t);
                    self.define(name, v);
                    self.loc()?;
                    self.c.eat(",");
                }
            }
            self.c.need(":")?;
        }
        while !self.c.eat("}") {
            let op = self.op(f)?;
            f.append(op, r);
        }
        Ok(())
    }

    fn define(&mut self, name: String, v: ValueId) {
        if let Some(scope) = self.values.last_mut() {
            scope.insert(name, v);
        }
    }

    fn op(&mut self, f: &mut Func) -> Result<OpId> {
        let mut result = None;
        if self.c.at("%") {
            let name = self.c.sigil("%")?.to_string();
            if self.c.eat(":") {
                self.c.unsigned()?;
            }
            self.c.need("=")?;
            result = Some(name);
        }
        let name = self.c.string()?;
        let Some(def) = name.strip_prefix(PREFIX).and_then(|n| self.cx.op(n)) else {
            return Err(self.c.error(format!("unknown op `{name}`")));
        };
        let names = terms::list(self.c, "(", ")", |c| {
            let base = c.sigil("%")?.to_string();
            Ok(if c.eat("#") { format!("{base}#{}", c.unsigned()?) } else { base })
        })?;
        let mut operands = Vec::new();
        for n in names {
            let v = self.values.iter().rev().find_map(|s| s.get(&n)).copied();
            let v = v.ok_or_else(|| self.c.error(format!("value `%{n}` is not defined here")))?;
            operands.push(Some(v));
        }
        let mut attrs = self.attributes("<{", "}>")?;
        let mut regions = Vec::new();
        if self.c.eat("(") {
            loop {
                let r = f.new_region();
                self.values.push(HashMap::new());
                self.nested_region(f, r)?;
                self.values.pop();
                regions.push(r);
                if !self.c.eat(",") {
                    break;
                }
            }
            self.c.need(")")?;
        }
        for (n, v) in self.attributes("{", "}")?.iter() {
            attrs.set(n, v.clone());
        }
        self.c.need(":")?;
        // The operand types repeat what the operands already say.
        self.types()?;
        self.c.need("->")?;
        let types = if self.c.at("(") { self.types()? } else { vec![self.ty()?] };
        let loc = self.loc()?;
        if let Some(Attr::Ints(absent)) = attrs.remove("absent") {
            for i in absent {
                let i = usize::try_from(i).unwrap_or(usize::MAX);
                if i > operands.len() {
                    return Err(self.c.error("`absent` names an operand that cannot be"));
                }
                operands.insert(i, None);
            }
        }
        let loc = if def.is(Traits::TERMINATOR) { Loc::Unknown } else { loc };
        let op = make_op(f, def, operands, complete(def, attrs), &regions, &types, loc);
        if let Some(base) = result {
            let results = f.op(op).results.clone();
            for (i, v) in results.iter().enumerate() {
                self.define(format!("{base}#{i}"), *v);
            }
            if let [v] = results.as_slice() {
                self.define(base, *v);
            }
        }
        Ok(op)
    }

    fn nested_region(&mut self, f: &mut Func, r: RegionId) -> Result<()> {
        if self.values.len() > 100 {
            return Err(self.c.error("regions are nested more than 100 deep"));
        }
        self.region(f, r)
    }

    fn types(&mut self) -> Result<Vec<Type>> {
        self.c.need("(")?;
        let mut out = Vec::new();
        if !self.c.eat(")") {
            loop {
                out.push(self.ty()?);
                if !self.c.eat(",") {
                    break;
                }
            }
            self.c.need(")")?;
        }
        Ok(out)
    }
}

fn inner_attrs(text: &str) -> Result<Attrs> {
    if text.is_empty() {
        return Ok(Attrs::new());
    }
    let mut c = Cursor::new("attributes", text);
    let a = terms::attrs(&mut c)?;
    c.end()?;
    Ok(a)
}
