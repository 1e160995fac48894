//! `inspect`: what is in an engine, or what becomes of a model. Nothing is run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use silure::ir::{Func, FuncKind, Module, Type, text};
use silure::{Compiler, Loaded, Phase};
use silure_engine::arena;
use silure_engine::plan::{Arg, BufKind, Entry, Inst, KernelRef, Launch, Op, Plan};
use silure_engine::{Manifest, SectionKind};
use silure_runtime::Engine;

use super::compile::{ops, phase};
use crate::failure::{Failure, Result};
use crate::model::{self, CompileArgs};
use crate::report::{Report, bytes, table};
use crate::row;
use crate::sizes;

/// Options.
#[derive(clap::Args, Debug)]
#[command(after_help = "Without one of the options a summary is printed. Options may be combined.")]
pub struct Args {
    /// A model, text IR or an engine
    pub file: PathBuf,
    /// The launches in order, with the user's nodes
    #[arg(long)]
    pub layers: bool,
    /// Buffers and the arena; sizes of dims by --size
    #[arg(long)]
    pub memory: bool,
    /// The weights
    #[arg(long)]
    pub weights: bool,
    /// Which ops became one kernel
    #[arg(long)]
    pub fusion: bool,
    /// The plan's instructions
    #[arg(long)]
    pub plan: bool,
    /// The module behind a phase: import, graph, kernel, plan (models only)
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    pub phase: Option<Phase>,
    /// Print the phase in MLIR's generic form
    #[arg(long, requires = "phase")]
    pub generic: bool,
    /// Size of a dim, for --memory (repeat)
    #[arg(long = "size", value_name = "DIM=N", value_parser = sizes::binding)]
    pub sizes: Vec<(String, u64)>,
    /// Report as JSON
    #[arg(long, conflicts_with_all = ["phase", "plan"])]
    pub json: bool,
    #[command(flatten)]
    pub compile: CompileArgs,
}

/// See the module documentation.
pub fn run(a: &Args, report: &mut Report) -> Result<()> {
    let c = Compiler::new()?;
    let mut all = serde_json::Map::new();
    let needs_plan = a.layers || a.memory || a.plan;
    let plan = match model::is_engine(&a.file)? {
        true => {
            model::no_options(&a.file, &a.compile)?;
            if a.phase.is_some() || a.fusion {
                let m = "an engine holds no module; --phase and --fusion need the model";
                return Err(Failure::usage(format!("{}: {m}", a.file.display())));
            }
            let (manifest, plan) = Engine::describe(&a.file)?;
            if !(needs_plan || a.weights) || a.json {
                engine_summary(&manifest, &plan, a.json, &mut all, report)?;
            }
            plan
        }
        false => {
            let mut m = model::load(&c, &a.file, &a.compile, report)?;
            if let Some(p) = a.phase {
                return print_phase(&c, m, p, a, report);
            }
            if !(needs_plan || a.weights || a.fusion) || a.json {
                model_summary(&m, a.json, &mut all, report)?;
            }
            if a.fusion {
                fusion(&c, &mut m, a, &mut all, report)?;
            }
            if !(needs_plan || a.weights) {
                return done(a, all, report);
            }
            if a.fusion {
                m = model::load(&c, &a.file, &a.compile, report)?;
            }
            c.compile(m, &a.compile.options()?)?.encoded.plan
        }
    };
    if a.layers {
        layers(&plan, a.json, &mut all, report)?;
    }
    if a.weights {
        weights(&plan, a.json, &mut all, report)?;
    }
    if a.memory {
        memory(&plan, a, &mut all, report)?;
    }
    if a.plan {
        report.out(&plan.to_string())?;
    }
    done(a, all, report)
}

fn done(a: &Args, all: serde_json::Map<String, Value>, report: &Report) -> Result<()> {
    if a.json { report.value(&Value::Object(all)) } else { Ok(()) }
}

fn print_phase(c: &Compiler, m: Loaded, p: Phase, a: &Args, report: &Report) -> Result<()> {
    let Loaded { mut module, source, .. } = m;
    c.lower_to(&mut module, &source, &a.compile.options()?, p, &mut |_, _| {})?;
    report.out(&match a.generic {
        true => text::print_generic(&module),
        false => text::print(&module),
    })
}

