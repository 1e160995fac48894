//! The driver: runs a pipeline and owns its safety.
//!
//! Before and after every pass the module is verified, claims of [`crate::pass::Preserves`] are
//! checked, text goes to the sink or the dump folder where asked, and the pass gets one line in the
//! report. The clock is read for the report alone.
//!
//! ```
//! use silure_ir::{Context, text};
//! use silure_passes::{Config, Driver, Registry};
//! let cx = Context::new();
//! let t = "module @m {\n  entry @main(%x: f32[2]) -> (y: f32[2]) {\n    %0 = arith.neg %x : f32[2]\n    \
//!          %1 = arith.neg %0 : f32[2]\n    return %1\n  }\n}\n";
//! let mut m = text::parse_verified(&cx, "m", t).unwrap();
//! let registry = Registry::new();
//! let mut d = Driver::new(&registry, &cx, Config::default());
//! let report = d.run("canonicalize", &mut m).unwrap();
//! assert_eq!(report.passes[0].rules, [("double_negation".to_string(), 1)]);
//! ```

use std::path::{Path, PathBuf};
use std::time::Instant;

use silure_ir::diag::{Code, Diagnostic, Result};
use silure_ir::weight::{NoFiles, WeightSource};
use silure_ir::{Context, Module, State, Weight, text, verify};

use crate::ledger::{Change, Ledger};
use crate::options::{Options, PassCall, parse_calls};
use crate::pass::{Changed, PassCx, PassDef, Registry};
use crate::rewrite::Exactness;

/// Which passes print the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Print {
    /// None.
    #[default]
    Never,
    /// Those named.
    Passes(Vec<String>),
    /// All.
    All,
}

impl Print {
    fn wants(&self, pass: &str) -> bool {
        match self {
            Print::Never => false,
            Print::Passes(p) => p.iter().any(|n| n == pass),
            Print::All => true,
        }
    }
}

/// How a pipeline is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Verify the module before the first pass and after each.
    pub verify: bool,
    /// Verify the module after each patch.
    pub verify_each: bool,
    /// The most a rewrite may do to results.
    pub allow: Exactness,
    /// Make no change after this many, over the whole pipeline.
    pub stop_after: Option<u64>,
    /// Changes that one pass may make per op of the module, plus 1,000.
    pub changes_per_op: u64,
    /// Print the module before these passes.
    pub print_before: Print,
    /// Print the module after these passes, if they changed it.
    pub print_after: Print,
    /// Write the module after every pass into this folder, as `NN-pass.sir`.
    pub dump: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            verify: true,
            verify_each: false,
            allow: Exactness::Reassociates,
            stop_after: None,
            changes_per_op: 64,
            print_before: Print::Never,
            print_after: Print::Never,
            dump: None,
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct PassRun {
    /// Name with options.
    pub pass: String,
    /// Whether it changed the module.
    pub changed: bool,
    /// Changes by rule, in order of name.
    pub rules: Vec<(String, u64)>,
    /// Matches that [`Config::allow`] forbade, by rule.
    pub forbidden: Vec<(String, u64)>,
    /// Ops in all functions before and after.
    pub ops: (usize, usize),
    /// Wall time, for people: nothing depends on it.
    pub nanos: u128,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One entry per pass, in order.
    pub passes: Vec<PassRun>,
    /// Number of changes.
    pub changes: u64,
    /// The last changes, oldest first.
    pub last: Vec<Change>,
}

/// Receives printed modules: a heading and the text.
pub type Sink<'a> = Box<dyn FnMut(&str, &str) + 'a>;

/// See the module documentation.
pub struct Driver<'a> {
    registry: &'a Registry,
    context: &'a Context,
    config: Config,
    source: &'a dyn WeightSource,
    sink: Option<Sink<'a>>,
}

