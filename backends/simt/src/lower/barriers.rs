//! Barriers that order nothing and waits that nothing needs are left out.
//!
//! A barrier is there for two accesses of the same shared memory, one on each side of it, of which one writes: with no other
//! barrier between them on some way through the kernel. The accesses on both sides follow from walking the kernel forwards
//! and backwards, loops until nothing changes. A copy writes when it begins and until it is waited for. What is known of an
//! access is which part of the memory it lies in, not which thread makes it: barriers between accesses of one thread
//! or one warp stay.
//!
//! A wait for all copies is there for an access of what is copied, before the next such wait.

use silure_ir::{Func, OpId, RegionId, Space, Type, ValueId};

use crate::dialect;

/// What matters of a kernel.
enum Step {
    /// Accesses of shared memory: first byte, end, whether it is written.
    Access(Vec<(i64, i64, bool)>),
    /// By its number.
    Barrier(usize),
    Loop(Vec<Step>),
    Choice(Vec<Vec<Step>>),
}

/// Steps by their numbers that lie behind the last barrier.
type Open = Vec<bool>;

/// Leaves out what orders nothing.
pub(super) fn reduce(f: &mut Func) {
    waits(f);
    let (mut steps, mut barriers, mut accesses) = (vec![], vec![], vec![]);
    let copied = copied(f);
    let read = Read { waits: false, copied: &copied };
    collect(f, f.body, &read, &mut steps, &mut barriers);
    number(&mut steps, &mut accesses);
    let mut kept = vec![true; barriers.len()];
    for i in 0..barriers.len() {
        let mut sides = [vec![], vec![]];
        for (back, side) in sides.iter_mut().enumerate() {
            let open = vec![false; accesses.len()];
            *side = walk(&steps, back == 1, &kept, open, i).1.unwrap_or_default();
        }
        let at = |side: &Open| {
            let all = side.iter().zip(&accesses).filter(|s| *s.0);
            all.flat_map(|s| s.1.clone()).collect::<Vec<_>>()
        };
        let [before, after] = [at(&sides[0]), at(&sides[1])];
        kept[i] =
            before.iter().any(|a| after.iter().any(|b| (a.2 || b.2) && a.0 < b.1 && b.0 < a.1));
    }
    for (op, kept) in barriers.into_iter().zip(kept) {
        if !kept {
            f.erase(op);
        }
    }
}

/// What copies write.
fn copied(f: &Func) -> Vec<(i64, i64, bool)> {
    let all = f.walk().into_iter().map(|o| f.op(o)).filter(|o| o.def == &dialect::ASYNC_COPY);
    all.map(|o| place(f, o.operand(0), true)).collect()
}

/// Leaves out waits for all copies behind which nothing of them is read before the next one.
fn waits(f: &mut Func) {
    let (mut steps, mut all, mut accesses) = (vec![], vec![], vec![]);
    let copied = copied(f);
    collect(f, f.body, &Read { waits: true, copied: &copied }, &mut steps, &mut all);
    number(&mut steps, &mut accesses);
    let mut kept = vec![true; all.len()];
    for i in 0..all.len() {
        let after = walk(&steps, true, &kept, vec![false; accesses.len()], i).1.unwrap_or_default();
        let seen = after.iter().zip(&accesses).filter(|s| *s.0).flat_map(|s| s.1);
        kept[i] = seen.into_iter().any(|a| copied.iter().any(|b| a.0 < b.1 && b.0 < a.1));
    }
    for (op, kept) in all.into_iter().zip(kept) {
        if !kept {
            f.erase(op);
        }
    }
}

/// Which ops are the borders: barriers, or waits for all copies.
struct Read<'a> {
    waits: bool,
    copied: &'a [(i64, i64, bool)],
}

/// The part of shared memory that a pointer is of; all of it, where that is not known.
fn place(f: &Func, p: Option<ValueId>, write: bool) -> (i64, i64, bool) {
    let mut p = p;
    while let Some(o) = p.and_then(|p| f.def_op(p)).map(|o| f.op(o)) {
        if o.def == &dialect::SHARED {
            let at = o.attrs.int("at");
            return (at, at + o.attrs.int("bytes"), write);
        }
        if o.def != &dialect::PTR_ADD {
            break;
        }
        p = o.operand(0);
    }
    (0, i64::MAX, write)
}

