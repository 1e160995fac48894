//! Modules of several graph ops: control flow, sequences, parameters known at run time only, and the
//! contents of shape tensors that the compiler follows.

mod common;

use common::tensor;
use silure_ir::eval::{Interp, Limits};
use silure_ir::{Builder, Context, Datum, Module, text, weight::NoFiles};

fn parse(symbols: &str, args: &str, body: &str, results: &str) -> Module {
    let text =
        format!("module @m {{\n entry @main{symbols}({args}) -> ({results}) {{\n{body}\n }}\n}}");
    text::parse_verified(&Context::new(), "t", &text).unwrap_or_else(|e| {
        panic!("{}\n{text}", e.iter().map(|e| e.to_string()).collect::<String>())
    })
}

fn run(m: &Module, args: &[&str]) -> Result<Vec<String>, String> {
    let limits = Limits { ops: 10_000, elements: 1 << 20 };
    let args: Vec<Datum> = args.iter().map(|t| tensor(t).into()).collect();
    let out = Interp::new(m, &NoFiles, limits).run("main", args).map_err(|e| e.to_string())?;
    Ok(out.iter().map(|d| text::dense(d.tensor().unwrap())).collect())
}

#[test]
fn if_takes_one_way_and_sees_outer_values() {
    let m = parse(
        "<s: 1..9, u: 0.. runtime>",
        "%c: bool[], %x: f32[s]",
        "%y = graph.if %c do {
           %a = graph.concat %x, %x {axis = 0} : f32[2*s]
           yield %a
         } do {
           %b = arith.neg %x : f32[s]
           yield %b
         } : f32[u]
         return %y",
        "y: f32[u]",
    );
    let x = "dense<f32[2]: 1.0, 2.0>";
    assert_eq!(run(&m, &["dense<bool[]: 1>", x]).unwrap(), ["dense<f32[4]: 1.0, 2.0, 1.0, 2.0>"]);
    assert_eq!(run(&m, &["dense<bool[]: 0>", x]).unwrap(), ["dense<f32[2]: -1.0, -2.0>"]);
}

/// Fibonacci numbers: two carried values, one stacked, ended by the trip count or the condition.
#[test]
fn loop_counts_carries_and_stacks() {
    let m = parse(
        "<u: 0.. runtime>",
        "%n: i64[], %go: bool[], %most: i64[]",
        "%zero = constant {value = dense<i64[]: 0>} : i64[]
         %one = constant {value = dense<i64[]: 1>} : i64[]
         %a, %b, %all = graph.loop %n, %go, %zero, %one do(%i: i64[], %c: bool[], %x: i64[], %y: i64[]) {
           %z = arith.add %x, %y : i64[]
           %on = arith.lt %z, %most : bool[]
           yield %on, %y, %z, %x
         } : i64[], i64[], i64[u]
         return %a, %b, %all",
        "a: i64[], b: i64[], all: i64[u]",
    );
    let go = |n: i64, c: i32, most: i64| {
        run(
            &m,
            &[
                &format!("dense<i64[]: {n}>"),
                &format!("dense<bool[]: {c}>"),
                &format!("dense<i64[]: {most}>"),
            ],
        )
        .unwrap()
    };
    assert_eq!(
        go(5, 1, 100),
        ["dense<i64[]: 5>", "dense<i64[]: 8>", "dense<i64[5]: 0, 1, 1, 2, 3>"]
    );
    assert_eq!(go(50, 1, 4), ["dense<i64[]: 3>", "dense<i64[]: 5>", "dense<i64[4]: 0, 1, 1, 2>"]);
    assert_eq!(go(5, 0, 100), ["dense<i64[]: 0>", "dense<i64[]: 1>", "dense<i64[0]: >"]);
    assert_eq!(go(-1, 1, 100)[2], "dense<i64[0]: >");
}

