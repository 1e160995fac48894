//! The report: for people and as JSON.

use serde_json::{Value, json};
use silure_plan::estimate::Time;
use silure_plan::need::Verdict;

use super::compiled::Subject;
use super::devices::Place;
use super::{Args, Line};
use crate::report::{bytes, count, seconds, table};
use crate::row;

fn verdict(v: Verdict) -> String {
    match v {
        Verdict::Fits(left) => format!("fits, {} left", bytes(left)),
        Verdict::TooLarge(over) => format!("no, {} too much", bytes(over)),
        Verdict::Unknown => "unknown: no memory size".into(),
    }
}

fn at(context: Option<u64>) -> String {
    context.map_or("–".into(), |c| c.to_string())
}

/// Steps of all sequences in a second.
fn rate(l: &Line) -> Option<f64> {
    l.step.map(|t| l.case.batch as f64 / t.seconds)
}

/// The tables.
pub fn text(a: &Args, s: &Subject, places: &[Place], lines: &[Line]) -> String {
    let mut out = String::new();
    if let Some(p) = s.parameters {
        out += &format!("{} parameters", count(p.total));
        if p.routed > 0 {
            let (routed, active) = (count(p.routed), count(p.active));
            out += &format!(", {routed} in experts; a token passes {active}");
        }
        out.push('\n');
    }
    let language = s.language;
    if let Some(e) = s.cache.filter(|_| language) {
        let each = s.recipes.iter().flat_map(|r| &r.cases).map(|c| c.per_token).max().unwrap_or(0);
        let kib = each as f64 / 1024.0;
        out += &format!("cache in {}: {kib:.1} KiB a token ({each} bytes)\n", e.name());
    }
    out += "\nBytes of the plan that is compiled for the CPU\n";
    let mut rows = vec![row![
        "weights",
        "context",
        "batch",
        "weights",
        "cache",
        "temporaries",
        "workspace",
        "all"
    ]];
    for r in &s.recipes {
        for c in &r.cases {
            let n = &c.need;
            rows.push(row![
                r.name,
                at(c.context),
                c.batch,
                bytes(n.weights),
                bytes(n.cache),
                bytes(n.arena),
                bytes(n.workspace),
                bytes(n.total()),
            ]);
        }
    }
    out += &table(&rows, &[1, 2, 3, 4, 5, 6, 7]);
    let percent = (a.efficiency * 100.0).round();
    out += &format!(
        "\nEstimates at {percent} % of the figures of each device; no model was measured\n"
    );
    let mut head = row!["target", "memory", "weights", "context", "batch", "verdict"];
    head.extend(match language {
        true => row!["first token", "tokens/s", "bound of tokens/s"],
        false => row!["a run", "bound"],
    });
    let mut rows = vec![head];
    for l in lines {
        let memory = l.place.memory.map_or("unknown".into(), bytes);
        let mut line = row![
            l.place.name,
            memory,
            l.recipe.name,
            at(l.case.context),
            l.case.batch,
            verdict(l.verdict)
        ];
        let time = |t: Option<Time>| t.map_or("unknown".to_string(), |t| seconds(t.seconds));
        let bound = l.step.map_or("bandwidth unknown", |t| t.bound.name());
        // Times of what does not fit would be those of another device.
        match (matches!(l.verdict, Verdict::TooLarge(_)), language) {
            (true, _) => {}
            (false, true) => {
                let rate = rate(l).map_or("unknown".to_string(), |r| format!("{r:.1}"));
                line.extend(row![time(l.first), rate, bound]);
            }
            (false, false) => line.extend(row![time(l.step), bound]),
        }
        rows.push(line);
    }
    let right: &[usize] = if language { &[1, 3, 4, 6, 7] } else { &[1, 3, 4, 6] };
    out += &table(&rows, right);
    let unknown = s.recipes.iter().flat_map(|r| &r.cases).map(|c| c.unknown).max().unwrap_or(0);
    if unknown > 0 {
        out += &format!(
            "{unknown} launches or buffers have sizes that only a run knows: not counted\n"
        );
    }
    if a.explain {
        out += &explain(a, s, places, language);
    }
    out
}

