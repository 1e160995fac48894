//! Weights of eight bits with a scale for each block of 128 × 128.

use silure_ir::WeightExpr;
use silure_types::Elem;

use crate::checkpoint::Stored;
use crate::error::{Code, Error, Result, quoted};

/// Rows and columns of a block.
pub(crate) const BLOCK: usize = 128;

/// The tensor that holds the scales of a weight.
pub(crate) fn scales_name(weight: &str) -> String {
    format!("{weight}_scale_inv")
}

/// Whether a tensor holds scales.
pub(crate) fn is_scales(tensor: &str) -> bool {
    tensor.ends_with("_scale_inv")
}

/// The scales of a matrix of e4m3fn, checked: one for each block.
fn scales<'a>(w: &Stored, name: &str, scales: Option<&'a Stored>) -> Result<&'a Stored> {
    let at = |s: &Stored, n: &str| format!("{}, tensor {}", quoted(&s.file), quoted(n));
    let other = scales_name(name);
    let &[rows, cols] = w.shape.as_slice() else {
        return Err(Error::new(Code::Unsupported, at(w, name), "e4m3fn that is no matrix")
            .present(format!("{:?}", w.shape)));
    };
    let Some(s) = scales else {
        let what = format!("e4m3fn without its scales {}", quoted(&other));
        return Err(Error::new(Code::Missing, at(w, name), what));
    };
    let want = [rows.div_ceil(BLOCK), cols.div_ceil(BLOCK)];
    if s.shape != want {
        let what = format!("one scale for each {BLOCK} × {BLOCK} block was needed");
        return Err(Error::new(Code::Type, at(s, &other), what)
            .needed(format!("{want:?}"))
            .present(format!("{:?}", s.shape)));
    }
    if !matches!(s.elem, Elem::F32 | Elem::E8m0 | Elem::Bf16) {
        return Err(Error::new(Code::Unsupported, at(s, &other), "scales of this type")
            .needed("f32, bf16 or e8m0")
            .present(s.elem.name()));
    }
    Ok(s)
}

fn f32_of(s: &Stored) -> WeightExpr {
    match s.elem {
        Elem::F32 => s.expr(),
        _ => WeightExpr::Cast(Box::new(s.expr()), Elem::F32),
    }
}

/// A matrix of e4m3fn as it is, and its scales: f32, one for each block of a row.
pub(crate) fn by_rows(
    w: &Stored,
    name: &str,
    of: Option<&Stored>,
) -> Result<(WeightExpr, WeightExpr)> {
    let s = scales(w, name, of)?;
    let (rows, blocks) = (w.shape[0], s.shape[1]);
    let mut e = WeightExpr::Repeat(Box::new(f32_of(s)), 0, BLOCK);
    if !rows.is_multiple_of(BLOCK) {
        e = WeightExpr::Slice(Box::new(e), vec![0, 0], vec![rows, blocks]);
    }
    Ok((w.expr(), e))
}

/// What a matrix of e4m3fn stands for, in f32: every element times the scale of its block, the last
/// blocks of rows and columns being cut.
pub(crate) fn blocks(w: &Stored, name: &str, of: Option<&Stored>) -> Result<WeightExpr> {
    let s = scales(w, name, of)?;
    let (rows, cols, want) = (w.shape[0], w.shape[1], s.shape.clone());
    let (q, s) = (f32_of(w), f32_of(s));
    // Whole blocks and the cut ones each have one size, so four products at most make the matrix.
    let spans = |n: usize| {
        let whole = n / BLOCK;
        let all = [(0, whole, BLOCK), (whole, 1, n % BLOCK)];
        all.into_iter().filter(|(_, count, size)| count * size > 0).collect::<Vec<_>>()
    };
    let part = |e: &WeightExpr, start: [usize; 2], size: [usize; 2], whole: [usize; 2]| {
        if size == whole {
            return Box::new(e.clone());
        }
        Box::new(WeightExpr::Slice(Box::new(e.clone()), start.to_vec(), size.to_vec()))
    };
    let strip = |&(row, row_blocks, height): &(usize, usize, usize)| {
        let tile = |&(col, col_blocks, width): &(usize, usize, usize)| {
            let size = [row_blocks * height, col_blocks * width];
            let q = part(&q, [row * BLOCK, col * BLOCK], size, [rows, cols]);
            let s = part(&s, [row, col], [row_blocks, col_blocks], [want[0], want[1]]);
            let q = WeightExpr::Reshape(q, vec![row_blocks, height, col_blocks, width]);
            let s = WeightExpr::Reshape(s, vec![row_blocks, 1, col_blocks, 1]);
            let y = WeightExpr::Mul(Box::new(q), Box::new(s));
            WeightExpr::Reshape(Box::new(y), size.to_vec())
        };
        joined(spans(cols).iter().map(tile).collect(), 1)
    };
    if rows == 0 || cols == 0 {
        return Ok(q);
    }
    Ok(joined(spans(rows).iter().map(strip).collect(), 0))
}

fn joined(mut parts: Vec<WeightExpr>, axis: usize) -> WeightExpr {
    match parts.len() {
        1 => parts.remove(0),
        _ => WeightExpr::Concat(parts.into(), axis),
    }
}
