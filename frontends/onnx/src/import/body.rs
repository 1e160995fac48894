//! Walking graphs: constants first, then the nodes in their order, each by its converter. At the end
//! ops that became unused (shape arithmetic that turned into attributes) are removed.

use std::collections::HashSet;

use silure_ir::{Attr, Traits, Type, ValueId};

use super::cx::Cx;
use super::signature::ImportOptions;
use crate::error::{Code, Error, Result};
use crate::graph::Graph;

impl Cx<'_, '_> {
    /// Builds the entry: arguments, body, results.
    pub fn entry(&mut self, options: &ImportOptions) -> Result<()> {
        let program = self.program;
        let g = &program.graph;
        let args = self.arguments(options)?;
        let results = self.body(g, &args)?;
        if results.is_empty() {
            return Err(Error::new(Code::Structure, "the main graph", "the model has no outputs"));
        }
        self.f.result_names = g.outputs.iter().map(|v| program.value(*v).name.into()).collect();
        self.at = "the main graph".into();
        let ret = self.builder().ret(&results);
        ret.map_err(|d| self.diag(d))?;
        self.sweep();
        Ok(())
    }

    /// Builds a graph's constants and nodes in the current region; gives its outputs.
    pub fn body(&mut self, g: &Graph<'_>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        if g.inputs.len() != inputs.len() {
            return Err(self
                .wrong("a subgraph has the wrong number of inputs")
                .needed(inputs.len().to_string())
                .present(g.inputs.len().to_string()));
        }
        for (name, v) in g.inputs.iter().zip(inputs) {
            self.values.insert(*name, *v);
        }
        let program = self.program;
        for (v, tensor) in &g.constants {
            let name = program.value(*v).name;
            self.at = format!("initializer {}", crate::error::quote(name));
            let value = self.initializer(*tensor, name)?;
            self.values.insert(*v, value);
        }
        for node in &g.nodes {
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
                self.values.insert(*out, *v);
            }
        }
        g.outputs.iter().map(|v| self.value(*v)).collect()
    }

    /// Removes pure ops whose results nothing uses, and run-time symbols that no longer occur.
    fn sweep(&mut self) {
        for op in self.f.walk().into_iter().rev() {
            let o = self.f.op(op);
            let kept = o.def.is(Traits::EFFECT) || o.def.is(Traits::TERMINATOR);
            if !kept && o.results.iter().all(|r| self.f.uses(*r).is_empty()) {
                self.f.erase(op);
            }
        }
        let mut used = HashSet::new();
        let mut of_type = |t: &Type| {
            let mut t = t;
            while let Type::Seq(inner) | Type::Opt(inner) = t {
                t = inner;
            }
            if let Type::Tensor(t) = t {
                used.extend(t.dims.iter().flat_map(|d| d.symbols()));
            }
        };
        self.f.args().iter().for_each(|a| of_type(self.f.ty(*a)));
        let mut dims = Vec::new();
        for op in self.f.walk() {
            let o = self.f.op(op);
            o.results.iter().for_each(|r| of_type(self.f.ty(*r)));
            for r in &o.regions {
                self.f.region(*r).args.iter().for_each(|a| of_type(self.f.ty(*a)));
            }
            for (_, a) in o.attrs.iter() {
                match a {
                    Attr::Dims(d) => dims.extend_from_slice(d),
                    Attr::Type(t) => of_type(t),
                    _ => {}
                }
            }
        }
        used.extend(dims.iter().flat_map(|d| d.symbols()));
        self.f.symbols.retain(|s| used.contains(&s.name));
    }
}