#[test]
fn a_carried_value_may_grow() {
    let m = parse(
        "<s: 1..9, u: 0.. runtime, v: 0.. runtime>",
        "%n: i64[], %x: f32[s]",
        "%y = graph.loop %n, _, %x do(%i: i64[], %c: bool[], %h: f32[u]) {
           %z = graph.concat %h, %x {axis = 0} : f32[s + u]
           yield %c, %z
         } : f32[v]
         return %y",
        "y: f32[v]",
    );
    let y = run(&m, &["dense<i64[]: 2>", "dense<f32[2]: 1.0, 2.0>"]).unwrap();
    assert_eq!(y, ["dense<f32[6]: 1.0, 2.0, 1.0, 2.0, 1.0, 2.0>"]);
}

#[test]
fn an_endless_loop_hits_the_limit() {
    let m = parse(
        "",
        "%x: f32[]",
        "%y = graph.loop _, _, %x do(%i: i64[], %c: bool[], %h: f32[]) {
           yield %c, %h
         } : f32[]
         return %y",
        "y: f32[]",
    );
    let e = run(&m, &["dense<f32[]: 1.0>"]).unwrap_err();
    assert!(e.contains("more ops than its limit"), "{e}");
}

#[test]
fn a_known_trip_count_is_the_size_of_what_is_stacked() {
    let m = parse(
        "<s: 1..9>",
        "%x: f32[s]",
        "%shape = graph.shape_of %x : i64[1]
         %n = graph.reshape %shape {shape = dims[]} : i64[]
         %y, %all = graph.loop %n, _, %x do(%i: i64[], %c: bool[], %h: f32[s]) {
           %z = arith.add %h, %x : f32[s]
           yield %c, %z, %i
         } : f32[s], i64[s]
         return %y, %all",
        "y: f32[s], all: i64[s]",
    );
    let got = run(&m, &["dense<f32[2]: 1.0, 2.0>"]).unwrap();
    assert_eq!(got, ["dense<f32[2]: 3.0, 6.0>", "dense<i64[2]: 0, 1>"]);
}

/// Running sums along axis 1, the second input and output reversed.
#[test]
fn scan_slices_and_stacks() {
    let m = parse(
        "<b: 1..9, s: 0..9>",
        "%h: f32[b], %x: f32[b, s], %y: f32[s, b]",
        "%a, %p, %q = graph.scan %h, %x, %y {states = 1, input_axes = [1, 0], output_axes = [1, 0], input_reverse = [0, 1],
             output_reverse = [0, 1]} do(%c: f32[b], %u: f32[b], %v: f32[b]) {
           %t = arith.add %c, %u : f32[b]
           yield %t, %t, %v
         } : f32[b], f32[b, s], f32[s, b]
         return %a, %p, %q",
        "a: f32[b], p: f32[b, s], q: f32[s, b]",
    );
    let h = "dense<f32[2]: 10.0, 20.0>";
    let x = "dense<f32[2, 3]: 1.0, 2.0, 3.0, 4.0, 5.0, 6.0>";
    let y = "dense<f32[3, 2]: 1.0, 2.0, 3.0, 4.0, 5.0, 6.0>";
    let got = run(&m, &[h, x, y]).unwrap();
    let sums = "dense<f32[2, 3]: 11.0, 13.0, 16.0, 24.0, 29.0, 35.0>";
    assert_eq!(got, ["dense<f32[2]: 16.0, 35.0>", sums, y]);
    let none = run(&m, &[h, "dense<f32[2, 0]: >", "dense<f32[0, 2]: >"]).unwrap();
    assert_eq!(none, [h, "dense<f32[2, 0]: >", "dense<f32[0, 2]: >"]);
    // A loop of gathered slices says the same.
    let mut m = m;
    decompose(&mut m, "graph.scan");
    assert_eq!(run(&m, &[h, x, y]).unwrap(), got);
    let none = run(&m, &[h, "dense<f32[2, 0]: >", "dense<f32[0, 2]: >"]).unwrap();
    assert_eq!(none, [h, "dense<f32[2, 0]: >", "dense<f32[0, 2]: >"]);
}