impl<'a> Driver<'a> {
    /// A driver that prints nowhere and reads no weight files.
    pub fn new(registry: &'a Registry, context: &'a Context, config: Config) -> Driver<'a> {
        Driver { registry, context, config, source: &NoFiles, sink: None }
    }

    /// Where printed modules go.
    pub fn with_sink(mut self, sink: impl FnMut(&str, &str) + 'a) -> Driver<'a> {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Where passes may read the bytes of weights.
    pub fn with_source(mut self, source: &'a dyn WeightSource) -> Driver<'a> {
        self.source = source;
        self
    }

    /// Runs a pipeline given as text. On an error the module is as the failing pass left it.
    pub fn run(&mut self, pipeline: &str, m: &mut Module) -> Result<Report, Vec<Diagnostic>> {
        let calls = parse_calls(pipeline).map_err(|e| vec![e])?;
        self.run_calls(&calls, m)
    }

    /// Runs a parsed pipeline.
    pub fn run_calls(
        &mut self,
        calls: &[PassCall],
        m: &mut Module,
    ) -> Result<Report, Vec<Diagnostic>> {
        let one = |e: Diagnostic| vec![e];
        let mut plan = Vec::new();
        for c in calls {
            let def = self.registry.pass(&c.name).map_err(one)?;
            plan.push((c, def, Options::new(def.name, def.options, &c.options).map_err(one)?));
        }
        if self.config.verify {
            verify::verify(m)?;
        }
        self.dump(m, 0, "input").map_err(one)?;
        let c = &self.config;
        let mut ledger = Ledger::new(c.allow, c.verify_each, c.stop_after);
        let mut report = Report::default();
        for (n, (call, def, options)) in plan.into_iter().enumerate() {
            let run = self.one(call, def, &options, m, &mut ledger)?;
            self.dump(m, n + 1, def.name).map_err(one)?;
            report.passes.push(run);
        }
        report.changes = ledger.made();
        report.last = ledger.last().to_vec();
        Ok(report)
    }

    fn one(
        &mut self,
        call: &PassCall,
        def: &'static PassDef,
        options: &Options,
        m: &mut Module,
        ledger: &mut Ledger,
    ) -> Result<PassRun, Vec<Diagnostic>> {
        if self.config.print_before.wants(def.name) {
            self.print(&format!("before {call}"), m);
        }
        let before = Claims::of(def, m);
        let ops = count_ops(m);
        ledger.begin(def.name, 1000 + self.config.changes_per_op.saturating_mul(ops as u64));
        let start = Instant::now();
        let changed = (def.run)(&mut PassCx {
            module: m,
            options,
            context: self.context,
            registry: self.registry,
            source: self.source,
            ledger,
        })
        .map_err(|e| vec![e.note(format!("in pass `{call}`"))])?;
        let nanos = start.elapsed().as_nanos();
        if changed == Changed::Yes && self.config.print_after.wants(def.name) {
            self.print(&format!("after {call}"), m);
        }
        if self.config.verify {
            verify::verify(m).map_err(|all| {
                let note = format!("after pass `{call}`, which must leave a valid module");
                all.into_iter().map(|e| e.note(note.clone())).collect::<Vec<_>>()
            })?;
        }
        before.check(def, m).map_err(|e| vec![e])?;
        let named = |c: &std::collections::BTreeMap<&'static str, u64>| {
            c.iter().map(|(n, k)| (n.to_string(), *k)).collect()
        };
        Ok(PassRun {
            pass: call.to_string(),
            changed: changed == Changed::Yes,
            rules: named(ledger.counts()),
            forbidden: named(ledger.skipped()),
            ops: (ops, count_ops(m)),
            nanos,
        })
    }

    fn print(&mut self, heading: &str, m: &Module) {
        if let Some(sink) = &mut self.sink {
            sink(heading, &text::print(m));
        }
    }

    fn dump(&self, m: &Module, n: usize, name: &str) -> Result<()> {
        let Some(dir) = &self.config.dump else { return Ok(()) };
        let io = |p: &Path, e: std::io::Error| {
            Diagnostic::new(Code::Io, format!("cannot write `{}`: {e}", p.display()))
        };
        std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
        let path = dir.join(format!("{n:02}-{name}.sir"));
        std::fs::write(&path, text::print(m)).map_err(|e| io(&path, e))
    }
}

/// Ops in all functions.
pub fn count_ops(m: &Module) -> usize {
    m.funcs.iter().map(|f| f.walk().len()).sum()
}

/// What a pass promised to keep.
struct Claims {
    weights: Option<(Vec<Weight>, Vec<State>)>,
    functions: Option<Vec<std::sync::Arc<str>>>,
}

impl Claims {
    fn of(def: &PassDef, m: &Module) -> Claims {
        Claims {
            weights: def.preserves.weights.then(|| (m.weights.clone(), m.states.clone())),
            functions: def.preserves.functions.then(|| names(m)),
        }
    }

    fn check(&self, def: &PassDef, m: &Module) -> Result<()> {
        let broke = |what: &str| {
            let text = format!("pass `{}` claims to keep {what} and changed them", def.name);
            Err(Diagnostic::new(Code::Internal, text))
        };
        if self.weights.as_ref().is_some_and(|(w, s)| *w != m.weights || *s != m.states) {
            return broke("weights and states");
        }
        if self.functions.as_ref().is_some_and(|f| *f != names(m)) {
            return broke("functions");
        }
        Ok(())
    }
}

fn names(m: &Module) -> Vec<std::sync::Arc<str>> {
    m.funcs.iter().map(|f| f.name.clone()).collect()
}
