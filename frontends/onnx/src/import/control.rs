//! Control flow: `If`, `Loop` and `Scan` become regions that see the values around them. A branch whose
//! condition is known at import is taken at once, so that branches of other ranks do no harm.

use silure_ir::{Attr, Attrs, Dim, Elem, TensorType, Type, ValueId, attrs};

use super::cx::Cx;
use super::{Record, record};
use crate::error::Result;
use crate::graph::{Graph, Node};

pub(super) const TABLE: &[Record] =
    &[record("If", if_), record("Loop", loop_), record("Scan", scan)];

fn graph<'n, 'm>(
    cx: &mut Cx<'_, '_>,
    n: &'n Node<'m>,
    name: &'static str,
) -> Result<&'n Graph<'m>> {
    cx.ignore(name);
    n.graph(name).ok_or_else(|| cx.wrong(format!("subgraph `{name}` is missing")))
}

fn if_(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let (then, other) = (graph(cx, n, "then_branch")?, graph(cx, n, "else_branch")?);
    let condition = cx.input(n, 0)?;
    if then.outputs.len() != other.outputs.len() {
        return Err(cx
            .wrong("the branches have different numbers of outputs")
            .needed(then.outputs.len().to_string())
            .present(other.outputs.len().to_string()));
    }
    if let Some(&[c]) = cx.known_ints(condition).as_deref() {
        return cx.inlined(if c != 0 { then } else { other });
    }
    let a = cx.region(&[], |cx, _| cx.body(then, &[]))?;
    let b = cx.region(&[], |cx, _| cx.body(other, &[]))?;
    let (mut a, mut b) = (a, b);
    let types = |cx: &Cx<'_, '_>, r| -> Vec<Option<TensorType>> {
        cx.f.yields(r).into_iter().map(|v| cx.f.ty(v).as_tensor().cloned()).collect()
    };
    let ranks = |t: &[Option<TensorType>]| -> Vec<Option<usize>> {
        t.iter().map(|t| t.as_ref().map(TensorType::rank)).collect()
    };
    let (ta, tb) = (types(cx, a), types(cx, b));
    let raised: Vec<Option<usize>> = ta.iter().zip(&tb).map(|(a, b)| one_element(a, b)).collect();
    if raised.iter().any(Option::is_some) {
        // One element either way: as much as a rank that both can have.
        cx.discard(b);
        cx.discard(a);
        let build = |cx: &mut Cx<'_, '_>, g: &Graph<'_>| {
            cx.region(&[], |cx, _| {
                let mut out = cx.body(g, &[])?;
                for (v, rank) in out.iter_mut().zip(&raised) {
                    if let Some(rank) = rank {
                        *v = cx.reshape(*v, vec![Dim::Const(1); *rank])?;
                    }
                }
                Ok(out)
            })
        };
        (a, b) = (build(cx, then)?, build(cx, other)?);
        let at = cx.at.clone();
        cx.note(format!("{at} gives one element in either branch: the larger rank is taken"));
    }
    let (ta, tb) = (types(cx, a), types(cx, b));
    if ranks(&ta) != ranks(&tb) {
        // "Squeeze the axis if its size is 1, else leave it": only one of them fits what follows. The
        // squeeze checks the size at run time, so taking it is safe.
        let Some(g) = [then, other].into_iter().find(|g| squeezes(g)) else {
            return Err(cx
                .unsupported("the branches give different ranks, and the condition is not known")
                .needed("sizes or inputs given as constants that decide it"));
        };
        cx.discard(b);
        cx.discard(a);
        let at = cx.at.clone();
        cx.note(format!(
            "{at} is taken to squeeze an axis: a run in which its size is not 1 ends with an error"
        ));
        return cx.inlined(g);
    }
    let def = cx.def("graph.if")?;
    let op = cx.build(def, &[Some(condition)], attrs! {}, &[a, b], &[])?;
    Ok(cx.f.op(op).results.to_vec())
}

/// The rank to give to two values of one element each whose ranks differ.
fn one_element(a: &Option<TensorType>, b: &Option<TensorType>) -> Option<usize> {
    let (Some(a), Some(b)) = (a, b) else { return None };
    let single = [a, b].iter().all(|t| t.count() == Dim::Const(1));
    (single && a.rank() != b.rank()).then_some(a.rank().max(b.rank()))
}

/// Whether a branch does nothing but squeeze a value.
fn squeezes(g: &Graph<'_>) -> bool {
    let work: Vec<&str> = g.nodes.iter().map(|n| n.op.name).filter(|n| *n != "Constant").collect();
    work == ["Squeeze"]
}

