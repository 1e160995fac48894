//! Changes to the printed PTX, each of which must be noticed: by an error of the emulator, or by the answer. The table
//! of docs/cuda.md is what this test saw (`BLESS=1` rewrites it).

#[path = "../../../tests/kernels/problems.rs"]
mod problems;

#[path = "../../tile/tests/cases/mod.rs"]
mod cases;
mod emulator;

use cases::{CASES, PRODUCTS, ROWS, graph};
use emulator::{kernel, page, run};
use problems::Problem;
use silure_cuda::{PtxModule, ptx};
use silure_ir::Func;
use silure_ptx_emulator::Options;

/// A kernel of tests/kernels, for a target, with small problems.
struct Subject {
    name: &'static str,
    target: &'static str,
    f: Func,
    m: PtxModule,
    problems: Vec<Problem>,
}

fn subject(name: &'static str, target: &'static str) -> Subject {
    let f = kernel(&format!("tests/kernels/{name}.sir"));
    let m = ptx(&f, target).unwrap();
    let problems = (0..10).flat_map(problems::all).filter(|p| p.name == name).collect();
    Subject { name, target, f, m, problems }
}

impl Subject {
    /// How a changed text is noticed, if it is.
    fn notice(&self, text: &str) -> Option<String> {
        for (seed, p) in self.problems.iter().enumerate() {
            let mut args = p.args.clone();
            let options =
                Options { seed: seed as u64, threads: 1, budget: 1 << 24, ..Options::default() };
            match run(&self.m, text, &self.f, &mut args, &options) {
                Err(e) => return Some(format!("{:?}", e.kind).to_lowercase()),
                Ok(_) if p.check(args[p.output.0].bytes()).is_err() => {
                    return Some("wrong answer".into());
                }
                Ok(_) => {}
            }
        }
        None
    }
}

/// A line, changed; `None` where the change does not apply.
type Change = fn(&str) -> Option<String>;

fn drop_line(l: &str, what: &str) -> Option<String> {
    l.trim_start().starts_with(what).then(String::new)
}

/// The second braces' registers of a product, two of them exchanged.
fn exchange(l: &str, i: usize, j: usize) -> Option<String> {
    if !l.trim_start().starts_with("mma.sync") {
        return None;
    }
    let lists: Vec<(usize, usize)> =
        l.match_indices('{').zip(l.match_indices('}')).map(|(a, b)| (a.0 + 1, b.0)).collect();
    let (begin, end) = *lists.get(1)?;
    let mut regs: Vec<&str> = l[begin..end].split(", ").collect();
    regs.swap(i, j);
    Some(format!("{}{}{}", &l[..begin], regs.join(", "), &l[end..]))
}

fn replaced(l: &str, begins: &str, from: &str, to: &str) -> Option<String> {
    (l.trim_start().starts_with(begins) && l.contains(from)).then(|| l.replacen(from, to, 1))
}

/// A load's destination, spoiled behind it.
fn spoil(l: &str, begins: &str) -> Option<String> {
    let at = l.find(begins)?;
    let reg = l[at + begins.len()..].trim_start().split(',').next()?;
    Some(format!("{l}\n  xor.b32 {reg}, {reg}, 1;"))
}

/// What is changed, how a line is, and how many places are tried (spread over the text).
const CHANGES: [(&str, Change, usize); 7] = [
    ("a barrier left out", |l| drop_line(l, "bar.sync"), usize::MAX),
    ("a wait for copies left out", |l| drop_line(l, "cp.async.wait_group"), usize::MAX),
    ("rows of a fragment exchanged", |l| exchange(l, 0, 1), 2),
    ("halves of a fragment exchanged", |l| exchange(l, 0, 2), 2),
    ("a fragment loaded 16 bytes off", |l| replaced(l, "ldmatrix", "+32]", "+48]"), 2),
    ("a fragment transposed", |l| replaced(l, "ldmatrix", ".x4.shared", ".x4.trans.shared"), 2),
    ("a result without its scale", unscaled, 2),
];

/// A product of two registers that takes the first as it is.
fn unscaled(l: &str) -> Option<String> {
    let rest = l.trim_start().strip_prefix("mul.rn.f32 ")?.strip_suffix(';')?;
    let [d, a, b] = rest.split(", ").collect::<Vec<_>>()[..] else { return None };
    [d, a, b].iter().all(|r| r.starts_with("%f")).then(|| format!("  mov.f32 {d}, {a};"))
}

