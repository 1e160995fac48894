//! Types, dims, attributes, constants, weights and locations: the terms both text forms share.

use std::fmt::Write;
use std::sync::Arc;

use silure_types::Elem;

use super::cursor::Cursor;
use crate::attr::{Attr, Attrs};
use crate::diag::{Loc, Result, quote};
use crate::dim::{Cmp, Dim, Guard, SymDecl};
use crate::ggml::{Form, Part};
use crate::tensor::{Num, Tensor, byte_len};
use crate::types::{Space, TensorType, TileType, Type};
use crate::weight::WeightExpr;

/// Parses `open item, item close`.
pub(super) fn list<T>(
    c: &mut Cursor,
    open: &str,
    close: &str,
    mut item: impl FnMut(&mut Cursor) -> Result<T>,
) -> Result<Vec<T>> {
    c.need(open)?;
    let mut out = Vec::new();
    if !c.eat(close) {
        loop {
            out.push(item(c)?);
            if !c.eat(",") {
                break;
            }
        }
        c.need(close)?;
    }
    Ok(out)
}

pub(super) fn dim(c: &mut Cursor) -> Result<Dim> {
    c.nest(|c| {
        let mut sum = if c.eat("-") { -product(c)? } else { product(c)? };
        loop {
            if c.eat("+") {
                sum = sum + product(c)?;
            } else if c.at("-") && !c.at("->") {
                c.need("-")?;
                sum = sum - product(c)?;
            } else {
                return Ok(sum);
            }
        }
    })
}

fn product(c: &mut Cursor) -> Result<Dim> {
    let mut p = factor(c)?;
    while c.eat("*") {
        p = p * factor(c)?;
    }
    Ok(p)
}

fn factor(c: &mut Cursor) -> Result<Dim> {
    if let Some(v) = c.try_int()? {
        return Ok(Dim::Const(v));
    }
    if c.eat("(") {
        let d = dim(c)?;
        c.need(")")?;
        return Ok(d);
    }
    let name = c.ident()?;
    if !c.at("(") {
        return Ok(if name == "invalid" { Dim::INVALID } else { Dim::sym(name) });
    }
    c.need("(")?;
    let a = dim(c)?;
    c.need(",")?;
    let b = dim(c)?;
    c.need(")")?;
    Ok(match name {
        "floordiv" => a.floordiv(&b),
        "ceildiv" => a.ceildiv(&b),
        "mod" => a.modulo(&b),
        "min" => a.minimum(&b),
        "max" => a.maximum(&b),
        _ => return Err(c.error(format!("`{name}` is not a function of dims"))),
    })
}

/// `s: 1..512 mod 8 runtime`.
pub(super) fn symbol(c: &mut Cursor) -> Result<SymDecl> {
    let mut s = SymDecl::new(c.ident()?);
    if c.eat(":") {
        s.min = c.int()?;
        c.need("..")?;
        s.max = c.try_int()?.unwrap_or(i64::MAX);
        if s.min > s.max {
            return Err(c.error(format!("the range of `{}` is empty", s.name)));
        }
    }
    if c.keyword("mod") {
        s.multiple = c.int()?;
        if s.multiple < 1 {
            return Err(c.error("a multiple is at least 1"));
        }
    }
    s.runtime = c.keyword("runtime");
    Ok(s)
}

pub(super) fn guard(c: &mut Cursor) -> Result<Guard> {
    let left = dim(c)?;
    let cmp = [Cmp::Eq, Cmp::Ne, Cmp::Le, Cmp::Lt].into_iter().find(|k| c.eat(k.symbol()));
    let Some(cmp) = cmp else { return Err(c.expected("`==`, `!=`, `<=` or `<`")) };
    Ok(Guard { left, cmp, right: dim(c)? })
}

pub(super) fn tensor_type(c: &mut Cursor) -> Result<TensorType> {
    match ty(c)? {
        Type::Tensor(t) => Ok(t),
        t => Err(c.error(format!("a tensor type was needed, {t} is present"))),
    }
}

