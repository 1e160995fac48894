//! Types that the graph ops infer, with symbols, and the uses that they refuse.

use silure_ir::{Context, text};

/// Symbols that every case may use: `u`, `v`, `w` are sizes known at run time only.
const SYMBOLS: &str =
    "b: 1..8, s: 1..512, n: 0..64, u: 0.. runtime, v: 0.. runtime, w: 0.. runtime";

/// The module whose entry is `op` on arguments `%0`, `%1`, … of the types listed before it.
fn module(args: &str, op: &str, results: &str) -> String {
    let types = |list: &str| -> Vec<String> {
        let (mut out, mut depth) = (vec![String::new()], 0);
        for c in list.chars() {
            depth += matches!(c, '[' | '<') as i32 - matches!(c, ']' | '>') as i32;
            if c == ',' && depth == 0 {
                out.push(String::new());
            } else if let Some(last) = out.last_mut() {
                last.push(c);
            }
        }
        out.into_iter().map(|t| t.trim().to_string()).filter(|t| !t.is_empty()).collect()
    };
    let args: Vec<String> =
        types(args).iter().enumerate().map(|(i, t)| format!("%a{i}: {t}")).collect();
    let results = types(results);
    let names: Vec<String> = (0..results.len()).map(|i| format!("%r{i}")).collect();
    let outs: Vec<String> = results.iter().enumerate().map(|(i, t)| format!("y{i}: {t}")).collect();
    format!(
        "module @m {{\n entry @main<{SYMBOLS}>({}) -> ({}) {{\n {} = graph.{op} : {}\n return {}\n }}\n}}",
        args.join(", "),
        outs.join(", "),
        names.join(", "),
        results.join(", "),
        names.join(", "),
    )
}

fn verdict(args: &str, op: &str, results: &str) -> Result<(), String> {
    let text = module(args, op, results);
    match text::parse_verified(&Context::new(), "t", &text) {
        Ok(m) => {
            let again = text::print(&m);
            let back = text::parse(&Context::new(), "t", &again, Default::default())
                .map_err(|e| format!("{e}\n{again}"))?;
            assert_eq!(text::print(&back), again);
            Ok(())
        }
        Err(e) => Err(e.iter().map(|e| e.to_string()).collect::<Vec<_>>().join("\n")),
    }
}