type Map = serde_json::Map<String, Value>;

fn engine_summary(
    m: &Manifest,
    plan: &Plan,
    json: bool,
    all: &mut Map,
    report: &Report,
) -> Result<()> {
    if json {
        all.insert("kind".into(), json!("engine"));
        all.insert("manifest".into(), serde_json::to_value(m).unwrap_or(Value::Null));
        all.insert("launches".into(), json!(plan.entries.iter().map(launches).sum::<usize>()));
        return Ok(());
    }
    let mut rows = vec![
        row!["kind", "engine"],
        row!["tool", format!("silure {}", m.tool)],
        row!["format", format!("{} (readers from {})", m.format_version, m.min_reader)],
        row!["targets", m.targets.join(", ")],
        row!["source", if m.source.is_empty() { "not stated" } else { &m.source }],
    ];
    rows.extend(m.options.iter().map(|(k, v)| row![k, v]));
    for e in &plan.entries {
        rows.push(row!["entry", plan.signature_text(e)]);
        rows.push(row!["", format!("{} launches, {} ops", launches(e), e.code.len())]);
    }
    for s in &m.sections {
        let kind = match s.kind {
            SectionKind::Plan => "plan".into(),
            SectionKind::Code | SectionKind::Device => format!("code {}", s.target),
            SectionKind::Debug => "report".into(),
            SectionKind::Asset => format!("asset {}", s.name),
            SectionKind::Weights => "weights".to_string(),
        };
        let beside = if s.file.is_empty() { "" } else { " beside the engine" };
        rows.push(row![kind, format!("{}{beside}", bytes(s.bytes))]);
    }
    report.out(&table(&rows, &[]))
}

fn model_summary(m: &Loaded, json: bool, all: &mut Map, report: &Report) -> Result<()> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for f in &m.module.funcs {
        for op in f.walk() {
            *kinds.entry(f.op(op).def.name).or_insert(0) += 1;
        }
    }
    let signatures: Vec<String> = m.module.funcs.iter().map(signature).collect();
    if json {
        all.insert("kind".into(), json!("model"));
        all.insert("hash".into(), json!(m.hash));
        all.insert("functions".into(), json!(signatures));
        all.insert("ops".into(), json!(kinds));
        return Ok(());
    }
    let mut rows = vec![row!["kind", "model"], row!["hash", m.hash]];
    rows.extend(signatures.iter().map(|s| row!["function", s]));
    rows.push(row!["ops", format!("{} as imported", ops(&m.module))]);
    rows.push(row!["weights", m.module.weights.len()]);
    report.out(&table(&rows, &[]))?;
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(n, k)| (std::cmp::Reverse(*k), *n));
    let rows: Vec<_> = kinds.iter().map(|(n, k)| row![k, n]).collect();
    report.out(&table(&rows, &[0]))
}

/// A function's signature as text.
pub fn signature(f: &Func) -> String {
    let ports = |names: &[std::sync::Arc<str>], types: Vec<&Type>| {
        let all: Vec<_> = names.iter().zip(types).map(|(n, t)| format!("{n}: {t}")).collect();
        all.join(", ")
    };
    let symbols: Vec<String> = f.symbols.iter().map(|s| s.to_string()).collect();
    let symbols =
        if symbols.is_empty() { String::new() } else { format!("<{}>", symbols.join(", ")) };
    format!(
        "{} {}{symbols}({}) -> ({})",
        f.kind.keyword(),
        f.name,
        ports(&f.arg_names, f.args().iter().map(|v| f.ty(*v)).collect()),
        ports(&f.result_names, f.result_types.iter().collect()),
    )
}