pub(super) fn ty(c: &mut Cursor) -> Result<Type> {
    c.nest(ty_inner)
}

fn ty_inner(c: &mut Cursor) -> Result<Type> {
    if c.eat("!") {
        let name: Arc<str> = c.ident()?.into();
        c.need("<")?;
        let body = c.string()?;
        c.need(">")?;
        return Ok(Type::Ext(name, body.into()));
    }
    let word = c.ident()?;
    if let Some(elem) = Elem::parse(word) {
        if !c.at("[") {
            return Ok(Type::Scalar(elem));
        }
        let dims = list(c, "[", "]", dim)?;
        let encoding = if c.eat("{") {
            let e = c.until(b"}").trim().into();
            c.need("}")?;
            Some(e)
        } else {
            None
        };
        let device = if c.eat("@") { Some(device(c)?) } else { None };
        return Ok(Type::Tensor(TensorType::new(elem, dims).placed(encoding, device)));
    }
    if word == "index" {
        return Ok(Type::Index);
    }
    c.need("<")?;
    let t = match word {
        "state" => Type::State(tensor_type(c)?),
        "seq" => Type::Seq(Box::new(ty(c)?)),
        "opt" => Type::Opt(Box::new(ty(c)?)),
        "tile" => Type::Tile(tile(c)?),
        "vec" => {
            let t = tile(c)?;
            match t.shape.as_slice() {
                [n] if *n < 1 << 16 => Type::Vec(*n as u32, t.elem),
                _ => return Err(c.error("a vector has one dim")),
            }
        }
        "view" => {
            let e = c.ident()?;
            let elem = Elem::parse(e).ok_or_else(|| c.error(format!("unknown element `{e}`")))?;
            c.need(",")?;
            match c.unsigned()? {
                rank @ 0..=8 => Type::View(elem, rank as usize),
                rank => return Err(c.error("a view has at most 8 axes").need("0..8", rank)),
            }
        }
        "ptr" => {
            let e = c.ident()?;
            let elem = Elem::parse(e).ok_or_else(|| c.error(format!("unknown element `{e}`")))?;
            c.need(",")?;
            let s = c.ident()?;
            let space =
                Space::parse(s).ok_or_else(|| c.error(format!("unknown memory space `{s}`")))?;
            Type::Ptr(elem, space)
        }
        _ => return Err(c.error(format!("unknown type `{word}`"))),
    };
    c.need(">")?;
    Ok(t)
}

fn device(c: &mut Cursor) -> Result<Arc<str>> {
    let d = c.until(b" ,)]}>\"\n").trim();
    if d.is_empty() { Err(c.expected("a device")) } else { Ok(d.into()) }
}

/// `128x64xf16`.
fn tile(c: &mut Cursor) -> Result<TileType> {
    c.skip();
    let text = c.until(b">\n").trim();
    let mut parts: Vec<&str> = text.split('x').collect();
    let bad = || c.error(format!("`{text}` is not a tile such as 128x64xf16"));
    let elem = parts.pop().and_then(Elem::parse).ok_or_else(bad)?;
    let shape =
        parts.iter().map(|p| p.parse().map_err(|_| bad())).collect::<Result<Vec<usize>>>()?;
    if byte_len(elem, &shape)? > 1 << 30 {
        return Err(c.error(format!("the tile {text} is larger than 1 GiB")));
    }
    Ok(TileType { elem, shape })
}

/// The text of a float: shortest form that reads back to the same value, always with `.`, `e`,
/// `inf` or `nan` in it.
pub(super) fn float(v: f64) -> String {
    if v.is_nan() { "nan".into() } else { format!("{v:?}") }
}

