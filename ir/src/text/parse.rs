//! Parsing the pretty form.

use std::collections::HashMap;
use std::sync::Arc;

use super::ParseOptions;
use super::cursor::Cursor;
use super::terms;
use crate::builder::learn;
use crate::context::Context;
use crate::diag::{Diagnostic, Loc, Result};
use crate::func::{Func, FuncKind, OpId, RegionId, ValueId, Variant};
use crate::module::{Module, State};
use crate::op::{Arity, OpDef};
use crate::types::Type;
use crate::weight::Weight;

pub(super) fn parse(cx: &Context, file: &str, text: &str, options: ParseOptions) -> Result<Module> {
    let mut c = Cursor::new(file, text);
    if !c.keyword("module") {
        return Err(c.expected("`module`"));
    }
    let mut m = Module { name: c.symbol()?, ..Module::default() };
    // A module's attributes and its body both begin with a brace; attributes hold `name =`.
    let save = c.save();
    match terms::attrs(&mut c) {
        Ok(a) if c.at("{") => m.attrs = a,
        _ => c.restore(save),
    }
    c.need("{")?;
    while !c.eat("}") {
        item(cx, &mut c, &mut m, options)?;
    }
    c.end()?;
    Ok(m)
}

fn item(cx: &Context, c: &mut Cursor, m: &mut Module, options: ParseOptions) -> Result<()> {
    let save = c.save();
    let kind = match c.ident()? {
        "weight" => {
            let name = c.symbol()?;
            c.need(":")?;
            let ty = terms::tensor_type(c)?;
            c.need("=")?;
            m.weights.push(Weight { name, ty, expr: terms::weight_expr(c)? });
            return Ok(());
        }
        "state" => {
            let name = c.symbol()?;
            c.need(":")?;
            m.states.push(State { name, ty: terms::tensor_type(c)? });
            return Ok(());
        }
        "entry" => FuncKind::Entry,
        "func" => FuncKind::Private,
        "kernel" => FuncKind::Kernel,
        _ => {
            c.restore(save);
            return Err(c.expected("`weight`, `state`, `entry`, `func` or `kernel`"));
        }
    };
    let name = c.symbol()?;
    let mut p = FuncParser { cx, options, f: Func::new(&name, kind), scopes: vec![HashMap::new()] };
    p.signature(c)?;
    let body = p.f.body;
    p.ops(c, body)?;
    m.funcs.push(p.f);
    Ok(())
}

struct FuncParser<'a> {
    cx: &'a Context,
    options: ParseOptions,
    f: Func,
    scopes: Vec<HashMap<String, ValueId>>,
}

