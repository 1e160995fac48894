//! Functions: ops, values and regions in arenas, in SSA form.
//!
//! A [`Func`] owns everything inside it. A region is a list of ops with arguments, there are no
//! branches between blocks: control flow is ops with regions. Every change goes through the methods
//! here, which keep the use lists right. Erased ops and values leave dead slots, so keys stay valid.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::attr::Attrs;
use crate::diag::Loc;
use crate::dim::{Dim, Guard, SymDecl};
use crate::entity::{Arena, Entity};
use crate::op::{Arity, OpDef};
use crate::share::Shared;
use crate::types::Type;

crate::entity! {
    /// An op of a function.
    OpId;
    /// A value of a function: an op's result or a region's argument.
    ValueId;
    /// A region of a function.
    RegionId;
}

/// What stands for an absent optional operand.
const NONE: ValueId = ValueId::NONE;

impl ValueId {
    const NONE: ValueId = ValueId::last();

    const fn last() -> ValueId {
        // The highest slot number is never reached: an arena of 2³² values does not fit in memory.
        ValueId::from_raw(u32::MAX)
    }

    const fn from_raw(v: u32) -> ValueId {
        ValueId(v)
    }
}

/// One op.
#[derive(Clone, Debug)]
pub struct Op {
    /// Its declaration.
    pub def: &'static OpDef,
    operands: SmallVec<[ValueId; 4]>,
    /// Results in order.
    pub results: SmallVec<[ValueId; 2]>,
    /// Attributes, defaults filled in.
    pub attrs: Attrs,
    /// Regions in order.
    pub regions: SmallVec<[RegionId; 2]>,
    /// Where it comes from.
    pub loc: Loc,
    parent: Option<RegionId>,
}

impl Op {
    /// Operand `i` of the declaration (not of a variadic tail); `None` if absent.
    pub fn operand(&self, i: usize) -> Option<ValueId> {
        self.operands.get(i).copied().filter(|v| *v != NONE)
    }

    /// The operands that are there, in order.
    pub fn operands(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.operands.iter().copied().filter(|v| *v != NONE)
    }

    /// All operand slots, absent ones as `None`.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Option<ValueId>> + '_ {
        self.operands.iter().map(|v| (*v != NONE).then_some(*v))
    }

    /// The values of the variadic last operand.
    pub fn tail(&self) -> &[ValueId] {
        let fixed = self.def.operands.iter().take_while(|o| o.arity != Arity::Many).count();
        self.operands.get(fixed..).unwrap_or(&[])
    }

    /// The only result.
    ///
    /// # Panics
    /// If the op has no result.
    pub fn result(&self) -> ValueId {
        self.results[0]
    }

    /// The region it is in; `None` for an op not inserted yet or erased.
    pub fn parent(&self) -> Option<RegionId> {
        self.parent
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// Result `n` of an op.
    Result(OpId, usize),
    /// Argument `n` of a region.
    Arg(RegionId, usize),
}

/// One value. Its type is [`Func::ty`].
#[derive(Clone, Debug)]
pub struct Value {
    ty: Arc<Type>,
    /// Where it comes from.
    pub def: Def,
    /// Preferred name in text.
    pub name: Option<Arc<str>>,
    /// Contents of a small integer tensor where the compiler knows them; derived, not printed.
    pub known: Option<Arc<[Dim]>>,
    uses: SmallVec<[OpId; 4]>,
}

/// One region.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Arguments.
    pub args: Vec<ValueId>,
    /// Ops in order.
    pub ops: Vec<OpId>,
    /// The op it belongs to; `None` for a function's body.
    pub parent: Option<OpId>,
}

/// What a function is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FuncKind {
    /// Callable from outside: an entry point of the engine.
    Entry,
    /// A variant of an entry, or called from other functions.
    Private,
    /// A device kernel: a tile or simt program with a grid.
    Kernel,
}

impl FuncKind {
    /// The keyword in text.
    pub fn keyword(self) -> &'static str {
        match self {
            FuncKind::Entry => "entry",
            FuncKind::Private => "func",
            FuncKind::Kernel => "kernel",
        }
    }
}

