//! Resolution of names and inlining of functions: from the decoded file to a [`Program`].
//!
//! Names live in scopes. A subgraph sees the names of the graphs around it but for those that it defines
//! itself, which the user is told; a function's body sees its formal inputs alone. A call becomes the nodes of the body:
//! formal inputs stand for the caller's values (or for nothing, where the caller omits one), formal
//! outputs are the caller's results, attribute references are replaced by what the caller gave, else
//! by the function's default, else left out. Nothing is renamed, so inlining cannot collide.
//!
//! Functions are the model's own, or come from a table given to [`Model::resolve_with`], which is
//! how operators that are defined by a body are expanded.

use crate::error::{Code, Error, Result, quote};
use crate::graph::{Attr, Call, Graph, Node, Op, Program, Value, ValueId, order};
use crate::load::{Model, domain};
use crate::proto::{
    ATTRIBUTE_TYPES, AttributeProto, FunctionProto, GraphProto, Identity, NodeProto, ValueInfoProto,
};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Fields of the file that the inlined calls of functions may have, for each node there may be.
const FIELDS: u64 = 16;

/// A table of functions that define operators: the body for an operator, if it is to be expanded.
pub type Bodies<'m> = dyn Fn(&Op<'m>) -> Option<FunctionProto<'m>> + 'm;

impl Model {
    /// Checks the graph, inlines model-local functions and orders the nodes.
    pub fn resolve(&self) -> Result<Program<'_>> {
        self.resolve_with(&|_| None)
    }

    /// As [`Model::resolve`]; operators for which `bodies` has an answer are expanded as well.
    pub fn resolve_with<'m>(&'m self, bodies: &Bodies<'m>) -> Result<Program<'m>> {
        let mut functions = HashMap::new();
        for f in self.proto().functions() {
            let key = (domain(f.domain()), f.name(), f.overload());
            let fields = f.node().map(|n| n.count() as u64).sum::<u64>() + f.count() as u64;
            if functions.insert(key, (f, fields)).is_some() {
                let at = format!("function {}", quote(f.name()));
                return Err(Error::new(Code::Structure, at, "the function is defined twice"));
            }
        }
        let opsets = self.opsets().iter().map(|(d, v)| (d.as_str(), *v)).collect();
        let mut r = Resolver {
            model: self,
            functions,
            bodies,
            values: Vec::new(),
            tensors: Vec::new(),
            loaded: HashMap::new(),
            graphs: 0,
            nodes: 0,
            fields: 0,
            dead: 0,
            calls: 0,
            notes: self.notes().to_vec(),
        };
        let env = Env { opsets: &opsets, attrs: None, call: None, stack: &[] };
        let graph = r.graph(self.graph(), None, &env, 0, "the main graph")?;
        r.values.shrink_to_fit();
        r.tensors.shrink_to_fit();
        Ok(Program {
            values: r.values,
            tensors: r.tensors,
            graph,
            dead_nodes: r.dead,
            inlined_calls: r.calls,
            notes: r.notes,
        })
    }
}

struct Resolver<'m, 'b> {
    model: &'m Model,
    /// With the fields that a call reads.
    functions: HashMap<(&'m str, &'m str, &'m str), (FunctionProto<'m>, u64)>,
    bodies: &'b Bodies<'m>,
    values: Vec<Value<'m>>,
    tensors: Vec<Tensor>,
    loaded: HashMap<*const u8, usize>,
    graphs: u32,
    nodes: usize,
    fields: u64,
    dead: usize,
    calls: usize,
    notes: Vec<String>,
}

/// What a node's surroundings mean to it, names aside.
struct Env<'e, 'm> {
    opsets: &'e BTreeMap<&'m str, i64>,
    /// Inside a function: its attributes, `None` for one without a value. Outside: `None`.
    attrs: Option<&'e HashMap<&'m str, Option<AttributeProto<'m>>>>,
    call: Option<Arc<Call<'m>>>,
    /// The functions being inlined, outermost first.
    stack: &'e [*const u8],
}

/// Names of one graph or function body. `None`: a formal input that the caller omitted.
#[derive(Default)]
struct Scope<'s, 'm> {
    names: HashMap<&'m str, Option<ValueId>>,
    outer: Option<&'s Scope<'s, 'm>>,
}