#[rustfmt::skip]
const FITS: &[(&str, &str, &str)] = &[
    ("f32[s]", "broadcast %a0 {shape = dims[b, s]}", "f32[b, s]"),
    ("f32[b, s, 4]", "reshape %a0 {shape = dims[b*s, 4]}", "f32[b*s, 4]"),
    ("f32[b, s, 4]", "transpose %a0 {perm = [2, 0, 1]}", "f32[4, b, s]"),
    ("f32[b, s]", "shape_of %a0", "i64[2]"),
    ("f32[b, s]", "size_of %a0", "i64[]"),
    ("f32[b, s, s]", "det %a0", "f32[b]"),
    ("f32[b, s, 4], f32[b, 3, s], i64[1], f32[], f32[1]", "non_max_suppression %a0, %a1, %a2, %a3, %a4", "i64[u, 3]"),
    ("f32[b, 3, s, s], f32[n, 5]", "max_roi_pool %a0, %a1 {height = 2, width = 5}", "f32[n, 3, 2, 5]"),
    ("f32[b, 3, s, s], f32[n, 4], i64[n]", "roi_align %a0, %a1, %a2 {height = 2, width = 5}", "f32[n, 3, 2, 5]"),
    ("", "dim {value = dims[b*s + 1]}", "i64[]"),
    ("f32[b, s]", "slice %a0 {axes = [1], starts = dims[0], ends = dims[-1]}", "f32[b, s - 1]"),
    ("f32[b, s]", "slice %a0 {axes = [1], starts = dims[-1], ends = dims[9223372036854775807]}", "f32[b, 1]"),
    ("f32[b, s]", "slice %a0 {axes = [1], starts = dims[-1], ends = dims[-9223372036854775807], steps = [-1]}", "f32[b, s]"),
    ("f32[s]", "slice %a0 {axes = [0], starts = dims[1], ends = dims[s], steps = [2]}", "f32[floordiv(s, 2)]"),
    ("f32[floordiv(s - 192, 128) + 1]", "slice %a0 {axes = [0], starts = dims[0], ends = dims[floordiv(s - 192, 128) + 1]}", "f32[floordiv(s - 192, 128) + 1]"),
    ("f32[s], i64[1], i64[1]", "slice %a0, %a1, %a2 {axes = [0]}", "f32[u]"),
    ("f32[b, s], f32[b, 3]", "concat %a0, %a1 {axis = 1}", "f32[b, s + 3]"),
    ("f32[2*s, b]", "split %a0 {axis = 0, sizes = dims[s, s]}", "f32[s, b], f32[s, b]"),
    ("f32[s], i64[2]", "split %a0, %a1 {axis = 0, parts = 2}", "f32[u], f32[v]"),
    ("f32[b, s]", "pad %a0 {pads = dims[0, 1, 0, 2]}", "f32[b, s + 3]"),
    ("f32[s], i64[2]", "pad %a0, _, %a1", "f32[u]"),
    ("f32[b, s]", "tile %a0 {repeats = dims[1, n]}", "f32[b, n*s]"),
    ("f32[b, 50], f64[b, 6], i32[b, n]", "sample %a0, %a1, %a2", "i64[b]"),
    ("f32[b, s, 4], i64[n, 2]", "gather %a0, %a1 {axis = 1}", "f32[b, n, 2, 4]"),
    ("f32[b, s], i64[b, n]", "gather_elements %a0, %a1 {axis = 1}", "f32[b, n]"),
    ("f32[b, s, 4], i64[n, 2]", "gather_nd %a0, %a1", "f32[n, 4]"),
    ("f32[b, s, 4], i64[b, n, 1]", "gather_nd %a0, %a1 {batch = 1}", "f32[b, n, 4]"),
    ("f32[b, s], i64[b, n], f32[b, n]", "scatter_elements %a0, %a1, %a2 {axis = 1}", "f32[b, s]"),
    ("f32[b, s], i64[n, 1], f32[n, s]", "scatter_nd %a0, %a1, %a2", "f32[b, s]"),
    ("i64[], i64[], i64[]", "range %a0, %a1, %a2", "i64[u]"),
    ("", "full {value = dense<f32[1]: 1.0>, shape = dims[b, s]}", "f32[b, s]"),
    ("i64[2]", "full %a0 {value = dense<f32[1]: 1.0>}", "f32[u, v]"),
    ("f32[b, s]", "eye_like %a0 {elem = i32}", "i32[b, s]"),
    ("f32[b, s, s]", "trilu %a0", "f32[b, s, s]"),
    ("i64[b], f32[2]", "one_hot %a0, %a1 {depth = dims[s]}", "f32[b, s]"),
    ("i64[b], f32[2], i64[]", "one_hot %a0, %a1, %a2 {axis = 0}", "f32[u, b]"),
    ("f32[b, s]", "nonzero %a0", "i64[2, u]"),
    ("f32[b, s], bool[s]", "compress %a0, %a1 {axis = 1}", "f32[b, u]"),
    ("f32[b, s]", "unique %a0", "f32[u], i64[u], i64[b*s], i64[u]"),
    ("f32[b, s]", "top_k %a0 {k = dims[1]}", "f32[b, 1], i64[b, 1]"),
    ("f32[b, s], i64[1]", "top_k %a0, %a1", "f32[b, u], i64[b, u]"),
    ("f32[b, s]", "cumsum %a0 {axis = 1}", "f32[b, s]"),
    ("f32[s, b, 4], i64[b]", "reverse_sequence %a0, %a1", "f32[s, b, 4]"),
    ("f32[b, 8, s, n]", "depth_to_space %a0 {block = 2}", "f32[b, 2, 2*s, 2*n]"),
    ("f32[b, 2, 2*s, 4]", "space_to_depth %a0 {block = 2}", "f32[b, 8, s, 2]"),
    ("f32[b, s, 4], f32[b, 4, n]", "matmul %a0, %a1", "f32[b, s, n]"),
    ("f32[b, s, 70], u4[n, 70], f32[n, 3], u4[n, 3]", "matmul_blocks %a0, %a1, %a2, %a3 {block = 32}", "f32[b, s, n]"),
    ("i8[b, s, 64], u4[n, 64], f16[n, 2], f32[b, s, 4]", "matmul_blocks %a0, %a1, %a2, _, _, %a3 {block = 32}", "f32[b, s, n]"),
    ("f32[b, s, 70], u4[n, 70], f16[n, 3], f16[n, 3]", "matmul_blocks %a0, %a1, %a2, _, %a3 {block = 32}", "f32[b, s, n]"),
    ("i4[n, 70], f16[n, 3], i64[b, s], i4[n, 3], f16[n, 3]", "gather_blocks %a0, %a1, %a2, %a3, %a4 {block = 32}", "f32[b, s, 70]"),
    ("u8[s, 4], i8[4, n], u8[s], i8[n]", "matmul_integer %a0, %a1, %a2, %a3", "i32[s, n]"),
    ("f32[b, s, 4], f32[b, 4, n]", "einsum %a0, %a1 {equation = \"bij,bjk->bki\"}", "f32[b, n, s]"),
    ("f32[n, 8, 64], bf16[640, 2, 64], bf16[640, 2, 32], i64[b], i64[b, s], i64[b]", "paged_attention %a0, %a1, %a2, %a3, %a4, %a5", "f32[n, 8, 32]"),
    ("f32[n, 8, 64], f32[640, 1, 64], i64[n], i32[n, s]", "paged_attention %a0, %a1, _, %a2, %a3 {values = 48}", "f32[n, 8, 48]"),
    ("f32[n, 1, 64], f32[16, 24, 64], i64[n, s]", "expert_matmul %a0, %a1, %a2", "f32[n, s, 24]"),
    ("f32[n, 1, 64], u4[16, 24, 64], i64[n, s], f16[16, 24, 2], f16[16, 24, 2]", "expert_matmul %a0, %a1, %a2, %a3, %a4 {block = 32}", "f32[n, s, 24]"),
    ("f32[b, 8, s, 64], f32[b, 2, n, 64], f32[b, 2, n, 32], bool[s, n]", "attention %a0, %a1, %a2, %a3", "f32[b, 8, s, 32]"),
    ("f32[b, 3, s, 8], f32[16, 3, 3, 3]", "conv %a0, %a1 {pads = dims[1, 1, 1, 1], strides = [2, 1]}", "f32[b, 16, floordiv(s - 1, 2) + 1, 8]"),
    ("f32[b, s, 8, 3], f32[16, 3, 3, 3]", "conv %a0, %a1 {channels_last = true, pads = dims[1, 1, 1, 1], strides = [2, 1]}", "f32[b, floordiv(s - 1, 2) + 1, 8, 16]"),
    ("u8[b, 8, 3], u8[16, 3, 3]", "conv_integer %a0, %a1 {channels_last = true}", "i32[b, 6, 16]"),
    ("f32[b, s, 4]", "average_pool %a0 {channels_last = true, kernel = [3], pads = dims[1, 1]}", "f32[b, s, 4]"),
    ("u8[b, 3, 8], u8[16, 3, 3]", "conv_integer %a0, %a1", "i32[b, 16, 6]"),
    ("f32[b, 4, s], f32[4, 3, 2]", "conv_transpose %a0, %a1 {strides = [2]}", "f32[b, 3, 2*s]"),
    ("f32[b, 4, s + 1]", "max_pool %a0 {kernel = [2], indices = true}", "f32[b, 4, s], i64[b, 4, s]"),
    ("f32[b, 4, s]", "average_pool %a0 {kernel = [3], pads = dims[1, 1]}", "f32[b, 4, s]"),
    ("f32[b, 4, 2*s]", "lp_pool %a0 {kernel = [2], strides = [2]}", "f32[b, 4, s]"),
    ("f32[b, s, 4]", "reduce %a0 {kind = \"mean\", axes = [-1], keep = true}", "f32[b, s, 1]"),
    ("f32[b, s]", "argmax %a0 {axis = 1}", "i64[b]"),
    ("f32[b, s]", "argmin %a0 {keep = true}", "i64[1, s]"),
    ("f32[b, s]", "softmax %a0", "f32[b, s]"),
    ("f32[b, s]", "log_softmax %a0", "f32[b, s]"),
    ("f32[b, s, 4], f32[4]", "layer_norm %a0, %a1 {stats = true}", "f32[b, s, 4], f32[b, s, 1], f32[b, s, 1]"),
    ("f32[b, s, 4], f32[4]", "rms_norm %a0, %a1", "f32[b, s, 4]"),
    ("f32[s, 4, 8], f32[s, 3], f32[s, 3]", "rotary %a0, %a1, %a2", "f32[s, 4, 8]"),
    ("f32[b, 4, s], f32[4], f32[4]", "group_norm %a0, %a1, %a2 {groups = 2}", "f32[b, 4, s]"),
    ("f32[b, 4, s], f32[4], f32[4]", "instance_norm %a0, %a1, %a2", "f32[b, 4, s]"),
    ("f32[b, 4, s], f32[4], f32[4], f32[4], f32[4]", "batch_norm %a0, %a1, %a2, %a3, %a4", "f32[b, 4, s]"),
    ("f32[b, s], f32[s], u8[s]", "quantize %a0, %a1, %a2", "u8[b, s]"),
    ("i8[b, s], f32[b, floordiv(s + 31, 32)]", "dequantize %a0, %a1 {block = 32}", "f32[b, s]"),
    ("f32[b, s]", "dynamic_quantize %a0", "u8[b, s], f32[], u8[]"),
    ("f32[b, s]", "quantize_rows %a0", "i8[b, s], f32[b, 1]"),
    ("f32[b, s]", "quantize_rows %a0 {block = 32, elem = e4m3fn}", "e4m3fn[b, s], f32[b, floordiv(s + 31, 32)]"),
    ("f32[s, b, 4], f32[1, 3, 4], f32[1, 3, 3]", "rnn %a0, %a1, %a2", "f32[s, 1, b, 3], f32[1, b, 3]"),
    ("f32[s, b, 4], f32[1, 9, 4], f32[1, 9, 3]", "gru %a0, %a1, %a2", "f32[s, 1, b, 3], f32[1, b, 3]"),
    ("f32[s, b, 4], f32[2, 12, 4], f32[2, 12, 3]", "lstm %a0, %a1, %a2 {direction = \"bidirectional\"}", "f32[s, 2, b, 3], f32[2, b, 3], f32[2, b, 3]"),
    ("f32[b, 3, s, s]", "resize %a0 {scales = [1.0, 1.0, 2.0, 0.5]}", "f32[b, 3, 2*s, floordiv(s, 2)]"),
    ("f32[b, 3, s, s]", "resize %a0 {sizes = dims[b, 3, n, 7]}", "f32[b, 3, n, 7]"),
    ("f32[b, 3, s, s], f32[b, n, 7, 2]", "grid_sample %a0, %a1", "f32[b, 3, n, 7]"),
    ("bool[], f32[s], f32[b]", "if %a0 do {\n yield %a1\n } do {\n yield %a2\n }", "f32[u]"),
    ("bool[], f32[s], f32[s]", "if %a0 do {\n yield %a1\n } do {\n yield %a2\n }", "f32[s]"),
    ("i64[], bool[], f32[s]", "loop %a0, %a1, %a2 do(%i: i64[], %c: bool[], %x: f32[s]) {\n yield %c, %x, %x\n }", "f32[s], f32[u, s]"),
    ("i64[], bool[], f32[s]", "loop %a0, %a1, %a2 do(%i: i64[], %c: bool[], %x: f32[u]) {\n %y = graph.concat %x, %x {axis = 0} : f32[2*u]\n yield %c, %y\n }", "f32[v]"),
    ("f32[b], f32[s, b]", "scan %a0, %a1 {states = 1} do(%h: f32[b], %x: f32[b]) {\n %y = arith.add %h, %x : f32[b]\n yield %y, %y\n }", "f32[b], f32[s, b]"),
    ("", "seq_empty {of = type(f32[u])}", "seq<f32[u]>"),
    ("f32[s], f32[b]", "seq_construct %a0, %a1", "seq<f32[u]>"),
    ("seq<f32[u]>, i64[]", "seq_at %a0, %a1", "f32[v]"),
    ("seq<f32[u]>", "seq_len %a0", "i64[]"),
    ("seq<f32[u]>, f32[s]", "seq_insert %a0, %a1", "seq<f32[v]>"),
    ("seq<f32[3]>, f32[3, 1]", "seq_insert %a0, %a1", "seq<f32>"),
    ("seq<f32>, f32[3]", "seq_insert %a0, %a1", "seq<f32>"),
    ("seq<f32[u]>", "seq_erase %a0", "seq<f32[u]>"),
    ("seq<f32[b, u]>", "concat_from_sequence %a0 {axis = 0}", "f32[v, w]"),
    ("f32[b, s]", "split_to_sequence %a0 {keep = false}", "seq<f32[s]>"),
    ("f32[b, s]", "optional %a0", "opt<f32[b, s]>"),
    ("opt<f32[b, s]>", "optional_has %a0", "bool[]"),
    ("opt<f32[b, s]>", "optional_get %a0", "f32[b, s]"),
    ("f32[s]", "to_string %a0", "string[s]"),
    ("string[b, s]", "parse_number %a0 {to = i64}", "i64[b, s]"),
    ("string[s]", "string_case %a0", "string[s]"),
    ("string[s], string[s]", "string_concat %a0, %a1", "string[s]"),
    ("string[s]", "regex_full_match %a0 {pattern = \"a+\"}", "bool[s]"),
    ("string[b]", "string_split %a0", "string[b, u], i64[b]"),
    ("u8[b]", "decode_image %a0 {layout = \"Grayscale\"}", "u8[u, v, 1]"),
    ("i64[b, s], i64[n]", "lookup %a0, %a1", "i64[b, s]"),
    ("string[b, s], string[n], i64[2, 3]", "ngram_counts %a0, %a1, %a2 {columns = 7}", "f32[b, 7]"),
];