impl Cx<'_, '_> {
    /// A subgraph without inputs in place of its node.
    fn inlined(&mut self, g: &Graph<'_>) -> Result<Vec<ValueId>> {
        self.nested(|cx| cx.body(g, &[]))
    }

    /// The type of a carried value as a region's argument: sizes that the body may change are
    /// run-time symbols of the region. Found by trying: a size stays while the body keeps it.
    fn loosened(&mut self, ty: &Type, keep: &[bool]) -> Type {
        match ty {
            Type::Tensor(t) => {
                let mut t = t.clone();
                for (i, d) in t.dims.iter_mut().enumerate() {
                    if !keep.get(i).copied().unwrap_or(true) {
                        *d = self.f.fresh_symbol("carried", i64::MAX);
                    }
                }
                Type::Tensor(t)
            }
            t => t.clone(),
        }
    }

    /// Builds a body whose first `head` arguments have fixed types and whose carried values start as
    /// `init`; `skip` results of the body come before the carried ones. Sizes that change from one
    /// time to the next become run-time symbols, sequences take elements of any such size or, where
    /// ranks differ, of any shape; each attempt loosens something, so it ends.
    ///
    /// Of a value that the body does not read only the type matters if the loop surely `runs`: then it
    /// starts as nothing of the type that the body gives.
    ///
    /// A value of one element may have another rank behind the body than in front of it: it is carried with
    /// the larger one, which the user is told.
    ///
    /// An empty sequence among `init` is replaced by one whose type says what the body puts into it. A
    /// body may yield plainly what it is given as an optional: what it yields is made optional, and
    /// `true` is given for it.
    fn carried_body(
        &mut self,
        g: &Graph<'_>,
        before: &[Type],
        init: &mut [ValueId],
        after: &[Type],
        (skip, runs): (usize, bool),
    ) -> Result<(silure_ir::RegionId, Vec<bool>)> {
        let n = init.len();
        let types: Vec<Type> = init.iter().map(|v| self.f.ty(*v).clone()).collect();
        let mut lists = types.clone();
        let mut refined = vec![false; n];
        let mut plain = vec![false; n];
        let mut lifted = vec![false; n];
        // Of one element and several ranks.
        let mut single = vec![false; n];
        let mut keep: Vec<Vec<bool>> =
            types.iter().map(|t| vec![true; t.as_tensor().map_or(0, |t| t.rank())]).collect();
        loop {
            let mut args = before.to_vec();
            let mut carried = Vec::new();
            for (t, k) in lists.iter().zip(&keep) {
                carried.push(self.loosened(t, k));
            }
            args.extend(carried.iter().cloned());
            args.extend(after.iter().cloned());
            let region = self.region(&args, |cx, args| {
                let mut out = cx.body(g, args)?;
                if skip == 1 && !out.is_empty() && cx.rank(out[0])? > 0 {
                    out[0] = cx.reshape(out[0], vec![])?;
                }
                for (i, (y, t)) in out.iter_mut().skip(skip).zip(&carried).enumerate() {
                    let (own, t) = (cx.f.ty(*y).as_tensor().cloned(), t.as_tensor().cloned());
                    if let (Some(rank), Some(t)) = (one_element(&own, &t), t)
                        && rank == t.rank()
                    {
                        *y = cx.reshape(*y, t.dims)?;
                        single[i] = true;
                    }
                }
                for (y, _) in out.iter_mut().skip(skip).zip(&plain).filter(|(_, p)| **p) {
                    let of = Attr::Type(Box::new(cx.f.ty(*y).clone()));
                    *y = cx.op("graph.optional", &[*y], Attrs::new().with("of", of))?;
                }
                Ok(out)
            })?;
            let yields = self.f.yields(region);
            let mut changed = false;
            for (i, k) in keep.iter_mut().enumerate() {
                let Some(y) = yields.get(skip + i) else { continue };
                let ty = self.f.ty(*y).clone();
                let (a, b) = match (&carried[i], &ty) {
                    (Type::Tensor(a), Type::Tensor(b)) => (a, b),
                    (Type::Opt(_), Type::Tensor(_) | Type::Seq(_)) if !plain[i] => {
                        plain[i] = true;
                        changed = true;
                        continue;
                    }
                    (Type::Seq(_), _) if !refined[i] && self.is_empty_seq(init[i]) => {
                        refined[i] = true;
                        let arg = self.f.region(region).args[before.len() + i];
                        if let Some(of) = self.elements(arg, *y, &carried[i]) {
                            let attrs = Attrs::new().with("of", Attr::Type(Box::new(of.clone())));
                            init[i] = self.op("graph.seq_empty", &[], attrs)?;
                            lists[i] = Type::Seq(Box::new(of));
                        }
                        changed = true;
                        continue;
                    }
                    (a, b) if silure_ir::dialects::graph::accepts(&self.f, a, b) => continue,
                    (a, b) => match self.widened(a, b) {
                        Some(t) => {
                            lists[i] = t;
                            changed = true;
                            continue;
                        }
                        None => return Err(self.changed(i, a, b)),
                    },
                };
                let one = one_element(&Some(a.clone()), &Some(b.clone())).is_some();
                if one && a.elem == b.elem && !lifted[i] {
                    init[i] = self.reshape(init[i], b.dims.clone())?;
                    (lists[i], *k) = (self.f.ty(init[i]).clone(), vec![true; b.rank()]);
                    (lifted[i], single[i], changed) = (true, true, true);
                    continue;
                }
                let arg = self.f.region(region).args[before.len() + i];
                let unread = runs && self.f.uses(arg).is_empty() && !lifted[i];
                if unread && (a.rank() != b.rank() || a.elem != b.elem) {
                    let dims: Vec<Dim> =
                        b.dims.iter().map(|d| d.as_const().unwrap_or(0).into()).collect();
                    init[i] = self.zeros(b.elem, dims)?;
                    (lists[i], *k) = (self.f.ty(init[i]).clone(), vec![true; b.rank()]);
                    (lifted[i], changed) = (true, true);
                    continue;
                }
                if a.rank() != b.rank() || a.elem != b.elem {
                    return Err(self.changed(i, &carried[i], &ty));
                }
                for (d, keep) in k.iter_mut().enumerate() {
                    if *keep && a.dims[d] != b.dims[d] {
                        *keep = false;
                        changed = true;
                    }
                }
            }
            if !changed {
                for (i, _) in single.iter().enumerate().filter(|(_, s)| **s) {
                    let at = &self.at;
                    let note = format!(
                        "{at}: carried value {i} has one element: the larger rank is taken"
                    );
                    self.note(note);
                }
                return Ok((region, plain));
            }
            self.discard(region);
        }
    }

