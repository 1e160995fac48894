//! Lists: sequences and optionals as values of a plan.
//!
//! A list buffer holds tensors of one element type, each with a shape of its own, or is *absent*
//! (an optional that holds nothing). A sequence is a list that is never absent; an optional tensor is
//! a list of one. Elements are values: copying a list shares them, nothing changes one in place.
//! Positions count from the end where they are negative, and are checked when the instruction runs.

use crate::plan::{Buf, Reg, Val};
use silure_types::Elem;

/// An instruction on lists. The fields are what the summary line of each says.
#[expect(missing_docs, reason = "each variant's line describes its fields")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ListOp {
    /// `list` becomes empty, or absent.
    New { list: Buf, present: bool },
    /// `dst` becomes what `src` is; with `take`, `src` becomes empty.
    Copy { dst: Buf, src: Buf, take: bool },
    /// Puts a copy of tensor `src` of these extents in front of position `at`; the length is the end.
    Insert { list: Buf, at: Val, src: Buf, elem: Elem, dims: Vec<Val> },
    /// Puts the part `from .. from + count` along `axis` of tensor `src` of these extents at the end;
    /// with `squeeze` it loses the axis, `count` being 1.
    Part(Box<Part>),
    /// Removes the element at position `at`.
    Erase { list: Buf, at: Val },
    /// `dst = ` number of elements, −1 if the list is absent.
    Len { dst: Reg, list: Buf },
    /// `dst = ` extent of an axis of the element at position `at`.
    Dim { dst: Reg, list: Buf, at: Val, axis: u32 },
    /// Copies the bytes of the element at position `at` to the start of `buf`.
    Read { buf: Buf, list: Buf, at: Val },
    /// Writes all elements joined along `axis`, a new one with `new_axis`, to `buf`; their other
    /// extents must agree.
    Join { buf: Buf, list: Buf, elem: Elem, axis: u32, new_axis: bool },
}

/// The fields of [`ListOp::Part`].
#[expect(missing_docs, reason = "the instruction describes its fields")]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Part {
    pub list: Buf,
    pub src: Buf,
    pub elem: Elem,
    pub dims: Vec<Val>,
    pub axis: u32,
    pub from: Val,
    pub count: Val,
    pub squeeze: bool,
}

/// How an instruction uses a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Use {
    /// It is a list, not bytes.
    pub list: bool,
    /// It is changed.
    pub written: bool,
}

impl ListOp {
    /// The register written.
    pub fn dst_mut(&mut self) -> Option<&mut Reg> {
        match self {
            ListOp::Len { dst, .. } | ListOp::Dim { dst, .. } => Some(dst),
            _ => None,
        }
    }

    /// Calls `f` on every value read.
    pub fn vals_mut(&mut self, f: &mut dyn FnMut(&mut Val)) {
        match self {
            ListOp::Insert { at, dims, .. } => {
                f(at);
                dims.iter_mut().for_each(f);
            }
            ListOp::Part(p) => {
                p.dims.iter_mut().for_each(&mut *f);
                f(&mut p.from);
                f(&mut p.count);
            }
            ListOp::Erase { at, .. } | ListOp::Dim { at, .. } | ListOp::Read { at, .. } => f(at),
            ListOp::New { .. } | ListOp::Copy { .. } | ListOp::Len { .. } | ListOp::Join { .. } => {
            }
        }
    }

    /// Calls `f` on every buffer named.
    pub fn bufs_mut(&mut self, f: &mut dyn FnMut(&mut Buf, Use)) {
        let (read, change) =
            (Use { list: true, written: false }, Use { list: true, written: true });
        let (bytes, out) =
            (Use { list: false, written: false }, Use { list: false, written: true });
        match self {
            ListOp::New { list, .. } | ListOp::Erase { list, .. } => f(list, change),
            ListOp::Copy { dst, src, take } => {
                f(src, if *take { change } else { read });
                f(dst, change);
            }
            ListOp::Insert { list, src, .. } => {
                f(src, bytes);
                f(list, change);
            }
            ListOp::Part(p) => {
                f(&mut p.src, bytes);
                f(&mut p.list, change);
            }
            ListOp::Len { list, .. } | ListOp::Dim { list, .. } => f(list, read),
            ListOp::Read { buf, list, .. } | ListOp::Join { buf, list, .. } => {
                f(list, read);
                f(buf, out);
            }
        }
    }

    /// The instruction as text.
    pub fn text(&self) -> String {
        let dims = |d: &[Val]| d.iter().map(Val::to_string).collect::<Vec<_>>().join(", ");
        match self {
            ListOp::New { list, present: true } => format!("%{} = list []", list.0),
            ListOp::New { list, present: false } => format!("%{} = list absent", list.0),
            ListOp::Copy { dst, src, take } => {
                format!("%{} = list.{} %{}", dst.0, if *take { "take" } else { "copy" }, src.0)
            }
            ListOp::Insert { list, at, src, elem, dims: d } => {
                format!("list.insert %{}[{at}] = {elem}[{}] %{}", list.0, dims(d), src.0)
            }
            ListOp::Part(p) => {
                let squeeze = if p.squeeze { " squeeze" } else { "" };
                let (x, d) = (p.src.0, dims(&p.dims));
                let range = format!("{}[{}; {}]", p.axis, p.from, p.count);
                format!("list.part %{} += {}[{d}] %{x} axis {range}{squeeze}", p.list.0, p.elem)
            }
            ListOp::Erase { list, at } => format!("list.erase %{}[{at}]", list.0),
            ListOp::Len { dst, list } => format!("r{} = list.len %{}", dst.0, list.0),
            ListOp::Dim { dst, list, at, axis } => {
                format!("r{} = list.dim %{}[{at}], {axis}", dst.0, list.0)
            }
            ListOp::Read { buf, list, at } => format!("list.read %{} = %{}[{at}]", buf.0, list.0),
            ListOp::Join { buf, list, elem, axis, new_axis } => {
                let new = if *new_axis { "new " } else { "" };
                format!("list.join {elem} %{} = %{} {new}axis {axis}", buf.0, list.0)
            }
        }
    }
}
