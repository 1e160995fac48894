//! Where a model could run: described devices, bare targets, and the machine that was probed.

use std::io::Read;

use serde_json::Value;
use silure::ir::Elem;
use silure::target::{Device, Targets};

use super::Args;
use crate::failure::{Failure, Result};
use crate::report::Report;

/// The largest probe that is read.
const MOST: u64 = 1 << 20;

/// A place and what is known of it.
pub struct Place {
    /// The name that was asked for.
    pub name: String,
    /// A sentence.
    pub doc: String,
    /// Bytes of memory.
    pub memory: Option<u64>,
    pub bytes_per_s: Option<f64>,
    /// Operations a second by type of the operands.
    pub peaks: Vec<(Elem, f64)>,
    /// Where each figure is from.
    pub sources: Vec<String>,
}

impl Place {
    /// The rate of the arithmetic that weights of such a type are multiplied with, and that type: f32 for f32,
    /// 16 bits for narrower ones where there are such units.
    pub fn peak(&self, narrow: bool) -> Option<(f64, Elem)> {
        let of = |e: Elem| self.peaks.iter().find(|p| p.0 == e).map(|p| (p.1, e));
        let small = || of(Elem::Bf16).or_else(|| of(Elem::F16));
        if narrow { small().or_else(|| of(Elem::F32)) } else { of(Elem::F32) }
    }

    fn of(d: &Device) -> Place {
        let mut sources = vec![];
        if let Some(m) = &d.memory {
            sources.push(format!("memory: {} ({})", m.source, m.mark.name()));
        }
        if let Some(b) = &d.bandwidth {
            let rate = format!("bandwidth {} GB/s", b.gb_per_s);
            sources.push(format!("{rate}: {} ({})", b.source, b.mark.name()));
        }
        for p in &d.peaks {
            let elems: Vec<&str> = p.elems.iter().map(|e| e.name()).collect();
            let note = p.note.as_ref().map_or(String::new(), |n| format!("; {n}"));
            let rate = format!("{} {} T/s", elems.join(" "), p.tera_per_s);
            sources.push(format!("{rate}: {} ({}{note})", p.source, p.mark.name()));
        }
        let peaks = d.peaks.iter().flat_map(|p| p.elems.iter().map(|e| (*e, p.tera_per_s * 1e12)));
        Place {
            name: d.name.clone(),
            doc: d.doc.clone(),
            memory: d.memory.as_ref().map(|m| m.bytes),
            bytes_per_s: d.bandwidth.as_ref().map(|b| b.gb_per_s * 1e9),
            peaks: peaks.collect(),
            sources,
        }
    }
}

/// The places that were asked for.
pub fn places(targets: &Targets, a: &Args, report: &Report) -> Result<Vec<Place>> {
    let mut out = Vec::new();
    for name in &a.targets {
        if let Some((_, d)) = targets.device(name) {
            out.push(Place::of(d));
            continue;
        }
        let known = || targets.devices().map(|(_, d)| &*d.name).collect::<Vec<_>>().join(", ");
        if !name.contains(':') {
            let m = format!(
                "no device `{name}`; devices: {}; or FAMILY:ARCH, as in `targets`",
                known()
            );
            return Err(Failure::unsupported(m));
        }
        let t = targets.parse(name).map_err(silure::Error::target)?;
        if let Some(n) = &t.note {
            report.warn(n);
        }
        let (doc, sources) = ("an architecture, no product: no figures".to_string(), vec![]);
        let peaks = vec![];
        out.push(Place {
            name: name.clone(),
            doc,
            memory: None,
            bytes_per_s: None,
            peaks,
            sources,
        });
    }
    if let Some(path) = &a.probe {
        out.push(probed(path)?);
    }
    if out.is_empty() {
        out.extend(targets.devices().map(|(_, d)| Place::of(d)));
    }
    if let Some(m) = a.device_memory {
        for p in &mut out {
            p.memory = Some(m);
            p.sources.retain(|s| !s.starts_with("memory:"));
            p.sources.insert(0, "memory: --device-memory".into());
        }
    }
    Ok(out)
}

/// The machine of a probe: the rates of most threads.
fn probed(path: &std::path::Path) -> Result<Place> {
    let file = std::fs::File::open(path).map_err(|e| Failure::io(path, e))?;
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(|e| Failure::io(path, e))?;
    let wrong =
        || Failure::usage(format!("{}: not what `silure probe --json` writes", path.display()));
    let v: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    let all = v.as_array().ok_or_else(wrong)?;
    let best = all.iter().max_by_key(|l| l["threads"].as_u64()).ok_or_else(wrong)?;
    let number = |v: &Value| v.as_f64().filter(|x| x.is_finite() && *x > 0.0);
    let flops = number(&best["fma_gflop_per_s"]).ok_or_else(wrong)?;
    let reads = best["read"].as_array().ok_or_else(wrong)?;
    // The largest range is memory; smaller ones are caches.
    let largest = reads.iter().max_by_key(|r| r["bytes"].as_u64()).ok_or_else(wrong)?;
    let rate = number(&largest["gb_per_s"]).ok_or_else(wrong)?;
    let threads = best["threads"].as_u64().unwrap_or(0);
    Ok(Place {
        name: "probe".into(),
        doc: format!("this probe's machine, {threads} threads"),
        memory: best["memory_bytes"].as_u64(),
        bytes_per_s: Some(rate * 1e9),
        peaks: vec![(Elem::F32, flops * 1e9)],
        sources: vec![format!(
            "bandwidth {rate:.1} GB/s, f32 {flops:.1} G/s: measured, {}",
            path.display()
        )],
    })
}

/// A number of bytes: `24GiB`, `80GB`, `8e9`.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("needed a size such as 24GiB, 80GB or 8e9, present `{text}`");
    let units = [
        ("KiB", 1024.0),
        ("MiB", 1048576.0),
        ("GiB", 1073741824.0),
        ("TiB", 1099511627776.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("B", 1.0),
    ];
    let found = units.iter().find_map(|(u, f)| text.strip_suffix(u).map(|n| (n, *f)));
    let (number, factor) = found.unwrap_or((text, 1.0));
    let n: f64 = number.trim().parse().map_err(|_| wrong())?;
    let n = n * factor;
    if (1.0..9e18).contains(&n) { Ok(n as u64) } else { Err(wrong()) }
}

/// A part, above 0 and up to 1.
pub fn part(text: &str) -> Result<f64, String> {
    let n = text.parse::<f64>().ok().filter(|n| *n > 0.0 && *n <= 1.0);
    n.ok_or_else(|| format!("needed a number above 0 and up to 1, present `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory() {
        assert_eq!(size("24GiB"), Ok(24 << 30));
        assert_eq!(size("80GB"), Ok(80_000_000_000));
        assert_eq!(size("1.5 kB"), Ok(1500));
        assert_eq!(size("8e9"), Ok(8_000_000_000));
        for bad in ["", "GB", "-1GB", "0", "nanGB", "1e30GB", "inf", "24 giga"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(part("0").is_err() && part("1.1").is_err() && part("x").is_err());
        assert_eq!(part("0.35"), Ok(0.35));
    }
}