/// The text of a constant: `dense<i64[2]: 1, 2>`; long ones in hex, `dense<f32[99]: "0a…">`.
pub fn dense(t: &Tensor) -> String {
    const PLAIN: usize = 32;
    let mut s = format!("dense<{}: ", t.ty());
    if t.elem().is_str() {
        for i in 0..t.len() {
            s.push_str(if i > 0 { ", " } else { "" });
            // Every handle comes from the table; nothing else can be printed for one that does not.
            s.push_str(&crate::diag::quote(&t.str(i).unwrap_or_default()));
        }
        s.push('>');
        return s;
    }
    let exact = |i: usize| {
        let n = t.get(i);
        !n.f().is_nan() && n.encode(t.elem()) == t.bits(i)
    };
    if t.len() <= PLAIN && (0..t.len()).all(exact) {
        for i in 0..t.len() {
            let sep = if i > 0 { ", " } else { "" };
            let _ = match t.get(i) {
                Num::F(v) => write!(s, "{sep}{}", float(v)),
                Num::I(v) => write!(s, "{sep}{v}"),
            };
        }
    } else {
        s.push('"');
        t.bytes().iter().for_each(|b| {
            let _ = write!(s, "{b:02x}");
        });
        s.push('"');
    }
    s.push('>');
    s
}

pub(super) fn parse_dense(c: &mut Cursor) -> Result<Tensor> {
    if !c.keyword("dense") {
        return Err(c.expected("`dense<`"));
    }
    c.need("<")?;
    let ty = tensor_type(c)?;
    c.need(":")?;
    let Some(shape) = ty.shape() else { return Err(c.error("a constant has a known shape")) };
    let need = byte_len(ty.elem, &shape)?;
    let t = if ty.elem.is_str() {
        let mut strs = Vec::new();
        while !c.at(">") {
            strs.push(c.string()?);
            if !c.eat(",") {
                break;
            }
        }
        let count = need / 8;
        if strs.len() != count {
            let e = c.error(format!("wrong number of elements for {ty}"));
            return Err(e.need(count, strs.len()));
        }
        Tensor::from_strs(&shape, &strs)?
    } else if c.at("\"") {
        let hex = c.string()?;
        let byte =
            |i: usize| hex.get(2 * i..2 * i + 2).and_then(|h| u8::from_str_radix(h, 16).ok());
        let data: Option<Vec<u8>> = (0..hex.len() / 2).map(byte).collect();
        match data {
            Some(d) if hex.len() % 2 == 0 && d.len() == need => Tensor::new(ty.elem, &shape, d)?,
            _ => {
                return Err(c
                    .error(format!("{ty} needs {need} bytes of hex"))
                    .need(need, hex.len() / 2));
            }
        }
    } else {
        let mut nums = Vec::new();
        while !c.at(">") {
            let text = c.number();
            let bad = || c.error(format!("`{text}` is not a number of type {}", ty.elem));
            nums.push(if ty.elem.is_float() {
                Num::F(text.parse().map_err(|_| bad())?)
            } else {
                Num::I(text.parse::<i128>().map_err(|_| bad())?)
            });
            if !c.eat(",") {
                break;
            }
        }
        let count: usize = shape.iter().product();
        if nums.len() != count {
            return Err(c
                .error(format!("wrong number of elements for {ty}"))
                .need(count, nums.len()));
        }
        Tensor::from_nums(ty.elem, &shape, nums.into_iter())?
    };
    c.need(">")?;
    Ok(t)
}

/// The pretty text of an attribute value.
pub(super) fn attr_text(a: &Attr) -> String {
    fn join<T>(v: &[T], f: impl Fn(&T) -> String) -> String {
        format!("[{}]", v.iter().map(f).collect::<Vec<_>>().join(", "))
    }
    match a {
        Attr::Bool(v) => v.to_string(),
        Attr::Int(v) => v.to_string(),
        Attr::Float(v) => float(*v),
        Attr::Str(s) => quote(s),
        Attr::Symbol(s) => symbol_text(s),
        Attr::Elem(e) => e.to_string(),
        Attr::Type(t) => format!("type({t})"),
        Attr::Tensor(t) => dense(t),
        Attr::Ints(v) => join(v, i64::to_string),
        Attr::Floats(v) => join(v, |x| float(*x)),
        Attr::Strs(v) => join(v, |x| quote(x)),
        Attr::Dims(v) => format!("dims{}", join(v, Dim::to_string)),
        Attr::Maps(v) => join(v, |m| join(m, i64::to_string)),
    }
}

