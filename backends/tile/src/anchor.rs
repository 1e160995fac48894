//! A heavy op with what follows it: alone, or the first region of a `kernel.anchor` with the epilogue of the second.

use silure_ir::dialects::kernel;
use silure_ir::func::Op;
use silure_ir::{Func, OpId, Result, ValueId, bail};

use crate::Arg;
use crate::lanes::Place;
use crate::map::PAD;
use crate::writer::Writer;

/// The op, and how its operands come to it.
pub(crate) struct Anchor<'a> {
    f: &'a Func,
    op: &'a Op,
    /// What is computed.
    pub heavy: &'a Op,
    /// Operands of the whole.
    pub operands: Vec<ValueId>,
    /// What the heavy op names them, as many as are its own.
    inputs: Vec<ValueId>,
    /// Where they stand among the operands of the op.
    slots: Vec<usize>,
    whole: bool,
}

impl<'a> Anchor<'a> {
    /// Reads an op of either form.
    pub fn of(f: &'a Func, op: OpId) -> Result<Anchor<'a>> {
        let o = f.op(op);
        let whole = o.def.name == kernel::ANCHOR.name;
        let heavy = match whole {
            true => f.region(o.regions[0]).ops.first().map(|i| f.op(*i)),
            false => Some(o),
        };
        let Some(heavy) = heavy else { bail!(Internal, "an anchor without an op") };
        let operands: Vec<ValueId> = o.operands().collect();
        let slots = o.slots().enumerate().filter(|s| s.1.is_some()).map(|s| s.0).collect();
        let inputs = match whole {
            true => f.region(o.regions[0]).args.clone(),
            false => operands.clone(),
        };
        Ok(Anchor { f, op: o, heavy, operands, inputs, slots, whole })
    }

    /// For each operand of the heavy op which of the whole's it is; `None` for an absent one.
    pub fn given(&self) -> Result<Vec<Option<usize>>> {
        let mut given = vec![];
        for v in self.heavy.slots() {
            given.push(match v.map(|v| self.inputs.iter().position(|x| *x == v)) {
                Some(None) => {
                    bail!(
                        Unsupported,
                        "`{}` of what its anchor computes itself",
                        self.heavy.def.name
                    )
                }
                at => at.flatten(),
            });
        }
        Ok(given)
    }

    /// An operand of the whole.
    pub fn arg(&self, i: usize) -> Arg {
        Arg::Operand(self.slots[i])
    }

    /// How the operands of the epilogue lie in the result.
    pub fn maps(&self) -> &[Vec<i64>] {
        if self.whole { self.op.attrs.maps("maps") } else { &[] }
    }

    /// Pointers to the operands of the epilogue.
    pub fn others(&self, w: &mut Writer) -> Result<Vec<ValueId>> {
        let all = self.operands.iter().enumerate().skip(self.inputs.len());
        all.map(|(i, v)| w.pointer(self.arg(i), self.f.ty(*v))).collect()
    }

    /// The operands of the epilogue, for accesses at positions.
    pub fn places(&self, w: &mut Writer) -> Result<Vec<Place>> {
        let all = self.operands.iter().enumerate().skip(self.inputs.len());
        all.map(|(i, v)| Place::of(w, self.arg(i), self.f.ty(*v))).collect()
    }

    /// The epilogue of a tile whose elements are at these coordinates of the result, where the condition holds.
    pub fn epilogue_at(
        &self,
        w: &mut Writer,
        value: ValueId,
        others: &[Place],
        at: &[ValueId],
        only: ValueId,
    ) -> Result<ValueId> {
        if !self.whole {
            return Ok(value);
        }
        let mut args = vec![value];
        for (place, map) in others.iter().zip(self.maps()) {
            let mut own = vec![];
            for a in map {
                own.push(match usize::try_from(*a) {
                    Ok(a) => at[a],
                    Err(_) => w.num(0)?,
                });
            }
            args.push(place.read(w, self.f, &own, Some(only), PAD)?);
        }
        match w.apply(self.f, self.op.regions[1], &args)?[..] {
            [last] => Ok(last),
            _ => bail!(Internal, "an epilogue gives one value"),
        }
    }

    /// The epilogue of the program's tile `value`, its operands following these axes of the space.
    pub fn epilogue(
        &self,
        w: &mut Writer,
        value: ValueId,
        others: &[ValueId],
        axes: &[Vec<usize>],
    ) -> Result<ValueId> {
        if !self.whole {
            return Ok(value);
        }
        let mut args = vec![value];
        for (base, axes) in others.iter().zip(axes) {
            args.push(w.load(*base, axes, PAD)?);
        }
        match w.apply(self.f, self.op.regions[1], &args)?[..] {
            [last] => Ok(last),
            _ => bail!(Internal, "an epilogue gives one value"),
        }
    }
}
