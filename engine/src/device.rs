//! Kernels of a device besides the host, as an engine carries them.
//!
//! The texts are for the device's driver (PTX for CUDA): nothing here looks into them.
//!
//! ```
//! use silure_engine::{DeviceCode, DeviceKernel};
//! let name = "add".to_string();
//! let kernel = DeviceKernel { name, threads: 128, shared: 0, params: 3, text: "…".into() };
//! let code = DeviceCode { kernels: vec![kernel] };
//! assert_eq!(DeviceCode::decode(&code.encode()).unwrap(), code);
//! ```

use crate::codec::{In, Out};
use crate::error::{FormatError, Result};
use crate::plan::*;

/// Most threads of a block.
const MOST_THREADS: u32 = 1024;

/// The kernels of a plan for one target.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct DeviceCode {
    /// In the order of [`Plan::device_kernels`].
    pub kernels: Vec<DeviceKernel>,
}

/// One kernel. A grid has one axis.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DeviceKernel {
    /// Its name in the text.
    pub name: String,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory given at launch, besides what the text declares.
    pub shared: u32,
    /// Parameters, 8 bytes each: addresses, then sizes.
    pub params: u32,
    /// A whole module in the driver's language, which has the kernel.
    pub text: String,
}

impl DeviceCode {
    /// The binary form. The same code always gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Out::default();
        o.list(&self.kernels, |o, k| {
            o.text(&k.name);
            for n in [k.threads, k.shared, k.params] {
                o.u(n as u64);
            }
            o.text(&k.text);
        });
        o.done()
    }

    /// Reads the binary form.
    pub fn decode(bytes: &[u8]) -> Result<DeviceCode> {
        let mut r = In::new(bytes);
        let kernels = r.list("kernel", |r| {
            Ok(DeviceKernel {
                name: r.text()?,
                threads: r.u32("threads")?,
                shared: r.u32("shared memory")?,
                params: r.u32("parameters")?,
                text: r.text()?,
            })
        })?;
        match r.left() {
            0 => Ok(DeviceCode { kernels }),
            n => Err(FormatError::field("kernels", "nothing after them", format!("{n} bytes"))),
        }
    }

    /// Checks that these are the kernels that a plan launches, with as many parameters as it gives.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        let bad = |field: &str, needed: String, present: String| {
            Err(FormatError::field(field, needed, present))
        };
        let (needed, present) = (plan.device_kernels.len(), self.kernels.len());
        if needed != present {
            return bad("kernels", needed.to_string(), present.to_string());
        }
        for (k, &name) in self.kernels.iter().zip(&plan.device_kernels) {
            let name = plan.str(name);
            if k.name != name {
                return bad("kernel", format!("'{name}'"), format!("'{}'", k.name));
            }
            if !(1..=MOST_THREADS).contains(&k.threads) {
                let needed = format!("1 to {MOST_THREADS} threads");
                return bad(name, needed, k.threads.to_string());
            }
        }
        for e in &plan.entries {
            for (i, op) in e.code.iter().enumerate() {
                if let Inst::Launch(l) = &op.inst
                    && let KernelRef::Device(k) = l.kernel
                    && let Some(k) = self.kernels.get(k as usize)
                    && l.args.len() + l.sizes.len() != k.params as usize
                {
                    let field = format!("entry '{}': op {i}: {}", plan.str(e.name), k.name);
                    let present = format!("{} and {}", l.args.len(), l.sizes.len());
                    return bad(&field, format!("{} parameters", k.params), present);
                }
            }
        }
        Ok(())
    }
}
