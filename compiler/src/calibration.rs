//! Weights of 4 bits that are rounded by what their products read over a text.
//!
//! ```text
//! model ── Calibration::observed ── engine with sums ── a text is run ── Calibration::add (a factor for each sum)
//! model ── Calibration::apply (pass `precision`, then each matrix that has a factor) ── compile
//! ```
//!
//! Factors and rounded matrices lie in one file without a name, so memory holds one factor and some rows. A
//! matrix is rounded once, when [`Calibration::apply`] first meets it; after that its parts are ranges of that file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use silure_ir::blocks::{Blocks, Factor, compensated};
use silure_ir::{Code, Diagnostic, Elem, Module, TensorType, WeightExpr};
use silure_passes::Driver;
use silure_passes::inputs::{Inputs, observe, products, rows};

use crate::compile::narrowed;
use crate::{Compiler, Error, Loaded, Options, Precision, Result, Source};

/// The entry whose products are observed.
const ENTRY: &str = "prefill";
/// Name of the file in expressions.
const NAME: &str = ":calibration:";
/// Elements of rows that a thread rounds at once.
const PART: usize = 2 << 20;

/// What is known of a model's inputs, and what became of its weights.
pub struct Calibration {
    scratch: Arc<Scratch>,
    end: u64,
    /// Of the text of rows: where its factor begins, and inputs.
    factors: HashMap<String, (u64, usize)>,
    /// Of the text of a part of a matrix: its place.
    rounded: HashMap<String, WeightExpr>,
}

/// A file without a name.
pub struct Scratch(File);

impl Scratch {
    pub(crate) fn read(
        &self,
        source: &str,
        at: u64,
        bytes: u64,
    ) -> Option<std::io::Result<Vec<u8>>> {
        let read = || {
            let mut out = vec![0; bytes as usize];
            self.0.read_exact_at(&mut out, at).map(|()| out)
        };
        (source == NAME).then(read)
    }
}

impl Calibration {
    /// Nothing is known yet. A file is made at `path`, and is gone when nothing reads it any more.
    pub fn new(path: &Path) -> Result<Calibration> {
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let mut how = File::options();
        let file = how.read(true).write(true).create_new(true).open(path).map_err(io)?;
        std::fs::remove_file(path).map_err(io)?;
        let (factors, rounded) = (HashMap::new(), HashMap::new());
        Ok(Calibration { scratch: Arc::new(Scratch(file)), end: 0, factors, rounded })
    }

    /// What can be observed of a model.
    pub fn inputs(module: &Module) -> Vec<Inputs> {
        products(module, ENTRY)
    }

    /// The model that adds up what some of its products read.
    pub fn observed(model: &mut Loaded, which: &[Inputs]) -> Result<()> {
        observe(&mut model.module, ENTRY, which)?;
        Ok(silure_ir::verify::verify(&model.module)?)
    }

