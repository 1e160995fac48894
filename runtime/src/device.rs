//! Devices by name. The host is the only one this runtime drives.

use silure_kernels_cpu::detect_isa;

/// Something a plan can place work on.
pub trait Device: Send + Sync {
    /// Its open name, for example `cpu`.
    fn id(&self) -> &str;
    /// Targets of the code objects it runs, best first.
    fn code_targets(&self) -> Vec<&'static str>;
}

/// This machine's CPU.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// Instruction-set level used: 0 portable, 1 AVX2+FMA, 2 NEON, 3 AVX-512,
    /// 4 AMX besides.
    pub isa: u32,
}

impl Host {
    /// The best this machine has.
    pub fn detect() -> Host {
        Host { isa: detect_isa() }
    }
}

impl Device for Host {
    fn id(&self) -> &str {
        "cpu"
    }

    fn code_targets(&self) -> Vec<&'static str> {
        #[cfg(target_arch = "x86_64")]
        {
            // Generated code of the v3 level may use all of it, not only what the kernels test.
            let v3 = matches!(silure_kernels_cpu::isa::base(self.isa), 1 | 3)
                && std::is_x86_feature_detected!("avx2")
                && std::is_x86_feature_detected!("fma")
                && std::is_x86_feature_detected!("f16c")
                && std::is_x86_feature_detected!("bmi1")
                && std::is_x86_feature_detected!("bmi2")
                && std::is_x86_feature_detected!("lzcnt")
                && std::is_x86_feature_detected!("movbe");
            if v3 { vec!["x86-64-v3", "x86-64"] } else { vec!["x86-64"] }
        }
        #[cfg(target_arch = "aarch64")]
        {
            vec!["aarch64"]
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            vec![]
        }
    }
}