/// Replaces every op of that name by its parts.
fn decompose(m: &mut Module, name: &str) {
    let f = &mut m.funcs[0];
    for op in f.walk().into_iter().filter(|op| f.op(*op).def.name == name).collect::<Vec<_>>() {
        let parts = f.op(op).def.decompose.unwrap();
        let new = parts(&mut Builder::before(f, op), op).unwrap();
        let old = f.op(op).results.clone();
        for (old, new) in old.into_iter().zip(new) {
            f.replace_uses(old, new);
        }
        f.erase(op);
    }
    silure_ir::verify::verify(m).unwrap_or_else(|e| panic!("{}", e[0]));
}

#[test]
fn sequences_and_optionals() {
    let m = parse(
        "<s: 1..9, u: 0.. runtime, v: 0.. runtime, w: 0.. runtime, x: 0.. runtime, y: 0.. runtime, \
         z: 0.. runtime>",
        "%a: f32[s], %p: i64[]",
        "%e = graph.seq_empty {of = type(f32[u])} : seq<f32[u]>
         %1 = graph.seq_insert %e, %a : seq<f32[s]>
         %aa = graph.concat %a, %a {axis = 0} : f32[2*s]
         %2 = graph.seq_insert %1, %aa, %p : seq<f32[w]>
         %n = graph.seq_len %2 : i64[]
         %first = graph.seq_at %2, %p : f32[x]
         %all = graph.concat_from_sequence %2 {axis = 0} : f32[y]
         %less = graph.seq_erase %2 : seq<f32[w]>
         %m = graph.seq_len %less : i64[]
         %both = graph.seq_construct %a, %a : seq<f32[s]>
         %grid = graph.concat_from_sequence %both {axis = 0, new_axis = true} : f32[z, s]
         %cut = graph.split_to_sequence %a {keep = false} : seq<f32[]>
         %k = graph.seq_len %cut : i64[]
         %o = graph.optional %a : opt<f32[s]>
         %has = graph.optional_has %o : bool[]
         %got = graph.optional_get %o : f32[s]
         return %n, %first, %all, %m, %grid, %k, %has, %got",
        "n: i64[], first: f32[x], all: f32[y], m: i64[], grid: f32[z, s], k: i64[], has: bool[], got: f32[s]",
    );
    let got = run(&m, &["dense<f32[2]: 1.0, 2.0>", "dense<i64[]: 0>"]).unwrap();
    assert_eq!(
        got,
        [
            "dense<i64[]: 2>",
            "dense<f32[4]: 1.0, 2.0, 1.0, 2.0>",
            "dense<f32[6]: 1.0, 2.0, 1.0, 2.0, 1.0, 2.0>",
            "dense<i64[]: 1>",
            "dense<f32[2, 2]: 1.0, 2.0, 1.0, 2.0>",
            "dense<i64[]: 2>",
            "dense<bool[]: 1>",
            "dense<f32[2]: 1.0, 2.0>",
        ]
    );
}

