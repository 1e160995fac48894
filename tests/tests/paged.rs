//! Attention over a cache of pages: the engine beside the interpreter, and one plan of steps beside another.

use std::collections::HashMap;
use std::sync::Arc;

use silure::ir::eval::{Interp, Limits};
use silure::ir::{Datum, Elem, Module, Tensor, text};
use silure::{Compiler, Options};
use silure_runtime::{Engine, Pool, Session, SessionOptions};
use silure_tests::{to_oracle, to_runtime};

/// Shape of a cache and of the attention over it.
#[derive(Clone, Copy)]
struct Form {
    heads: usize,
    kv: usize,
    depth: usize,
    /// Features of a value; with `shared` those are the first of the key.
    wide: usize,
    shared: bool,
    page: usize,
    attrs: &'static str,
    cache: Elem,
}

const PLAIN: Form = Form {
    heads: 6,
    kv: 2,
    depth: 16,
    wide: 16,
    shared: false,
    page: 4,
    attrs: "",
    cache: Elem::F32,
};

const PAGES: usize = 120;

impl Form {
    /// Entries that write new keys and values and attend: `prefill` with the ends of sequences, `decode`.
    fn source(&self) -> String {
        let Form { heads, kv, depth, wide, page, .. } = self;
        let (rows, cache) = (PAGES * page, self.cache.name());
        let state = |s: &str, d: &usize| format!("  state @{s} : {cache}[{rows}, {kv}, {d}]\n");
        let entry = |name: &str, ends: bool| {
            let update = |s: &str, d: &usize| {
                let ty = format!("state<{cache}[{rows}, {kv}, {d}]>");
                format!(
                    "    %{s}c = arith.cast %{s} {{to = {cache}}} : {cache}[n, {kv}, {d}]
    %{s}0 = state {{name = @{s}}} : {ty}
    %{s}1 = state_write %{s}0, %{s}c, %slots : {ty}
    %{s}all = state_read %{s}1 : {cache}[{rows}, {kv}, {d}]
    state_store %{s}1 {{name = @{s}}}\n"
                )
            };
            let (b, dims) = if ends {
                ("b", "n: 0..64, b: 1..8, p: 1..40")
            } else {
                ("n", "n: 1..8, p: 1..40")
            };
            let own = if ends { ", %ends: i64[b]" } else { "" };
            let operands = match (self.shared, ends) {
                (false, true) => "%kall, %vall, %lengths, %pages, %ends",
                (false, false) => "%kall, %vall, %lengths, %pages, _",
                (true, true) => "%kall, _, %lengths, %pages, %ends",
                (true, false) => "%kall, _, %lengths, %pages, _",
            };
            let value =
                if self.shared { String::new() } else { format!(", %v: f32[n, {kv}, {wide}]") };
            let values = if self.shared { format!(", values = {wide}") } else { String::new() };
            format!(
                "  entry @{name}<{dims}>(%q: f32[n, {heads}, {depth}], %k: f32[n, {kv}, {depth}]{value}, %slots: i64[n], \
                 %lengths: i64[{b}], %pages: i64[{b}, p]{own}) -> (y: f32[n, {heads}, {wide}]) {{\n{}{}    \
                 %y = graph.paged_attention %q, {operands} {{page = {page}{values}{}}} : f32[n, {heads}, {wide}]\n    \
                 return %y\n  }}\n",
                update("k", depth),
                if self.shared { String::new() } else { update("v", wide) },
                self.attrs,
            )
        };
        let second = if self.shared { String::new() } else { state("v", wide) };
        format!(
            "module @paged {{\n{}{second}{}{}}}\n",
            state("k", depth),
            entry("prefill", true),
            entry("decode", false)
        )
    }
}