/// Places that nothing notices, each read in the text: (kernel, target, change, how many).
/// Of `flash_attention` the barrier and the wait behind the copies of the queries are followed by those of the first round, and two
/// barriers are around a result that every warp writes and reads in rows of its own. Of `paged_mla_decode` warps multiply
/// rows that they copied themselves; the barrier before the result, and the wait for the queries, matter to a sequence
/// without keys alone.
const SPARE: [(&str, &str, &str, usize); 4] = [
    ("flash_attention", "cuda:sm_80", "a barrier left out", 3),
    ("flash_attention", "cuda:sm_80", "a wait for copies left out", 1),
    ("paged_mla_decode", "cuda:sm_80", "a barrier left out", 2),
    ("paged_mla_decode", "cuda:sm_80", "a wait for copies left out", 1),
];

fn row(s: &Subject, what: &str, change: Change, most: usize) -> Option<(String, usize)> {
    let lines: Vec<&str> = s.m.text.lines().collect();
    let places: Vec<(usize, String)> =
        lines.iter().enumerate().filter_map(|(i, l)| Some((i, change(l)?))).collect();
    if places.is_empty() {
        return None;
    }
    let step = places.len().div_ceil(most).max(1);
    let (mut tried, mut kinds, mut missed) = (0, Vec::<String>::new(), Vec::new());
    for (i, new) in places.iter().step_by(step) {
        let mut changed: Vec<&str> = lines.clone();
        changed[*i] = new;
        tried += 1;
        match s.notice(&changed.join("\n")) {
            Some(k) if kinds.contains(&k) => {}
            Some(k) => kinds.push(k),
            None => missed.push(format!("line {}: {}", i + 1, lines[*i].trim())),
        }
    }
    kinds.sort();
    let spare =
        SPARE.iter().find(|p| (p.0, p.1, p.2) == (s.name, s.target, what)).map_or(0, |p| p.3);
    if missed.len() != spare {
        eprintln!("{} {} {what}: not noticed: {missed:#?}", s.name, s.target);
    }
    let line = format!(
        "| `{}` | {} | {what} | {} of {tried} | {} |\n",
        s.name,
        s.target.trim_start_matches("cuda:"),
        tried - missed.len(),
        kinds.join(", ")
    );
    Some((line, missed.len() - spare))
}

#[test]
fn every_change_is_noticed() {
    let mut table = String::from(
        "| kernel | target | what is changed | noticed | how |\n|---|---|---|---|---|\n",
    );
    let mut missed = 0;
    for (name, target) in [
        ("softmax", "cuda:sm_80"),
        ("matmul_bias_gelu", "cuda:sm_80"),
        ("flash_attention", "cuda:sm_80"),
        ("paged_mla_decode", "cuda:sm_80"),
        ("conv3x3", "cuda:sm_80"),
        ("grouped_fp8_matmul", "cuda:sm_80"),
        ("grouped_fp8_matmul", "cuda:sm_89"),
    ] {
        let s = subject(name, target);
        assert!(s.notice(&s.m.text).is_none(), "{name} as it is printed");
        for (what, change, most) in CHANGES {
            // Where a scale is dropped, the kernel must have one in its sums.
            if what.contains("scale") && name != "grouped_fp8_matmul" {
                continue;
            }
            if let Some((line, n)) = row(&s, what, change, most) {
                table += &line;
                missed += n;
            }
        }
        // One load too many may read what no store takes: all masks move together.
        let kind = s.notice(&s.m.text.replace("setp.lt.s64", "setp.le.s64"));
        missed += kind.is_none() as usize;
        let (n, kind) = (kind.is_some() as usize, kind.unwrap_or_default());
        table += &format!(
            "| `{name}` | {} | masks one too far | {n} of 1 | {kind} |\n",
            target.trim_start_matches("cuda:")
        );
        if name == "paged_mla_decode" {
            let page: Change = |l| spoil(l, "ld.global.b32");
            if let Some((line, n)) = row(&s, "a wrong page or length", page, 4) {
                table += &line;
                missed += n;
            }
        }
    }
    page("mutations", &table);
    assert_eq!(missed, 0, "changes that nothing notices:\n{table}");
}