/// `@name`, quoted where the name needs it.
pub(super) fn symbol_text(s: &str) -> String {
    let plain = !s.is_empty()
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$' | b'-'));
    if plain { format!("@{s}") } else { format!("@{}", quote(s)) }
}

pub(super) fn attr(c: &mut Cursor) -> Result<Attr> {
    if c.at("\"") {
        return Ok(Attr::Str(c.string()?.into()));
    }
    if c.at("@") {
        return Ok(Attr::Symbol(c.symbol()?));
    }
    if c.at("[") {
        return c.nest(list_attr);
    }
    if c.at("dense<") {
        return Ok(Attr::Tensor(Arc::new(parse_dense(c)?)));
    }
    if c.at("dims[") {
        c.need("dims")?;
        return Ok(Attr::Dims(list(c, "[", "]", dim)?));
    }
    if c.at("type(") {
        c.need("type(")?;
        let t = ty(c)?;
        c.need(")")?;
        return Ok(Attr::Type(Box::new(t)));
    }
    let text = c.number();
    scalar_attr(text).ok_or_else(|| c.error(format!("`{text}` is not an attribute value")))
}

fn scalar_attr(text: &str) -> Option<Attr> {
    match text {
        "true" => return Some(Attr::Bool(true)),
        "false" => return Some(Attr::Bool(false)),
        _ => {}
    }
    if let Some(e) = Elem::parse(text) {
        return Some(Attr::Elem(e));
    }
    if let Ok(v) = text.parse::<i64>() {
        return Some(Attr::Int(v));
    }
    match text {
        "nan" => Some(Attr::Float(f64::NAN)),
        "inf" => Some(Attr::Float(f64::INFINITY)),
        "-inf" => Some(Attr::Float(f64::NEG_INFINITY)),
        _ if text.contains(['.', 'e', 'E']) => text.parse().ok().map(Attr::Float),
        _ => None,
    }
}

fn list_attr(c: &mut Cursor) -> Result<Attr> {
    let items = list(c, "[", "]", attr)?;
    let mixed = || c.error("a list holds values of one kind");
    let Some(first) = items.first() else { return Ok(Attr::Ints(vec![])) };
    Ok(match first {
        Attr::Float(_) => Attr::Floats(
            items
                .iter()
                .map(|a| match a {
                    Attr::Float(v) => Ok(*v),
                    _ => Err(mixed()),
                })
                .collect::<Result<_>>()?,
        ),
        Attr::Str(_) => Attr::Strs(
            items
                .iter()
                .map(|a| match a {
                    Attr::Str(v) => Ok(v.clone()),
                    _ => Err(mixed()),
                })
                .collect::<Result<_>>()?,
        ),
        Attr::Ints(_) => Attr::Maps(
            items
                .iter()
                .map(|a| match a {
                    Attr::Ints(v) => Ok(v.clone()),
                    _ => Err(mixed()),
                })
                .collect::<Result<_>>()?,
        ),
        _ => Attr::Ints(
            items
                .iter()
                .map(|a| match a {
                    Attr::Int(v) => Ok(*v),
                    _ => Err(mixed()),
                })
                .collect::<Result<_>>()?,
        ),
    })
}

/// `{name = value, …}`; the braces are optional in the text.
pub(super) fn attrs(c: &mut Cursor) -> Result<Attrs> {
    let mut out = Attrs::new();
    if !c.at("{") {
        return Ok(out);
    }
    let items = list(c, "{", "}", |c| {
        let name = c.ident()?.to_string();
        c.need("=")?;
        Ok((name, attr(c)?))
    })?;
    for (name, value) in items {
        if out.get(&name).is_some() {
            return Err(c.error(format!("attribute `{name}` is given twice")));
        }
        out.set(&name, value);
    }
    Ok(out)
}

