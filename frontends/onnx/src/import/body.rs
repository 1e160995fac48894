//! Walking graphs: constants first, then the nodes in their order, each by its converter. At the end
//! ops that became unused (shape arithmetic that turned into attributes) are removed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use silure_ir::{Attr, Dim, Func, OpId, Traits, Type, ValueId};

use super::cx::Cx;
use super::signature::ImportOptions;
use crate::error::{Code, Error, Result, quote};
use crate::graph::{Graph, Node};
use crate::proto::{DimValue, Dimension, TypeValue};

/// Symbols in a type.
fn symbols_of_type(t: &Type) -> Vec<Arc<str>> {
    match t {
        Type::Seq(t) | Type::Opt(t) => symbols_of_type(t),
        Type::Tensor(t) => t.dims.iter().flat_map(|d| d.symbols()).collect(),
        _ => vec![],
    }
}

impl Cx<'_, '_> {
    /// Builds the entry: arguments, body, results. `nodes` are those of the main graph.
    pub fn entry(&mut self, nodes: Vec<Node<'_>>, options: &ImportOptions) -> Result<()> {
        /// Nodes whose memory is given back together.
        const BLOCK: usize = 16;
        let flat = nodes.iter().all(|n| n.graphs.is_empty());
        let mut nodes = nodes.into_iter();
        let mut block = || Some(nodes.by_ref().take(BLOCK).collect::<Vec<_>>());
        let blocks: Vec<_> = std::iter::from_fn(|| block().filter(|b| !b.is_empty())).collect();
        drop(nodes);
        let program = self.program;
        let g = &program.graph;
        let args = self.arguments(options)?;
        self.begin(g, &args)?;
        if flat {
            self.tensors = vec![];
        }
        let mut unread = Unread::new(self, g, blocks.iter().flatten());
        for node in blocks.into_iter().flatten() {
            self.node(&node)?;
            unread.node(self, &node);
        }
        let results = self.outputs(g)?;
        if results.is_empty() {
            return Err(Error::new(Code::Structure, "the main graph", "the model has no outputs"));
        }
        self.f.result_names = self.result_names(g);
        self.at = "the main graph".into();
        let ret = self.builder().ret(&results);
        ret.map_err(|d| self.diag(d)).map(drop)
    }

    /// Names of the outputs. A value that is an output again has its name with a number, which no other
    /// output has.
    fn result_names(&mut self, g: &Graph<'_>) -> Vec<Arc<str>> {
        let program = self.program;
        let mut taken: HashSet<Arc<str>> =
            g.outputs.iter().map(|v| program.value(*v).name.into()).collect();
        let mut given = HashSet::new();
        let mut names = vec![];
        for v in &g.outputs {
            let name: Arc<str> = program.value(*v).name.into();
            if given.insert(*v) {
                names.push(name);
                continue;
            }
            let numbered = |i: usize| -> Arc<str> { format!("{name}_{i}").into() };
            let other = (1..).map(numbered).find(|n| !taken.contains(n)).expect("endless");
            self.note(format!(
                "output {} is {} once more and is called {}",
                names.len(),
                quote(&name),
                quote(&other)
            ));
            taken.insert(other.clone());
            names.push(other);
        }
        names
    }

    /// Builds a graph's constants and nodes in the current region; gives its outputs.
    pub fn body(&mut self, g: &Graph<'_>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        self.begin(g, inputs)?;
        for node in &g.nodes {
            self.node(node)?;
        }
        self.outputs(g)
    }

    fn outputs(&mut self, g: &Graph<'_>) -> Result<Vec<ValueId>> {
        g.outputs.iter().map(|v| self.value(*v)).collect()
    }

    /// Gives a graph's inputs their values and builds its constants.
    fn begin(&mut self, g: &Graph<'_>, inputs: &[ValueId]) -> Result<()> {
        if g.inputs.len() != inputs.len() {
            return Err(self
                .wrong("a subgraph has the wrong number of inputs")
                .needed(inputs.len().to_string())
                .present(g.inputs.len().to_string()));
        }
        for (name, v) in g.inputs.iter().zip(inputs) {
            self.define(*name, *v);
        }
        let program = self.program;
        for (v, tensor) in &g.constants {
            let name = program.value(*v).name;
            self.at = format!("initializer {}", quote(name));
            let value = self.initializer(*tensor, name)?;
            self.declared(*v, value, true)?;
            self.define(*v, value);
        }
        Ok(())
    }

    fn node(&mut self, node: &Node<'_>) -> Result<()> {
        self.enter(node);
        self.ignore_hints(node);
        let Some(record) = super::find(&node.op) else {
            return Err(self.unsupported("the operator is not supported"));
        };
        let results = (record.convert)(self, node)?;
        self.all_read(node)?;
        for (i, out) in node.outputs.iter().enumerate() {
            let Some(out) = out else { continue };
            let Some(v) = results.get(i) else {
                return Err(self
                    .wrong("the node has too many outputs")
                    .needed(format!("at most {}", results.len()))
                    .present(node.outputs.len().to_string()));
            };
            self.declared(*out, *v, false)?;
            self.define(*out, *v);
        }
        Ok(())
    }