/// A case of each family of kernels that ops become (silure-tile); a number says which of its kernels is meant, a target
/// another one than sm_80.
const FAMILIES: [&str; 69] = [
    "row_column_one",
    "transposed",
    "plain",
    "halves",
    "half_weight",
    "half_weight_rounds",
    "byte_weight",
    "softmax",
    "layer_norm",
    "reduce_last",
    "argmax",
    "top_k",
    "sample",
    "sample_tiles",
    "softmax_first",
    "transpose",
    "slice",
    "concat",
    "pad",
    "gather_rows",
    "write_rows",
    "rotary",
    "causal",
    "paged",
    "paged_latent",
    "conv",
    "max_pool",
    "blocks_of_bytes",
    "blocks_of_nibbles",
    "gather_blocks",
    "experts_offset",
    "scatter_elements_add",
    "cumsum",
    "resize_linear",
    "quantize_rows",
    "bytes_with_zeros",
    "conv_of_bytes",
    "units_many",
    "units_pages_window",
    "split_epilogue:1",
    "split_epilogue:2",
    "split_keys:1",
    "split_keys:2",
    "split_pages:1",
    "split_pages:2",
    "codes_epilogue",
    "codes_epilogue@sm_89",
    "codes_split:1@sm_89",
    "codes_split:2",
    "blocks_split:1",
    "blocks_split:2",
    "blocks_exact",
    "experts_exact:1",
    "experts_few",
    "experts_codes_each:0",
    "experts_codes_each:1@sm_89",
    "quantize_blocks",
    "dequantize_blocks",
    "lstm_both:0",
    "lstm_both:1",
    "gru:1",
    "tf32",
    "tf32_rounds",
    "nibbles_zero",
    "nibbles_offset",
    "experts_halves:1",
    "latent_units",
    "latent_parts:1",
    "heads_window",
];

/// What changes nothing there: rows of even lengths are only copied asynchronously; 256 keys are whole tiles; the parts of a query's pages have scores that are nearly equal.
const WITHOUT: [(&str, &str); 3] = [
    ("split_epilogue:1", "loads one element further"),
    ("units_many", "masks one too far"),
    ("split_pages:2", "sums without their scales"),
];

/// What is run of a case: nothing to do, tails, more than one tile.
const FEW: [(i64, i64); 3] = [(3, 2), (5, 7), (67, 33)];

/// More sizes of cases whose rows are only copied where their lengths are multiples of 16 bytes, and of several rounds that are
/// copied ahead and that are not.
const EVEN: [(&str, &[(i64, i64)]); 6] = [
    ("halves", &[(40, 64)]),
    ("half_weight", &[(40, 64)]),
    ("experts_halves", &[(24, 64)]),
    ("codes", &[(5, 656), (5, 651)]),
    ("rounds", &[(5, 200), (5, 203)]),
    ("rounds_split", &[(1, 400), (1, 401)]),
];

/// What is run of a case.
fn few(name: &str) -> Vec<(i64, i64)> {
    let more = EVEN.iter().filter(|e| e.0 == name).flat_map(|e| e.1);
    FEW.into_iter().chain(more.copied()).collect()
}

/// How a changed text of a case is noticed, if it is; of several kernels the one that is meant, or the longest that is launched, is changed.
fn notice(name: &str, change: &dyn Fn(&str) -> String) -> (bool, Option<String>) {
    noticed(name, change, false)
}