/// Numbers in [−2, 2), the same for the same key.
fn numbers(shape: &[usize], key: impl Fn(&[usize]) -> u64) -> Tensor {
    let mut all = vec![];
    silure::ir::tensor::for_each_index(shape, |_, ix| {
        let mut s = key(ix).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
        for _ in 0..3 {
            s = s
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407)
                .rotate_left(29);
        }
        all.push(((s >> 40) as f64 / (1u64 << 22) as f64 - 2.0) as f32 as f64);
    });
    Tensor::from_f64s(Elem::F32, shape, &all).unwrap()
}

fn integers(shape: &[usize], v: &[i64]) -> Tensor {
    let bytes = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    Tensor::new(Elem::I64, shape, bytes).unwrap()
}

/// What one step feeds: for each sequence its number, its pages, the tokens it has and the new ones.
type Step<'a> = &'a [(usize, Vec<i64>, usize, usize)];

fn inputs(form: &Form, step: Step, decode: bool) -> Vec<Tensor> {
    let fresh: Vec<(usize, usize)> =
        step.iter().flat_map(|(seq, _, had, new)| (*had..had + new).map(|t| (*seq, t))).collect();
    let data = |tag: u64, heads: usize, d: usize| {
        numbers(&[fresh.len(), heads, d], |ix| {
            let (seq, t) = fresh[ix[0]];
            (((seq * 1000 + t) * 64 + ix[1]) * 512 + ix[2]) as u64 * 4 + tag
        })
    };
    let ints = |shape: &[usize], v: Vec<i64>| integers(shape, &v);
    let most = step.iter().map(|s| s.1.len()).max().unwrap();
    let slots = step.iter().flat_map(|(_, pages, had, new)| {
        (*had..had + new).map(|t| pages[t / form.page] * form.page as i64 + (t % form.page) as i64)
    });
    let table = step.iter().flat_map(|s| (0..most).map(|i| s.1.get(i).copied().unwrap_or(0)));
    let (b, n) = (step.len(), fresh.len());
    let mut all = vec![data(0, form.heads, form.depth), data(1, form.kv, form.depth)];
    if !form.shared {
        all.push(data(2, form.kv, form.wide));
    }
    all.push(ints(&[n], slots.collect()));
    all.push(ints(&[b], step.iter().map(|s| (s.2 + s.3) as i64).collect()));
    all.push(ints(&[b, most], table.collect()));
    if !decode {
        let ends = step.iter().scan(0, |end, s| {
            *end += s.3 as i64;
            Some(*end)
        });
        all.push(ints(&[b], ends.collect()));
    }
    all
}

struct Rig {
    engine: Arc<Engine>,
    module: Module,
}

impl Rig {
    fn new(form: &Form) -> Rig {
        let compiler = Compiler::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paged.sir");
        std::fs::write(&path, form.source()).unwrap();
        let load = || compiler.load(&path, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
        let compiled =
            compiler.compile(load(), &Options::default()).unwrap_or_else(|e| panic!("{e}"));
        let printed = text::print(&compiled.module);
        let few = form.heads / form.kv <= 8;
        assert!(printed.contains("attention.paged.f32"), "{printed}");
        assert_eq!(printed.contains("attention.steps.f32"), few, "{printed}");
        let engine = Engine::from_bytes(&compiled.to_bytes().unwrap()).unwrap();
        Rig { engine, module: load().module }
    }

    fn session(&self, threads: usize) -> Session {
        let pool = Some(Arc::new(Pool::new(threads)));
        Session::with(&self.engine, SessionOptions { pool, ..Default::default() }).unwrap()
    }

    fn run(&self, s: &mut Session, entry: &str, inputs: &[Tensor]) -> Result<Tensor, String> {
        let held: Vec<_> = inputs.iter().map(to_runtime).collect();
        let views: Vec<_> = held.iter().map(|t| t.view()).collect();
        let entry = self.engine.entry(Some(entry)).unwrap();
        s.run(entry, &views).map(|o| to_oracle(&o[0])).map_err(|e| e.to_string())
    }
}

/// Scores of up to 256 features and sums of up to 64 keys: c·√K·eps of values near 2.
fn close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    for i in 0..got.len() {
        let (a, b) = (got.get(i).f(), want.get(i).f());
        assert!((a - b).abs() <= 8e-6, "{what}, element {i}: {a} and {b}");
    }
}

