//! The state of one import, and the ways of emitting IR that converters use.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use silure_ir::dialects::core::{CONSTANT, constant_of};
use silure_ir::{
    Attrs, Builder, Code as IrCode, Context, Datum, Diagnostic, Dim, Elem, Func, FuncKind, Loc,
    Module, Num, OpDef, OpId, RegionId, Tensor, TensorType, Type, ValueId,
};

use super::ml::Map;
use super::signature::ImportOptions;
use super::{Files, Imported};
use crate::error::{Code, Error, Result};
use crate::graph::{self, Node, Program};
use crate::load::Model;

/// The most elements a constant may have to be computed at import.
const FOLD_LIMIT: i64 = 4096;

/// Everything a converter may use.
pub(super) struct Cx<'p, 'm> {
    pub model: &'m Model,
    pub program: &'p Program<'m>,
    pub f: Func,
    pub module: Module,
    pub files: Files,
    region: RegionId,
    loc: Loc,
    /// The node being converted, for errors.
    pub at: String,
    /// The initializers, until they are converted.
    pub tensors: Vec<crate::Tensor>,
    /// IR values of the program's values, by their numbers.
    values: Vec<Option<ValueId>>,
    /// The program's inputs that are maps; they have no value in `values` that anything may read.
    pub maps: HashMap<graph::ValueId, Map>,
    /// Names of attributes of the current node that were read.
    pub used: Vec<&'static str>,
    /// Which operands of the current node were read, by bit.
    pub read: std::cell::Cell<u64>,
    /// Symbols that may not be replaced here, because they are defined outside the region built.
    pub frozen: HashSet<Arc<str>>,
    /// Symbols of unnamed dims of inputs.
    pub anonymous: HashSet<Arc<str>>,
    /// Weight names of initializers.
    pub weights: HashMap<usize, Arc<str>>,
    /// Seed of random nodes that state none.
    pub seed: Option<u64>,
    /// Random nodes so far that state no seed.
    pub draws: u64,
    notes: Vec<String>,
}

impl<'p, 'm> Cx<'p, 'm> {
    pub fn new(
        model: &'m Model,
        program: &'p Program<'m>,
        tensors: Vec<crate::Tensor>,
        options: &ImportOptions,
    ) -> Cx<'p, 'm> {
        let f = Func::new(&options.entry, FuncKind::Entry);
        let region = f.body;
        let stem = model.path().and_then(|p| p.file_stem()).and_then(|s| s.to_str());
        Cx {
            model,
            program,
            f,
            module: Module::new(&super::signature::identifier(stem.unwrap_or("model"))),
            files: Files::default(),
            region,
            loc: Loc::Unknown,
            at: String::new(),
            tensors,
            values: vec![None; program.values.len()],
            maps: HashMap::new(),
            used: Vec::new(),
            read: std::cell::Cell::new(0),
            frozen: HashSet::new(),
            anonymous: HashSet::new(),
            weights: HashMap::new(),
            seed: options.seed,
            draws: 0,
            notes: Vec::new(),
        }
    }

    /// Tells the user something, once.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The module with everything in it.
    pub fn finish(mut self, program: &Program<'_>) -> Imported {
        let mut notes = program.notes.clone();
        for n in self.notes {
            if !notes.contains(&n) {
                notes.push(n);
            }
        }
        self.module.funcs.push(self.f);
        Imported { module: self.module, notes, files: self.files }
    }

    // ---- Errors -------------------------------------------------------------------------------

    /// An error about the current node: its types, shapes or attributes.
    pub fn wrong(&self, what: impl Into<String>) -> Error {
        Error::new(Code::Type, &self.at, what)
    }