#[rustfmt::skip]
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("f32[3]", "broadcast %a0 {shape = dims[4]}", "f32[4]", "differ"),
    ("f32[3]", "reshape %a0 {shape = dims[4]}", "f32[4]", "cannot reshape"),
    ("f32[3]", "transpose %a0 {perm = [1]}", "f32[3]", "does not permute"),
    ("f32[3]", "shape_of %a0 {end = 2}", "i64[2]", "outside"),
    ("seq<f32[3]>", "size_of %a0", "i64[]", "wrong type"),
    ("", "dim {value = dims[1, 2]}", "i64[]", "one dim"),
    ("f32[3]", "slice %a0 {axes = [0], starts = dims[0], ends = dims[1], steps = [0]}", "f32[1]", "other than 0"),
    ("f32[3]", "slice %a0 {axes = [0, 0], starts = dims[0, 0], ends = dims[1, 1]}", "f32[1]", "twice"),
    ("f32[3], f32[3, 1]", "concat %a0, %a1 {axis = 0}", "f32[6]", "cannot join"),
    ("f32[3]", "split %a0 {axis = 0, sizes = dims[1, 1]}", "f32[1], f32[1]", "do not make up"),
    ("f32[3]", "pad %a0 {pads = dims[1]}", "f32[4]", "needs 2 values"),
    ("f32[3]", "tile %a0 {repeats = dims[1, 1]}", "f32[3]", "needs 1 values"),
    ("f32[2, s], f64[2, 6], i32[2, 1]", "sample %a0, %a1, %a2", "i64[2]", "fixed v"),
    ("f32[2, 4194305], f64[2, 6], i32[2, 1]", "sample %a0, %a1, %a2", "i64[2]", "fixed v"),
    ("f32[2, 5], f64[2, 5], i32[2, 1]", "sample %a0, %a1, %a2", "i64[2]", "f64[b, 6]"),
    ("f32[2, 5], f64[3, 6], i32[2, 1]", "sample %a0, %a1, %a2", "i64[2]", "sequences"),
    ("f32[3], i64[1]", "gather %a0, %a1 {axis = 1}", "f32[1]", "outside"),
    ("f32[3], i64[1, 1]", "gather_elements %a0, %a1", "f32[1, 1]", "rank 1"),
    ("f32[3], i64[1, 2]", "gather_nd %a0, %a1", "f32[1]", "do not index"),
    ("f32[3], i64[1], f32[2]", "scatter_elements %a0, %a1, %a2", "f32[3]", "wrong type"),
    ("f32[3], i64[1, 1], f32[2]", "scatter_nd %a0, %a1, %a2", "f32[3]", "wrong type"),
    ("i64[], i64[], i32[]", "range %a0, %a1, %a2", "i64[u]", "i64[]"),
    ("", "full {value = dense<f32[2]: 1.0, 1.0>, shape = dims[2]}", "f32[2]", "one element"),
    ("f32[3]", "eye_like %a0 {elem = f32}", "f32[3]", "rank 2"),
    ("f32[3]", "trilu %a0", "f32[3]", "rank 2"),
    ("i64[3], f32[3]", "one_hot %a0, %a1 {depth = dims[2]}", "f32[3, 2]", "two elements"),
    ("seq<f32[3]>", "nonzero %a0", "i64[1, u]", "wrong type"),
    ("f32[3], bool[3, 1]", "compress %a0, %a1", "f32[u]", "rank 1"),
    ("f32[3]", "unique %a0 {axis = 1}", "f32[u], i64[u], i64[3], i64[u]", "outside"),
    ("f32[3]", "top_k %a0 {k = dims[4]}", "f32[4], i64[4]", "`k` is 4"),
    ("f32[3]", "cumsum %a0 {axis = 2}", "f32[3]", "outside"),
    ("f32[3, 3], i64[3]", "reverse_sequence %a0, %a1 {batch_axis = 0}", "f32[3, 3]", "both"),
    ("f32[1, 3, 2, 2]", "depth_to_space %a0 {block = 2}", "f32[1, 0, 4, 4]", "do not make blocks"),
    ("f32[1, 3, 3, 2]", "space_to_depth %a0 {block = 2}", "f32[1, 12, 1, 1]", "not made of blocks"),
    ("f32[2, 3], f32[2, 3]", "matmul %a0, %a1", "f32[2, 3]", "contracted sizes"),
    ("f32[2, 8], i8[3, 8], f32[3, 3]", "matmul_blocks %a0, %a1, %a2 {block = 4}", "f32[3, 3]", "f32[3, 2]"),
    ("i8[2, 8], i8[3, 8], f32[3, 2]", "matmul_blocks %a0, %a1, %a2 {block = 4}", "i8[2, 8]", "floats"),
    ("i8[2, 8], i8[3, 8], f32[3, 2], f32[2, 3]", "matmul_blocks %a0, %a1, %a2, _, _, %a3 {block = 4}", "f32[2, 3]", "divisor"),
    ("f32[2, 8], i8[3, 8], f32[3, 2], f32[2, 2]", "matmul_blocks %a0, %a1, %a2, _, _, %a3 {block = 4}", "f32[2, 8]", "i8"),
    ("f32[2, 8], i8[3, 8], f16[3, 2], f32[3, 2]", "matmul_blocks %a0, %a1, %a2, _, %a3 {block = 4}", "f32[3, 2]", "f16[3, 2]"),
    ("i8[3, 8], f16[3, 1], i64[4]", "gather_blocks %a0, %a1, %a2 {block = 4}", "f16[3, 1]", "f16[3, 2]"),
    ("e4m3fn[3, 8], f16[3, 2], i64[4], e4m3fn[3, 2]", "gather_blocks %a0, %a1, %a2, %a3 {block = 4}", "e4m3fn[3, 8]", "integers"),
    ("i32[2, 3], i8[3, 2]", "matmul_integer %a0, %a1", "i32[2, 2]", "at most 8 bits"),
    ("f32[2, 3], f32[2]", "einsum %a0, %a1 {equation = \"ij,j->i\"}", "f32[2]", "label `j`"),
    ("f32[n, 8, 64], f32[640, 2, 64], f32[640, 2, 64], i64[b], i64[b, s]", "paged_attention %a0, %a1, %a2, %a3, %a4", "f32[n, 8, 64]", "tokens and sequences"),
    ("f32[n, 8, 64], f32[630, 2, 64], i64[n], i64[n, s]", "paged_attention %a0, %a1, _, %a2, %a3 {values = 4}", "f32[n, 8, 4]", "no whole pages"),
    ("f32[n, 8, 64], f32[640, 2, 64], i64[n], i64[n, s]", "paged_attention %a0, %a1, _, %a2, %a3 {values = 65}", "f32[n, 8, 65]", "64 features"),
    ("f32[n, 1, 64], i8[16, 24, 64], i64[n, 2]", "expert_matmul %a0, %a1, %a2", "f32[n, 2, 24]", "elements in f32"),
    ("f32[n, 1, 64], i8[16, 24, 64], i64[n, 2], f32[16, 24, 3]", "expert_matmul %a0, %a1, %a2, %a3 {block = 32}", "f32[n, 2, 24]", "[16, 24, 2]"),
    ("f32[n, 1, 64], u4[16, 24, 64], i64[n, 2], f16[16, 24, 2], f32[16, 24, 2]", "expert_matmul %a0, %a1, %a2, %a3, %a4 {block = 32}", "f32[n, 2, 24]", "f16[16, 24, 2]"),
    ("f32[n, 1, 64], f32[16, 24, 64], i64[n, 2], f32[16, 24, 2]", "expert_matmul %a0, %a1, %a2, _, %a3 {block = 32}", "f32[n, 2, 24]", "offsets without scales"),
    ("f32[n, 3, 64], f32[16, 24, 64], i64[n, 2]", "expert_matmul %a0, %a1, %a2", "f32[n, 2, 24]", "rows of a token"),
    ("f32[1, 3, 4, 8], f32[1, 2, 4, 8], f32[1, 2, 4, 8]", "attention %a0, %a1, %a2", "f32[1, 3, 4, 8]", "not a multiple"),
    ("f32[1, 3, 4], f32[2, 2, 3]", "conv %a0, %a1", "f32[1, 2, 2]", "channels"),
    ("f32[1, 2, 4], f32[2, 2, 5]", "conv %a0, %a1", "f32[1, 2, 0]", "larger than the padded"),
    ("f32[1, 2, 4], f32[2, 2, 1]", "conv %a0, %a1 {channels_last = true}", "f32[1, 2, 2]", "channels"),
    ("f32[1, 4, 2]", "max_pool %a0 {channels_last = true, indices = true, kernel = [2]}", "f32[1, 3, 2], i64[1, 3, 2]", "channels first"),
    ("i32[1, 2, 4], i32[2, 2, 3]", "conv_integer %a0, %a1", "i32[1, 2, 2]", "at most 8 bits"),
    ("f32[1, 3, 4], f32[2, 2, 3]", "conv_transpose %a0, %a1", "f32[1, 2, 6]", "channels"),
    ("f32[1, 3, 4]", "max_pool %a0 {kernel = [2, 2]}", "f32[1, 3, 3]", "rank 4"),
    ("f32[1, 3, 4]", "average_pool %a0 {kernel = [0]}", "f32[1, 3, 5]", "positive"),
    ("f32[1, 3, 4]", "lp_pool %a0 {kernel = [2], strides = [0]}", "f32[1, 3, 3]", "positive"),
    ("f32[3]", "reduce %a0 {kind = \"median\", axes = [0]}", "f32[]", "one of"),
    ("f32[2, 3]", "det %a0", "f32[]", "square"),
    ("f32[2, 3, 4], f32[2, 1, 5], i64[], f32[]", "non_max_suppression %a0, %a1, %a2, %a3", "i64[u, 3]", "boxes"),
    ("f32[2, 3, 4, 4], f32[5, 4]", "max_roi_pool %a0, %a1", "f32[5, 3, 1, 1]", "rois [k, 5]"),
    ("f32[2, 3, 4], f32[5, 4], i64[5]", "roi_align %a0, %a1, %a2", "f32[5, 3, 1, 1]", "[n, c, h, w]"),
    ("f32[0]", "argmax %a0", "i64[]", "no elements"),
    ("f32[0]", "argmin %a0", "i64[]", "no elements"),
    ("i64[3]", "softmax %a0", "i64[3]", "floating-point"),
    ("f32[]", "log_softmax %a0", "f32[]", "outside"),
    ("f32[2, 3], f32[2]", "layer_norm %a0, %a1", "f32[2, 3]", "f32[3]"),
    ("f32[2, 3], f64[3]", "rms_norm %a0, %a1", "f32[2, 3]", "f32[3]"),
    ("f32[2, 3], f32[2, 1], f32[2, 1]", "rotary %a0, %a1, %a2", "f32[2, 3]", "rank 3"),
    ("f32[2, 3, 4], f32[2, 3], f32[2, 3]", "rotary %a0, %a1, %a2", "f32[2, 3, 4]", "do not fit"),
    ("f32[2, 3, 4], f32[2, 2], f32[2, 1]", "rotary %a0, %a1, %a2", "f32[2, 3, 4]", "f32[2, 2]"),
    ("f32[2, 3, 4], f32[3, 2], f32[3, 2]", "rotary %a0, %a1, %a2", "f32[2, 3, 4]", "tokens"),
    ("f32[2, 3], f32[3], f32[3]", "group_norm %a0, %a1, %a2 {groups = 2}", "f32[2, 3]", "do not make 2 groups"),
    ("f32[2, 3], f32[2], f32[3]", "instance_norm %a0, %a1, %a2", "f32[2, 3]", "f32[3]"),
    ("f32[3], f32[3], f32[3], f32[3], f32[3]", "batch_norm %a0, %a1, %a2, %a3, %a4", "f32[3]", "rank 2"),
    ("f32[2, 3], f32[2]", "quantize %a0, %a1 {elem = i8}", "i8[2, 3]", "f32[3]"),
    ("i8[2, 3], f32[], u8[]", "dequantize %a0, %a1, %a2", "f32[2, 3]", "elements i8"),
    ("f16[3]", "dynamic_quantize %a0", "u8[3], f32[], u8[]", "f32"),
    ("f32[]", "quantize_rows %a0", "i8[], f32[]", "a last axis"),
    ("f32[2, 64]", "quantize_rows %a0 {block = 32}", "i8[2, 64], f32[2, 2]", "e4m3fn by a positive `block`"),
    ("f32[5, 2, 4], f32[1, 3, 4], f32[1, 2, 3]", "rnn %a0, %a1, %a2", "f32[5, 1, 2, 3], f32[1, 2, 3]", "f32[1, 3, 3]"),
    ("f32[5, 2, 4], f32[1, 9, 4], f32[1, 9, 3]", "gru %a0, %a1, %a2 {activations = [\"Tanh\"]}", "f32[5, 1, 2, 3], f32[1, 2, 3]", "activations"),
    ("f32[5, 2, 4], f32[1, 12, 4], f32[1, 12, 3]", "lstm %a0, %a1, %a2 {direction = \"up\"}", "f32[5, 1, 2, 3], f32[1, 2, 3], f32[1, 2, 3]", "not `up`"),
    ("f32[3]", "resize %a0 {scales = [1.0, 1.0]}", "f32[3]", "needs 1 values"),
    ("f32[1, 1, 3], f32[1, 4, 2]", "grid_sample %a0, %a1", "f32[1, 1, 4]", "last axis of 1"),
    ("bool[], f32[3], i64[3]", "if %a0 do {\n yield %a1\n } do {\n yield %a2\n }", "f32[3]", "different types"),
    ("i64[], f32[3]", "loop %a0, _, %a1 do(%i: i64[], %c: bool[], %x: f32[4]) {\n yield %c, %x\n }", "f32[4]", "does not fit its region"),
    ("f32[3], f32[3]", "scan %a0, %a1 {states = 2} do(%h: f32[3], %x: f32[3]) {\n yield %h, %x\n }", "f32[3], f32[3]", "no input"),
    ("", "seq_empty", "seq<f32[3]>", "`of` is missing"),
    ("f32[3], i64[3]", "seq_construct %a0, %a1", "seq<f32[3]>", "different types"),
    ("f32[3], i64[]", "seq_at %a0, %a1", "f32[3]", "a sequence"),
    ("seq<f32>, i64[]", "seq_at %a0, %a1", "f32[3]", "rank of an element is not known"),
    ("f32[3]", "seq_len %a0", "i64[]", "a sequence"),
    ("seq<f32[3]>, i32[3]", "seq_insert %a0, %a1", "seq<f32[3]>", "different types"),
    ("f32[3]", "seq_erase %a0", "f32[3]", "a sequence"),
    ("seq<f32[3]>", "concat_from_sequence %a0 {axis = 1}", "f32[u]", "outside"),
    ("f32[]", "split_to_sequence %a0", "seq<f32[]>", "outside"),
    ("", "optional", "opt<f32[3]>", "`of` is missing"),
    ("f32[3]", "optional_has %a0", "bool[]", "an optional"),
    ("f32[3]", "optional_get %a0", "f32[3]", "an optional"),
    ("bf16[3]", "to_string %a0", "string[3]", "f16, f32 or f64"),
    ("string[3]", "parse_number %a0 {to = bool}", "bool[3]", "are needed"),
    ("f32[3]", "string_case %a0", "string[3]", "string"),
    ("string[3], string[2]", "string_concat %a0, %a1", "string[3]", "string[3]"),
    ("string[3]", "regex_full_match %a0 {pattern = \"(\"}", "bool[3]", "is not read"),
    ("i8[3]", "decode_image %a0", "u8[u, v, 3]", "u8[n]"),
    ("u8[3]", "decode_image %a0 {layout = \"CMYK\"}", "u8[u, v, 3]", "CMYK"),
    ("string[3]", "string_split %a0 {most = -1}", "string[3, u], i64[3]", "not negative"),
    ("i64[3], i32[2]", "lookup %a0, %a1", "i64[3]", "i64[n]"),
    ("f32[3], f32[2], i64[1, 3]", "ngram_counts %a0, %a1, %a2 {columns = 7}", "f32[7]", "strings of rank"),
];

