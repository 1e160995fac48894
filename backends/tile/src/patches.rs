//! Convolutions by patches gathered element by element: transposed ones, and those of 8-bit integers.
//!
//! Rows of the product are places of the result, columns its channels, the depth goes through channels and taps of the
//! kernel. A transposed convolution reads x where a tap would have come from, if that is one of its positions.

use silure_ir::dialects::{arith, tile};
use silure_ir::infer::InferCx;
use silure_ir::{Dim, Elem, Func, Num, OpId, Result, attrs, bail};

use crate::anchor::Anchor;
use crate::integer::{Bytes, corrected, step};
use crate::lanes::Place;
use crate::product::{Window, layout};
use crate::writer::{Title, Writer, cover};
use crate::{Arg, Kernel};

/// Most rows and columns of a program's tile, and least.
const TILE: usize = 64;
const LEAST: usize = 16;
/// Steps along the depth.
const DEEP: usize = 32;

fn product(dims: &[Dim]) -> Dim {
    dims.iter().cloned().fold(Dim::Const(1), |a, d| a * d)
}

/// `graph.conv_integer` and `graph.conv_transpose`, alone or in an anchor.
pub(crate) fn conv(f: &Func, op: OpId, name: Title) -> Result<Kernel> {
    let o = Anchor::of(f, op)?;
    let turned = o.heavy.def.name == "graph.conv_transpose";
    let inner = match f.op(op).def.name {
        "kernel.anchor" => f.region(f.op(op).regions[0]).ops.first().copied().unwrap_or(op),
        _ => op,
    };
    let mut w = Writer::new(name);
    w.at(&o.heavy.loc);
    let mut operands = vec![];
    for i in o.given()? {
        operands.push(match i {
            Some(i) => Some(Place::of(&mut w, o.arg(i), f.ty(o.operands[i]))?),
            None => None,
        });
    }
    let others = o.places(&mut w)?;
    let y = Place::of(&mut w, Arg::Result(0), f.ty(f.op(op).result()))?;
    let [Some(x), Some(k), rest @ ..] = &operands[..] else { bail!(Internal, "two operands") };
    let bytes = if turned { None } else { Some(Bytes::pair(x.elem, k.elem)?) };
    // Smaller floats are multiplied as f32, which has them all.
    let wide = match (turned, x.elem) {
        (true, e) if e.is_float() && e.bits() <= 32 => Elem::F32,
        (true, e) => bail!(Unsupported, "a transposed convolution of {e} in a tile kernel"),
        (false, e) => e,
    };
    let window = Window::of(&InferCx::new(f, inner), k.dims[2..].to_vec())?;
    let (channel, space) = layout(o.heavy.attrs.bool("channels_last"), y.dims.len());
    let groups = Dim::Const(o.heavy.attrs.int("groups"));
    // Channels of a group in x and in y.
    let (c, m) = match turned {
        true => (x.dims[channel].floordiv(&groups), k.dims[1].clone()),
        false => (k.dims[1].clone(), k.dims[0].floordiv(&groups)),
    };
    let out: Vec<Dim> = [0].iter().chain(&space).map(|a| y.dims[*a].clone()).collect();
    let rows = product(&out);
    let taps: Vec<Dim> = [std::slice::from_ref(&c), &k.dims[2..]].concat();
    let deep = product(&taps);
    w.axis(f, &groups);
    w.axis(f, &rows);
    w.axis(f, &m);
    // Sums of either side take registers too.
    let most = if bytes.is_some() { TILE / 2 } else { TILE };
    let shape = [cover(&rows, TILE).max(LEAST), cover(&m, most).max(LEAST)];
    w.place(vec![1, shape[0], shape[1]], false)?;
    w.spread_over(shape[0] * TILE);
    let by = cover(&deep, DEEP).max(DEEP);
    let (group, top, left) = (w.offset(0), w.offset(1), w.offset(2));

    // The places of the rows, and the channels of the columns.
    w.span(&[shape[0]]);
    let row = w.count_up(0, top)?;
    let place = w.split(f, row, &out)?;
    let n = w.place_of(f, &rows)?;
    let real = w.two(&arith::LT, row, n)?;
    w.span(&[shape[1]]);
    let column = w.count_up(0, left)?;
    let n = w.place_of(f, &m)?;
    let ours = w.two(&arith::LT, column, n)?;
    let before = w.wide(group)?;
    let before = w.mul(before, n)?;
    let feature = w.add(before, column)?;

    // Zero points as tiles of the product.
    w.span(&shape);
    let mut zeros = [None, None];
    let mut fill = None;
    if let Some(bytes) = bytes {
        let none = w.index(0)?;
        let own = match rest.first() {
            Some(Some(z)) => {
                let z = z.single(&mut w, f, none, 0.0)?;
                fill = Some(z);
                Some(w.every(z)?)
            }
            _ => None,
        };
        zeros[0] = bytes[0].zero(&mut w, own)?;
        let own = match rest.get(1) {
            Some(Some(z)) if z.count() == Dim::Const(1) => {
                let z = z.single(&mut w, f, none, 0.0)?;
                Some(w.every(z)?)
            }
            Some(Some(z)) => {
                w.span(&[shape[1]]);
                let z = z.at(&mut w, f, feature, Some(ours), 0.0)?;
                w.span(&shape);
                Some(w.spread(z, 1)?)
            }
            _ => None,
        };
        zeros[1] = bytes[1].zero(&mut w, own)?;
    }
    let some = zeros.map(|z| z.is_some());
    let depth = w.dim(f, &deep)?;
    let acc = if bytes.is_some() { Elem::I32 } else { Elem::F32 };
    let number = |n: i128| if acc == Elem::I32 { Num::I(n) } else { Num::F(n as f64) };
    let mut first = vec![w.all(acc, number(0))?];
    if bytes.is_some() {
        for n in shape {
            w.span(&[n]);
            first.push(w.all(acc, number(0))?);
        }
    }
    let sums = w.fold(depth, by as i64, &first, |w, at, sums| {
        // Of each step along the depth: channel and tap.
        w.span(&[by]);
        let number = w.count_up(0, at)?;
        let parts = w.split(f, number, &taps)?;
        let n = w.wide(depth)?;
        let there = w.two(&arith::LT, number, n)?;
        let (g, c) = (w.wide(group)?, w.place_of(f, &c)?);
        let before = w.mul(g, c)?;
        let source = w.add(before, parts[0])?;

        // The patches.
        w.span(&[shape[0], by]);
        let (real, depth_there) = (w.spread(real, 0)?, w.spread(there, 1)?);
        let counted = w.two(&arith::AND, real, depth_there)?;
        let mut inside = counted;
        let mut from = vec![w.num(0)?; x.dims.len()];
        from[0] = w.spread(place[0], 0)?;
        from[channel] = w.spread(source, 1)?;
        for (i, a) in space.iter().enumerate() {
            let (here, tap) = (w.spread(place[i + 1], 0)?, w.spread(parts[i + 1], 1)?);
            let (stride, dilation) = (w.num(window.strides[i])?, w.num(window.dilations[i])?);
            let (begin, n) = (w.place_of(f, &window.pads[i])?, w.place_of(f, &x.dims[*a])?);
            let reach = w.mul(tap, dilation)?;
            from[*a] = if turned {
                let p = w.add(here, begin)?;
                let p = w.sub(p, reach)?;
                let (zero, left) = (w.num(0)?, w.two(&arith::MOD, p, stride)?);
                let whole = w.two(&arith::EQ, left, zero)?;
                inside = w.two(&arith::AND, inside, whole)?;
                w.two(&arith::FLOORDIV, p, stride)?
            } else {
                let p = w.mul(here, stride)?;
                let p = w.sub(p, begin)?;
                w.add(p, reach)?
            };
            let fits = w.within(from[*a], n)?;
            inside = w.two(&arith::AND, inside, fits)?;
        }
        let pad = bytes.map_or(0.0, |b| b[0].pad());
        let mut a = x.read(w, f, &from, Some(inside), pad)?;
        if let (Some(bytes), Some(fill)) = (bytes, fill) {
            // Margins are zero points; behind the depth there is nothing.
            let (fill, nothing) =
                (w.every(fill)?, w.all(bytes[0].elem, Num::I(bytes[0].shift as i128))?);
            let fill = w.choose(counted, fill, nothing)?;
            a = w.choose(inside, a, fill)?;
        }

        // The weights: depth × channels of y.
        w.span(&[by, shape[1]]);
        let (ours, depth_there) = (w.spread(ours, 1)?, w.spread(there, 0)?);
        let only = w.two(&arith::AND, ours, depth_there)?;
        let (lead, behind) = match turned {
            true => (w.spread(source, 0)?, w.spread(column, 1)?),
            false => (w.spread(feature, 1)?, w.spread(parts[0], 0)?),
        };
        let mut at = vec![lead, behind];
        for part in &parts[1..] {
            at.push(w.spread(*part, 0)?);
        }
        let pad = bytes.map_or(0.0, |b| b[1].pad());
        let b = k.read(w, f, &at, Some(only), pad)?;
        match bytes {
            Some(bytes) => {
                let a = bytes[0].taken(w, a, &[shape[0], by])?;
                let b = bytes[1].taken(w, b, &[by, shape[1]])?;
                step(w, [a, b], sums, some)
            }
            None => {
                let (a, b) = (w.cast_to(a, wide)?, w.cast_to(b, wide)?);
                Ok(vec![w.one(&tile::DOT, &[a, b, sums[0]], attrs! {})?])
            }
        }
    })?;
    w.span(&shape);
    let mut value = match bytes {
        Some(_) => {
            let sums = [sums[0], w.spread(sums[1], 0)?, w.spread(sums[2], 1)?];
            corrected(&mut w, sums, zeros, depth)?
        }
        None => sums[0],
    };
    if let (true, Some(Some(bias))) = (turned, rest.first()) {
        w.span(&[shape[1]]);
        let b = bias.at(&mut w, f, feature, Some(ours), 0.0)?;
        let b = w.cast_to(b, acc)?;
        w.span(&shape);
        let b = w.spread(b, 1)?;
        value = w.two(&arith::ADD, value, b)?;
    }
    let made = f.ty(o.heavy.result()).elem().unwrap_or(acc);
    value = w.cast_to(value, made)?;

    let mut at = vec![];
    for axis in 0..y.dims.len() {
        at.push(match space.iter().position(|a| *a == axis) {
            _ if axis == channel => w.spread(feature, 1)?,
            Some(i) => w.spread(place[i + 1], 0)?,
            None => w.spread(place[0], 0)?,
        });
    }
    let (real, ours) = (w.spread(real, 0)?, w.spread(ours, 1)?);
    let only = w.two(&arith::AND, real, ours)?;
    value = o.epilogue_at(&mut w, value, &others, &at, only)?;
    let to = w.join(f, &at, &y.dims)?;
    y.write(&mut w, f, to, Some(only), value)?;
    w.done()
}