    fn changed(&self, i: usize, a: &Type, b: &Type) -> crate::error::Error {
        let what = format!("carried value {i} changes its type");
        self.wrong(what).needed(a.to_string()).present(b.to_string())
    }

    fn is_empty_seq(&self, v: ValueId) -> bool {
        self.f.def_op(v).is_some_and(|op| self.f.op(op).def.name == "graph.seq_empty")
    }

    /// The type of the elements that a body puts into an empty sequence it carries.
    fn elements(&mut self, arg: ValueId, to: ValueId, ty: &Type) -> Option<Type> {
        let all = self.inserted(arg, to)?;
        let mut all = all.into_iter();
        let mut of = all.next()?;
        for t in all {
            of = self.widened(&of, &t)?;
        }
        let of = self.unbound(&of);
        let fits = matches!((ty, &of), (Type::Seq(t), Type::Tensor(_)) if t.elem() == of.elem());
        fits.then_some(of)
    }
}

fn loop_(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let body = graph(cx, n, "body")?;
    let mut trip = cx.maybe(n, 0)?;
    let mut condition = cx.maybe(n, 1)?;
    for v in [&mut trip, &mut condition].into_iter().flatten() {
        if cx.rank(*v)? > 0 {
            *v = cx.reshape(*v, vec![])?;
        }
    }
    let mut init: Vec<ValueId> =
        (2..n.inputs.len()).map(|i| cx.input(n, i)).collect::<Result<_>>()?;
    // What is not given is no limit.
    let known = |cx: &mut Cx<'_, '_>, v: Option<ValueId>| match v {
        Some(v) => cx.constant_value(v).is_some_and(|t| t.to_i64s().iter().all(|n| *n > 0)),
        None => true,
    };
    let runs = known(cx, trip) && known(cx, condition);
    let head = [Type::tensor(Elem::I64, []), Type::tensor(Elem::Bool, [])];
    let (region, plain) = cx.carried_body(body, &head, &mut init, &[], (1, runs))?;
    let mut operands = vec![trip, condition];
    operands.extend(init.into_iter().map(Some));
    let def = cx.def("graph.loop")?;
    let op = cx.build(def, &operands, attrs! {}, &[region], &[])?;
    let mut out = cx.f.op(op).results.to_vec();
    for (v, _) in out.iter_mut().zip(plain).filter(|(_, p)| *p) {
        *v = cx.op("graph.optional_get", &[*v], attrs! {})?;
    }
    Ok(out)
}

