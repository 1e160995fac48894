//! `--device`: where a model runs besides this machine's CPU.

use std::sync::Arc;

use silure::Compiler;
use silure_cuda_device::{Cuda, Which};
use silure_runtime::{Accelerator, Engine, LoadOptions};

use crate::failure::{Failure, Result};
use crate::report::Report;

/// A device by its name on the command line.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// The first GPU, through the driver of this machine
    Cuda,
    /// The PTX emulator in its place, on the CPU
    #[value(name = "cuda:emulated")]
    Emulated,
}

/// Options.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct DeviceArgs {
    /// Run on this device instead of the CPU
    #[arg(long, value_enum, value_name = "DEVICE")]
    pub device: Option<Name>,
}

/// The devices of a run: one, or none.
#[derive(Default)]
pub struct Devices(Option<Arc<Cuda>>);

impl DeviceArgs {
    /// Opens the device, if one was asked for. An emulated one is said.
    pub fn open(self, report: &Report) -> Result<Devices> {
        let which = match self.device {
            None => return Ok(Devices::default()),
            Some(Name::Cuda) => Which::Gpu,
            Some(Name::Emulated) => Which::Emulated,
        };
        let device = Cuda::open(which)?;
        if device.is_emulated() {
            report.warn(&format!(
                "device {}: {}; no GPU takes part, and times say nothing of one",
                which.name(),
                device.name()
            ));
        } else {
            report.detail(&format!("device {}: {}", which.name(), device.name()));
        }
        Ok(Devices(Some(device)))
    }
}

impl Devices {
    /// How engines are loaded.
    pub fn options(&self) -> LoadOptions<'static> {
        let devices = self.0.iter().map(|d| d.clone() as Arc<dyn Accelerator>).collect();
        LoadOptions { devices, ..LoadOptions::default() }
    }

    /// The device.
    pub fn device(&self) -> Option<&Arc<Cuda>> {
        self.0.as_ref()
    }

    /// What it is.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("this machine's CPU", |d| d.name())
    }

    /// Says what came of the texts of kernels.
    pub fn said(&self, report: &Report) {
        let Some(t) = self.0.as_ref().map(|d| d.translated()) else { return };
        if let Some(p) = &t.problem {
            report.warn(&format!("translated kernels are not kept: {p} (SILURE_CACHE names another folder, or is `off`)"));
        }
        let kept = t.folder.map_or("nowhere".into(), |f| f.display().to_string());
        report.detail(&format!("{} kernels translated, {} found; kept in {kept}", t.made, t.found));
    }

    /// The best target of the device that the compiler has; `None` without a device.
    pub fn target(&self, c: &Compiler) -> Result<Option<String>> {
        let Some(d) = self.0.as_ref() else { return Ok(None) };
        let known = d.code_targets().iter().find(|t| c.targets.parse(t).is_ok());
        match known {
            Some(t) => Ok(Some(t.clone())),
            None => Err(Failure::unsupported(format!(
                "no target of the compiler runs on {}: needed one of {}",
                d.name(),
                d.code_targets().join(", ")
            ))),
        }
    }

    /// An engine that was loaded uses the device that was asked for.
    pub fn check(&self, engine: &Engine) -> Result<()> {
        match (self.0.as_ref(), engine.devices().next()) {
            (Some(d), None) => Err(Failure::usage(format!(
                "the engine runs on the CPU alone: --device {} needs one that is compiled for it (--target {})",
                d.id(),
                d.code_targets().first().map_or("", String::as_str),
            ))),
            _ => Ok(()),
        }
    }
}
