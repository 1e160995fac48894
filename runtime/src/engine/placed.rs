//! What an engine has on the devices besides the host: its kernels, and the weights and constants that they read. They
//! are brought there once and are the same for all sessions.

use super::LoadOptions;
use crate::device::{Accelerator, Device, Program};
use crate::error::{Error, Result};
use crate::lane::{Lane, Memory};
use silure_engine::plan::BufKind;
use silure_engine::{DeviceCode, EngineFile};
use std::collections::HashMap;
use std::sync::Arc;

/// An engine's part of a device.
pub(crate) struct Placed {
    pub device: Arc<dyn Accelerator>,
    pub program: Arc<dyn Program>,
    /// The code object in use; empty if there are no kernels.
    pub target: String,
    /// By their numbers in the plan, those that the device reads.
    pub weights: HashMap<u32, Memory>,
    pub consts: HashMap<u32, Memory>,
}

/// Makes the devices of a plan ready.
pub(super) fn load(
    file: &EngineFile<'_>,
    options: &LoadOptions<'_>,
    weights: &[u8],
) -> Result<Vec<Placed>> {
    let plan = &file.plan;
    let codes = file.device_code();
    let mut all = Vec::new();
    for (i, &id) in plan.devices.iter().enumerate().skip(1) {
        let id = plan.str(id);
        let device = options.devices.iter().find(|d| d.id() == id).ok_or_else(|| {
            let others = options.devices.iter().map(|d| d.id());
            let names: Vec<_> =
                [options.host.id()].into_iter().chain(others).map(|n| format!("'{n}'")).collect();
            Error::Device { needed: id.into(), present: names.join(", ") }
        })?;
        let targets = device.code_targets();
        let best = targets.iter().find_map(|t| codes.iter().find(|(name, _)| name == t));
        let none = ("", DeviceCode::default());
        let (target, code) = match best {
            Some(best) => best,
            None if plan.device_kernels.is_empty() => &none,
            None => {
                let present: Vec<&str> = codes.iter().map(|c| c.0).collect();
                return Err(Error::NoCode {
                    needed: targets.join(", "),
                    present: if present.is_empty() { "none".into() } else { present.join(", ") },
                });
            }
        };
        let program = device.clone().load(code)?;
        let mut placed = Placed {
            device: device.clone(),
            program,
            target: target.to_string(),
            weights: HashMap::new(),
            consts: HashMap::new(),
        };
        placed.fill(file, i as u8, weights)?;
        all.push(placed);
    }
    Ok(all)
}

impl Placed {
    /// Brings weights and constants to the device.
    fn fill(&mut self, file: &EngineFile<'_>, device: u8, weights: &[u8]) -> Result<()> {
        let plan = &file.plan;
        let lane = Lane::new(&self.device, &self.program)?;
        let bring = |bytes: &[u8]| {
            let memory = Memory::new(&self.device, bytes.len() as u64)?;
            if !bytes.is_empty() {
                lane.write(memory.at(), bytes)?;
            }
            Ok::<Memory, Error>(memory)
        };
        for b in plan.entries.iter().flat_map(|e| &e.buffers).filter(|b| b.device == device) {
            match b.kind {
                BufKind::Weight(x) if !self.weights.contains_key(&x) => {
                    let w = plan.weights[x as usize];
                    // In range: the weights section holds every weight.
                    let bytes = &weights[w.offset as usize..(w.offset + w.bytes) as usize];
                    self.weights.insert(x, bring(bytes)?);
                }
                BufKind::Const(x) if !self.consts.contains_key(&x) => {
                    let (offset, len) = plan.consts[x as usize];
                    // In range: checked by the plan's validation.
                    let bytes = &plan.const_bytes[offset as usize..(offset + len) as usize];
                    self.consts.insert(x, bring(bytes)?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
