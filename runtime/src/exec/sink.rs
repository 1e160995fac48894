//! Where outputs go: into the caller's buffers, or into tensors made for the caller.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session::check_align;
use crate::tensor::{Tensor, TensorMut, tensor_bytes};
use crate::value::Value;
use silure_engine::plan::{Entry, Port};
use silure_types::Strings;

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
            if t.elem.is_str() {
                return Err(Error::Usage(format!(
                    "output '{name}' holds strings, which are not written into a caller's buffer: \
                     ask for tensors made by the run"
                )));
            }
            check_align("output", name, t.elem, t.bytes)?;
        }
        Ok(())
    }

    /// Gives outputs of strings, those that are lists too, their contents before the run's table is
    /// dropped.
    pub fn hand_out(
        &mut self,
        engine: &Engine,
        entry: usize,
        table: &Strings,
        mut lists: Vec<(usize, Value)>,
    ) -> Result<Vec<(usize, Value)>> {
        let Some(e) = engine.plan.entries.get(entry) else { return Ok(lists) };
        let give = |i: usize, t: &mut Tensor| match t.elem.is_str() {
            true => crate::texts::hand_out(table, engine.plan.str(e.outputs[i].name), t),
            false => Ok(()),
        };
        for (i, v) in &mut lists {
            match v {
                Value::Tensor(t) => give(*i, t)?,
                Value::Sequence(s) => s.iter_mut().try_for_each(|t| give(*i, t))?,
                Value::Absent => {}
            }
        }
        if let Sink::Owned(outputs) = self {
            for (i, t) in outputs.iter_mut().enumerate() {
                t.iter_mut().try_for_each(|t| give(i, t))?;
            }
        }
        Ok(lists)
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