/// The same; with `again` a text that is not changed is run too.
fn noticed(name: &str, change: &dyn Fn(&str) -> String, again: bool) -> (bool, Option<String>) {
    let (name, target) = name.split_once('@').unwrap_or((name, "sm_80"));
    let options = |seed: usize| Options {
        seed: seed as u64,
        threads: 1,
        budget: 1 << 24,
        ..Options::default()
    };
    let say = |e: &silure_ptx_emulator::Error| format!("{:?}", e.kind).to_lowercase();
    let elementwise = CASES.iter().chain(PRODUCTS).chain(ROWS).find(|c| c.0 == name);
    if let Some((_, body)) = elementwise {
        let m = cases::module(name, body);
        let k = cases::made(&m);
        let made = ptx(&k.func, "cuda:sm_80").unwrap();
        let text = change(&made.text);
        let same = text == made.text;
        if same && !again {
            return (true, None);
        }
        for (seed, sizes) in few(name).into_iter().enumerate() {
            let (mut args, want) = cases::problem(&m, &k, sizes, seed);
            if let Err(e) = run(&made, &text, &k.func, &mut args, &options(seed)) {
                return (same, Some(say(&e)));
            }
            for (a, got) in k.args.iter().zip(&args) {
                let silure_tile::Arg::Result(i) = a else { continue };
                if cases::close(name, got.bytes(), &want[*i]).is_err() {
                    return (same, Some("wrong answer".into()));
                }
            }
        }
        return (same, None);
    }
    let (name, which) = match name.split_once(':') {
        Some((name, i)) => (name, i.parse().ok()),
        None => (name, None),
    };
    let case = graph::all().find(|c| c.name == name).unwrap_or_else(|| panic!("no case {name}"));
    let made = graph::made(case);
    let texts: Vec<PtxModule> =
        made.kernels.iter().map(|k| ptx(&k.func, target).unwrap()).collect();
    let fits = |s: &&(i64, i64)| graph::Memory::fits(case, **s);
    let (n, m) = FEW.iter().rev().find(fits).copied().unwrap();
    let size = |s: &str| Some(if s == "n" { n } else { m });
    let launched = (0..texts.len()).filter(|i| made.kernels[*i].grid.eval(&size) != Some(0));
    let longest = launched.max_by_key(|i| texts[*i].text.len());
    let longest: usize = which.or(longest).unwrap();
    let text = change(&texts[longest].text);
    let same = text == texts[longest].text;
    if same && !again {
        return (true, None);
    }
    for (seed, sizes) in few(name).into_iter().enumerate() {
        if !graph::Memory::fits(case, sizes) {
            continue;
        }
        let mut memory = made.memory(sizes, seed);
        let mut kind = None;
        let ran = memory.run(&made, |i, k, args| {
            let text = if i == longest { &text } else { &texts[i].text };
            run(&texts[i], text, &k.func, args, &options(seed)).map(|_| ()).map_err(|e| {
                kind = Some(say(&e));
                e.to_string()
            })
        });
        if ran.is_err() {
            return (same, kind);
        }
        if memory.check(&made).is_err() {
            return (same, Some("wrong answer".into()));
        }
    }
    (same, None)
}

/// Every place changed; the text itself where there is none.
fn everywhere(text: &str, change: Change) -> String {
    let mut all = String::with_capacity(text.len());
    for l in text.lines() {
        all += change(l).as_deref().unwrap_or(l);
        all.push('\n');
    }
    all
}

/// An access of memory of the device, one element further.
fn further(l: &str, word: &str) -> Option<String> {
    let t = l.trim_start();
    let t = t.strip_prefix('@').map_or(t, |r| r.split_once(' ').map_or(r, |p| p.1));
    if !t.starts_with(word) {
        return None;
    }
    let bits = t
        .split_whitespace()
        .next()?
        .rsplit('.')
        .next()?
        .trim_start_matches(|c: char| !c.is_ascii_digit());
    let bytes = bits.parse::<u32>().ok()? / 8;
    let (begin, end) = (l.find('[')?, l.find(']')?);
    let (base, offset) = match l[begin + 1..end].split_once('+') {
        Some((b, o)) => (b.trim(), o.trim().parse::<u32>().ok()?),
        None => (&l[begin + 1..end], 0),
    };
    Some(format!("{}[{base}+{}]{}", &l[..begin], offset + bytes, &l[end + 1..]))
}

/// A loaded number of 64 bits, spoiled behind the load.
fn entry(l: &str) -> Option<String> {
    let mut words = l[l.find("ld.global.")?..].split_whitespace();
    let whole = [".s64", ".u64", ".b64"]
        .iter()
        .any(|t| words.clone().next().is_some_and(|w| w.ends_with(t)));
    let reg = words.nth(1)?.trim_end_matches(',').strip_prefix("%").filter(|_| whole)?;
    let reg = format!("%{reg}");
    Some(format!("{l}\n  xor.b64 {reg}, {reg}, 1;"))
}

