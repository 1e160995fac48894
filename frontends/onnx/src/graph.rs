//! The checked form of a model's graph: names resolved to values, functions inlined, nodes ordered.
//!
//! [`Model::resolve`] builds it, and what it returns keeps these invariants:
//! * every value is defined once: a graph input, a constant or a node's output;
//! * every use refers to a value of the same graph or of an enclosing one, defined before it;
//! * there are no calls of model-local functions, no cycles, no nodes that nothing depends on;
//! * the order of nodes and constants follows from the structure alone: a walk from the graph's
//!   outputs through operands in their order. Renaming values or permuting nodes in the file changes
//!   nothing but names.
//!
//! ```no_run
//! # let model = silure_onnx::Model::open("m.onnx".as_ref())?;
//! let program = model.resolve()?;
//! for node in &program.graph.nodes {
//!     println!("{} {:?} -> {:?}", node.op, node.inputs, node.outputs);
//! }
//! # Ok::<(), silure_onnx::Error>(())
//! ```

use crate::error::{Code, Error, Result, quote};
use crate::proto::{AttributeProto, TypeProto};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// A value of a [`Program`]: index into [`Program::values`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueId(pub u32);

/// What the file says of a value.
#[derive(Clone, Debug)]
pub struct Value<'m> {
    /// Its name in the file; unique only within its graph or function.
    pub name: &'m str,
    /// Its declared type, if any.
    pub ty: Option<TypeProto<'m>>,
    /// The graph that defines it ([`Graph::id`]).
    pub owner: u32,
}

/// An operator: domain (`""` is ONNX's own), name, and the opset version the node was written for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Op<'m> {
    /// Operator domain.
    pub domain: &'m str,
    /// Operator name, for example `Conv`.
    pub name: &'m str,
    /// The imported version of the domain's opset, not the version that introduced the operator.
    pub version: i64,
}

impl fmt::Display for Op<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}.", self.domain)?;
        }
        write!(f, "{}-{}", self.name, self.version)
    }
}

/// The chain of function calls that a node was inlined from, innermost first.
#[derive(Debug)]
pub struct Call<'m> {
    /// Name of the calling node, or of the function if the node has none.
    pub name: &'m str,
    /// The call around this one.
    pub outer: Option<Arc<Call<'m>>>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node<'m> {
    /// The operator.
    pub op: Op<'m>,
    /// Its name in the file, possibly empty.
    pub name: &'m str,
    /// The calls it was inlined from.
    pub call: Option<Arc<Call<'m>>>,
    /// Operands; `None` is an omitted optional one.
    pub inputs: Vec<Option<ValueId>>,
    /// Results; `None` is one that is not wanted.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes but subgraphs, sorted by name, references to function attributes replaced.
    pub attrs: Vec<Attr<'m>>,
    /// Subgraphs by attribute name, sorted by name.
    pub graphs: Vec<(&'m str, Graph<'m>)>,
}

/// An attribute: the name the operator knows it by, and its value.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'m> {
    /// The name.
    pub name: &'m str,
    /// The value; its own name may be another one where a function's caller gave it.
    pub value: AttributeProto<'m>,
}

impl<'m> Node<'m> {
    /// The value of an attribute.
    pub fn attr(&self, name: &str) -> Option<AttributeProto<'m>> {
        self.attrs.iter().find(|a| a.name == name).map(|a| a.value)
    }

    /// A subgraph.
    pub fn graph(&self, name: &str) -> Option<&Graph<'m>> {
        self.graphs.iter().find(|(n, _)| *n == name).map(|(_, g)| g)
    }

    /// The node's name with the calls it came from, for locations: `encoder/attention/MatMul_3`.
    /// Unnamed nodes use the name of their first output.
    pub fn location(&self, values: &[Value<'m>]) -> String {
        let own = if self.name.is_empty() {
            self.outputs.iter().flatten().next().map_or(self.op.name, |v| values[v.0 as usize].name)
        } else {
            self.name
        };
        let mut parts = vec![own];
        let mut call = self.call.as_deref();
        while let Some(c) = call {
            parts.push(c.name);
            call = c.outer.as_deref();
        }
        parts.reverse();
        parts.join("/")
    }

    /// Every value it depends on: operands, then what its subgraphs capture.
    pub fn uses(&self) -> impl Iterator<Item = ValueId> + '_ {
        let captured = self.graphs.iter().flat_map(|(_, g)| g.captures.iter().copied());
        self.inputs.iter().copied().flatten().chain(captured)
    }
}

/// A graph or subgraph.
#[derive(Clone, Debug)]
pub struct Graph<'m> {
    /// Number of the graph within the program; see [`Value::owner`].
    pub id: u32,
    /// Its name in the file.
    pub name: &'m str,
    /// Formal inputs, in order, those with a compiled-in value excluded.
    pub inputs: Vec<ValueId>,
    /// Results, in order; may be inputs, constants or values of enclosing graphs.
    pub outputs: Vec<ValueId>,
    /// Constants that are used, in order of first use: value, index into [`Program::tensors`].
    pub constants: Vec<(ValueId, usize)>,
    /// Nodes, each after what it uses.
    pub nodes: Vec<Node<'m>>,
    /// Values of enclosing graphs that it or its subgraphs use, in order of first use.
    pub captures: Vec<ValueId>,
}

