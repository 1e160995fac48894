//! The same problems by torch (which has cuBLAS), where there is a Python that has it.

use std::collections::BTreeMap;
use std::process::Command;

use super::Problem;
use crate::report::Report;

/// Times what it knows of the problems whose sizes are its arguments; one JSON object on stdout.
const SCRIPT: &str = include_str!("torch_times.py");

/// Seconds by problem. What is not there is said and stays away.
pub fn torch(problems: &[&Problem], report: &Report) -> BTreeMap<String, f64> {
    let sizes = problems.iter().map(|p| {
        let [n, m, k] = p.large;
        format!("{}:{n},{m},{k}", p.name)
    });
    let ran = Command::new("python3").arg("-c").arg(SCRIPT).args(sizes).output();
    let out = match ran {
        Ok(o) if o.status.success() => o.stdout,
        Ok(o) => {
            let says = String::from_utf8_lossy(&o.stderr);
            let last = says.lines().last().unwrap_or("no reason given");
            report.warn(&format!("torch takes no part: {last}"));
            return BTreeMap::new();
        }
        Err(e) => {
            report.warn(&format!("torch takes no part: python3: {e}"));
            return BTreeMap::new();
        }
    };
    serde_json::from_slice(&out).unwrap_or_else(|e| {
        report.warn(&format!("torch takes no part: what it says is not understood: {e}"));
        BTreeMap::new()
    })
}
