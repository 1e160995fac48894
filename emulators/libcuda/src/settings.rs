//! What the environment says. A value that cannot be read is an error that names it, when the driver is initialised.

use silure_ptx_emulator::{Options, Races};

/// Name of the device.
pub(crate) const NAME: &str = "PTX emulator (CPU)";
/// The version of CUDA that the driver says it is: 1000 × major + 10 × minor.
pub(crate) const VERSION: i32 = 12080;
/// The newest PTX that such a driver reads.
pub(crate) const PTX: (u32, u32) = (8, 7);
/// Shared memory a block may have without asking for more.
pub(crate) const SHARED: usize = 48 << 10;
/// The most instructions of warps a launch may take.
const BUDGET: u64 = 1 << 36;

/// Settings of the driver.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub options: Options,
    pub memory: u64,
    pub capability: (u32, u32),
    /// Shared memory a block may have if its kernel asks.
    pub shared: usize,
    /// Pageable memory is treated as pinned memory is.
    pub late: bool,
}

impl Settings {
    /// Those of the environment.
    pub fn read() -> Result<Settings, String> {
        Settings::of(|name| std::env::var(format!("SILURE_EMULATED_{name}")).ok())
    }

    fn of(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let number = |name: &str, default: u64| match get(name) {
            None => Ok(default),
            Some(v) => v
                .parse()
                .map_err(|_| format!("SILURE_EMULATED_{name}: needed a number, present `{v}`")),
        };
        let races = match get("RACES").as_deref() {
            None | Some("all") => Races::All,
            Some("shared") => Races::Shared,
            Some("off") => Races::Off,
            Some(v) => {
                return Err(format!(
                    "SILURE_EMULATED_RACES: needed all, shared or off, present `{v}`"
                ));
            }
        };
        let late = match get("COPIES").as_deref() {
            None | Some("driver") => false,
            Some("late") => true,
            Some(v) => {
                return Err(format!(
                    "SILURE_EMULATED_COPIES: needed driver or late, present `{v}`"
                ));
            }
        };
        let (capability, shared) = match get("CAPABILITY").as_deref() {
            None | Some("8.0") => ((8, 0), 163 << 10),
            Some("8.6") => ((8, 6), 99 << 10),
            Some("8.9") => ((8, 9), 99 << 10),
            Some("9.0") => ((9, 0), 227 << 10),
            Some(v) => {
                let needed = "8.0, 8.6, 8.9 or 9.0";
                return Err(format!("SILURE_EMULATED_CAPABILITY: needed {needed}, present `{v}`"));
            }
        };
        let threads = number("THREADS", 0)?.min(256) as usize;
        let options = Options { seed: number("SEED", 0)?, budget: BUDGET, threads, races };
        Ok(Settings { options, memory: number("MEMORY", 4 << 30)?, capability, shared, late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let with = |name: &'static str, value: &'static str| {
            Settings::of(move |n| (n == name).then(|| value.to_string()))
        };
        assert_eq!(with("SEED", "7").unwrap().options.seed, 7);
        assert_eq!(with("CAPABILITY", "8.9").unwrap().capability, (8, 9));
        for (name, value) in [
            ("SEED", "x"),
            ("MEMORY", "-1"),
            ("CAPABILITY", "7.0"),
            ("RACES", "no"),
            ("COPIES", ""),
        ] {
            let e = with(name, value).unwrap_err();
            assert!(e.contains(name) && e.contains(value), "{e}");
        }
    }
}