    /// Holds a value against what the model declares: another element type is an error, and so are other sizes of what
    /// is in the file (`fixed`). Other sizes of results are a note: exporters write them, and nothing depends on them.
    fn declared(&mut self, v: crate::graph::ValueId, have: ValueId, fixed: bool) -> Result<()> {
        let program = self.program;
        let (name, Some(ty)) = (program.value(v).name, program.value(v).ty) else { return Ok(()) };
        let (Some(TypeValue::Tensor(t)), Type::Tensor(h)) = (ty.value(), self.f.ty(have)) else {
            return Ok(());
        };
        let h = h.clone();
        let e = self.wrong(format!("value {} is not what the model declares", quote(name)));
        let e = e.needed(super::signature::describe(Some(ty))).present(h.to_string());
        // Complex numbers are pairs here.
        let elem = t.elem_type().unwrap_or(0);
        let complex = matches!(elem, 14 | 15);
        if elem != 0 && !complex && crate::tensor::elem(elem) != Ok(h.elem) {
            return Err(e);
        }
        let Some(shape) = t.shape() else { return Ok(()) };
        let other = |(d, have): (Dimension<'_>, &Dim)| match d.value() {
            Some(DimValue::Number(want)) => {
                want < -1 || want >= 0 && have.as_const().is_some_and(|have| have != want)
            }
            _ => false,
        };
        if shape.dim().count() == h.rank() && !shape.dim().zip(&h.dims).any(other) {
            return Ok(());
        }
        if fixed {
            return Err(e);
        }
        self.note(format!(
            "value {} is declared as {} and is {h}",
            quote(name),
            super::signature::describe(Some(ty))
        ));
        Ok(())
    }
}

/// The main graph's constants that nodes are still to read. One that became attributes goes when its last reader is
/// converted: a model has many, and each is a tensor.
struct Unread(HashMap<ValueId, u32>);

impl Unread {
    /// How often `nodes` read each constant of `g`. Those that the graph yields stay.
    fn new<'n, 'm: 'n>(
        cx: &Cx<'_, '_>,
        g: &Graph<'_>,
        nodes: impl Iterator<Item = &'n Node<'m>>,
    ) -> Unread {
        let values = |v: &crate::graph::ValueId| cx.value(*v).ok();
        let mut left: HashMap<_, _> =
            g.constants.iter().filter_map(|(v, _)| Some((values(v)?, 0))).collect();
        for v in nodes.flat_map(|n| n.uses()).filter_map(|v| values(&v)) {
            left.entry(v).and_modify(|n| *n += 1);
        }
        for v in g.outputs.iter().filter_map(values) {
            left.remove(&v);
        }
        Unread(left)
    }

    /// Counts what a converted node has read, and removes what nothing uses by then.
    fn node(&mut self, cx: &mut Cx<'_, '_>, node: &Node<'_>) {
        for v in node.outputs.iter().flatten().filter_map(|v| cx.value(*v).ok()) {
            // It has another name now, by which it may be read.
            self.0.remove(&v);
        }
        for v in node.uses() {
            let Ok(v) = cx.value(v) else { continue };
            let Some(left) = self.0.get_mut(&v) else { continue };
            *left -= 1;
            if *left == 0
                && cx.f.uses(v).is_empty()
                && let Some(op) = cx.f.def_op(v)
            {
                cx.f.erase(op);
            }
        }
    }
}

/// Symbols in an op: of its results' types, its attributes and its regions' arguments.
fn symbols_of(f: &Func, op: OpId) -> Vec<Arc<str>> {
    let o = f.op(op);
    let args = o.regions.iter().flat_map(|r| f.region(*r).args.iter());
    let mut out: Vec<Arc<str>> =
        o.results.iter().chain(args).flat_map(|v| symbols_of_type(f.ty(*v))).collect();
    for (_, a) in o.attrs.iter() {
        match a {
            Attr::Dims(d) => out.extend(d.iter().flat_map(|d| d.symbols())),
            Attr::Type(t) => out.extend(symbols_of_type(t)),
            _ => {}
        }
    }
    out
}

/// Removes pure ops whose results nothing uses, and run-time symbols that no longer occur. An op
/// that gives a symbol its value stays where the symbol does.
pub(super) fn sweep(f: &mut Func) {
    let walk = f.walk();
    let mut source: HashMap<Arc<str>, OpId> = HashMap::new();
    for &op in &walk {
        for s in symbols_of(f, op) {
            source.entry(s).or_insert(op);
        }
    }
    let runtime: HashSet<Arc<str>> =
        f.symbols.iter().filter(|s| s.runtime).map(|s| s.name.clone()).collect();
    let mut used: HashSet<Arc<str>> = HashSet::new();
    for op in walk.into_iter().rev() {
        let o = f.op(op);
        let mentions = symbols_of(f, op);
        let kept = o.def.is(Traits::EFFECT)
            || o.def.is(Traits::TERMINATOR)
            || !o.results.iter().all(|r| f.uses(*r).is_empty())
            || mentions.iter().any(|s| runtime.contains(s) && used.contains(s) && source[s] == op);
        if kept {
            used.extend(mentions);
        } else {
            f.erase(op);
        }
    }
    let args: Vec<Type> = f.args().iter().map(|a| f.ty(*a).clone()).collect();
    used.extend(args.iter().flat_map(symbols_of_type));
    f.symbols.retain(|s| used.contains(&s.name));
}