/// A form of an entry for some dims; see [`Func::variants`].
#[derive(Clone, PartialEq, Debug)]
pub struct Variant {
    /// The function with the special form; same signature.
    pub func: Arc<str>,
    /// All must hold.
    pub guards: Vec<Guard>,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Func {
    /// Name, unique in the module.
    pub name: Arc<str>,
    /// What it is for.
    pub kind: FuncKind,
    /// Symbols its types may use.
    pub symbols: Vec<SymDecl>,
    /// The user's names of the arguments.
    pub arg_names: Vec<Arc<str>>,
    /// The user's names of the results.
    pub result_names: Vec<Arc<str>>,
    /// Result types.
    pub result_types: Vec<Type>,
    /// Tried in order before the body; the first whose guards hold runs instead.
    pub variants: Vec<Variant>,
    /// Attributes (for a kernel: `grid`).
    pub attrs: Attrs,
    /// The body.
    pub body: RegionId,
    ops: Arena<OpId, Op>,
    values: Arena<ValueId, Value>,
    regions: Arena<RegionId, Region>,
    shared: Shared,
}

impl Func {
    /// An empty function.
    pub fn new(name: &str, kind: FuncKind) -> Func {
        let mut regions = Arena::default();
        let body = regions.push(Region::default());
        Func {
            name: name.into(),
            kind,
            symbols: vec![],
            arg_names: vec![],
            result_names: vec![],
            result_types: vec![],
            variants: vec![],
            attrs: Attrs::new(),
            body,
            ops: Arena::default(),
            values: Arena::default(),
            regions,
            shared: Shared::default(),
        }
    }

    /// An op.
    pub fn op(&self, op: OpId) -> &Op {
        &self.ops[op]
    }

    /// An op, to change attributes or location. Operands change through [`Func::set_operand`].
    pub fn op_mut(&mut self, op: OpId) -> &mut Op {
        &mut self.ops[op]
    }

    /// A value.
    pub fn value(&self, v: ValueId) -> &Value {
        &self.values[v]
    }

    /// A value, to change its name or known contents.
    pub fn value_mut(&mut self, v: ValueId) -> &mut Value {
        &mut self.values[v]
    }

    /// Says what is known of the contents of a small integer tensor.
    pub(crate) fn set_known(&mut self, v: ValueId, mut known: Option<Vec<Dim>>) {
        known.iter_mut().flatten().for_each(|d| self.shared.dim(d));
        self.values[v].known = known.map(Into::into);
    }

    /// A value's type.
    pub fn ty(&self, v: ValueId) -> &Type {
        &self.values[v].ty
    }

    /// Gives a value another type.
    pub fn set_ty(&mut self, v: ValueId, ty: Type) {
        self.values[v].ty = self.shared.ty(ty);
    }

    /// Replaces symbols in a value's type and known contents.
    pub fn subst(&mut self, v: ValueId, with: &dyn Fn(&str) -> Option<Dim>) {
        self.set_ty(v, self.ty(v).subst(with));
        if let Some(known) = &self.values[v].known {
            let new: Vec<Dim> = known.iter().map(|d| d.subst(with)).collect();
            if new[..] != known[..] {
                self.set_known(v, Some(new));
            }
        }
    }

    /// A region.
    pub fn region(&self, r: RegionId) -> &Region {
        &self.regions[r]
    }

    /// Number of op slots ever made (a bound for tables keyed by op).
    pub fn op_slots(&self) -> usize {
        self.ops.len()
    }

    /// Number of value slots ever made.
    pub fn value_slots(&self) -> usize {
        self.values.len()
    }

    /// Arguments of the function.
    pub fn args(&self) -> &[ValueId] {
        &self.regions[self.body].args
    }

    /// Adds an argument.
    pub fn add_arg(&mut self, name: &str, ty: Type) -> ValueId {
        self.arg_names.push(name.into());
        self.add_region_arg(self.body, ty)
    }

    /// Declares a symbol unless it exists.
    pub fn declare(&mut self, sym: SymDecl) {
        if !self.symbols.iter().any(|s| s.name == sym.name) {
            self.symbols.push(sym);
        }
    }

    /// A fresh run-time symbol, at most `max`.
    pub fn fresh_symbol(&mut self, hint: &str, max: i64) -> Dim {
        let base: String =
            hint.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let base =
            if base.starts_with(|c: char| c.is_ascii_alphabetic()) { base } else { "u".into() };
        // The first number that no symbol has, in one walk: a hostile model has any number of symbols.
        let mut taken = vec![false; self.symbols.len() + 1];
        let numbers = self.symbols.iter().filter_map(|s| s.name.strip_prefix(&base)?.parse().ok());
        numbers.filter_map(|n: usize| taken.get_mut(n).map(|t| *t = true)).for_each(drop);
        let free = taken.iter().position(|t| !t).unwrap_or(taken.len());
        let name = format!("{base}{free}");
        self.symbols.push(SymDecl { max, runtime: true, ..SymDecl::new(&name) });
        Dim::sym(&name)
    }