/// Slice, pad, tile, full, range, top-k, split and one-hot whose parameters are computed.
#[test]
fn parameters_may_be_operands() {
    let m = parse(
        "<s: 1..9, a: 0.. runtime, b: 0.. runtime, c: 0.. runtime, d: 0.. runtime, e: 0.. runtime, f: 0.. runtime, \
         g: 0.. runtime, h: 0.. runtime>",
        "%x: f32[s], %one: i64[1], %two: i64[1], %p: i64[2], %n: i64[]",
        "%0 = graph.slice %x, %one, %two, %one {axes = [0]} : f32[a]
         %1 = graph.pad %x, _, %p : f32[b]
         %2 = graph.tile %x, %two : f32[c]
         %3 = graph.full %two {value = dense<i64[1]: 7>} : i64[d]
         %4 = graph.range %n, %n, %n : i64[e]
         %5, %6 = graph.top_k %x, %two : f32[f], i64[f]
         %7, %8 = graph.split %x, %p {axis = 0, parts = 2} : f32[g], f32[h]
         return %0, %1, %2, %3, %4, %6, %7, %8",
        "r0: f32[a], r1: f32[b], r2: f32[c], r3: i64[d], r4: i64[e], r6: i64[f], r7: f32[g], r8: f32[h]",
    );
    let args = [
        "dense<f32[3]: 5.0, 9.0, 7.0>",
        "dense<i64[1]: 1>",
        "dense<i64[1]: 2>",
        "dense<i64[2]: 1, 2>",
        "dense<i64[]: 4>",
    ];
    assert_eq!(
        run(&m, &args).unwrap(),
        [
            "dense<f32[1]: 9.0>",
            "dense<f32[6]: 0.0, 5.0, 9.0, 7.0, 0.0, 0.0>",
            "dense<f32[6]: 5.0, 9.0, 7.0, 5.0, 9.0, 7.0>",
            "dense<i64[2]: 7, 7>",
            "dense<i64[0]: >",
            "dense<i64[2]: 1, 2>",
            "dense<f32[1]: 5.0>",
            "dense<f32[2]: 9.0, 7.0>",
        ]
    );
}