#[test]
fn types_with_symbols_are_inferred() {
    let bad: Vec<String> = FITS
        .iter()
        .filter_map(|(a, op, r)| verdict(a, op, r).err().map(|e| format!("{op}: {e}")))
        .collect();
    assert!(bad.is_empty(), "{} cases:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn invalid_uses_are_refused_with_a_reason() {
    let mut bad = vec![];
    for (args, op, results, reason) in REFUSED {
        match verdict(args, op, results) {
            Ok(()) => bad.push(format!("{op}: accepted")),
            Err(e) if e.contains(reason) => {}
            Err(e) => bad.push(format!("{op}: `{reason}` is not in {e}")),
        }
    }
    assert!(bad.is_empty(), "{} cases:\n{}", bad.len(), bad.join("\n"));
}

/// Every op of the dialect has a case here, both ways, and a value somewhere.
#[test]
fn every_op_is_tested() {
    let name = |op: &str| op.split(' ').next().unwrap_or("").to_string();
    let values = [include_str!("goldens/graph.txt"), include_str!("graph_run.rs")].concat();
    for def in Context::new().ops().filter(|d| d.dialect() == "graph") {
        let short = &def.name[6..];
        assert!(FITS.iter().any(|c| name(c.1) == short), "{short} has no inference case");
        assert!(REFUSED.iter().any(|c| name(c.1) == short), "{short} has no invalid case");
        let used = [' ', '\n'].iter().any(|c| values.contains(&format!("{}{c}", def.name)));
        assert!(used, "{short} has no value case");
    }
}