/// Attributes of a scan, all counted from the front.
struct ScanAttrs {
    input_axes: Vec<i64>,
    output_axes: Vec<i64>,
    input_reverse: Vec<i64>,
    output_reverse: Vec<i64>,
}

fn scan(cx: &mut Cx<'_, '_>, n: &Node<'_>) -> Result<Vec<ValueId>> {
    let body = graph(cx, n, "body")?;
    let Some(count) = cx.int(n, "num_scan_inputs")? else {
        return Err(cx.wrong("attribute `num_scan_inputs` is missing"));
    };
    let batched = n.op.version < 9;
    if batched && cx.maybe(n, 0)?.is_some() {
        return Err(cx.unsupported("a scan over sequences of different lengths (opset 8)"));
    }
    let v: Vec<ValueId> =
        (usize::from(batched)..n.inputs.len()).map(|i| cx.input(n, i)).collect::<Result<_>>()?;
    let states = usize::try_from(count).ok().and_then(|c| v.len().checked_sub(c));
    let Some(states) = states.filter(|s| *s < v.len()) else {
        return Err(cx
            .wrong("attribute `num_scan_inputs` does not fit")
            .present(count.to_string()));
    };
    let inputs = v.len() - states;
    let Some(outputs) = body.outputs.len().checked_sub(states) else {
        return Err(cx.wrong("the body has too few outputs"));
    };
    if !batched {
        let attrs = ScanAttrs {
            input_axes: cx.ints_or(n, "scan_input_axes", inputs, 0)?,
            output_axes: cx.ints_or(n, "scan_output_axes", outputs, 0)?,
            input_reverse: cx.ints_or(n, "scan_input_directions", inputs, 0)?,
            output_reverse: cx.ints_or(n, "scan_output_directions", outputs, 0)?,
        };
        return scan_op(cx, body, v, states, attrs);
    }
    // A scan over the batch, which carries nothing, of scans over the sequences.
    let input_reverse = cx.ints_or(n, "directions", inputs, 0)?;
    let mut v = v;
    let slices = scanned(cx, &mut v, &vec![0; states + inputs])?;
    let region = cx.region(&slices, |cx, args| {
        let (input_axes, output_axes) = (vec![0; inputs], vec![0; outputs]);
        let output_reverse = vec![0; outputs];
        let attrs = ScanAttrs { input_axes, output_axes, input_reverse, output_reverse };
        scan_op(cx, body, args.to_vec(), states, attrs)
    })?;
    let operands: Vec<Option<ValueId>> = v.into_iter().map(Some).collect();
    let def = cx.def("graph.scan")?;
    let op = cx.build(def, &operands, attrs! { states: 0 }, &[region], &[])?;
    Ok(cx.f.op(op).results.to_vec())
}

/// Makes the sizes along the scanned axes one; gives the types of the slices.
fn scanned(cx: &mut Cx<'_, '_>, v: &mut [ValueId], axes: &[i64]) -> Result<Vec<Type>> {
    for i in 1..v.len() {
        let (mut first, mut this) = (v[0], v[i]);
        let (at, axis) = (axes[0] as usize, axes[i] as usize);
        cx.same_size(&mut first, at, &mut this, axis, "scanned sizes")?;
        (v[0], v[i]) = (first, this);
    }
    let mut slices = Vec::new();
    for (v, a) in v.iter().zip(axes) {
        let mut t = cx.ty(*v)?;
        if *a as usize >= t.rank() {
            return Err(cx.wrong("a scalar is scanned").present(t.to_string()));
        }
        t.dims.remove(*a as usize);
        slices.push(Type::Tensor(t));
    }
    Ok(slices)
}

fn scan_op(
    cx: &mut Cx<'_, '_>,
    body: &Graph<'_>,
    mut v: Vec<ValueId>,
    states: usize,
    mut a: ScanAttrs,
) -> Result<Vec<ValueId>> {
    for (v, axis) in v[states..].iter().zip(&mut a.input_axes) {
        *axis = cx.axis(*axis, cx.rank(*v)?)? as i64;
    }
    let slices = scanned(cx, &mut v[states..], &a.input_axes)?;
    let (region, _) = cx.carried_body(body, &[], &mut v[..states], &slices, (0, false))?;
    let attrs = Attrs::new()
        .with("states", states as i64)
        .with("input_axes", a.input_axes)
        .with("output_axes", a.output_axes)
        .with("input_reverse", a.input_reverse)
        .with("output_reverse", a.output_reverse);
    let operands: Vec<Option<ValueId>> = v.into_iter().map(Some).collect();
    let def = cx.def("graph.scan")?;
    let op = cx.build(def, &operands, attrs, &[region], &[])?;
    Ok(cx.f.op(op).results.to_vec())
}