/// The chain that exporters write to flatten all but the first axis, and its relatives: the shapes are
/// known because the contents of the integer tensors are followed.
#[test]
fn contents_of_shape_tensors_are_followed() {
    let m = parse(
        "<b: 1..8, s: 1..64>",
        "%x: f32[b, s, 6]",
        "%shape = graph.shape_of %x : i64[3]
         %zero = constant {value = dense<i64[1]: 0>} : i64[1]
         %b = graph.gather %shape, %zero : i64[1]
         %tail = graph.slice %shape {axes = [0], starts = dims[1], ends = dims[3]} : i64[2]
         %n = graph.reduce %tail {kind = \"prod\", axes = [0], keep = true} : i64[1]
         %flat = graph.concat %b, %n {axis = 0} : i64[2]
         %y = graph.reshape %x, %flat : f32[b, 6*s]
         %row, %rest = graph.split %shape {axis = 0, sizes = dims[1, 2]} : i64[1], i64[2]
         return %y",
        "y: f32[b, 6*s]",
    );
    let x = "dense<f32[1, 1, 6]: 1.0, 2.0, 3.0, 4.0, 5.0, 6.0>";
    assert_eq!(run(&m, &[x]).unwrap(), ["dense<f32[1, 6]: 1.0, 2.0, 3.0, 4.0, 5.0, 6.0>"]);
    parse(
        "<b: 1..8, s: 1..64>",
        "%x: f32[b, s]",
        "%size = graph.size_of %x : i64[]
         %one = constant {value = dense<i64[]: 1>} : i64[]
         %zero = constant {value = dense<i64[]: 0>} : i64[]
         %all = graph.range %zero, %size, %one : i64[b*s]
         %two = graph.broadcast %size {shape = dims[2]} : i64[2]
         %y = graph.full %two {value = dense<f32[1]: 1.0>} : f32[b*s, b*s]
         %shape = graph.shape_of %x : i64[2]
         %twice = graph.tile %shape {repeats = dims[2]} : i64[4]
         %z = graph.full %twice {value = dense<f32[1]: 1.0>} : f32[b, s, b, s]
         %d = graph.dim {value = dims[s + 1]} : i64[]
         %i = graph.range %zero, %d, %one : i64[s + 1]
         return %all, %y, %z, %i",
        "all: i64[b*s], y: f32[b*s, b*s], z: f32[b, s, b, s], i: i64[s + 1]",
    );
}

#[test]
fn bad_contents_end_the_run_with_an_error() {
    let m = parse(
        "",
        "%x: f32[3], %i: i64[1]",
        "%y = graph.gather %x, %i : f32[1]\n return %y",
        "y: f32[1]",
    );
    let e = run(&m, &["dense<f32[3]: 1.0, 2.0, 3.0>", "dense<i64[1]: 3>"]).unwrap_err();
    assert!(e.contains("index 3 is outside an axis of size 3"), "{e}");
    let m = parse(
        "<u: 0.. runtime>",
        "%n: i64[1]",
        "%y = graph.full %n {value = dense<f32[1]: 1.0>} : f32[u]\n return %y",
        "y: f32[u]",
    );
    assert!(run(&m, &["dense<i64[1]: -1>"]).unwrap_err().contains("not a shape"));
    assert!(run(&m, &["dense<i64[1]: 4611686018427387904>"]).unwrap_err().contains("limit"));
    let m = parse(
        "<u: 0.. runtime>",
        "%a: i64[], %b: i64[], %c: i64[]",
        "%y = graph.range %a, %b, %c : i64[u]\n return %y",
        "y: i64[u]",
    );
    let zero = run(&m, &["dense<i64[]: 0>", "dense<i64[]: 5>", "dense<i64[]: 0>"]).unwrap_err();
    assert!(zero.contains("step is 0"), "{zero}");
    let least = "dense<i64[]: -9223372036854775808>";
    let huge =
        run(&m, &[least, "dense<i64[]: 9223372036854775807>", "dense<i64[]: 1>"]).unwrap_err();
    assert!(huge.contains("limit"), "{huge}");
}

#[test]
fn images_are_decoded_and_files_that_are_none_refused() {
    let m = parse(
        "<n: 0.., h: 0.. runtime, w: 0.. runtime>",
        "%x: u8[n]",
        "%y = graph.decode_image %x {layout = \"BGR\"} : u8[h, w, 3]
         return %y",
        "y: u8[h, w, 3]",
    );
    let file = |data: &[u8]| {
        let bytes: Vec<String> = data.iter().map(u8::to_string).collect();
        format!("dense<u8[{}]: {}>", data.len(), bytes.join(", "))
    };
    let run = |data: &[u8]| run(&m, &[file(data).as_str()]);
    assert!(run(b"P6 1 1 255\n\x01\x02").unwrap_err().contains("pixels are missing"));
    assert_eq!(run(b"P5 1 2 255\n\x07\x09").unwrap(), ["dense<u8[2, 1, 3]: 7, 7, 7, 9, 9, 9>"]);
    assert!(run(b"P5 99999 99999 255\n").unwrap_err().contains("99999 × 99999 pixels"));
    assert!(run(b"\xff\xd8\xff, a JPEG").unwrap_err().contains("JPEG"));
}

#[test]
fn strings_are_made_read_and_counted() {
    let m = parse(
        "<u: 0.. runtime>",
        "%x: string[2], %v: f64[2]",
        "%upper = graph.string_case %x {upper = true} : string[2]
         %both = graph.string_concat %upper, %x : string[2]
         %parts, %counts = graph.string_split %x {delimiter = \",\"} : string[2, u], i64[2]
         %fits = graph.regex_full_match %x {pattern = \"[a-z]\"} : bool[2]
         %at = graph.lookup %x, %upper : i64[2]
         %t = graph.to_string %v : string[2]
         %n = graph.parse_number %t {to = f64} : f64[2]
         %rows = constant {value = dense<i64[1, 3]: 0, 2, 0>} : i64[1, 3]
         %grams = graph.ngram_counts %x, %x, %rows {columns = 1} : f32[1]
         return %both, %parts, %counts, %fits, %at, %t, %n, %grams",
        "a: string[2], b: string[2, u], c: i64[2], d: bool[2], e: i64[2], f: string[2], g: f64[2], h: f32[1]",
    );
    let out = run(&m, &["dense<string[2]: \"ä,B\", \"x\">", "dense<f64[2]: 1e-5, 100.0>"]).unwrap();
    let want = [
        "dense<string[2]: \"\\C3\\84,B\\C3\\A4,B\", \"Xx\">",
        "dense<string[2, 2]: \"\\C3\\A4\", \"B\", \"x\", \"\">",
        "dense<i64[2]: 2, 1>",
        "dense<bool[2]: 0, 1>",
        "dense<i64[2]: 2, 2>",
        "dense<string[2]: \"1e-05\", \"100.0\">",
        "dense<f64[2]: 1e-5, 100.0>",
        "dense<f32[1]: 1.0>",
    ];
    assert_eq!(out, want);
}

/// With log₂e as the temperature weights are powers of two: 1, 8, 4, 8 and 2, with a penalty 1, 2, 4, 2 and 2. A negative
/// temperature makes all the largest.
#[test]
fn tokens_are_drawn_by_weights() {
    let m = parse(
        "",
        "%x: f32[7, 5], %s: f64[7, 6], %seen: i32[7, 1]",
        "%y = graph.sample %x, %s, %seen : i64[7]
         return %y",
        "y: i64[7]",
    );
    let x = ["0.0, 3.0, 2.0, 3.0, 1.0"; 7].join(", ");
    // The largest; all; three of the largest; those that make 0.6; those of half the largest; a penalty; below 0.
    let settings = [
        "0.0, 0.0, 1.0, 0.0, 1.0, 0.9",
        "1.4426950408889634, 0.0, 1.0, 0.0, 1.0, 0.5",
        "1.4426950408889634, 3.0, 1.0, 0.0, 1.0, 0.99",
        "1.4426950408889634, 0.0, 0.6, 0.0, 1.0, 0.5",
        "1.4426950408889634, 0.0, 1.0, 0.5, 1.0, 0.45",
        "1.4426950408889634, 0.0, 1.0, 0.0, 3.0, 0.99",
        "-1.4426950408889634, 0.0, 1.0, 0.0, 1.0, 0.5",
    ];
    let (x, s) =
        (format!("dense<f32[7, 5]: {x}>"), format!("dense<f64[7, 6]: {}>", settings.join(", ")));
    let y = run(&m, &[&x, &s, "dense<i32[7, 1]: 0, 0, 0, 0, 0, 10, 0>"]).unwrap();
    assert_eq!(y, ["dense<i64[7]: 1, 2, 3, 3, 2, 4, 2>"]);
}

#[test]
fn attention_is_its_parts() {
    let m = parse(
        "",
        "%q: f32[1, 3, 2, 1], %k: f32[1, 2, 1, 1], %v: f32[1, 2, 1, 2], %m: bool[3, 2]",
        "%y = graph.attention %q, %k, %v, %m {causal = true, softcap = 2.0, tokens_first = true, zero_nan = true} : f32[1, 3, 2, 2]
         return %y",
        "y: f32[1, 3, 2, 2]",
    );
    // Queries of 0 weigh alike what they see: key 0; both; nothing.
    let args = [
        "dense<f32[1, 3, 2, 1]: 0, 0, 0, 0, 0, 0>",
        "dense<f32[1, 2, 1, 1]: 3, 5>",
        "dense<f32[1, 2, 1, 2]: 1, 2, 3, 6>",
        "dense<bool[3, 2]: 1, 1, 1, 1, 0, 0>",
    ];
    let want =
        ["dense<f32[1, 3, 2, 2]: 1.0, 2.0, 1.0, 2.0, 2.0, 4.0, 2.0, 4.0, 0.0, 0.0, 0.0, 0.0>"];
    assert_eq!(run(&m, &args).unwrap(), want);
    let mut m = m;
    decompose(&mut m, "graph.attention");
    assert_eq!(run(&m, &args).unwrap(), want);
}

/// The place of the nearest element is computed in f32, as onnxruntime does: in f64, 1 / 0.1f32 is a little less than 10.
#[test]
fn the_nearest_element_follows_from_positions_in_f32() {
    let m = parse(
        "",
        "%x: i32[11]",
        "%y = graph.resize %x {coordinates = \"asymmetric\", nearest = \"floor\", scales = [0.10000000149011612], sizes = dims[2]} : i32[2]
         return %y",
        "y: i32[2]",
    );
    let x = "dense<i32[11]: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10>";
    assert_eq!(run(&m, &[x]).unwrap(), ["dense<i32[2]: 0, 10>"]);
}