    /// An error about the current node: valid ONNX that is not read.
    pub fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::new(Code::Unsupported, &self.at, what)
    }

    /// An error of the IR, at the current node.
    pub fn diag(&self, d: Diagnostic) -> Error {
        let code = match d.code {
            IrCode::Unsupported => Code::Unsupported,
            IrCode::Limit => Code::Limit,
            IrCode::Io => Code::Io,
            IrCode::Internal | IrCode::Verify | IrCode::Syntax => Code::Internal,
            IrCode::Invalid | IrCode::Type | IrCode::Eval => Code::Type,
        };
        let mut e = Error::new(code, &self.at, d.message);
        if let Some(n) = d.needed {
            e = e.needed(n);
        }
        if let Some(p) = d.present {
            e = e.present(p);
        }
        d.notes.into_iter().fold(e, Error::detail)
    }

    // ---- Emitting -----------------------------------------------------------------------------

    /// Sets the node that ops come from.
    pub fn enter(&mut self, node: &Node<'_>) {
        let name = node.location(&self.program.values);
        self.at = format!("{} node {}", node.op.name, crate::error::quote(&name));
        self.loc = Loc::name(&name);
        self.used.clear();
        self.read.set(0);
    }

    /// A builder at the end of the region being built.
    pub fn builder(&mut self) -> Builder<'_> {
        let mut b = Builder::in_region(&mut self.f, self.region);
        b.loc = self.loc.clone();
        b
    }

    /// The op of that name.
    pub fn def(&self, name: &str) -> Result<&'static OpDef> {
        static REGISTRY: LazyLock<Context> = LazyLock::new(Context::new);
        REGISTRY.op(name).ok_or_else(|| self.unsupported("the IR has no op for this").needed(name))
    }

    /// Builds an op from all its parts.
    pub fn build(
        &mut self,
        def: &'static OpDef,
        operands: &[Option<ValueId>],
        attrs: Attrs,
        regions: &[RegionId],
        types: &[Type],
    ) -> Result<OpId> {
        let op = self.builder().build(def, operands, attrs, regions, types);
        op.map_err(|d| self.diag(d))
    }

    /// Builds an op with one result.
    pub fn one(
        &mut self,
        def: &'static OpDef,
        operands: &[ValueId],
        attrs: Attrs,
    ) -> Result<ValueId> {
        let v = self.builder().one(def, operands.iter().copied(), attrs);
        v.map_err(|d| self.diag(d))
    }

    /// Builds an op by name with one result.
    pub fn op(&mut self, name: &str, operands: &[ValueId], attrs: Attrs) -> Result<ValueId> {
        let def = self.def(name)?;
        self.one(def, operands, attrs)
    }

    /// Builds an op by name, some operands absent; gives all results.
    pub fn ops(
        &mut self,
        name: &str,
        operands: &[Option<ValueId>],
        attrs: Attrs,
    ) -> Result<Vec<ValueId>> {
        let def = self.def(name)?;
        let op = self.build(def, operands, attrs, &[], &[])?;
        Ok(self.f.op(op).results.to_vec())
    }

    /// Builds a region: `f` gets its arguments and gives what it yields.
    pub fn region(
        &mut self,
        args: &[Type],
        f: impl FnOnce(&mut Self, &[ValueId]) -> Result<Vec<ValueId>>,
    ) -> Result<RegionId> {
        let region = self.f.new_region();
        let args: Vec<ValueId> =
            args.iter().map(|t| self.f.add_region_arg(region, t.clone())).collect();
        let outer = std::mem::replace(&mut self.region, region);
        let frozen = std::mem::take(&mut self.frozen);
        self.frozen = self.f.symbols.iter().map(|s| s.name.clone()).collect();
        let yields = self.nested(|cx| f(cx, &args))?;
        let ended = self.builder().yields(&yields);
        ended.map_err(|d| self.diag(d))?;
        self.region = outer;
        self.frozen = frozen;
        Ok(region)
    }

    /// Converts other nodes in the middle of this one.
    pub fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let node = (self.loc.clone(), self.at.clone(), self.used.clone(), self.read.get());
        let out = f(self)?;
        (self.loc, self.at, self.used) = (node.0, node.1, node.2);
        self.read.set(node.3);
        Ok(out)
    }

    /// Removes a region that no op has.
    pub fn discard(&mut self, region: RegionId) {
        for op in self.f.region(region).ops.clone().into_iter().rev() {
            self.f.erase(op);
        }
    }

    /// A constant.
    pub fn constant(&mut self, t: Tensor) -> Result<ValueId> {
        self.one(&CONSTANT, &[], Attrs::new().with("value", t))
    }

    /// A rank-0 constant.
    pub fn number(&mut self, elem: Elem, v: f64) -> Result<ValueId> {
        self.constant(Tensor::scalar(elem, Num::F(v)))
    }

    /// A rank-0 i64 constant.
    pub fn int_number(&mut self, v: i64) -> Result<ValueId> {
        self.constant(Tensor::scalar(Elem::I64, Num::I(v as i128)))
    }

    /// A 1-D i64 constant.
    pub fn ints_value(&mut self, v: &[i64]) -> Result<ValueId> {
        let t = Tensor::from_ints(Elem::I64, &[v.len()], v).map_err(|d| self.diag(d))?;
        self.constant(t)
    }

    // ---- Asking -------------------------------------------------------------------------------

    /// Says which IR value a value of the program is.
    pub fn define(&mut self, v: graph::ValueId, value: ValueId) {
        self.values[v.0 as usize] = Some(value);
    }

    /// The IR value of a value of the program.
    pub fn value(&self, v: graph::ValueId) -> Result<ValueId> {
        if self.maps.contains_key(&v) {
            let name = crate::error::quote(self.program.value(v).name);
            return Err(self.wrong(format!("the input {name} is a map")).needed("a tensor"));
        }
        self.values[v.0 as usize].ok_or_else(|| {
            let what =
                format!("value `{}` was used before it was made", self.program.value(v).name);
            Error::new(Code::Internal, &self.at, what)
        })
    }

    /// Marks operand `i` of the current node as read.
    pub fn reads(&self, i: usize) {
        self.read.set(self.read.get() | 1u64.checked_shl(i as u32).unwrap_or(0));
    }

    /// Operand `i`, if the node has it.
    pub fn maybe(&self, n: &Node<'_>, i: usize) -> Result<Option<ValueId>> {
        self.reads(i);
        n.inputs.get(i).copied().flatten().map(|v| self.value(v)).transpose()
    }

    /// Operand `i`.
    pub fn input(&self, n: &Node<'_>, i: usize) -> Result<ValueId> {
        self.maybe(n, i)?.ok_or_else(|| self.wrong(format!("operand {i} is missing")))
    }

    /// All operands; none may be omitted.
    pub fn inputs(&self, n: &Node<'_>) -> Result<Vec<ValueId>> {
        let v: Vec<ValueId> =
            (0..n.inputs.len()).map(|i| self.input(n, i)).collect::<Result<_>>()?;
        if v.is_empty() {
            return Err(self.wrong("operand 0 is missing"));
        }
        Ok(v)
    }

    /// Whether output `i` is wanted.
    pub fn wants(&self, n: &Node<'_>, i: usize) -> bool {
        n.outputs.get(i).is_some_and(|o| o.is_some())
    }

    /// Tensor type of a value.
    pub fn ty(&self, v: ValueId) -> Result<TensorType> {
        match self.f.ty(v) {
            Type::Tensor(t) => Ok(t.clone()),
            t => Err(self
                .wrong("an operand is not a tensor")
                .needed("a tensor")
                .present(t.to_string())),
        }
    }

    /// Dims of a value.
    pub fn dims(&self, v: ValueId) -> Result<Vec<Dim>> {
        Ok(self.ty(v)?.dims)
    }

    /// Rank of a value.
    pub fn rank(&self, v: ValueId) -> Result<usize> {
        Ok(self.ty(v)?.rank())
    }

    /// Element type of a value.
    pub fn elem(&self, v: ValueId) -> Result<Elem> {
        Ok(self.ty(v)?.elem)
    }

    /// An axis counted from the front.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        silure_ir::infer::norm_axis(axis, rank).map_err(|d| self.diag(d))
    }

    /// Axes counted from the front, without repeats, sorted.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut out: Vec<usize> =
            axes.iter().map(|a| self.axis(*a, rank)).collect::<Result<_>>()?;
        out.sort_unstable();
        let n = out.len();
        out.dedup();
        if out.len() != n {
            return Err(self.wrong("an axis is given twice").present(format!("{axes:?}")));
        }
        Ok(out)
    }

    /// Contents of a small integer tensor, as far as they are known.
    pub fn known(&mut self, v: ValueId) -> Option<Vec<Dim>> {
        if let Some(k) = &self.f.value(v).known {
            return Some(k.to_vec());
        }
        let t = self.constant_value(v)?;
        (!t.elem().is_float() && !t.elem().is_str() && t.len() <= 64)
            .then(|| t.to_i64s().into_iter().map(Dim::Const).collect())
    }

    /// Contents of a small integer tensor, if they are known integers.
    pub fn known_ints(&mut self, v: ValueId) -> Option<Vec<i64>> {
        self.known(v)?.iter().map(Dim::as_const).collect()
    }

    /// The one element of a known integer tensor.
    pub fn known_int(&mut self, v: ValueId) -> Option<Dim> {
        let k = self.known(v)?;
        if let [d] = k.as_slice() { Some(d.clone()) } else { None }
    }

    /// The value of a constant, or of ops on constants (at most a few thousand elements).
    pub fn constant_value(&mut self, v: ValueId) -> Option<Arc<Tensor>> {
        self.fold(v, 64, FOLD_LIMIT)
    }

    /// The same as a constant if ops on constants make it and nothing on the way has more than `limit`
    /// elements.
    pub fn folded(&mut self, v: ValueId, limit: i64, name: &str) -> Result<ValueId> {
        match self.fold(v, 64, limit) {
            Some(t) => self.stored((*t).clone(), name),
            None => Ok(v),
        }
    }

    fn fold(&mut self, v: ValueId, depth: usize, limit: i64) -> Option<Arc<Tensor>> {
        if let Some(t) = constant_of(&self.f, v) {
            return Some(t.clone());
        }
        let ty = self.f.ty(v).as_tensor()?.clone();
        let count = ty.count().as_const()?;
        if !(0..=limit).contains(&count) || depth == 0 {
            return None;
        }
        if let Some(k) = &self.f.value(v).known
            && let Some(ints) = k.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>()
        {
            return Tensor::from_ints(ty.elem, &ty.shape()?, &ints).ok().map(Arc::new);
        }
        let op = self.f.def_op(v)?;
        let slots: Vec<Option<ValueId>> = self.f.op(op).slots().collect();
        let mut inputs = Vec::new();
        for s in slots {
            inputs.push(match s {
                Some(v) => Some(Datum::Tensor(self.fold(v, depth - 1, limit)?)),
                None => None,
            });
        }
        let n = self.f.op(op).results.iter().position(|r| *r == v)?;
        let out = silure_ir::eval::eval_op(&self.f, op, inputs)?.ok()?;
        out.get(n)?.tensor().ok().cloned()
    }

    /// The value of a constant operand as floats.
    pub fn known_floats(&mut self, v: ValueId) -> Option<Vec<f64>> {
        self.constant_value(v).filter(|t| !t.elem().is_str()).map(|t| t.to_f64s())
    }
}