/// Kernel ops with what is inside them.
fn fusion(c: &Compiler, m: &mut Loaded, a: &Args, all: &mut Map, report: &Report) -> Result<()> {
    let options = a.compile.options()?;
    c.lower_to(&mut m.module, &m.source, &options, Phase::Kernel, &mut |_, _| {})?;
    let mut lines = vec![row!["kernel", "fused ops", "nodes"]];
    let mut list = vec![];
    let module: &Module = &m.module;
    for f in module.funcs.iter().filter(|f| f.kind != FuncKind::Kernel) {
        for op in f.walk().into_iter().filter(|op| f.op(*op).def.dialect() == "kernel") {
            let o = f.op(op);
            let inside: Vec<&str> = o
                .regions
                .iter()
                .flat_map(|r| f.walk_region(*r))
                .map(|i| f.op(i).def.name)
                .filter(|n| !n.starts_with("core."))
                .collect();
            if inside.is_empty() {
                continue;
            }
            list.push(json!({"kernel": o.def.name, "ops": inside, "nodes": o.loc.to_string()}));
            lines.push(row![o.def.name, inside.join(" "), o.loc]);
        }
    }
    if a.json {
        all.insert("fusion".into(), Value::Array(list));
        return Ok(());
    }
    report.out(&table(&lines, &[]))
}

/// Number of launches of an entry.
pub fn launches(e: &Entry) -> usize {
    e.code.iter().filter(|op| matches!(op.inst, Inst::Launch(_))).count()
}

fn kernel_name<'p>(plan: &'p Plan, l: &Launch) -> &'p str {
    let id = match l.kernel {
        KernelRef::Builtin(k) => plan.kernels.get(k as usize),
        KernelRef::Code(f) => plan.functions.get(f as usize),
        KernelRef::Device(k) => plan.device_kernels.get(k as usize),
    };
    plan.str(id.copied().unwrap_or_default())
}

fn layers(plan: &Plan, json: bool, all: &mut Map, report: &Report) -> Result<()> {
    let mut list = vec![];
    for e in &plan.entries {
        let mut rows = vec![row!["op", "kernel", "kind", "node"]];
        for (i, op) in e.code.iter().enumerate() {
            let Op { inst: Inst::Launch(l), loc, .. } = op else { continue };
            let callback = l.args.iter().any(|a| matches!(a, Arg::Code(_)));
            let kind = match (l.kernel, callback) {
                (KernelRef::Code(_) | KernelRef::Device(_), _) => "generated",
                (_, true) => "built in + generated",
                _ => "built in",
            };
            let (name, node) = (kernel_name(plan, l), plan.str(*loc));
            rows.push(row![format!("@{i}"), name, kind, node]);
            list.push(json!({
                "entry": plan.str(e.name), "op": i, "kernel": name, "kind": kind, "node": node,
            }));
        }
        if !json {
            report.out(&format!("{}\n{}", plan.signature_text(e), table(&rows, &[0])))?;
        }
    }
    if json {
        all.insert("layers".into(), Value::Array(list));
    }
    Ok(())
}

fn weights(plan: &Plan, json: bool, all: &mut Map, report: &Report) -> Result<()> {
    if json {
        let one = |w: &silure_engine::plan::Weight| json!({"name": plan.str(w.name), "offset": w.offset, "bytes": w.bytes});
        let list: Vec<_> = plan.weights.iter().map(one).collect();
        all.insert("weights".into(), Value::Array(list));
        return Ok(());
    }
    let mut rows = vec![row!["bytes", "at", "name"]];
    rows.extend(plan.weights.iter().map(|w| row![w.bytes, w.offset, plan.str(w.name)]));
    report.out(&table(&rows, &[0, 1]))?;
    let n = plan.weights.len();
    report.line(&format!("{n} weights, {} together", bytes(plan.weight_bytes())))
}