fn collect(f: &Func, r: RegionId, read: &Read, out: &mut Vec<Step>, barriers: &mut Vec<OpId>) {
    let shared = |v: ValueId| matches!(f.ty(v), Type::Ptr(_, Space::Shared));
    for &op in &f.region(r).ops {
        let o = f.op(op);
        let wait = o.def == &dialect::ASYNC_WAIT;
        let border = match read.waits {
            true => wait && o.attrs.int("pending") == 0,
            false => o.def == &dialect::BARRIER,
        };
        if border {
            out.push(Step::Barrier(barriers.len()));
            barriers.push(op);
        } else if wait {
            // Some of what is copied is written by then, and may be read.
            out.push(Step::Access(read.copied.to_vec()));
        } else if o.def == &dialect::PTR_ADD {
        } else if o.regions.is_empty() {
            let write = o.def != &dialect::LOAD && o.def != &dialect::LDMATRIX;
            let copy = read.waits && o.def == &dialect::ASYNC_COPY;
            let all = o.operands().filter(|v| shared(*v) && !copy);
            let all: Vec<_> = all.map(|v| place(f, Some(v), write)).collect();
            match out.last_mut() {
                _ if all.is_empty() => {}
                Some(Step::Access(last)) => {
                    last.extend(all);
                    last.sort_unstable();
                    last.dedup();
                }
                _ => out.push(Step::Access(all)),
            }
        } else {
            let mut inner = vec![];
            for &r in &o.regions {
                let mut steps = vec![];
                collect(f, r, read, &mut steps, barriers);
                inner.push(steps);
            }
            out.push(match inner.len() {
                1 => Step::Loop(inner.swap_remove(0)),
                _ => Step::Choice(inner),
            });
        }
    }
}

/// The accesses, each step of them in its place.
fn number(steps: &mut [Step], all: &mut Vec<Vec<(i64, i64, bool)>>) {
    for s in steps {
        match s {
            Step::Access(a) => {
                let n = all.len() as i64;
                all.push(std::mem::replace(a, vec![(n, 0, false)]));
            }
            Step::Barrier(_) => {}
            Step::Loop(inner) => number(inner, all),
            Step::Choice(ways) => ways.iter_mut().for_each(|w| number(w, all)),
        }
    }
}

fn join(a: &mut Open, b: &Open) -> bool {
    let mut more = false;
    for (a, b) in a.iter_mut().zip(b) {
        more |= !*a && *b;
        *a |= *b;
    }
    more
}

