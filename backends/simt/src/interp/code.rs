//! Structured control flow as a list with jumps, so that a warp can stop anywhere.

use silure_ir::{Func, OpId, RegionId, Result, Traits, bail};

/// One step of a warp.
#[derive(Clone, Debug)]
pub enum Step {
    /// An op without regions.
    Op(OpId),
    /// Enter the first region of a `simt.if` in the lanes where the condition holds, or go to the step.
    If(OpId, usize),
    /// The first region ended: the other lanes, or go to the step.
    Else(OpId, usize),
    /// Both ended: lanes meet.
    EndIf(OpId),
    /// The counter is lo, the carried values are the arguments.
    For(OpId),
    /// Leave the loop in the lanes that are done; if all are, go to the step.
    Test(OpId, usize),
    /// The next round, at the step.
    Next(OpId, usize),
    /// All done.
    End,
}

/// The steps of a kernel.
pub fn compile(f: &Func) -> Result<Vec<Step>> {
    let mut out = Vec::new();
    region(f, f.body, &mut out)?;
    out.push(Step::End);
    Ok(out)
}

fn region(f: &Func, r: RegionId, out: &mut Vec<Step>) -> Result<()> {
    for &op in &f.region(r).ops {
        let o = f.op(op);
        match o.def.name {
            _ if o.def.is(Traits::TERMINATOR) => return Ok(()),
            "simt.if" => {
                let start = out.len();
                out.push(Step::If(op, 0));
                region(f, o.regions[0], out)?;
                let middle = out.len();
                out.push(Step::Else(op, 0));
                region(f, o.regions[1], out)?;
                out[start] = Step::If(op, middle);
                out[middle] = Step::Else(op, out.len());
                out.push(Step::EndIf(op));
            }
            "simt.for" => {
                out.push(Step::For(op));
                let test = out.len();
                out.push(Step::Test(op, 0));
                region(f, o.regions[0], out)?;
                out.push(Step::Next(op, test));
                out[test] = Step::Test(op, out.len());
            }
            _ => out.push(Step::Op(op)),
        }
    }
    bail!(Internal, "a region has no terminator")
}