    /// Takes the sum of an input over a text.
    pub fn add(&mut self, inputs: &Inputs, sums: &[f32]) -> Result<()> {
        let f = Factor::new(sums, inputs.k).map_err(|e| {
            let read = "what this product reads over the text cannot be used";
            let of = inputs.rows.first().map_or("", String::as_str);
            e.note(format!("{read}: {of}"))
        })?;
        let at = self.append(&f.bytes())?;
        for rows in &inputs.rows {
            self.factors.insert(rows.clone(), (at, inputs.k));
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.end;
        self.write(at, bytes)?;
        self.end += bytes.len() as u64;
        Ok(at)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let io = |source| Error::Io { path: "the calibration's file".into(), source };
        self.scratch.0.write_all_at(bytes, at).map_err(io)
    }

    /// Narrows a model's weights by the options' precision, which must be int4; those without a factor are rounded
    /// to the nearest. What comes out is compiled without a precision.
    pub fn apply(&mut self, c: &Compiler, mut model: Loaded, options: &Options) -> Result<Loaded> {
        let Some(p @ Precision::Int4 { .. }) = options.precision else {
            return Err(Error::Usage("calibration applies to int4".into()));
        };
        let driver = Driver::new(&c.registry, &c.context, options.driver.clone());
        let run = driver.with_source(&model.source).run(&p.pass(), &mut model.module)?;
        model.notes.push(narrowed(p, run.changes, &run.passes));
        let (mut by_text, mut all) = (0, 0);
        for i in 0..model.module.weights.len() {
            let w = &model.module.weights[i];
            let Some(matrix) = unshaped(&w.expr) else { continue };
            let codes = matches!(matrix, WeightExpr::Codes(..));
            all += codes as usize;
            let known = rows(matrix).and_then(|r| self.factors.get(&r.to_string()).copied());
            let (Some(known), true) = (known, std::ptr::eq(matrix, &w.expr)) else { continue };
            by_text += codes as usize;
            if !self.rounded.contains_key(&w.expr.to_string()) {
                let (name, expr) = (w.name.clone(), w.expr.clone());
                self.round(&expr, known, &model.source).map_err(|e| match e {
                    Error::Module(d) => Error::Module(
                        d.into_iter().map(|d| d.note(format!("weight @{name}"))).collect(),
                    ),
                    e => e,
                })?;
            }
            let w = &mut model.module.weights[i];
            if let Some(place) = self.rounded.get(&w.expr.to_string()) {
                w.expr = place.clone();
            }
        }
        model.source = Source::Rounded(Box::new(model.source), self.scratch.clone());
        model.options.push(("precision".into(), format!("{p}, calibrated")));
        let rest = match all - by_text {
            0 => String::new(),
            n => format!(
                "; {n} whose inputs have no one sum (experts, branches) to the nearest integers"
            ),
        };
        model
            .notes
            .push(format!("precision {p}: {by_text} matrices are rounded by the text{rest}"));
        Ok(model)
    }

    /// Rounds the rows that a part is made of, and keeps all three parts.
    fn round(&mut self, part: &WeightExpr, (at, k): (u64, usize), source: &Source) -> Result<()> {
        let (
            Some(rows),
            &WeightExpr::Codes(.., block)
            | &WeightExpr::Scales(.., block)
            | &WeightExpr::Offsets(.., block),
        ) = (rows(part), part)
        else {
            return Err(internal("this is no part of a matrix by blocks"));
        };
        let bytes = self.scratch.read(NAME, at, (k * k * 4) as u64);
        let bytes = bytes.transpose().map_err(|e| Error::Io { path: NAME.into(), source: e })?;
        let factor = Factor::of(k, &bytes.unwrap_or_default())?;
        let n = match rows.ty()?.shape().as_deref() {
            Some(&[n, _]) => n,
            _ => return Err(internal("this is no matrix")),
        };
        let per = k.div_ceil(block);
        let boxed = || Box::new(rows.clone());
        let parts = [
            (WeightExpr::Codes(boxed(), Elem::U4, block), Elem::U4, k),
            (WeightExpr::Scales(boxed(), Elem::U4, block), Elem::F16, per),
            (WeightExpr::Offsets(boxed(), Elem::U4, block), Elem::F16, per),
        ];
        let mut places = [0; 3];
        for (place, (_, elem, width)) in places.iter_mut().zip(&parts) {
            *place = self.end;
            self.end += ((n * width * elem.bits()).div_ceil(8)) as u64;
        }
        // Pairs of rows, so that each part begins with a byte.
        let some = (PART / k.max(1)).next_multiple_of(2).max(2);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let starts: Vec<usize> = (0..n).step_by(some).collect();
        for few in starts.chunks(threads) {
            let one = |from: usize| -> silure_ir::Result<Blocks> {
                let own = from..(from + some).min(n);
                // Rows that cannot be made alone are cut out of the whole.
                let e = rows.part(0, own.clone()).unwrap_or_else(|| {
                    WeightExpr::Slice(boxed(), vec![own.start, 0], vec![own.len(), k])
                });
                compensated(&e.eval(source)?, &factor, block)
            };
            let made: Vec<_> = std::thread::scope(|s| {
                let running: Vec<_> = few.iter().map(|f| s.spawn(move || one(*f))).collect();
                let join = |t: std::thread::ScopedJoinHandle<'_, _>| {
                    t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))
                };
                running.into_iter().map(join).collect()
            });
            for (from, blocks) in few.iter().zip(made) {
                let b = blocks?;
                let tensors = [Some(&b.codes), Some(&b.scales), b.offsets.as_ref()];
                for ((place, (_, elem, width)), t) in places.iter().zip(&parts).zip(tensors) {
                    let skip = (from * width * elem.bits() / 8) as u64;
                    self.write(place + skip, t.map_or(&[], |t| t.bytes()))?;
                }
            }
        }
        for (offset, (e, elem, width)) in places.into_iter().zip(parts) {
            let bytes = ((n * width * elem.bits()).div_ceil(8)) as u64;
            let ty = TensorType::fixed(elem, &[n, width]);
            let file = WeightExpr::File { source: NAME.into(), offset, bytes, ty };
            self.rounded.insert(e.to_string(), file);
        }
        Ok(())
    }
}

fn internal(m: &str) -> Error {
    Diagnostic::new(Code::Internal, m).into()
}

/// A part of a matrix by blocks, under a shape.
fn unshaped(e: &WeightExpr) -> Option<&WeightExpr> {
    match e {
        WeightExpr::Reshape(e, _) => unshaped(e),
        e => rows(e).map(|_| e),
    }
}