    /// Range of a symbol, for [`Dim::bounds`].
    pub fn symbol_range(&self, name: &str) -> (i64, i64) {
        self.symbols
            .iter()
            .find(|s| *s.name == *name)
            .map_or((i64::MIN + 1, i64::MAX), |s| (s.min, s.max))
    }

    /// A new region, to be given to an op.
    pub fn new_region(&mut self) -> RegionId {
        self.regions.push(Region::default())
    }

    /// Adds an argument to a region.
    pub fn add_region_arg(&mut self, r: RegionId, ty: Type) -> ValueId {
        let n = self.regions[r].args.len();
        let v = self.new_value(ty, Def::Arg(r, n));
        self.regions[r].args.push(v);
        v
    }

    fn new_value(&mut self, ty: Type, def: Def) -> ValueId {
        let ty = self.shared.ty(ty);
        self.values.push(Value { ty, def, name: None, known: None, uses: SmallVec::new() })
    }

    /// Makes an op that is in no region yet and has no results yet.
    pub fn create_op(
        &mut self,
        def: &'static OpDef,
        operands: &[Option<ValueId>],
        mut attrs: Attrs,
        regions: &[RegionId],
        loc: Loc,
    ) -> OpId {
        attrs.each_dim(&mut |d| self.shared.dim(d));
        let operands: SmallVec<[ValueId; 4]> = operands.iter().map(|v| v.unwrap_or(NONE)).collect();
        let op = self.ops.push(Op {
            def,
            operands: operands.clone(),
            results: SmallVec::new(),
            attrs,
            regions: regions.iter().copied().collect(),
            loc,
            parent: None,
        });
        for v in operands.into_iter().filter(|v| *v != NONE) {
            self.values[v].uses.push(op);
        }
        for &r in regions {
            self.regions[r].parent = Some(op);
        }
        op
    }

    /// Adds a result to an op.
    pub fn add_result(&mut self, op: OpId, ty: Type) -> ValueId {
        let n = self.ops[op].results.len();
        let v = self.new_value(ty, Def::Result(op, n));
        self.ops[op].results.push(v);
        v
    }

    /// Puts a free op at a position of a region.
    pub fn insert(&mut self, op: OpId, r: RegionId, at: usize) {
        debug_assert!(self.ops[op].parent.is_none());
        self.ops[op].parent = Some(r);
        self.regions[r].ops.insert(at, op);
    }

    /// Puts a free op at the end of a region.
    pub fn append(&mut self, op: OpId, r: RegionId) {
        let at = self.regions[r].ops.len();
        self.insert(op, r, at);
    }

    /// Takes an op out of its region without erasing it.
    pub fn detach(&mut self, op: OpId) {
        if let Some(r) = self.ops[op].parent.take() {
            self.regions[r].ops.retain(|o| *o != op);
        }
    }

    /// Erases an op and what is inside it. Its results must be unused.
    pub fn erase(&mut self, op: OpId) {
        self.detach(op);
        for r in self.ops[op].regions.clone() {
            for inner in self.regions[r].ops.clone().into_iter().rev() {
                self.erase(inner);
            }
        }
        for v in std::mem::take(&mut self.ops[op].operands) {
            self.remove_use(v, op);
        }
        debug_assert!(self.ops[op].results.iter().all(|v| self.values[*v].uses.is_empty()));
        // The slots stay; what they held does not.
        self.ops[op].attrs = Attrs::new();
        for v in self.ops[op].results.clone() {
            self.values[v].known = None;
        }
    }

    fn remove_use(&mut self, v: ValueId, op: OpId) {
        if v != NONE
            && let Some(i) = self.values[v].uses.iter().position(|o| *o == op)
        {
            self.values[v].uses.remove(i);
        }
    }

    /// Ops that use a value, once for each operand, in order of use.
    pub fn uses(&self, v: ValueId) -> &[OpId] {
        &self.values[v].uses
    }