/// `loc(...)`, if it is there.
pub(super) fn loc(c: &mut Cursor) -> Result<Option<Loc>> {
    if !c.eat("loc(") {
        return Ok(None);
    }
    let l = loc_term(c)?;
    c.need(")")?;
    Ok(Some(l))
}

pub(super) fn loc_term(c: &mut Cursor) -> Result<Loc> {
    c.nest(|c| {
        if c.keyword("unknown") {
            return Ok(Loc::Unknown);
        }
        if c.keyword("fused") {
            return Ok(Loc::Fused(list(c, "[", "]", loc_term)?.into()));
        }
        let name: Arc<str> = c.string()?.into();
        if !c.eat(":") {
            return Ok(Loc::Name(name));
        }
        let line = c.unsigned()? as u32;
        c.need(":")?;
        Ok(Loc::file(name, line, c.unsigned()? as u32))
    })
}

fn elem_type(c: &mut Cursor) -> Result<Elem> {
    let e = c.ident()?;
    Elem::parse(e).ok_or_else(|| c.error(format!("unknown element type `{e}`")))
}

pub(super) fn weight_expr(c: &mut Cursor) -> Result<WeightExpr> {
    if c.at("dense<") {
        return Ok(WeightExpr::Data(Arc::new(parse_dense(c)?)));
    }
    c.nest(|c| {
        let word = c.ident()?;
        c.need("(")?;
        let sizes = |c: &mut Cursor| list(c, "[", "]", |c| Ok(c.unsigned()? as usize));
        let e = match word {
            "file" => {
                let source = c.string()?.into();
                c.need(",")?;
                let offset = c.unsigned()?;
                c.need(",")?;
                let bytes = c.unsigned()?;
                c.need(",")?;
                WeightExpr::File { source, offset, bytes, ty: tensor_type(c)? }
            }
            "concat" => {
                let mut parts = Vec::new();
                loop {
                    if let Some(axis) = c.try_int()? {
                        let axis = usize::try_from(axis).map_err(|_| c.error("negative axis"))?;
                        break WeightExpr::Concat(parts.into(), axis);
                    }
                    parts.push(weight_expr(c)?);
                    c.need(",")?;
                }
            }
            _ => {
                let inner = Box::new(weight_expr(c)?);
                c.need(",")?;
                match word {
                    "transpose" => WeightExpr::Transpose(inner, sizes(c)?),
                    "reshape" => WeightExpr::Reshape(inner, sizes(c)?),
                    "slice" => {
                        let start = sizes(c)?;
                        c.need(",")?;
                        WeightExpr::Slice(inner, start, sizes(c)?)
                    }
                    "repeat" => {
                        let axis = c.unsigned()? as usize;
                        c.need(",")?;
                        WeightExpr::Repeat(inner, axis, c.unsigned()? as usize)
                    }
                    "cast" => WeightExpr::Cast(inner, elem_type(c)?),
                    "codes" | "scales" | "offsets" => {
                        let elem = elem_type(c)?;
                        c.need(",")?;
                        let block = c.unsigned()? as usize;
                        match word {
                            "codes" => WeightExpr::Codes(inner, elem, block),
                            "offsets" => WeightExpr::Offsets(inner, elem, block),
                            _ => WeightExpr::Scales(inner, elem, block),
                        }
                    }
                    "unpack" => {
                        let form = c.ident()?;
                        let form = Form::ALL.into_iter().find(|f| f.name() == form);
                        let form = form.ok_or_else(|| c.error("unknown block type"))?;
                        c.need(",")?;
                        let part = c.ident()?;
                        let part = Part::ALL.into_iter().find(|p| p.name() == part);
                        let part = part.ok_or_else(|| c.error("unknown part of blocks"))?;
                        WeightExpr::Unpack(inner, form, part)
                    }
                    "mul" => WeightExpr::Mul(inner, Box::new(weight_expr(c)?)),
                    "pack" => WeightExpr::Pack(inner, c.ident()?.into()),
                    _ => return Err(c.error(format!("unknown weight expression `{word}`"))),
                }
            }
        };
        c.need(")")?;
        Ok(e)
    })
}
