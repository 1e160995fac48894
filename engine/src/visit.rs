//! Walking over what an instruction names: registers, values, buffers, targets.

use crate::list::Use;
use crate::plan::*;

impl Inst {
    /// The register written.
    pub fn dst(&self) -> Option<Reg> {
        match self {
            Inst::Set { dst, .. }
            | Inst::Bin { dst, .. }
            | Inst::Neg { dst, .. }
            | Inst::Not { dst, .. }
            | Inst::Select { dst, .. }
            | Inst::Dim { dst, .. }
            | Inst::Load { dst, .. } => Some(*dst),
            Inst::List(l) => match **l {
                ListOp::Len { dst, .. } | ListOp::Dim { dst, .. } => Some(dst),
                _ => None,
            },
            _ => None,
        }
    }

    /// The register written, to change it.
    pub fn dst_mut(&mut self) -> Option<&mut Reg> {
        match self {
            Inst::Set { dst, .. }
            | Inst::Bin { dst, .. }
            | Inst::Neg { dst, .. }
            | Inst::Not { dst, .. }
            | Inst::Select { dst, .. }
            | Inst::Dim { dst, .. }
            | Inst::Load { dst, .. } => Some(dst),
            Inst::List(l) => l.dst_mut(),
            _ => None,
        }
    }

    /// Calls `f` on every value read (registers and immediates), so that it may change them.
    pub fn vals_mut(&mut self, f: &mut dyn FnMut(&mut Val)) {
        match self {
            Inst::Set { src: a, .. }
            | Inst::Neg { a, .. }
            | Inst::Not { a, .. }
            | Inst::Load { index: a, .. }
            | Inst::Alloc { bytes: a, .. }
            | Inst::Fill { bytes: a, .. }
            | Inst::BrZero { cond: a, .. } => f(a),
            Inst::Bin { a, b, .. }
            | Inst::Store { index: a, src: b, .. }
            | Inst::View { offset: a, bytes: b, .. } => {
                f(a);
                f(b);
            }
            Inst::Select { cond: a, a: b, b: c, .. }
            | Inst::Check { cond: a, needed: b, present: c, .. }
            | Inst::Copy { dst_offset: a, src_offset: b, bytes: c, .. } => {
                f(a);
                f(b);
                f(c);
            }
            Inst::Launch(l) => {
                l.sizes.iter_mut().for_each(&mut *f);
                if let Tasks::Count(v) = &mut l.tasks {
                    f(v);
                }
                f(&mut l.work);
                f(&mut l.scratch);
            }
            Inst::SetShape { dims, .. } => dims.iter_mut().for_each(f),
            Inst::List(l) => l.vals_mut(f),
            Inst::Dim { .. }
            | Inst::Error { .. }
            | Inst::Free { .. }
            | Inst::Swap { .. }
            | Inst::Jump { .. }
            | Inst::Return => {}
        }
    }

    /// Calls `f` on every value read.
    pub fn vals(&self, f: &mut dyn FnMut(Val)) {
        // Launches and shapes are the only heap-owning forms; walking a clone keeps one traversal.
        self.clone().vals_mut(&mut |v| f(*v));
    }

    /// Calls `f(buffer, written)` on every buffer named.
    pub fn bufs(&self, f: &mut dyn FnMut(Buf, bool)) {
        match self {
            Inst::Load { buf, .. } => f(*buf, false),
            Inst::Store { buf, .. }
            | Inst::Alloc { buf, .. }
            | Inst::Free { buf }
            | Inst::Fill { buf, .. } => f(*buf, true),
            Inst::View { buf, base, .. } => {
                f(*base, false);
                f(*buf, false);
            }
            Inst::Swap { a, b } => {
                f(*a, true);
                f(*b, true);
            }
            Inst::Launch(l) => {
                for arg in &l.args {
                    match *arg {
                        Arg::In(b) => f(b, false),
                        Arg::Out(b) => f(b, true),
                        Arg::None | Arg::Code(_) => {}
                    }
                }
            }
            Inst::Copy { dst, src, .. } => {
                f(*src, false);
                f(*dst, true);
            }
            Inst::List(l) => l.clone().bufs_mut(&mut |b, u: Use| f(*b, u.written)),
            _ => {}
        }
    }

    /// The op it may continue at, other than the next.
    pub fn target(&self) -> Option<u32> {
        match self {
            Inst::BrZero { target, .. } | Inst::Jump { target } => Some(*target),
            _ => None,
        }
    }

    /// Whether the next op can never be reached from it directly.
    pub fn ends(&self) -> bool {
        matches!(self, Inst::Return | Inst::Jump { .. } | Inst::Error { .. })
    }

    /// Whether it computes a register from registers and dims alone.
    pub fn is_size(&self) -> bool {
        matches!(
            self,
            Inst::Set { .. }
                | Inst::Bin { .. }
                | Inst::Neg { .. }
                | Inst::Not { .. }
                | Inst::Select { .. }
                | Inst::Dim { .. }
        )
    }
}