fn memory(plan: &Plan, a: &Args, all: &mut Map, report: &Report) -> Result<()> {
    let mut list = vec![];
    for e in &plan.entries {
        let regs = size_program(plan, e, &a.sizes)?;
        let mut rows = vec![row!["bytes", "from", "to", "buffer"]];
        let (mut blocks, mut heap) = (vec![], 0);
        for b in &e.buffers {
            if b.kind == BufKind::Heap {
                heap += 1;
            }
            let BufKind::Arena { bytes, first, last } = b.kind else { continue };
            let size =
                regs.as_ref().and_then(|r| regs_value(r, bytes)).and_then(|v| v.try_into().ok());
            let text = size.map_or_else(|| bytes.to_string(), |v: u64| v.to_string());
            rows.push(row![text, format!("@{first}"), format!("@{last}"), plan.str(b.name)]);
            blocks.push(size.map(|bytes| arena::Block { bytes, first, last }));
        }
        let known: Option<Vec<_>> = blocks.into_iter().collect();
        let total = known.as_ref().and_then(|b| Some(arena::assign(b)?.1));
        let sum = known.map(|b| b.iter().map(|b| b.bytes).sum::<u64>());
        let states: u64 = e
            .states
            .iter()
            .filter_map(|s| plan.states.get(*s as usize).and_then(|s| s.bytes()))
            .sum();
        list.push(json!({
            "entry": plan.str(e.name), "arena": total, "buffers": sum, "heap_buffers": heap,
            "states": states, "constants": plan.const_bytes.len(), "weights": plan.weight_bytes(),
        }));
        if a.json {
            continue;
        }
        report.out(&format!("{}\n{}", plan.signature_text(e), table(&rows, &[0, 1, 2])))?;
        let arena = match (total, sum) {
            (Some(t), Some(s)) => format!("{} for buffers of {} together", bytes(t), bytes(s)),
            _ => "depends on dims: give them with --size".into(),
        };
        report.out(&format!(
            "arena {arena}; {heap} buffers of a size known only at run time; states {}, constants \
             {}, weights {}\n",
            bytes(states),
            bytes(plan.const_bytes.len() as u64),
            bytes(plan.weight_bytes())
        ))?;
    }
    if a.json {
        all.insert("memory".into(), Value::Array(list));
    }
    Ok(())
}

fn regs_value(regs: &[i64], v: silure_engine::plan::Val) -> Option<i64> {
    match v {
        silure_engine::plan::Val::Imm(v) => Some(v),
        silure_engine::plan::Val::Reg(r) => regs.get(r.0 as usize).copied(),
    }
}

/// The registers behind the size program for these dims; `None` if a dim is missing.
fn size_program(plan: &Plan, e: &Entry, sizes: &[(String, u64)]) -> Result<Option<Vec<i64>>> {
    let mut regs = vec![0i64; e.regs as usize];
    let mut at = 0;
    let over = || Failure::usage("the sizes given overflow the size program");
    while at < e.size_end as usize {
        let inst = &e.code[at].inst;
        let value = |v| regs_value(&regs, v).unwrap_or(0);
        let set = match inst {
            Inst::Set { dst, src } => Some((*dst, value(*src))),
            Inst::Bin { op, dst, a, b } => {
                Some((*dst, op.eval(value(*a), value(*b)).map_err(|_| over())?))
            }
            Inst::Neg { dst, a } => Some((*dst, value(*a).checked_neg().ok_or_else(over)?)),
            Inst::Not { dst, a } => Some((*dst, (value(*a) == 0) as i64)),
            Inst::Select { dst, cond, a, b } => {
                Some((*dst, value(if value(*cond) != 0 { *a } else { *b })))
            }
            Inst::Dim { dst, input, axis } => {
                let port = e.inputs.get(*input as usize);
                let Some(d) = port.and_then(|p| p.dims.get(*axis as usize)) else {
                    return Ok(None);
                };
                let name = plan.str(d.expr);
                let given = sizes.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
                let Some(v) = given.or_else(|| name.parse().ok()) else { return Ok(None) };
                Some((*dst, i64::try_from(v).map_err(|_| over())?))
            }
            Inst::BrZero { cond, target } if value(*cond) == 0 => {
                // Jumps of a size program go forwards: checked when the plan was validated.
                at = *target as usize;
                continue;
            }
            Inst::Jump { target } => {
                at = *target as usize;
                continue;
            }
            Inst::Check { cond, message, .. } if value(*cond) == 0 => {
                return Err(Failure::usage(format!("these sizes: {}", plan.str(*message))));
            }
            _ => None,
        };
        if let Some((dst, v)) = set {
            regs[dst.0 as usize] = v;
        }
        at += 1;
    }
    Ok(Some(regs))
}