/// A whole model, resolved. Borrows from its [`crate::Model`].
#[derive(Clone, Debug)]
pub struct Program<'m> {
    /// All values of all graphs.
    pub values: Vec<Value<'m>>,
    /// The initializers, each once.
    pub tensors: Vec<Tensor>,
    /// The main graph.
    pub graph: Graph<'m>,
    /// Nodes that were left out because nothing depends on them.
    pub dead_nodes: usize,
    /// Function calls that were inlined.
    pub inlined_calls: usize,
    /// What the user should be told.
    pub notes: Vec<String>,
}

impl<'m> Program<'m> {
    /// A value.
    pub fn value(&self, id: ValueId) -> &Value<'m> {
        &self.values[id.0 as usize]
    }

    /// The operators used, subgraphs included, with the number of nodes of each.
    pub fn ops(&self) -> BTreeMap<Op<'m>, usize> {
        let mut ops = BTreeMap::new();
        self.visit(&mut |node| *ops.entry(node.op).or_default() += 1);
        ops
    }

    /// Calls `f` for every node, each before the nodes of its subgraphs.
    pub fn visit<'p>(&'p self, f: &mut dyn FnMut(&'p Node<'m>)) {
        fn walk<'p, 'm>(graph: &'p Graph<'m>, f: &mut dyn FnMut(&'p Node<'m>)) {
            for node in &graph.nodes {
                f(node);
                for (_, g) in &node.graphs {
                    walk(g, f);
                }
            }
        }
        walk(&self.graph, f);
    }
}

/// Puts the nodes of a graph in order and fills its captures; drops nodes and constants that nothing
/// depends on. Returns how many nodes were dropped.
pub(crate) fn order<'m>(graph: &mut Graph<'m>, values: &[Value<'m>], at: &str) -> Result<usize> {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut producer: HashMap<ValueId, usize> = HashMap::new();
    for (i, node) in nodes.iter().enumerate() {
        producer.extend(node.outputs.iter().flatten().map(|v| (*v, i)));
    }
    let deps: Vec<Box<[usize]>> = nodes
        .iter()
        .map(|n| n.uses().filter_map(|v| producer.get(&v).copied()).collect())
        .collect();
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut mark = vec![Mark::New; nodes.len()];
    let mut sequence = Vec::with_capacity(nodes.len());
    let mut stack: Vec<(usize, usize)> = Vec::new();
    let live_roots = graph.outputs.iter().filter_map(|v| producer.get(v).copied());
    let mut live = 0;
    for (root, counts) in live_roots.map(|r| (r, true)).chain((0..nodes.len()).map(|r| (r, false)))
    {
        if mark[root] == Mark::New {
            mark[root] = Mark::Open;
            stack.push((root, 0));
        }
        while let Some((i, next)) = stack.last_mut() {
            match deps[*i].get(*next) {
                Some(&d) => {
                    *next += 1;
                    match mark[d] {
                        Mark::Done => {}
                        Mark::New => {
                            mark[d] = Mark::Open;
                            stack.push((d, 0));
                        }
                        Mark::Open => {
                            let from = stack.iter().position(|(n, _)| *n == d).unwrap_or(0);
                            let mut names: Vec<String> = stack[from..]
                                .iter()
                                .take(8)
                                .map(|(n, _)| quote(&nodes[*n].location(values)))
                                .collect();
                            if stack.len() - from > 8 {
                                names.push(format!("… ({} nodes)", stack.len() - from));
                            }
                            return Err(Error::new(Code::Structure, at, "the graph has a cycle")
                                .needed("an order in which every node follows what it uses")
                                .present(names.join(" needs ")));
                        }
                    }
                }
                None => {
                    mark[*i] = Mark::Done;
                    sequence.push(*i);
                    stack.pop();
                }
            }
        }
        if counts {
            live = sequence.len();
        }
    }
    let dead = nodes.len() - live;
    drop((deps, producer));
    // In place: where each node is now, and which node is at each place.
    let mut nodes = nodes;
    let mut place: Vec<usize> = (0..nodes.len()).collect();
    let mut holder = place.clone();
    for (k, &node) in sequence[..live].iter().enumerate() {
        let (from, other) = (place[node], holder[k]);
        nodes.swap(k, from);
        (place[node], holder[k]) = (k, node);
        (place[other], holder[from]) = (from, other);
    }
    nodes.truncate(live);
    nodes.shrink_to_fit();
    graph.nodes = nodes;

    // First uses, in order.
    let mut seen = HashSet::new();
    let mut used = Vec::new();
    let all = graph.nodes.iter().flat_map(|n| n.uses()).chain(graph.outputs.iter().copied());
    for v in all {
        if seen.insert(v) {
            used.push(v);
        }
    }
    let given: HashMap<ValueId, usize> = graph.constants.iter().copied().collect();
    graph.constants = used.iter().filter_map(|v| Some((*v, *given.get(v)?))).collect();
    graph.captures = used.into_iter().filter(|v| values[v.0 as usize].owner != graph.id).collect();
    Ok(dead)
}