fn steps() -> Vec<(bool, Vec<(usize, Vec<i64>, usize, usize)>)> {
    // Sequence 2 lies on neighbouring pages, the others apart.
    let apart = |first: i64| (0..40).map(|i| first + i * 7 % 40).collect::<Vec<i64>>();
    let (a, b, c) = (apart(0), apart(40), (80..120).collect::<Vec<i64>>());
    vec![
        (false, vec![(0, a.clone(), 0, 19), (1, b.clone(), 0, 5)]),
        (false, vec![(2, c.clone(), 0, 33), (0, a.clone(), 19, 2), (1, b.clone(), 5, 1)]),
        (true, vec![(1, b.clone(), 6, 1), (2, c.clone(), 33, 1), (0, a.clone(), 21, 1)]),
        (false, vec![(1, b.clone(), 7, 0), (0, a, 22, 9)]),
        (true, vec![(1, b, 7, 1), (2, c, 34, 1)]),
    ]
}

#[test]
fn pages_follow_the_interpreter_on_every_form() {
    let forms = [
        PLAIN,
        Form { attrs: ", window = 5, softcap = 3.0", page: 1, ..PLAIN },
        Form { attrs: ", scale = 0.3", kv: 6, depth: 7, wide: 5, page: 16, ..PLAIN },
        Form { cache: Elem::Bf16, kv: 1, page: 3, ..PLAIN },
        Form { shared: true, kv: 1, depth: 24, wide: 17, heads: 20, ..PLAIN },
        Form { shared: true, cache: Elem::Bf16, attrs: ", window = 9", ..PLAIN },
    ];
    for form in forms {
        beside_the_interpreter(&form, &steps());
    }
}

fn beside_the_interpreter(form: &Form, steps: &[(bool, Vec<(usize, Vec<i64>, usize, usize)>)]) {
    let rig = Rig::new(form);
    let (mut one, mut two) = (rig.session(1), rig.session(2));
    let oracle = Interp::new(&rig.module, &silure::ir::weight::NoFiles, Limits::default());
    for (i, (decode, step)) in steps.iter().enumerate() {
        let entry = if *decode { "decode" } else { "prefill" };
        let x = inputs(form, step, *decode);
        let got = rig.run(&mut one, entry, &x).unwrap_or_else(|e| panic!("{e}"));
        let data = x.iter().cloned().map(Datum::from).collect();
        let want = oracle.run(entry, data).unwrap_or_else(|e| panic!("{e}"));
        close(&format!("{}, step {i}", form.source()), &got, want[0].tensor().unwrap());
        let again = rig.run(&mut two, entry, &x).unwrap();
        assert_eq!(got.bytes(), again.bytes(), "threads change nothing");
    }
}

/// Tokens of long sequences, whose keys are cut into spans, beside short ones.
#[test]
fn steps_join_spans_of_keys() {
    let wide = Form { kv: 4, heads: 8, depth: 64, wide: 64, page: 16, ..PLAIN };
    let forms = [
        wide,
        Form { cache: Elem::Bf16, attrs: ", window = 70", ..wide },
        Form { cache: Elem::Bf16, kv: 1, heads: 5, depth: 21, wide: 83, ..wide },
        Form {
            shared: true,
            kv: 1,
            heads: 7,
            depth: 40,
            wide: 33,
            attrs: ", softcap = 2.0",
            ..wide
        },
    ];
    let apart = |first: i64| (0..12).map(|i| first + i * 5 % 12).collect::<Vec<i64>>();
    let (a, b, c) = (apart(0), apart(12), apart(24));
    let chunk = |had, new| (false, vec![(0, a.clone(), had, new)]);
    let token = |x: usize, y: usize, z: usize| {
        (true, vec![(0, a.clone(), x, 1), (1, b.clone(), y, 1), (2, c.clone(), z, 1)])
    };
    let steps = [
        chunk(0, 64),
        chunk(64, 64),
        chunk(128, 50),
        (false, vec![(1, b.clone(), 0, 63)]),
        token(178, 63, 0),
        token(179, 64, 1),
        (true, vec![(1, b.clone(), 65, 1)]),
    ];
    for form in forms {
        beside_the_interpreter(&form, &steps);
    }
}

