//! Which schedules are worth measuring for a problem.
//!
//! Numbers that cannot matter are left out: a block larger than what there is, pieces of a sum longer than it, anything but
//! columns where there are so few rows that they are never cut. Single numbers come first, then pairs; what is found
//! good is mixed later ([`mixed`]).

use silure_kernels_cpu::gemm::MR;
use silure_kernels_cpu::schedule::{Knob, Schedule, knobs};

use super::Problem;

/// Values of a knob, ascending: those allowed, up to the first that is not below `extent`.
fn values(knob: Knob, all: &[usize], extent: usize) -> Vec<usize> {
    let allowed = all.iter().copied().filter(|v| *v > 0 && knob.allows(*v));
    let mut out = vec![];
    for v in allowed {
        out.push(v);
        if v >= extent {
            break;
        }
    }
    out
}

/// The values of each number of a problem's schedule, the kernel's own decision not among them.
fn axes(p: &Problem) -> [Vec<usize>; 4] {
    let Some(k) = knobs(p.kernel()) else { return Default::default() };
    let [rows, cols, depth] = p.extents();
    match p.kernel() {
        n if n.starts_with("attention.") => [
            values(k.rows, &[16, 32, 48, 64, 96, 192, 256, 512], rows),
            values(k.cols, &[64, 128, 192, 384, 512, 1024], cols),
            vec![],
            vec![],
        ],
        "conv.f32.last.depthwise" => [
            values(k.rows, &[1, 2, 3, 4, 6, 8, 12, 16, 32], rows),
            values(k.cols, &[16, 32, 64, 96, 192, 256, 512, 1024], cols),
            vec![],
            vec![],
        ],
        _ => {
            let many = rows > MR;
            let wide = [48, 96, 144, 192, 240, 288, 384, 480, 576, 768, 1152, 1536, 3072];
            let deep = [64, 128, 192, 256, 320, 512, 640, 768, 1024, 1536, 2048];
            [
                if many {
                    values(k.rows, &[48, 72, 96, 144, 192, 288, 384, 576, 768], rows)
                } else {
                    vec![]
                },
                values(k.cols, &wide, cols),
                if many { values(k.depth, &deep, depth) } else { vec![] },
                if many { values(k.order, &[1, 2], usize::MAX) } else { vec![] },
            ]
        }
    }
}

/// Shuffles by a generator of random bits.
fn shuffle<T>(v: &mut [T], bits: &mut dyn FnMut() -> u64) {
    for i in (1..v.len()).rev() {
        v.swap(i, (bits() % (i as u64 + 1)) as usize);
    }
}

/// At most `most` schedules to measure beside the kernel's own, drawn by `bits`.
pub fn candidates(p: &Problem, most: usize, bits: &mut dyn FnMut() -> u64) -> Vec<Schedule> {
    let axes = axes(p);
    let with = |numbers: [usize; 4]| Schedule::of(numbers);
    let mut single = vec![];
    for (i, axis) in axes.iter().enumerate() {
        for &v in axis {
            let mut n = [0; 4];
            n[i] = v;
            single.push(with(n));
        }
    }
    shuffle(&mut single, bits);
    // About a third of the room is for pairs.
    let mut out: Vec<Schedule> = single.iter().copied().take(most - most / 3).collect();
    let ways: usize = axes.iter().map(|a| a.len() + 1).product();
    for _ in 0..4 * most {
        if out.len() >= most.min(ways.saturating_sub(1)) {
            break;
        }
        let mut n = [0; 4];
        for (n, axis) in n.iter_mut().zip(&axes) {
            // Each number is left to the kernel as often as not.
            let at = (bits() % (2 * axis.len() as u64).max(1)) as usize;
            *n = axis.get(at).copied().unwrap_or(0);
        }
        let s = with(n);
        if !s.is_default() && !out.contains(&s) {
            out.push(s);
        }
    }
    out.retain(|s| p.refusal(s).is_none());
    out
}

/// Schedules that take each number from one of the given, best first; those given are not among them.
pub fn mixed(p: &Problem, best: &[Schedule], most: usize) -> Vec<Schedule> {
    let mut out: Vec<Schedule> = vec![];
    for (i, a) in best.iter().enumerate() {
        for b in &best[i + 1..] {
            for mask in 1..15u32 {
                let (x, y) = (a.numbers(), b.numbers());
                let n = std::array::from_fn(|k| if mask >> k & 1 == 1 { x[k] } else { y[k] });
                let s = Schedule::of(n);
                let new = !s.is_default() && !best.contains(&s) && !out.contains(&s);
                if new && p.refusal(&s).is_none() {
                    out.push(s);
                }
            }
        }
    }
    out.truncate(most);
    out
}
