//! Where outputs go: into the caller's buffers, or into tensors made for the caller.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session::check_align;
use crate::tensor::{Tensor, TensorMut, tensor_bytes};
use silure_engine::plan::{Entry, Port};

/// Where outputs go.
pub(crate) enum Sink<'s, 'a> {
    /// Into the caller's buffers.
    Caller(&'s mut [TensorMut<'a>]),
    /// Into tensors made when their shapes are known.
    Owned(&'s mut Vec<Option<Tensor>>),
}

impl Sink<'_, '_> {
    /// Checks what can be checked before the run.
    pub fn check(&self, engine: &Engine, entry: &Entry) -> Result<()> {
        let Sink::Caller(outputs) = self else { return Ok(()) };
        if outputs.len() != entry.outputs.len() {
            let (needed, present) = (entry.outputs.len(), outputs.len());
            return Err(Error::Count { what: "outputs", needed, present });
        }
        for (p, t) in entry.outputs.iter().zip(outputs.iter()) {
            let name = engine.plan.str(p.name);
            if t.elem != p.elem {
                return Err(Error::Elem {
                    what: "output",
                    name: name.into(),
                    needed: p.elem.name().into(),
                    present: t.elem.name().into(),
                });
            }
            if t.shape.len() != p.dims.len() {
                return Err(Error::Rank {
                    what: "output",
                    name: name.into(),
                    needed: p.dims.len(),
                    present: t.shape.len(),
                });
            }
            check_align("output", name, t.elem, t.bytes)?;
        }
        Ok(())
    }

    /// The memory of an output of this shape.
    pub fn bind(
        &mut self,
        index: usize,
        name: &str,
        port: &Port,
        shape: &[usize],
    ) -> Result<(*mut u8, u64)> {
        let needed = tensor_bytes(port.elem, shape)
            .ok_or_else(|| Error::Overflow { what: format!("bytes of output '{name}'") })?;
        match self {
            Sink::Caller(outputs) => {
                let t = &mut outputs[index];
                if (t.bytes.len() as u64) < needed {
                    return Err(Error::Bytes {
                        what: "output",
                        name: name.into(),
                        needed,
                        present: t.bytes.len() as u64,
                    });
                }
                t.shape.copy_from_slice(shape);
                Ok((t.bytes.as_mut_ptr(), needed))
            }
            Sink::Owned(outputs) => {
                let t = outputs[index].insert(Tensor::zeros(port.elem, shape)?);
                Ok((t.bytes_mut().as_mut_ptr(), needed))
            }
        }
    }
}