/// Families whose threads wait for each other, and how many of their barriers and waits nothing notices. Of `units_pages` a
/// barrier is between rows that a warp wrote and reads itself (the emulator's lanes go together where a card's may not), and a
/// wait matters to tokens of no sequence alone, which are reported. What `rounds_conv` has left behind the rounds that are
/// copied ahead is one round, and the barrier is for another one.
const ORDERED: [(&str, usize, usize); 9] = [
    ("rounds", 0, 0),
    ("rounds_split:1", 0, 0),
    ("rounds_conv", 1, 0),
    ("rounds_bytes", 0, 0),
    ("codes@sm_89", 0, 0),
    ("experts_codes_each:1@sm_89", 0, 0),
    ("units_pages", 1, 1),
    ("latent_parts:1", 0, 0),
    ("lstm_both:1", 0, 0),
];

/// Each barrier and each wait alone.
#[test]
fn each_barrier_and_wait() {
    let mut table =
        String::from("| kernels of | barriers noticed | waits noticed |\n|---|---|---|\n");
    let mut wrong = vec![];
    for (name, barriers, waits) in ORDERED {
        let mut seen = vec![];
        for (what, spare) in [("bar.sync", barriers), ("cp.async.wait_group", waits)] {
            let places = std::cell::Cell::new(0);
            notice(name, &|t| {
                places.set(t.lines().filter(|l| drop_line(l, what).is_some()).count());
                t.into()
            });
            let mut missed = vec![];
            for i in 0..places.get() {
                let at = std::cell::Cell::new(0);
                let one = |t: &str| {
                    let mut n = 0;
                    let keep = |(k, l): (usize, &str)| {
                        let drop = drop_line(l, what).is_some();
                        n += drop as usize;
                        if drop && n == i + 1 {
                            at.set(k + 1);
                        }
                        if drop && n == i + 1 { "" } else { l }.to_string() + "\n"
                    };
                    t.lines().enumerate().map(keep).collect()
                };
                if notice(name, &one).1.is_none() {
                    missed.push(at.get());
                }
            }
            if missed.len() != spare {
                wrong.push(format!("{name}: {what} of lines {missed:?}"));
            }
            seen.push(format!("{} of {}", places.get() - missed.len(), places.get()));
        }
        table += &format!("| `{name}` | {} | {} |\n", seen[0], seen[1]);
    }
    assert!(wrong.is_empty(), "{wrong:#?}\n{table}");
    page("barriers", &table);
}

#[test]
fn every_family_of_kernels() {
    let all: [(&str, Change); 11] = [
        ("loads one element further", |l| {
            further(l, "ld.global").or_else(|| further(l, "cp.async.c"))
        }),
        ("stores one element further", |l| further(l, "st.global")),
        ("rows of fragments exchanged", |l| exchange(l, 0, 1)),
        ("halves of fragments exchanged", |l| exchange(l, 0, 2)),
        ("fragments 16 bytes off", |l| replaced(l, "ldmatrix", "+32]", "+48]")),
        ("fragments transposed", |l| replaced(l, "ldmatrix", ".x4.shared", ".x4.trans.shared")),
        ("sums without their scales", |l| unscaled(l)),
        ("entries of tables changed", entry),
        ("masks one too far", |l| {
            l.contains("setp.lt.s64").then(|| l.replace("setp.lt.s64", "setp.le.s64"))
        }),
        ("no barriers", |l| drop_line(l, "bar.sync")),
        ("no waits for copies", |l| drop_line(l, "cp.async.wait_group")),
    ];
    let mut missed = vec![];
    let mut table = String::from("| kernels of | changes noticed | how |\n|---|---|---|\n");
    for name in FAMILIES {
        let plain = noticed(name, &|t| t.into(), true);
        assert!(plain.1.is_none(), "{name} as it is printed");
        let (mut tried, mut kinds) = (vec![], std::collections::BTreeSet::new());
        for (what, change) in all {
            let one = std::cell::Cell::new(false);
            let changed = |t: &str| {
                // One warp is in step with itself.
                one.set(what == "no barriers" && t.contains(".reqntid 32, 1, 1"));
                everywhere(t, change)
            };
            match notice(name, &changed) {
                (true, _) => {}
                (false, None) if one.get() || WITHOUT.contains(&(name, what)) => {}
                (false, None) => missed.push(format!("{name}: {what}")),
                (false, Some(kind)) => {
                    tried.push(what);
                    kinds.insert(kind);
                }
            }
        }
        let how: Vec<&str> = kinds.iter().map(String::as_str).collect();
        table += &format!("| `{name}` | {} | {} |\n", tried.join(", "), how.join(", "));
    }
    assert!(missed.is_empty(), "{missed:#?}\n{table}");
    page("families", &table);
}
