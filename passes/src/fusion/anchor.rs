//! A map behind a heavy op becomes that op's epilogue.

use std::collections::HashMap;

use silure_ir::diag::{Loc, Result};
use silure_ir::dialects::{graph, kernel};
use silure_ir::{Attr, Attrs, Builder, Elem, Func, OpId, RegionId, Type, ValueId};

use crate::pass::{Changed, PassCx};

/// Ops that take an epilogue: their result is finished tile by tile.
fn is_anchor(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let float = |v: ValueId| f.ty(v).elem().is_some_and(|e| e.is_float() && e.bits() <= 32);
    let heavy = [graph::MATMUL.name, graph::MATMUL_BLOCKS.name, graph::CONV.name];
    heavy.contains(&o.def.name) && float(o.result()) || is_integer(f, op)
}

/// Integer products, whose epilogue scales the sums and may quantise again.
pub(super) fn is_integer(f: &Func, op: OpId) -> bool {
    let o = f.op(op);
    let bytes = |i: usize| {
        let elem = o.operand(i).and_then(|v| f.ty(v).elem());
        matches!(elem, Some(Elem::I8 | Elem::U8))
    };
    (o.def.name == graph::MATMUL_INTEGER.name || o.def.name == graph::CONV_INTEGER.name)
        && bytes(0)
        && bytes(1)
}

/// The last of several anchors that feed one map gets it. The new op stands where the map was, behind
/// all that both read.
pub(super) fn fuse(cx: &mut PassCx, func: usize, r: RegionId) -> Result<Changed> {
    let mut changed = Changed::No;
    for op in cx.module.funcs[func].region(r).ops.clone().into_iter().rev() {
        let Some((map, slot)) = epilogue(&cx.module.funcs[func], r, op) else { continue };
        if !cx.step("epilogue") {
            return Ok(changed);
        }
        build(&mut cx.module.funcs[func], op, map, slot)?;
        changed = Changed::Yes;
    }
    Ok(changed)
}

/// The map of the anchor's own shape that alone uses it, as an operand that is read straight. As nothing
/// else uses it, no path leads around the two.
fn epilogue(f: &Func, r: RegionId, op: OpId) -> Option<(OpId, usize)> {
    if f.op(op).parent() != Some(r) || !is_anchor(f, op) {
        return None;
    }
    let v = f.op(op).result();
    let &[user] = f.uses(v) else { return None };
    let u = f.op(user);
    if u.def.name != kernel::MAP.name || u.parent() != Some(r) || u.results.len() != 1 {
        return None;
    }
    let dims = &f.ty(v).as_tensor()?.dims;
    let slot = u.operands().position(|x| x == v)?;
    let straight = u.attrs.maps("maps")[slot].iter().enumerate().all(|(i, &a)| a == i as i64);
    let fits = u.attrs.dims("shape") == dims.as_slice() && straight;
    let to = f.ty(u.results[0]).elem();
    let taken = match is_integer(f, op) {
        true => matches!(to, Some(Elem::I32 | Elem::F32 | Elem::U8 | Elem::I8)),
        false => to == f.ty(v).elem(),
    };
    (fits && taken).then_some((user, slot))
}

fn build(f: &mut Func, anchor: OpId, map: OpId, slot: usize) -> Result<()> {
    let (a, m) = (f.op(anchor).clone(), f.op(map).clone());
    let inputs: Vec<ValueId> = a.operands().collect();
    let mut maps = m.attrs.maps("maps").to_vec();
    maps.remove(slot);
    let extras: Vec<ValueId> =
        m.operands().enumerate().filter(|(i, _)| *i != slot).map(|(_, v)| v).collect();
    let old_args = f.region(m.regions[0]).args.clone();
    let body = f.region(m.regions[0]).ops.clone();
    let acc = f.ty(a.result()).elem();
    let loc = Loc::fuse([&a.loc, &m.loc]);
    let types: Vec<Type> = inputs.iter().map(|v| f.ty(*v).clone()).collect();
    let mut b = Builder::before(f, map);
    b.loc = a.loc.clone();
    let first = b.nested(&types, |b, args| {
        let mut next = args.iter();
        let operands: Vec<Option<ValueId>> =
            a.slots().map(|v| v.and_then(|_| next.next().copied())).collect();
        let op = b.build(a.def, &operands, a.attrs.clone(), &[], &[])?;
        let v = b.func.op(op).result();
        b.yields(&[v]).map(|_| ())
    })?;
    let mut scalars: Vec<Type> = acc.map(Type::Scalar).into_iter().collect();
    for v in &extras {
        scalars.extend(b.func.ty(*v).elem().map(Type::Scalar));
    }
    b.loc = m.loc.clone();
    let second = b.nested(&scalars, |b, args| {
        // The accumulator takes the place of the operand it came in as.
        let mut known: HashMap<ValueId, ValueId> = HashMap::new();
        let mut rest = args[1..].iter();
        for (i, old) in old_args.iter().enumerate() {
            let new = if i == slot { args[0] } else { *rest.next().unwrap_or(&args[0]) };
            known.insert(*old, new);
        }
        for op in body {
            let copy = b.func.clone_op(None, op, &mut known);
            let r = b.region();
            b.func.append(copy, r);
        }
        Ok(())
    })?;
    b.loc = loc;
    let operands: Vec<Option<ValueId>> = inputs.iter().chain(&extras).map(|v| Some(*v)).collect();
    let attrs = Attrs::new().with("inputs", inputs.len() as i64).with("maps", Attr::Maps(maps));
    let new = b.build(&kernel::ANCHOR, &operands, attrs, &[first, second], &[])?;
    let (old, new) = (m.results[0], f.op(new).result());
    let name = f.value(old).name.clone();
    f.replace_uses(old, new);
    f.value_mut(new).name = name;
    f.erase(map);
    f.erase(anchor);
    Ok(())
}