/// What is open behind some steps, and what was at the barrier `at`, if it is among them. `back`: against their order.
fn walk(
    steps: &[Step],
    back: bool,
    kept: &[bool],
    mut open: Open,
    at: usize,
) -> (Open, Option<Open>) {
    let mut found: Option<Open> = None;
    let mut see = |new: Option<Open>| {
        if let Some(new) = new {
            match &mut found {
                Some(old) => {
                    join(old, &new);
                }
                None => found = Some(new),
            }
        }
    };
    let order: Vec<&Step> =
        if back { steps.iter().rev().collect() } else { steps.iter().collect() };
    for s in order {
        match s {
            Step::Access(n) => open[n[0].0 as usize] = true,
            Step::Barrier(i) => {
                if *i == at {
                    see(Some(open.clone()));
                }
                if kept[*i] {
                    open.iter_mut().for_each(|o| *o = false);
                }
            }
            // Its rounds, or none.
            Step::Loop(inner) => loop {
                let (end, at) = walk(inner, back, kept, open.clone(), at);
                see(at);
                if !join(&mut open, &end) {
                    break;
                }
            },
            Step::Choice(ways) => {
                let mut all = vec![false; open.len()];
                for w in ways {
                    let (end, at) = walk(w, back, kept, open.clone(), at);
                    see(at);
                    join(&mut all, &end);
                }
                open = all;
            }
        }
    }
    (open, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use silure_ir::text::{self, ParseOptions};
    use silure_ir::{Context, Module};

    /// A kernel in words: `wA` and `rA` write and read part A (or B) of shared memory, `cA` copies there in the background, `.` waits
    /// for all copies and `,` for all but one, `|` is a barrier, `[ ]` a loop, `( / )` a choice.
    fn kernel(words: &str) -> Module {
        let mut body = String::new();
        for (i, word) in words.split_whitespace().enumerate() {
            let part = if word.ends_with('B') { "%b" } else { "%a" };
            body += &match &word[..1] {
                "w" => format!("simt.store {part}, _, %v\n"),
                "r" => format!("%x{i} = simt.load {part} : f32\n"),
                "c" => {
                    format!("simt.async_copy {part}, %g {{bytes = 4}}\nsimt.async_commit {{}}\n")
                }
                "." => "simt.async_wait {}\n".into(),
                "," => "simt.async_wait {pending = 1}\n".into(),
                "|" => "simt.barrier {}\n".into(),
                "[" => format!("simt.for %n, %n, %n do(%i{i}: index) {{\n"),
                "]" | ")" => "yield\n}\n".into(),
                "(" => "simt.if %p do {\n".into(),
                "/" => "yield\n} do {\n".into(),
                _ => panic!("no word: {word}"),
            };
        }
        let source = format!(
            "module @m {{ kernel @k(%g: ptr<f32, global>, %n: index, %v: f32, %p: bool) {{
%a = simt.shared {{at = 0, bytes = 64, elem = f32}} : ptr<f32, shared>
%b = simt.shared {{at = 64, bytes = 64, elem = f32}} : ptr<f32, shared>
{body}return
}} }}"
        );
        let mut cx = Context::new();
        crate::register(&mut cx).unwrap();
        let parsed = text::parse(&cx, "k", &source, ParseOptions::default());
        parsed.unwrap_or_else(|e| panic!("{source}\n{e}"))
    }

    /// What is left of the borders: `|`, `.` and `,`, in their order.
    fn left(words: &str) -> String {
        let mut m = kernel(words);
        let f = &mut m.funcs[0];
        reduce(f);
        let word = |op: &OpId| match f.op(*op).def {
            d if d == &dialect::BARRIER => Some('|'),
            d if d == &dialect::ASYNC_WAIT => {
                Some(if f.op(*op).attrs.int("pending") == 0 { '.' } else { ',' })
            }
            _ => None,
        };
        f.walk().iter().filter_map(word).collect()
    }

    #[test]
    fn what_orders_two_accesses_stays() {
        for words in ["wA | rA", "rA | wA", "wA | wA", "wB wA | rA", "wA rB | rB rA", "cA . | rA"] {
            assert!(left(words).contains('|'), "{words}");
        }
        // One of two that stand side by side is enough, whichever it is.
        assert_eq!(left("wA | | rA"), "|");
        assert_eq!(left("wA | rB | rA"), "|");
        assert_eq!(left("wA | rA | wA"), "||");
    }

    #[test]
    fn what_orders_nothing_goes() {
        for words in ["|", "wA |", "| rA", "rA | rA", "wA | rB", "[ rA | rB ]"] {
            assert_eq!(left(words), "", "{words}");
        }
        assert_eq!(left("wA | rB wB | rB"), "|");
    }

    #[test]
    fn the_next_round_counts() {
        // Alone the first of each pair goes; in a loop the next round's write is behind the barrier.
        for (once, often) in
            [("rA | wB", "[ rA | wB ]"), ("| wA", "[ | wA ]"), ("rA wA |", "[ rA wA | ]")]
        {
            assert_eq!((left(once).as_str(), left(often).as_str()), ("", "|"), "{often}");
        }
        assert_eq!((left("wA | rA |").as_str(), left("[ wA | rA | ]").as_str()), ("|", "||"));
        // What is before the loop, and behind it.
        assert_eq!(left("wA [ | rA ]"), "|");
        assert_eq!(left("wA [ rB | ] rA"), "|");
        // A loop may have no rounds: the barrier in it does not order what is before it and behind it.
        assert_eq!(left("wA [ | rB ] | rA"), "|");
        assert_eq!(left("wA | [ wB | rB ] rA"), "||");
        assert_eq!(left("[ [ rA ] | [ wA ] ]"), "|");
    }

    #[test]
    fn each_way_of_a_choice_counts() {
        assert_eq!(left("( wA / ) | rA"), "|");
        assert_eq!(left("( / rA ) | rA"), "");
        assert_eq!(left("wA | ( rB / rA )"), "|");
        // A barrier in one way alone orders nothing for the other.
        assert_eq!(left("wA ( | / ) rA"), "|");
        assert_eq!(left("wA | ( | / ) rA"), "|");
    }

    #[test]
    fn waits_stay_for_what_is_copied_and_read() {
        assert_eq!(left("cA . | rA"), ".|");
        assert_eq!(left("cA . rB"), "");
        assert_eq!(left("cA . . rA"), ".");
        assert_eq!(left("[ . | rA cA ]"), ".|");
        assert_eq!(left("cA [ rB . ] rA"), ".");
        // What waits for some of the copies is left alone, and may read them.
        assert_eq!(left("cA cA , | rA | cA . | rA"), ",||.|");
    }
}
