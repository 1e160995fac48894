//! Operands as they are written, names resolved.

use super::lexer::Tok;
use super::{Body, Result};
use crate::code::{MaskKind, Reg, Special, Src};

/// A variable.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Var {
    /// Offset in a block's shared memory.
    Shared(u64),
    /// Shared memory whose size is given at launch.
    Dynamic,
    /// Offset in a lane's own memory.
    Local(u64),
    /// Offset in the kernel's parameters.
    Param(u64),
    /// Number of a variable of the module.
    Global(u32),
}

/// An operand.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Arg<'a> {
    Reg(Reg),
    Not(Reg),
    Int(u64),
    F32(u32),
    F64(u64),
    Special(Special),
    Var(Var, i64),
    Vec(Vec<Arg<'a>>),
    Mem(Box<Arg<'a>>, i64),
    Pair(Box<Arg<'a>>, Box<Arg<'a>>),
    List(Vec<Arg<'a>>),
    /// A label or a function.
    Name(&'a str),
    /// `_`.
    Sink,
}

impl Var {
    pub(crate) fn src(self, offset: i64) -> Src {
        match self {
            Var::Shared(at) | Var::Local(at) => Src::Imm(at.wrapping_add_signed(offset)),
            Var::Param(at) => Src::Param(at.wrapping_add_signed(offset)),
            Var::Dynamic => Src::Dynamic(offset),
            Var::Global(i) => Src::Global(i, offset),
        }
    }
}

/// A special register by its name, with the axis that follows a dot.
fn special(name: &str, axis: Option<&str>) -> Option<Special> {
    let axis = match axis {
        Some("x") => Some(0),
        Some("y") => Some(1),
        Some("z") => Some(2),
        Some(_) => return None,
        None => None,
    };
    Some(match (name, axis) {
        ("%tid", Some(a)) => Special::Tid(a),
        ("%ntid", Some(a)) => Special::Ntid(a),
        ("%ctaid", Some(a)) => Special::Ctaid(a),
        ("%nctaid", Some(a)) => Special::Nctaid(a),
        ("%laneid", None) => Special::Lane,
        ("%warpid", None) => Special::Warp,
        ("%nwarpid", None) => Special::Warps,
        ("%lanemask_eq", None) => Special::LaneMask(MaskKind::Eq),
        ("%lanemask_le", None) => Special::LaneMask(MaskKind::Le),
        ("%lanemask_lt", None) => Special::LaneMask(MaskKind::Lt),
        ("%lanemask_ge", None) => Special::LaneMask(MaskKind::Ge),
        ("%lanemask_gt", None) => Special::LaneMask(MaskKind::Gt),
        ("%clock" | "%clock64" | "%globaltimer", None) => Special::Clock,
        ("%dynamic_smem_size", None) => Special::DynamicShared,
        ("%total_smem_size", None) => Special::TotalShared,
        ("%smid" | "%gridid", None) => Special::Zero,
        _ => return None,
    })
}

impl<'a> Body<'_, 'a> {
    /// One operand.
    pub(crate) fn operand(&mut self, depth: usize) -> Result<Arg<'a>> {
        let c = &mut self.c;
        if depth > 4 {
            return Err(c.error("operands are nested too deeply"));
        }
        let Some(t) = c.next() else { return Err(c.error("an operand is missing")) };
        let arg = match t {
            Tok::Punct(b'{') => Arg::Vec(self.list(b'}', depth)?),
            Tok::Punct(b'(') => Arg::List(self.list(b')', depth)?),
            Tok::Punct(b'[') => {
                let base = self.operand(depth + 1)?;
                let c = &mut self.c;
                let offset = match c.peek() {
                    Some(Tok::Punct(b'+' | b'-')) => c.signed()?,
                    _ => 0,
                };
                c.expect(b']')?;
                Arg::Mem(base.into(), offset)
            }
            Tok::Punct(b'!') => match self.operand(depth + 1)? {
                Arg::Reg(r) if r.bits == 1 => Arg::Not(r),
                _ => return Err(self.c.error("`!` is for predicates")),
            },
            Tok::Punct(b'-') => match self.operand(depth + 1)? {
                Arg::Int(n) => Arg::Int(n.wrapping_neg()),
                Arg::F32(b) => Arg::F32(b ^ 1 << 31),
                Arg::F64(b) => Arg::F64(b ^ 1 << 63),
                _ => return Err(self.c.error("`-` is for literals")),
            },
            Tok::Int(n) => Arg::Int(n),
            Tok::F32(b) => Arg::F32(b),
            Tok::F64(b) => Arg::F64(b),
            Tok::Id("_") => Arg::Sink,
            Tok::Id("WARP_SZ") => Arg::Int(32),
            Tok::Id(name) => self.named(name)?,
            _ => {
                self.c.pos -= 1;
                return Err(self.c.error(format!("{} is no operand", self.c.shown())));
            }
        };
        if self.c.eat(b'|') {
            let other = self.operand(depth + 1)?;
            return Ok(Arg::Pair(arg.into(), other.into()));
        }
        Ok(arg)
    }

    fn named(&mut self, name: &'a str) -> Result<Arg<'a>> {
        if let Some(r) = self.register(name)? {
            return Ok(Arg::Reg(r));
        }
        if let Some(v) = self.variable_named(name)? {
            let c = &mut self.c;
            // Inside brackets the offset is the brackets' business: both give the same address.
            let offset = match c.peek() {
                Some(Tok::Punct(b'+' | b'-')) => c.signed()?,
                _ => 0,
            };
            return Ok(Arg::Var(v, offset));
        }
        if name.starts_with('%') {
            let axis = match self.c.peek() {
                Some(Tok::Dot(a)) => Some(a),
                _ => None,
            };
            if let Some(s) = special(name, axis).or_else(|| special(name, None)) {
                self.c.pos += (axis.is_some() && special(name, None).is_none()) as usize;
                return Ok(Arg::Special(s));
            }
            return Err(self.c.error(format!(
                "`{name}` is not declared, nor a special register that is emulated"
            )));
        }
        Ok(Arg::Name(name))
    }

    /// Operands up to a closing bracket.
    fn list(&mut self, close: u8, depth: usize) -> Result<Vec<Arg<'a>>> {
        let mut out = Vec::new();
        while !self.c.eat(close) {
            out.push(self.operand(depth + 1)?);
            if !self.c.eat(b',') && self.c.peek() != Some(Tok::Punct(close)) {
                return Err(self.c.error(format!("`,` is needed, {} is there", self.c.shown())));
            }
        }
        Ok(out)
    }
}