    /// Replaces operand slot `i`.
    pub fn set_operand(&mut self, op: OpId, i: usize, v: Option<ValueId>) {
        let old = std::mem::replace(&mut self.ops[op].operands[i], v.unwrap_or(NONE));
        self.remove_use(old, op);
        if let Some(v) = v {
            self.values[v].uses.push(op);
        }
    }

    /// Makes every user of `old` use `new`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        for op in std::mem::take(&mut self.values[old].uses) {
            for slot in &mut self.ops[op].operands {
                if *slot == old {
                    *slot = new;
                    // One list entry per use: the loop sees this op again for a second use, finds
                    // no slot left and adds nothing.
                    self.values[new].uses.push(op);
                }
            }
        }
    }

    /// The op that defines a value; `None` for an argument.
    pub fn def_op(&self, v: ValueId) -> Option<OpId> {
        match self.values[v].def {
            Def::Result(op, _) => Some(op),
            Def::Arg(..) => None,
        }
    }

    /// Position of an op in its region.
    pub fn position(&self, op: OpId) -> Option<usize> {
        self.regions[self.ops[op].parent?].ops.iter().position(|o| *o == op)
    }

    /// The op whose region an op is in.
    pub fn parent_op(&self, op: OpId) -> Option<OpId> {
        self.regions[self.ops[op].parent?].parent
    }

    /// Every op in the function, outer before inner, in program order.
    pub fn walk(&self) -> Vec<OpId> {
        self.walk_region(self.body)
    }

    /// Every op in a region and in the regions inside it, outer before inner, in program order.
    pub fn walk_region(&self, r: RegionId) -> Vec<OpId> {
        let mut out = Vec::new();
        self.walk_into(r, &mut out);
        out
    }

    fn walk_into(&self, r: RegionId, out: &mut Vec<OpId>) {
        for &op in &self.regions[r].ops {
            out.push(op);
            for &inner in &self.ops[op].regions {
                self.walk_into(inner, out);
            }
        }
    }

    /// The terminator of a region, if its last op is one.
    pub fn terminator(&self, r: RegionId) -> Option<OpId> {
        let op = *self.regions[r].ops.last()?;
        self.ops[op].def.is(crate::op::Traits::TERMINATOR).then_some(op)
    }

    /// The values that a region yields.
    pub fn yields(&self, r: RegionId) -> Vec<ValueId> {
        self.terminator(r).map(|t| self.ops[t].operands().collect()).unwrap_or_default()
    }

    /// Copies an op with its regions, mapping operands through `map` (values not in it stay), and
    /// records the copies of its results there. The copy is in no region.
    pub fn clone_op(
        &mut self,
        from: Option<&Func>,
        op: OpId,
        map: &mut std::collections::HashMap<ValueId, ValueId>,
    ) -> OpId {
        let own;
        let src = match from {
            Some(f) => f,
            None => {
                own = self.ops[op].clone();
                return self.clone_parts(None, own, map);
            }
        };
        let data = src.op(op).clone();
        self.clone_parts(Some(src), data, map)
    }

    fn clone_parts(
        &mut self,
        from: Option<&Func>,
        data: Op,
        map: &mut std::collections::HashMap<ValueId, ValueId>,
    ) -> OpId {
        let operands: Vec<_> =
            data.slots().map(|v| v.map(|v| map.get(&v).copied().unwrap_or(v))).collect();
        let regions: Vec<RegionId> = data
            .regions
            .iter()
            .map(|&r| {
                let region = from.map_or_else(|| self.regions[r].clone(), |f| f.regions[r].clone());
                let new = self.new_region();
                for a in region.args {
                    let v = from.map_or_else(|| self.values[a].clone(), |f| f.values[a].clone());
                    let arg = self.add_region_arg(new, (*v.ty).clone());
                    self.values[arg].name = v.name;
                    self.values[arg].known = v.known;
                    map.insert(a, arg);
                }
                for inner in region.ops {
                    let c = self.clone_op(from, inner, map);
                    self.append(c, new);
                }
                new
            })
            .collect();
        let new = self.create_op(data.def, &operands, data.attrs, &regions, data.loc);
        for r in data.results {
            let v = from.map_or_else(|| self.values[r].clone(), |f| f.values[r].clone());
            let res = self.add_result(new, (*v.ty).clone());
            self.values[res].name = v.name;
            self.values[res].known = v.known;
            map.insert(r, res);
        }
        new
    }
}

/// Slot number of a key, for side tables.
pub fn slot<K: Entity>(k: K) -> usize {
    k.index()
}
