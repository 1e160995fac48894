//! What profiled and traced runs left behind.

use super::Session;
use crate::options::{ProfileRow, Span};
use silure_engine::plan::{Op, Plan};

fn device_name(plan: &Plan, op: &Op) -> String {
    // In range: checked when the plan was validated.
    plan.str(plan.devices[op.device as usize]).into()
}

impl Session {
    /// Times per launch of an entry over its profiled runs, in the plan's order; starts anew.
    pub fn profile(&mut self, entry: usize) -> Vec<ProfileRow> {
        let plan = &self.engine.plan;
        let Some(e) = plan.entries.get(entry) else { return vec![] };
        let counts = std::mem::take(&mut self.profiles[entry]);
        let rows = counts.iter().zip(&e.code).filter(|(c, _)| c[0] > 0);
        rows.map(|(&[calls, nanos, flops, bytes], op)| ProfileRow {
            node: plan.str(op.loc).into(),
            kernel: crate::exec::kernel_name(plan, &op.inst),
            device: device_name(plan, op),
            calls,
            nanos,
            flops,
            bytes,
        })
        .collect()
    }

    /// The launches of the last traced run, which was of this entry, in their order, the first [`SPANS`](crate::SPANS) of
    /// them.
    pub fn trace(&mut self, entry: usize) -> Vec<Span> {
        let plan = &self.engine.plan;
        let Some(e) = plan.entries.get(entry) else { return vec![] };
        let spans = std::mem::take(&mut self.work.spans);
        let span = |[pc, start, nanos]: [u64; 3]| {
            let op = e.code.get(pc as usize)?;
            let (node, kernel) = (plan.str(op.loc), crate::exec::kernel_name(plan, &op.inst));
            let device = device_name(plan, op);
            Some(Span { node: node.into(), kernel, device, start, nanos })
        };
        spans.into_iter().filter_map(span).collect()
    }
}