/// A sequence in one step, in chunks beside another, and token by token: the same answers.
#[test]
fn chunks_and_steps_give_what_one_step_gives() {
    let form = Form { page: 8, ..PLAIN };
    let rig = Rig::new(&form);
    let pages: Vec<i64> = vec![9, 2, 30, 31, 5];
    let mut rows: HashMap<usize, Vec<f64>> = HashMap::new();
    let width = form.heads * form.wide;
    let whole = rig
        .run(&mut rig.session(1), "prefill", &inputs(&form, &[(0, pages.clone(), 0, 37)], false))
        .unwrap()
        .to_f64s();
    let mut s = rig.session(2);
    let other: Vec<i64> = vec![1, 3];
    for (had, new) in [(0, 11), (11, 20), (31, 1), (32, 3)] {
        let step = [(1, other.clone(), 0, 12), (0, pages.clone(), had, new)];
        let y = rig.run(&mut s, "prefill", &inputs(&form, &step, false)).unwrap().to_f64s();
        for t in 0..new {
            rows.insert(had + t, y[(12 + t) * width..][..width].to_vec());
        }
    }
    for t in 35..37 {
        let y =
            rig.run(&mut s, "decode", &inputs(&form, &[(0, pages.clone(), t, 1)], true)).unwrap();
        rows.insert(t, y.to_f64s());
    }
    for t in 0..37 {
        for (a, b) in rows[&t].iter().zip(&whole[t * width..]) {
            assert!((a - b).abs() <= 8e-6, "token {t}: {a} and {b}");
        }
    }
}

#[test]
fn what_lies_outside_the_cache_is_an_error() {
    let form = PLAIN;
    let rig = Rig::new(&form);
    let good = inputs(&form, &[(0, vec![1, 2], 0, 6), (1, vec![5], 0, 3)], false);
    let mut s = rig.session(1);
    rig.run(&mut s, "prefill", &good).unwrap();
    // slots, lengths, pages, ends
    let wrong: [(usize, usize, i64); 12] = [
        (3, 0, -1),
        (3, 8, (PAGES * form.page) as i64),
        (3, 1, i64::MAX),
        (4, 0, 5),
        (4, 0, 9),
        (4, 1, i64::MIN),
        (5, 0, PAGES as i64),
        (5, 1, -1),
        (5, 2, i64::MAX / 2),
        (6, 0, 10),
        (6, 1, 8),
        (6, 1, i64::MIN),
    ];
    for (input, at, value) in wrong {
        let mut x = good.clone();
        let mut v = x[input].to_i64s();
        v[at] = value;
        x[input] = integers(x[input].shape(), &v);
        s.reset().unwrap();
        let e = rig.run(&mut s, "prefill", &x).expect_err("refused");
        assert!(e.contains("outside") || e.contains("range"), "input {input}: {e}");
    }
    // Tokens one by one: the same of lengths and pages.
    let good = inputs(&form, &[(0, vec![1, 2], 6, 1), (1, vec![5], 3, 1)], true);
    s.reset().unwrap();
    rig.run(&mut s, "decode", &good).unwrap();
    for (input, at, value) in [
        (4, 0, 0),
        (4, 0, 9),
        (4, 1, i64::MIN),
        (5, 0, PAGES as i64),
        (5, 1, -1),
        (5, 2, i64::MAX / 2),
    ] {
        let mut x = good.clone();
        let mut v = x[input].to_i64s();
        v[at] = value;
        x[input] = integers(x[input].shape(), &v);
        s.reset().unwrap();
        let e = rig.run(&mut s, "decode", &x).expect_err("refused");
        assert!(e.contains("outside"), "input {input}: {e}");
    }
}