fn explain(a: &Args, s: &Subject, places: &[Place], language: bool) -> String {
    let mut out = String::from("\nWeights by type\n");
    let mut rows = vec![];
    for r in &s.recipes {
        let parts: Vec<String> =
            r.types.iter().map(|(e, n)| format!("{} {}", e.name(), bytes(*n))).collect();
        rows.push(row![r.name, parts.join(", ")]);
    }
    out += &table(&rows, &[]);
    out += "\nFigures of devices\n";
    for p in places {
        out += &format!("{}: {}\n", p.name, p.doc);
        for source in &p.sources {
            out += &format!("  {source}\n");
        }
        for r in &s.recipes {
            let with = match p.peak(r.narrow) {
                Some((rate, e)) => format!("{} at {:.1} T/s", e.name(), rate / 1e12),
                None => "unknown".into(),
            };
            out += &format!("  arithmetic with weights {}: {with}\n", r.name);
        }
    }
    out += &format!(
        "\nHow times are made\n  A step takes bytes / bandwidth or operations / peak, the longer, each at {} of its figure;\n  \
         starting launches costs nothing here, so times of small models are too short.\n",
        a.efficiency
    );
    if language {
        out += "  A step reads every weight once but tables, of experts E·(1 − (1 − k/E)^tokens) of E, and the whole cache.\n";
        out += &format!(
            "  The first token waits for {} tokens in steps of up to 512; tokens/s are those of all sequences, each as \
             long as the context.\n",
            a.prompt
        );
    }
    out += "  Scratch is that of ";
    out += &format!("{} threads; drivers and systems take memory of their own.\n", a.threads);
    out
}

/// The same for programs.
pub fn json(a: &Args, s: &Subject, places: &[Place], lines: &[Line]) -> Value {
    let time = |t: Option<Time>| t.map(|t| json!({"seconds": t.seconds, "bound": t.bound.name()}));
    let recipes = s.recipes.iter().map(|r| {
        let types = r.types.iter().map(|(e, n)| json!({"type": e.name(), "bytes": n}));
        let cases = r.cases.iter().map(|c| {
            json!({
                "context": c.context,
                "batch": c.batch,
                "weights": c.need.weights,
                "cache": c.need.cache,
                "cache_per_token": c.per_token,
                "temporaries": c.need.arena,
                "workspace": c.need.workspace,
                "bytes": c.need.total(),
                "unknown_sizes": c.unknown,
            })
        });
        json!({
            "name": r.name,
            "types": types.collect::<Vec<_>>(),
            "cases": cases.collect::<Vec<_>>(),
        })
    });
    let devices = places.iter().map(|p| {
        json!({
            "name": p.name,
            "doc": p.doc,
            "memory": p.memory,
            "bytes_per_s": p.bytes_per_s,
            "sources": p.sources,
        })
    });
    let estimates = lines.iter().map(|l| {
        let (fits, left) = match l.verdict {
            Verdict::Fits(n) => (Some(true), Some(n as i128)),
            Verdict::TooLarge(n) => (Some(false), Some(-(n as i128))),
            Verdict::Unknown => (None, None),
        };
        json!({
            "target": l.place.name,
            "recipe": l.recipe.name,
            "context": l.case.context,
            "batch": l.case.batch,
            "fits": fits,
            "left": left.map(|n| n as i64),
            "first_token": time(l.first),
            "step": time(l.step),
            "tokens_per_s": rate(l).filter(|_| s.language),
        })
    });
    json!({
        "model": a.model.display().to_string(),
        "planned_for": "cpu",
        "parameters": s.parameters.map(|p| json!({
            "total": p.total, "routed": p.routed, "active": p.active,
        })),
        "cache": s.cache.map(|e| e.name()),
        "efficiency": a.efficiency,
        "prompt": a.prompt,
        "threads": a.threads,
        "recipes": recipes.collect::<Vec<_>>(),
        "devices": devices.collect::<Vec<_>>(),
        "estimates": estimates.collect::<Vec<_>>(),
    })
}