impl FuncParser<'_> {
    fn signature(&mut self, c: &mut Cursor) -> Result<()> {
        if c.at("<") {
            self.f.symbols = terms::list(c, "<", ">", terms::symbol)?;
        }
        let args = terms::list(c, "(", ")", |c| {
            let id = c.sigil("%")?.to_string();
            let name = if c.at("\"") { c.string()? } else { id.clone() };
            c.need(":")?;
            Ok((id, name, terms::ty(c)?))
        })?;
        for (id, name, ty) in args {
            let v = self.f.add_arg(&name, ty);
            self.define(c, &id, v)?;
        }
        if c.eat("->") {
            let results = terms::list(c, "(", ")", |c| {
                let name = if c.at("\"") { c.string()? } else { c.ident()?.to_string() };
                c.need(":")?;
                Ok((name, terms::ty(c)?))
            })?;
            for (name, ty) in results {
                self.f.result_names.push(name.into());
                self.f.result_types.push(ty);
            }
        }
        let save = c.save();
        match terms::attrs(c) {
            Ok(a) if c.at("{") || c.at("variant") => self.f.attrs = a,
            _ => c.restore(save),
        }
        while c.keyword("variant") {
            let func = c.symbol()?;
            if !c.keyword("when") {
                return Err(c.expected("`when`"));
            }
            let mut guards = vec![terms::guard(c)?];
            while c.eat(",") {
                guards.push(terms::guard(c)?);
            }
            self.f.variants.push(Variant { func, guards });
        }
        Ok(())
    }

    fn define(&mut self, c: &Cursor, name: &str, v: ValueId) -> Result<()> {
        if self.scopes.iter().any(|s| s.contains_key(name)) {
            return Err(c.error(format!("value `%{name}` is defined twice")));
        }
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            self.f.value_mut(v).name = Some(name.into());
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_string(), v);
        }
        Ok(())
    }

    fn ops(&mut self, c: &mut Cursor, region: RegionId) -> Result<()> {
        c.need("{")?;
        while !c.eat("}") {
            if c.is_end() {
                return Err(c.expected("`}`"));
            }
            let op = self.op(c)?;
            self.f.append(op, region);
        }
        Ok(())
    }

    fn op(&mut self, c: &mut Cursor) -> Result<OpId> {
        c.skip();
        let place = c.loc();
        let mut results = Vec::new();
        if c.at("%") {
            loop {
                results.push(c.sigil("%")?.to_string());
                if !c.eat(",") {
                    break;
                }
            }
            c.need("=")?;
        }
        c.skip();
        let at = c.loc();
        let def = self.op_def(c, &at)?;
        let mut operands = Vec::new();
        if c.at("%") || c.at("_") {
            loop {
                if c.eat("_") {
                    operands.push(None);
                } else {
                    let at = c.save();
                    let name = c.sigil("%")?;
                    match self.scopes.iter().rev().find_map(|s| s.get(name)) {
                        Some(v) => operands.push(Some(*v)),
                        None => {
                            c.restore(at);
                            return Err(c.error(format!("value `%{name}` is not defined here")));
                        }
                    }
                }
                if !c.eat(",") {
                    break;
                }
            }
        }
        let attrs = complete(def, terms::attrs(c)?);
        let mut regions = Vec::new();
        while c.keyword("do") {
            regions.push(c.nest(|c| self.region(c))?);
        }
        let mut types = Vec::new();
        if !results.is_empty() {
            c.need(":")?;
            loop {
                types.push(terms::ty(c)?);
                if !c.eat(",") {
                    break;
                }
            }
            if types.len() != results.len() {
                return Err(c.error("one type per result").need(results.len(), types.len()));
            }
        }
        let loc = match terms::loc(c)? {
            Some(l) => l,
            None if self.options.locate => place,
            None => Loc::Unknown,
        };
        let names: Vec<String> = results;
        let op = make_op(&mut self.f, def, operands, attrs, &regions, &types, loc);
        for (i, name) in names.iter().enumerate() {
            let v = self.f.op(op).results[i];
            self.define(c, name, v)?;
        }
        Ok(op)
    }

    fn op_def(&self, c: &mut Cursor, at: &Loc) -> Result<&'static OpDef> {
        let name = c.ident()?;
        let full = if name.contains('.') { name.to_string() } else { format!("core.{name}") };
        self.cx.op(&full).ok_or_else(|| Diagnostic {
            loc: at.clone(),
            ..c.error(format!("unknown op `{name}`"))
        })
    }

    fn region(&mut self, c: &mut Cursor) -> Result<RegionId> {
        let r = self.f.new_region();
        self.scopes.push(HashMap::new());
        if c.at("(") {
            let args = terms::list(c, "(", ")", |c| {
                let id = c.sigil("%")?.to_string();
                c.need(":")?;
                Ok((id, terms::ty(c)?))
            })?;
            for (id, ty) in args {
                let v = self.f.add_region_arg(r, ty);
                self.define(c, &id, v)?;
            }
        }
        self.ops(c, r)?;
        self.scopes.pop();
        Ok(r)
    }
}

/// Attributes as the declared kinds, defaults filled in.
pub(super) fn complete(def: &OpDef, given: crate::Attrs) -> crate::Attrs {
    let mut out = crate::Attrs::new();
    for (name, a) in given.iter() {
        let a = match def.attr(name) {
            Some(d) => a.clone().coerce(d.kind),
            None => a.clone(),
        };
        out.set(name, a);
    }
    for d in def.attrs {
        if let (None, Some(v)) = (out.get(d.name), d.default.value()) {
            out.set(d.name, v);
        }
    }
    out
}

/// Makes an op as written, without inferring: the verifier compares afterwards.
pub(super) fn make_op(
    f: &mut Func,
    def: &'static OpDef,
    mut operands: Vec<Option<ValueId>>,
    attrs: crate::Attrs,
    regions: &[RegionId],
    types: &[Type],
    loc: Loc,
) -> OpId {
    let fixed = def.operands.iter().filter(|o| o.arity != Arity::Many).count();
    while operands.len() < fixed {
        operands.push(None);
    }
    let op = f.create_op(def, &operands, attrs, regions, loc);
    for t in types {
        f.add_result(op, t.clone());
    }
    learn(f, op);
    op
}

/// The shared text of names.
pub(super) fn arc(s: &str) -> Arc<str> {
    s.into()
}
