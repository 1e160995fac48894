//! What the importer reads: of a model, operator by operator, and of ONNX.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{find, records, signature};
use crate::error::{Code, Error, Result, quote};
use crate::graph::Program;
use crate::load::Model;
use crate::opsets::OPERATORS;

/// One operator of a model, in one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// Domain, name and opset version: `Add-14`.
    pub op: String,
    /// How many nodes have it, those of function bodies included.
    pub count: usize,
    /// How many of these come from bodies of the model's functions.
    pub inlined: usize,
    /// Whether it is converted.
    pub converted: bool,
    /// The first three of its nodes.
    pub nodes: Vec<String>,
    /// Operand types that differ, the first three: `(f32[n, 4], i64[2])`.
    pub types: Vec<String>,
}

/// The operators of a model, by name.
pub fn coverage(model: &Model) -> Result<Vec<Coverage>> {
    Ok(of(&model.resolve()?))
}

fn of(program: &Program<'_>) -> Vec<Coverage> {
    let mut all: BTreeMap<String, Coverage> = BTreeMap::new();
    program.visit(&mut |node| {
        let op = node.op.to_string();
        let entry = all.entry(op.clone()).or_insert_with(|| Coverage {
            op,
            count: 0,
            inlined: 0,
            converted: find(&node.op).is_some(),
            nodes: vec![],
            types: vec![],
        });
        entry.count += 1;
        entry.inlined += usize::from(node.call.is_some());
        if entry.nodes.len() < 3 {
            entry.nodes.push(quote(&node.location(&program.values)));
        }
        let types: Vec<String> = node
            .inputs
            .iter()
            .map(|v| v.map_or("_".into(), |v| signature::describe(program.value(v).ty)))
            .collect();
        let types = format!("({})", types.join(", "));
        if entry.types.len() < 3 && !entry.types.contains(&types) {
            entry.types.push(types);
        }
    });
    all.into_values().collect()
}

/// Looks every operator up; the error lists all that have no converter.
pub(super) fn check_supported(program: &Program<'_>) -> Result<()> {
    let missing: Vec<Coverage> = of(program).into_iter().filter(|c| !c.converted).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let total: usize = missing.iter().map(|m| m.count).sum();
    let mut e = Error::new(
        Code::Unsupported,
        "the model",
        format!("{} operators are not supported ({total} nodes)", missing.len()),
    );
    for m in missing {
        let more = if m.count > m.nodes.len() { ", …" } else { "" };
        e = e.detail(format!(
            "{} × {}: {}{more}; operands {}",
            m.op,
            m.count,
            m.nodes.join(", "),
            m.types.join(" ")
        ));
    }
    Err(e)
}

/// Why operators are refused for good, and what of others is.
const NOTES: &str = "\n## Notes\n\n\
    * An input NAME that is a map (keys of i64 or strings, values of single elements) is two inputs of one size,\n\
      `NAME.keys` and `NAME.values`, in its place: entries in any order, possibly none. A run in which a key is\n\
      given twice ends with an error; `--dim NAME_d0=N` fixes the size. CastMap and DictVectorizer read such inputs\n\
      alone. No output is a map: ZipMap's all have the same known keys, so they are rows of values.\n\
    * CastMap's SPARSE form ends the run with an error for a key that is not below `max_map` (ONNX forbids it,\n\
      onnxruntime drops it) or is negative; a place without a key is 0, as a string \"0.f\", which is what\n\
      onnxruntime writes. Numbers become strings as Cast writes them. DictVectorizer leaves out keys that its\n\
      vocabulary lacks.\n\
    * GridSample, cubic with `border`: the standard asks for \"border values for out-of-bound grid locations\" and none of\n\
      its cases look. Here every tap is held inside the image by itself, as in PyTorch, whose exporters write such\n\
      models, and in onnxruntime; onnx's reference moves the whole place to the border first.\n\
    * `auto_pad` SAME with a stride above the kernel: windows begin at the edge and no input is cut off, as in\n\
      TensorFlow; ConvTranspose gives input times stride, as the standard says. onnxruntime cuts in both.\n\
    * LSTM, GRU and RNN of no steps end in their initial state; onnxruntime gives zeros.\n\
    * Sparse initialisers, and Constant's `sparse_value`, become dense tensors, up to 256 MiB in all; their indices are\n\
      in either form, inside the tensor and in ascending order.\n\
    * Gradient differentiates a part of the graph; nothing here does.\n\
    * ImageDecoder reads BMP, PNG, PNM, TIFF and WebP of 8 bits per channel, still and uncompressed or compressed\n\
      without loss (WebP in both ways): their decoders give the reference's bits. JPEG and JPEG 2000 end the run\n\
      with an error, as files do that are damaged or no image at all, for which ONNX has an empty image.\n";

/// The page docs/ops.md: every operator of ONNX and which of its versions are read.
pub fn ops_page() -> String {
    let mut out = String::from(
        "# Operators of ONNX\n\n\
         Generated from the importer's table and from that of ONNX's operators;\n\
         `BLESS=1 cargo test -p silure-onnx --test docs` rewrites it.\n\n\
         An operator is *converted* to ops of the IR (docs/ops-ir.md), in each of its versions unless some are\n\
         named. One that is *refused* is still run if the model brings a function body for it: bodies are\n\
         inlined. A refusal names the operator, its version and its operand types, before any code is made.\n\n\
         Which element types run depends on the target and on what the operator becomes; `silure check MODEL\n\
         --target TARGET` says it for a model. CPUs run all that is converted, but for what that command lists;\n\
         docs/cuda.md says which models run on CUDA, and models are not lowered to Ascend.\n\n\
         Dims that an operator needs equal become one dim where the model names them differently, or the run\n\
         compares them; a note says so. Only a dim that is 1 in the model is repeated in a broadcast, never one\n\
         that happens to be 1 in a run: `--dim NAME=1` makes it one. A size that a model computes and gives to\n\
         `Reshape` is that size; only a 0 written in the model keeps the operand's.\n",
    );
    let mut domain = None;
    let (mut read, mut all) = (0, 0);
    for o in OPERATORS {
        if domain != Some(o.domain) {
            domain = Some(o.domain);
            let name = if o.domain.is_empty() { "ai.onnx" } else { o.domain };
            let _ = write!(
                out,
                "\n## {name}\n\n| operator | opset versions | verdict |\n|---|---|---|\n"
            );
        }
        let converted = |v: i64| {
            let mut own = records().filter(|r| r.domain == o.domain && r.op == o.name);
            own.any(|r| (r.since.0..=r.since.1).contains(&v))
        };
        let list = |v: &[i64]| v.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let yes: Vec<i64> = o.versions.iter().copied().filter(|v| converted(*v)).collect();
        all += 1;
        read += usize::from(!yes.is_empty());
        let verdict = match yes.len() {
            0 => "refused".to_string(),
            n if n == o.versions.len() => "converted".to_string(),
            _ => format!("converted: {}", list(&yes)),
        };
        let _ = writeln!(out, "| {} | {} | {verdict} |", o.name, list(o.versions));
    }
    let _ = write!(out, "\n{read} of {all} operators of ONNX are converted.\n");
    let mut domain = None;
    for (d, name) in super::operators() {
        if OPERATORS.iter().any(|o| o.domain == d && o.name == name) {
            continue;
        }
        if domain != Some(d) {
            domain = Some(d);
            let title = if d.is_empty() { "Others that exporters write in ai.onnx" } else { d };
            let _ = write!(out, "\n## {title}\n\n| operator | verdict |\n|---|---|\n");
        }
        let _ = writeln!(out, "| {name} | converted |");
    }
    out + NOTES
}