impl<'m> Scope<'_, 'm> {
    fn find(&self, name: &str) -> Option<Option<ValueId>> {
        match self.names.get(name) {
            Some(v) => Some(*v),
            None => self.outer.and_then(|o| o.find(name)),
        }
    }
}

fn structure(at: &str, what: impl Into<String>) -> Error {
    Error::new(Code::Structure, at, what)
}

/// The name of an attribute's type; a number that has none means nothing.
pub(crate) fn type_name(number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|n| ATTRIBUTE_TYPES.get(n)).unwrap_or(&"UNDEFINED")
}

/// How a node is called in errors.
fn node_at(node: NodeProto<'_>, call: Option<&Call<'_>>) -> String {
    let mut at = match (node.name(), node.output().find(|o| !o.is_empty())) {
        ("", Some(out)) => format!("{} node producing {}", node.op_type(), quote(out)),
        ("", None) => format!("{} node", node.op_type()),
        (name, _) => format!("{} node {}", node.op_type(), quote(name)),
    };
    if let Some(c) = call {
        at += &format!(" in the function called by {}", quote(c.name));
    }
    at
}

impl<'m> Resolver<'m, '_> {
    fn value(&mut self, name: &'m str, owner: u32) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value { name, ty: None, owner });
        id
    }

    /// Defines `name` in `scope`; `id` is the value it stands for, or a new one.
    fn define(
        &mut self,
        scope: &mut Scope<'_, 'm>,
        name: &'m str,
        owner: u32,
        id: Option<ValueId>,
        at: &str,
    ) -> Result<ValueId> {
        if scope.names.contains_key(name) {
            return Err(structure(at, format!("value {} is defined twice", quote(name))));
        }
        let id = id.unwrap_or_else(|| self.value(name, owner));
        scope.names.insert(name, Some(id));
        Ok(id)
    }

    fn graph(
        &mut self,
        proto: GraphProto<'m>,
        outer: Option<&Scope<'_, 'm>>,
        env: &Env<'_, 'm>,
        depth: usize,
        at: &str,
    ) -> Result<Graph<'m>> {
        let limit = self.model.limits.subgraph_depth;
        if depth > limit {
            return Err(Error::new(Code::Limit, at, "subgraphs are nested too deeply")
                .needed(format!("at most {limit} levels"))
                .present(format!("{depth} levels")));
        }
        let id = self.graphs;
        self.graphs += 1;
        let mut scope = Scope { names: HashMap::new(), outer };
        let mut graph = Graph {
            id,
            name: proto.name(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            constants: Vec::new(),
            nodes: Vec::new(),
            captures: Vec::new(),
        };
        for input in proto.input() {
            if input.name().is_empty() {
                return Err(structure(at, "an input has no name"));
            }
            graph.inputs.push(self.define(&mut scope, input.name(), id, None, at)?);
        }
        let mut with_value = HashSet::new();
        // A sparse one has the name of its values.
        let dense = proto.initializer().map(|t| (t.name(), Ok(t)));
        let sparse = proto.sparse_initializer();
        let sparse = sparse.map(|s| (s.values().map_or("", |v| v.name()), Err(s)));
        for (name, t) in dense.chain(sparse) {
            let at = format!("initializer {}", quote(name));
            if name.is_empty() {
                return Err(structure(&at, "an initializer has no name"));
            }
            let value = match scope.names.get(name) {
                Some(Some(v)) if graph.inputs.contains(v) && with_value.insert(*v) => {
                    if depth > 0 {
                        return Err(structure(&at, "an input of a subgraph has a value"));
                    }
                    if self.model.ir_version >= 4 {
                        self.notes.push(format!(
                            "input {} has a default value, which is compiled in",
                            quote(name)
                        ));
                    }
                    *v
                }
                _ => self.define(&mut scope, name, id, None, &at)?,
            };
            let model = self.model;
            let tensor = match t {
                Ok(t) => self.tensor(t.identity(), || model.tensor(t, &at)),
                Err(s) => self.tensor(s.identity(), || model.sparse(s, &at)),
            }?;
            graph.constants.push((value, tensor));
        }
        graph.inputs.retain(|v| !with_value.contains(v));
        for node in proto.node() {
            self.declare(node, &mut scope, id, &HashMap::new(), env)?;
        }
        self.hidden(&scope, at);
        self.types(&scope, proto.input().chain(proto.output()).chain(proto.value_info()));
        graph.nodes.reserve_exact(proto.node().count());
        for node in proto.node() {
            self.node(node, &scope, id, env, depth, &mut graph.nodes)?;
        }
        for output in proto.output() {
            match scope.find(output.name()) {
                Some(Some(v)) => graph.outputs.push(v),
                Some(None) => {
                    let what = format!("output {} was not given", quote(output.name()));
                    return Err(structure(at, what));
                }
                None => {
                    let what = format!("output {} is defined nowhere", quote(output.name()));
                    return Err(structure(at, what));
                }
            }
        }
        drop(scope);
        self.dead += order(&mut graph, &self.values, at)?;
        Ok(graph)
    }

    /// Says which values of the graphs around a subgraph its own ones hide.
    fn hidden(&mut self, scope: &Scope<'_, 'm>, at: &str) {
        /// Names that are listed at most.
        const LISTED: usize = 4;
        let Some(outer) = scope.outer else { return };
        let mut names: Vec<&str> =
            scope.names.keys().copied().filter(|n| outer.find(n).is_some()).collect();
        names.sort_unstable();
        if names.is_empty() {
            return;
        }
        let listed: Vec<String> = names.iter().take(LISTED).map(|n| quote(n)).collect();
        let more = if names.len() > LISTED { ", …" } else { "" };
        let which = format!("{} ({}{more})", names.len(), listed.join(", "));
        self.notes.push(format!("{at}: hides values of the graphs around it: {which}"));
    }

    fn types(&mut self, scope: &Scope<'_, 'm>, infos: impl Iterator<Item = ValueInfoProto<'m>>) {
        for info in infos {
            if let Some(Some(v)) = scope.names.get(info.name()) {
                let value = &mut self.values[v.0 as usize];
                if value.ty.is_none() {
                    value.ty = info.r#type();
                }
            }
        }
    }

    /// The number of the tensor that a message of the file (`key`) describes: each is read once.
    fn tensor(&mut self, key: *const u8, read: impl FnOnce() -> Result<Tensor>) -> Result<usize> {
        if let Some(i) = self.loaded.get(&key) {
            return Ok(*i);
        }
        self.tensors.push(read()?);
        self.loaded.insert(key, self.tensors.len() - 1);
        Ok(self.tensors.len() - 1)
    }

    /// Defines a node's outputs, so that nodes may stand in any order. `bound` has the values of a
    /// function's formal outputs.
    fn declare(
        &mut self,
        node: NodeProto<'m>,
        scope: &mut Scope<'_, 'm>,
        owner: u32,
        bound: &HashMap<&'m str, ValueId>,
        env: &Env<'_, 'm>,
    ) -> Result<()> {
        self.nodes += 1;
        let limit = self.model.limits.nodes;
        if self.nodes > limit {
            let at = node_at(node, env.call.as_deref());
            return Err(Error::new(Code::Limit, at, "too many nodes after inlining functions")
                .needed(format!("more than {limit}"))
                .present(format!("a limit of {limit}")));
        }
        for name in node.output().filter(|o| !o.is_empty()) {
            let at = || node_at(node, env.call.as_deref());
            let id = bound.get(name).copied();
            if scope.names.contains_key(name) {
                self.define(scope, name, owner, id, &at())?;
            }
            self.define(scope, name, owner, id, "")?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        proto: NodeProto<'m>,
        scope: &Scope<'_, 'm>,
        owner: u32,
        env: &Env<'_, 'm>,
        depth: usize,
        out: &mut Vec<Node<'m>>,
    ) -> Result<()> {
        let at = || node_at(proto, env.call.as_deref());
        if proto.op_type().is_empty() {
            return Err(structure(&at(), "a node has no operator"));
        }
        let mut inputs = Vec::with_capacity(proto.input().count());
        for name in proto.input() {
            inputs.push(match name {
                "" => None,
                name => scope.find(name).ok_or_else(|| {
                    structure(&at(), format!("operand {} is defined nowhere", quote(name)))
                })?,
            });
        }
        let outputs: Vec<Option<ValueId>> =
            proto.output().map(|name| scope.find(name).flatten()).collect();
        let (attrs, graphs) = self.attributes(proto, scope, env, depth)?;
        let dom = domain(proto.domain());
        let function = self.functions.get(&(dom, proto.op_type(), proto.overload())).copied();
        let version = env.opsets.get(dom).copied();
        let op = Op { domain: dom, name: proto.op_type(), version: version.unwrap_or(0) };
        let body = || version.and_then(|_| (self.bodies)(&op)).map(|f| (f, 0));
        if let Some((f, fields)) = function.or_else(body) {
            self.read(fields, &at)?;
            if let Some((name, _)) = graphs.first() {
                let what = format!("subgraph attribute {} is passed to a function", quote(name));
                return Err(Error::new(Code::Unsupported, at(), what));
            }
            return self.inline(f, proto, &inputs, &outputs, &attrs, owner, env, depth, out);
        }
        if version.is_none() {
            let what = format!("operator domain {} is not imported", quote(dom));
            return Err(structure(&at(), what)
                .needed("an opset import or a function of the model")
                .present(format!("{:?}", env.opsets)));
        }
        out.push(Node {
            op,
            name: proto.name(),
            call: env.call.clone(),
            inputs,
            outputs,
            attrs,
            graphs,
        });
        Ok(())
    }

    /// Counts the fields of a call: those that mean nothing here are passed over again in each.
    fn read(&mut self, fields: u64, at: &dyn Fn() -> String) -> Result<()> {
        self.fields = self.fields.saturating_add(fields);
        let limit = FIELDS.saturating_mul(self.model.limits.nodes as u64);
        if self.fields > limit {
            return Err(Error::new(Code::Limit, at(), "calls of functions have too many fields")
                .needed(format!("{} in all", self.fields))
                .present(format!("a limit of {limit}")));
        }
        Ok(())
    }

    fn attributes(
        &mut self,
        proto: NodeProto<'m>,
        scope: &Scope<'_, 'm>,
        env: &Env<'_, 'm>,
        depth: usize,
    ) -> Result<(Vec<Attr<'m>>, Vec<(&'m str, Graph<'m>)>)> {
        let at = || node_at(proto, env.call.as_deref());
        let mut attrs = Vec::with_capacity(proto.attribute().count());
        let mut graphs = Vec::new();
        let mut names = HashSet::new();
        for a in proto.attribute() {
            let name = a.name();
            if name.is_empty() || !names.insert(name) {
                let how = if name.is_empty() { "has no name" } else { "is given twice" };
                return Err(structure(&at(), format!("attribute {} {how}", quote(name))));
            }
            let value = match a.ref_attr_name() {
                "" => a,
                wanted => {
                    let declared =
                        env.attrs.and_then(|attrs| attrs.get(wanted)).ok_or_else(|| {
                            let what = format!(
                                "attribute {} refers to {}, which no function around it has",
                                quote(name),
                                quote(wanted)
                            );
                            structure(&at(), what)
                        })?;
                    let Some(value) = *declared else { continue };
                    let (want, have) = (a.r#type().unwrap_or(0), value.r#type().unwrap_or(0));
                    if want != 0 && have != 0 && want != have {
                        let what = format!("attribute {} has another type", quote(name));
                        return Err(structure(&at(), what)
                            .needed(type_name(want))
                            .present(type_name(have)));
                    }
                    value
                }
            };
            if value.graphs().next().is_some() {
                let what = format!("attribute {} is a list of graphs", quote(name));
                return Err(Error::new(Code::Unsupported, at(), what));
            }
            match value.g() {
                Some(g) => {
                    let at = format!("subgraph {} of {}", quote(name), at());
                    graphs.push((name, self.graph(g, Some(scope), env, depth + 1, &at)?));
                }
                None => attrs.push(Attr { name, value }),
            }
        }
        attrs.sort_by_key(|a| a.name);
        graphs.sort_by_key(|(name, _)| *name);
        Ok((attrs, graphs))
    }

    fn inline(
        &mut self,
        f: FunctionProto<'m>,
        call: NodeProto<'m>,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
        given: &[Attr<'m>],
        owner: u32,
        env: &Env<'_, 'm>,
        depth: usize,
        out: &mut Vec<Node<'m>>,
    ) -> Result<()> {
        let at = format!(
            "call of function {} by {}",
            quote(f.name()),
            node_at(call, env.call.as_deref())
        );
        if env.stack.contains(&f.identity()) {
            return Err(structure(&at, "the function calls itself"));
        }
        let limit = self.model.limits.call_depth;
        if env.stack.len() >= limit {
            return Err(Error::new(Code::Limit, at, "function calls are nested too deeply")
                .needed(format!("more than {limit} levels"))
                .present(format!("a limit of {limit} levels")));
        }
        for (what, have, formal) in [
            ("operands", inputs.len(), f.input().count()),
            ("results", outputs.len(), f.output().count()),
        ] {
            if have > formal {
                return Err(structure(&at, format!("the call has too many {what}"))
                    .needed(format!("at most {formal}"))
                    .present(have.to_string()));
            }
        }
        self.calls += 1;
        let attrs = function_attributes(f, given, &at)?;
        let own = f.opset_import().map(|o| (domain(o.domain()), o.version().unwrap_or(0)));
        let mut opsets: BTreeMap<&str, i64> = own.collect();
        if opsets.is_empty() {
            opsets.clone_from(env.opsets);
        }
        let mut stack = env.stack.to_vec();
        stack.push(f.identity());
        let name = if call.name().is_empty() { f.name() } else { call.name() };
        let inner = Env {
            opsets: &opsets,
            attrs: Some(&attrs),
            call: Some(Arc::new(Call { name, outer: env.call.clone() })),
            stack: &stack,
        };
        let mut scope = Scope::default();
        for (i, formal) in f.input().enumerate() {
            let actual = inputs.get(i).copied().flatten();
            if formal.is_empty() || scope.names.insert(formal, actual).is_some() {
                return Err(
                    structure(&at, "formal inputs need distinct names").present(quote(formal))
                );
            }
        }
        let mut bound = HashMap::new();
        for (i, formal) in f.output().enumerate() {
            if let Some(actual) = outputs.get(i).copied().flatten()
                && bound.insert(formal, actual).is_some()
            {
                return Err(
                    structure(&at, "formal outputs need distinct names").present(quote(formal))
                );
            }
        }
        // An output that is an input handed through: a copy under the caller's name.
        for formal in f.output() {
            let (Some(result), Some(source)) = (bound.get(formal), scope.names.get(formal)) else {
                continue;
            };
            let Some(source) = *source else {
                let what = format!("output {} is an input that is not given", quote(formal));
                return Err(structure(&at, what));
            };
            let version = opsets.get("").or(env.opsets.get("")).copied().unwrap_or(1);
            out.push(Node {
                op: Op { domain: "", name: "Identity", version },
                name: formal,
                call: inner.call.clone(),
                inputs: vec![Some(source)],
                outputs: vec![Some(*result)],
                attrs: Vec::new(),
                graphs: Vec::new(),
            });
        }
        for node in f.node() {
            self.declare(node, &mut scope, owner, &bound, &inner)?;
        }
        for formal in f.output() {
            if scope.find(formal).is_none() {
                let what = format!("function output {} is defined nowhere", quote(formal));
                return Err(structure(&at, what));
            }
        }
        self.types(&scope, f.value_info());
        for node in f.node() {
            self.node(node, &scope, owner, &inner, depth, out)?;
        }
        Ok(())
    }
}

/// The attributes a function's body may refer to, with what the call makes of them.
fn function_attributes<'m>(
    f: FunctionProto<'m>,
    given: &[Attr<'m>],
    at: &str,
) -> Result<HashMap<&'m str, Option<AttributeProto<'m>>>> {
    let mut attrs: HashMap<&str, Option<AttributeProto<'m>>> =
        f.attribute().map(|name| (name, None)).collect();
    attrs.extend(f.attribute_proto().map(|a| (a.name(), Some(a))));
    for a in given {
        match attrs.get_mut(a.name) {
            Some(slot) => *slot = Some(a.value),
            None => {
                let what = format!("the function has no attribute {}", quote(a.name));
                return Err(structure(at, what));
            }
        }
    }
    Ok(attrs)
}
