//! Live ranges of arena buffers, from the instructions.
//!
//! A buffer lives from its first to its last use; using a view uses what it was bound to; buffers
//! that are swapped share one range. A loop is the span of a backward jump: a range that reaches
//! into it from outside (or out of it) is widened to the whole loop, until nothing changes.
//! A buffer used only inside a loop is taken to be written before it is read in each turn.

use crate::plan::{Buf, Inst, Op};

/// First and last op at which each buffer is used; `None` where it never is.
pub fn ranges(code: &[Op], buffers: usize) -> Vec<Option<(u32, u32)>> {
    // Buffers in one class share their range: views with their bases, swapped pairs.
    // A view's use is a use of all its bases, but bases of one view stay separate classes.
    let mut class: Vec<usize> = (0..buffers).collect();
    let mut bases: Vec<Vec<usize>> = vec![Vec::new(); buffers];
    fn find(class: &mut [usize], mut x: usize) -> usize {
        while class[x] != x {
            class[x] = class[class[x]];
            x = class[x];
        }
        x
    }
    for op in code {
        match op.inst {
            Inst::Swap { a, b } => {
                let (a, b) = (find(&mut class, a.0 as usize), find(&mut class, b.0 as usize));
                class[a.max(b)] = a.min(b);
            }
            Inst::View { buf, base, .. } => bases[buf.0 as usize].push(base.0 as usize),
            _ => {}
        }
    }
    let mut range: Vec<Option<(u32, u32)>> = vec![None; buffers];
    let widen = |slot: &mut Option<(u32, u32)>, a: u32, b: u32| {
        let (x, y) = slot.unwrap_or((a, b));
        *slot = Some((x.min(a), y.max(b)));
    };
    for (i, op) in code.iter().enumerate() {
        op.inst.bufs(&mut |Buf(b), _| {
            let c = find(&mut class, b as usize);
            widen(&mut range[c], i as u32, i as u32);
        });
    }
    let loops: Vec<(u32, u32)> = code
        .iter()
        .enumerate()
        .filter_map(|(i, op)| op.inst.target().filter(|&t| t as usize <= i).map(|t| (t, i as u32)))
        .collect();
    loop {
        let before = range.clone();
        for (b, bases) in bases.iter().enumerate() {
            let c = find(&mut class, b);
            if let Some((first, last)) = range[c] {
                for &base in bases {
                    let base = find(&mut class, base);
                    widen(&mut range[base], first, last);
                }
            }
        }
        for slot in range.iter_mut() {
            for &(t, j) in &loops {
                if let Some((a, b)) = *slot
                    && a <= j
                    && b >= t
                    && (a < t || b > j)
                {
                    widen(slot, t, j);
                }
            }
        }
        if range == before {
            break;
        }
    }
    (0..buffers).map(|b| range[find(&mut class, b)]).collect()
}
