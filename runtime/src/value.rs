//! What goes in and out of a run besides tensors: sequences and optionals.

use crate::error::{Error, Result};
use crate::session::{check_align, check_bytes, check_dims};
use crate::tensor::{Tensor, TensorRef, tensor_bytes};
use silure_engine::plan::{Port, PortKind};

/// A caller's input.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// A tensor; also what an optional tensor holds.
    Tensor(TensorRef<'a>),
    /// A sequence; also what an optional sequence holds.
    Sequence(&'a [TensorRef<'a>]),
    /// An optional that holds nothing.
    Absent,
}

/// An output.
#[derive(Clone, Debug)]
pub enum Value {
    /// A tensor; also what an optional tensor holds.
    Tensor(Tensor),
    /// A sequence; also what an optional sequence holds.
    Sequence(Vec<Tensor>),
    /// An optional that holds nothing.
    Absent,
}

impl Value {
    /// The tensor, if it is one.
    pub fn tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Tensor(t) => Some(t),
            Value::Sequence(_) | Value::Absent => None,
        }
    }
}

impl<'a> ValueRef<'a> {
    /// The tensors of an input list; `None` if it is absent.
    pub(crate) fn items(&self) -> Option<&[TensorRef<'a>]> {
        match self {
            ValueRef::Tensor(t) => Some(std::slice::from_ref(t)),
            ValueRef::Sequence(s) => Some(s),
            ValueRef::Absent => None,
        }
    }

    /// Checks an input list against its port.
    pub(crate) fn check(&self, name: &str, port: &Port) -> Result<()> {
        use PortKind::*;
        let fits = match self {
            ValueRef::Tensor(_) => matches!(port.kind, Tensor | Optional),
            ValueRef::Sequence(_) => matches!(port.kind, Sequence | OptionalSequence),
            ValueRef::Absent => matches!(port.kind, Optional | OptionalSequence),
        };
        if !fits {
            let present = match self {
                ValueRef::Tensor(_) => "a tensor",
                ValueRef::Sequence(_) => "a sequence",
                ValueRef::Absent => "nothing",
            };
            let needed = kind(port.kind).into();
            return Err(Error::Kind { name: name.into(), needed, present: present.into() });
        }
        for t in self.items().unwrap_or_default() {
            if t.elem != port.elem {
                return Err(Error::Elem {
                    what: "input",
                    name: name.into(),
                    needed: port.elem.name().into(),
                    present: t.elem.name().into(),
                });
            }
            if port.any_shape {
                if t.shape.len() > silure_engine::MAX_RANK {
                    let (needed, present) = (silure_engine::MAX_RANK, t.shape.len());
                    return Err(Error::Rank { what: "input", name: name.into(), needed, present });
                }
            } else {
                check_dims("input", name, port, t.shape)?;
            }
            let bytes = tensor_bytes(t.elem, t.shape)
                .ok_or_else(|| Error::Overflow { what: format!("bytes of input '{name}'") })?;
            check_bytes("input", name, bytes, t.bytes.len())?;
            check_align("input", name, t.elem, t.bytes)?;
        }
        Ok(())
    }
}

/// What a port takes, for messages.
pub(crate) fn kind(kind: PortKind) -> &'static str {
    match kind {
        PortKind::Tensor => "a tensor",
        PortKind::Sequence => "a sequence",
        PortKind::Optional => "a tensor or nothing",
        PortKind::OptionalSequence => "a sequence or nothing",
    }
}
