//! `probe`: what this machine can do at best, for comparison with what `bench` measures.

use serde_json::json;
use silure_runtime::{Pool, limits};

use crate::failure::Result;
use crate::report::{Report, bytes, table};
use crate::row;

/// Options.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Rates are of all threads together. Ranges are per thread; a range that fits into a \
                        cache shows that cache's rate."
)]
pub struct Args {
    /// Threads (default: one per processor)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Bytes of the ranges that are read.
const RANGES: &[usize] = &[16 << 10, 256 << 10, 2 << 20, 16 << 20, 128 << 20];

/// The name of an instruction-set level.
pub fn level(isa: u32) -> &'static str {
    match isa {
        1 => "AVX2 and FMA",
        2 => "NEON",
        3 => "AVX-512 with VNNI",
        4 => "AVX-512 with VNNI and AMX",
        _ => "portable",
    }
}

/// Bytes of memory that the system has, where it says so.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let threads = super::run::threads(a.threads);
    let mut counts = vec![1];
    if threads > 1 {
        counts.push(threads);
    }
    let mut all = vec![];
    for n in counts {
        all.push(limits::measure(&Pool::new(n), RANGES)?);
    }
    if a.json {
        let value = |l: &limits::Limits| {
            let read = l.read.iter().map(|(b, r)| json!({"bytes": b, "gb_per_s": r}));
            json!({
                "threads": l.threads,
                "level": level(l.isa),
                "memory_bytes": memory(),
                "fma_gflop_per_s": l.gflop_per_s,
                "read": read.collect::<Vec<_>>(),
            })
        };
        return report.value(&json!(all.iter().map(value).collect::<Vec<_>>()));
    }
    let mut head = row!["limit"];
    head.extend(all.iter().map(|l| format!("{} threads", l.threads)));
    let mut rows = vec![head];
    let mut line = row![format!("f32 multiply-add, {}", level(all[0].isa))];
    line.extend(all.iter().map(|l| format!("{:.1} GFLOP/s", l.gflop_per_s)));
    rows.push(line);
    for (i, &range) in RANGES.iter().enumerate() {
        let mut line = row![format!("read {}", bytes(range as u64))];
        line.extend(all.iter().map(|l| {
            let (read, rate) = l.read[i];
            let less =
                if read < range { format!(" ({})", bytes(read as u64)) } else { String::new() };
            format!("{rate:.1} GB/s{less}")
        }));
        rows.push(line);
    }
    report.out(&table(&rows, &[1, 2]))
}
