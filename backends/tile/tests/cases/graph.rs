//! Problems of graph ops: one op of a function, with indices that are right and some that are not.

use std::collections::HashMap;

use silure_ir::dialects::tile::KernelArg;
use silure_ir::eval::Interp;
use silure_ir::weight::NoFiles;
use silure_ir::{Context, Datum, Func, Module, OpId, Tensor, ValueId, text};
use silure_tile::{Arg, Kernel, kernels, reporting};

/// A function around one op.
pub struct Case {
    pub name: &'static str,
    /// The op, by its name.
    pub op: &'static str,
    /// Signature, body, `return`.
    pub body: &'static str,
    /// Arguments that are integers: below which number (a size by its name), and what is added.
    pub ints: &'static [(&'static str, &'static str, i64)],
    /// The longest of the reductions (a number, or sizes multiplied); none: the same bits.
    pub sum: &'static str,
    /// Sizes that it is run with.
    pub least: i64,
    pub most: i64,
    /// Cores of the device.
    pub cores: i64,
    /// What floats are multiplied with.
    pub by: f64,
    /// Arguments of which some elements are not finite.
    pub wild: &'static [(&'static str, f64)],
}

pub const EXACT: Case = Case {
    name: "",
    op: "",
    body: "",
    ints: &[],
    sum: "",
    least: 0,
    most: 1 << 20,
    cores: super::CORES,
    by: 1.0,
    wild: &[],
};

/// Elements moved.
pub const MOVES: &[Case] = cases! {
    "transpose" "graph.transpose" "(%x: f32[n, 3, m]) -> (y: f32[m, n, 3]) {
      %y = graph.transpose %x {perm = [2, 0, 1]} : f32[m, n, 3]
      return %y";
    "transpose_bytes" "graph.transpose" "(%x: u8[n, m]) -> (y: u8[m, n]) {
      %y = graph.transpose %x {perm = [1, 0]} : u8[m, n]
      return %y";
    "broadcast" "graph.broadcast" "(%x: f16[m, 1]) -> (y: f16[n, m, 5]) {
      %y = graph.broadcast %x {shape = dims[n, m, 5]} : f16[n, m, 5]
      return %y";
    "broadcast_one" "graph.broadcast" "(%x: i64[]) -> (y: i64[n, m]) {
      %y = graph.broadcast %x {shape = dims[n, m]} : i64[n, m]
      return %y";
    "reshape" "graph.reshape" "(%x: f32[n, m, 2]) -> (y: f32[2*n*m]) {
      %y = graph.reshape %x {shape = dims[2*n*m]} : f32[2*n*m]
      return %y";
    "slice" "graph.slice" "(%x: f32[n + 5, m + 3]) -> (y: f32[n + 2, m + 2]) {
      %y = graph.slice %x {axes = [0, 1], starts = dims[1, -2-m], ends = dims[n + 3, m + 3]} : f32[n + 2, m + 2]
      return %y";
    "slice_back" "graph.slice" "(%x: i32[m, 9]) -> (y: i32[m, 3]) {
      %y = graph.slice %x {axes = [1], starts = dims[100], ends = dims[1], steps = [-3]} : i32[m, 3]
      return %y";
    "concat" "graph.concat" "(%a: f32[n, m, 2], %b: f32[n, 3, 2], %c: f32[n, m, 2]) -> (y: f32[n, 2*m + 3, 2]) {
      %y = graph.concat %a, %b, %c {axis = 1} : f32[n, 2*m + 3, 2]
      return %y";
    "split" "graph.split" "(%x: f32[n, 2*m + 3]) -> (a: f32[n, m], b: f32[n, 3], c: f32[n, m]) {
      %a, %b, %c = graph.split %x {axis = 1, sizes = dims[m, 3, m]} : f32[n, m], f32[n, 3], f32[n, m]
      return %a, %b, %c";
    "pad" "graph.pad" "(%x: f32[n, m], %v: f32[]) -> (y: f32[n + 3, m + 1]) {
      %y = graph.pad %x, %v {pads = dims[1, 2, 2, -1]} : f32[n + 3, m + 1]
      return %y";
    "pad_reflect" "graph.pad" "(%x: f32[n + 4, m + 3]) -> (y: f32[n + 7, m + 5]) {
      %y = graph.pad %x {mode = \"reflect\", pads = dims[2, 2, 1, 0]} : f32[n + 7, m + 5]
      return %y";
    "pad_wrap" "graph.pad" "(%x: f32[n + 4, m + 3]) -> (y: f32[n + 7, m + 5]) {
      %y = graph.pad %x {mode = \"wrap\", pads = dims[2, 2, 1, 0]} : f32[n + 7, m + 5]
      return %y";
    "pad_edge" "graph.pad" "(%x: f32[n + 1, m + 1]) -> (y: f32[n + 4, m + 3]) {
      %y = graph.pad %x {mode = \"edge\", pads = dims[2, 2, 1, 0]} : f32[n + 4, m + 3]
      return %y";
    "gather_rows" "graph.gather" [ints: &[("i", "11", -3)]] "(%x: f32[11, m], %i: i64[n]) -> (y: f32[n, m]) {
      %y = graph.gather %x, %i : f32[n, m]
      return %y";
    "gather_columns" "graph.gather" [ints: &[("i", "7", 0)]] "(%x: bf16[n, 7, 3], %i: i32[m, 2]) -> (y: bf16[n, m, 2, 3]) {
      %y = graph.gather %x, %i {axis = 1} : bf16[n, m, 2, 3]
      return %y";
    "gather_elements" "graph.gather_elements" [ints: &[("i", "9", -9)]] "(%x: f32[n, 9], %i: i64[n, m]) -> (y: f32[n, m]) {
      %y = graph.gather_elements %x, %i {axis = 1} : f32[n, m]
      return %y";
    "one_hot" "graph.one_hot" [ints: &[("i", "12", -6)]] "(%i: i64[n, 3], %v: f32[2]) -> (y: f32[n, m, 3]) {
      %y = graph.one_hot %i, %v {axis = 1, depth = dims[m]} : f32[n, m, 3]
      return %y";
    "dim" "graph.dim" "() -> (y: i64[]) {
      %y = graph.dim {value = dims[3*n - m]} : i64[]
      return %y";
    "size" "graph.size_of" "(%x: f32[n, m, 3]) -> (y: i64[]) {
      %y = graph.size_of %x : i64[]
      return %y";
    "range" "graph.range" "(%a: i64[], %b: i64[]) -> (y: i64[n]) {
      %z = graph.dim {value = dims[0]} : i64[]
      %e = graph.dim {value = dims[n]} : i64[]
      %one = constant {value = dense<i64[]: 1>} : i64[]
      %y = graph.range %z, %e, %one : i64[n]
      return %y";
    "write_rows" "core.state_write" [ints: &[("i", "800", 0)], most: 700] "(%x: f32[n, m], %i: i64[n]) -> (y: f32[800, m]) {
      %s = state {name = @s} : state<f32[800, m]>
      %t = state_write %s, %x, %i : state<f32[800, m]>
      %y = state_read %t : f32[800, m]
      state_store %t {name = @s}
      return %y";
};

/// Rotary positions: sums of two products.
pub const ROTARY: &[Case] = cases! {
    "rotary" "graph.rotary" [sum: "2"] "(%x: f32[n, 3, 11], %c: f32[n, 5], %s: f32[n, 5]) -> (y: f32[n, 3, 11]) {
      %y = graph.rotary %x, %c, %s : f32[n, 3, 11]
      return %y";
    "rotary_interleaved" "graph.rotary" [sum: "2"] "(%x: f16[n, 2, 12], %c: f16[n, 5], %s: f16[n, 5]) -> (y: f16[n, 2, 12]) {
      %y = graph.rotary %x, %c, %s {interleaved = true} : f16[n, 2, 12]
      return %y";
};

/// Lines: sums, positions, orders.
pub const LINES: &[Case] = cases! {
    "reduce_last" "graph.reduce" [sum: "m"] "(%x: f32[n, 2, m]) -> (y: f32[n, 2]) {
      %y = graph.reduce %x {axes = [2], kind = \"sum\"} : f32[n, 2]
      return %y";
    "reduce_first" "graph.reduce" [sum: "n"] "(%x: f16[n, m]) -> (y: f16[1, m]) {
      %y = graph.reduce %x {axes = [0], keep = true, kind = \"sum_square\"} : f16[1, m]
      return %y";
    "reduce_outer_axes" "graph.reduce" [sum: "3*n"] "(%x: f32[n, m, 3]) -> (y: f32[m]) {
      %y = graph.reduce %x {axes = [0, 2], kind = \"l2\"} : f32[m]
      return %y";
    "mean" "graph.reduce" [sum: "2*m"] "(%x: f32[n, 2, m]) -> (y: f32[n]) {
      %y = graph.reduce %x {axes = [1, 2], kind = \"mean\"} : f32[n]
      return %y";
    "max" "graph.reduce" "(%x: f32[n, m]) -> (y: f32[n]) {
      %y = graph.reduce %x {axes = [1], kind = \"max\"} : f32[n]
      return %y";
    "min_of_integers" "graph.reduce" "(%x: i64[n, m]) -> (y: i64[m]) {
      %y = graph.reduce %x {axes = [0], kind = \"min\"} : i64[m]
      return %y";
    "argmax" "graph.argmax" [ints: &[("x", "5", -2)], least: 1] "(%x: i32[n, m, 2]) -> (y: i64[n, 2]) {
      %y = graph.argmax %x {axis = 1} : i64[n, 2]
      return %y";
    "argmin_last" "graph.argmin" [least: 1] "(%x: f32[n, m]) -> (y: i64[n, 1]) {
      %y = graph.argmin %x {axis = 1, keep = true, last = true} : i64[n, 1]
      return %y";
    "softmax_first" "graph.softmax" [sum: "100*n"] "(%x: f32[n, m]) -> (y: f32[n, m]) {
      %y = graph.softmax %x {axis = 0} : f32[n, m]
      return %y";
    "log_softmax" "graph.log_softmax" [sum: "10*m"] "(%x: f16[n, m, 2]) -> (y: f16[n, m, 2]) {
      %y = graph.log_softmax %x {axis = 1} : f16[n, m, 2]
      return %y";
    "top_k" "graph.top_k" [most: 300] "(%x: f32[n, 60]) -> (y: f32[n, 5], i: i64[n, 5]) {
      %y, %i = graph.top_k %x {axis = 1, k = dims[5]} : f32[n, 5], i64[n, 5]
      return %y, %i";
    "least_k" "graph.top_k" [ints: &[("x", "9", -4)], most: 300] "(%x: i32[n, 7, m]) -> (y: i32[n, 4, m], i: i64[n, 4, m]) {
      %y, %i = graph.top_k %x {axis = 1, k = dims[4], largest = false} : i32[n, 4, m], i64[n, 4, m]
      return %y, %i";
};

/// Products with operands as they are stored.
pub const STORED: &[Case] = cases! {
    "turned_weight" "graph.matmul" [sum: "m"] "(%a: f32[n, m], %w: f32[70, m]) -> (y: f32[n, 70]) {
      %b = graph.transpose %w {perm = [1, 0]} : f32[m, 70]
      %y = graph.matmul %a, %b : f32[n, 70]
      return %y";
    "turned_both" "graph.matmul" [sum: "m"] "(%a: f16[2, m, n], %w: f16[2, 9, m]) -> (y: f16[2, n, 9]) {
      %b = graph.transpose %w {perm = [0, 2, 1]} : f16[2, m, 9]
      %c = graph.transpose %a {perm = [0, 2, 1]} : f16[2, n, m]
      %y = graph.matmul %c, %b : f16[2, n, 9]
      return %y";
    "half_weight" "kernel.anchor" [sum: "m", by: 0.0123457] "(%a: f32[n, m], %w: bf16[40, m], %c: f32[40]) -> (y: f32[n, 40]) {
      %v = kernel.map %w {maps = [[0, 1]], shape = dims[40, m]} do(%u: bf16) {
        %f = arith.cast %u {to = f32} : f32
        yield %f
      } : f32[40, m]
      %b = graph.transpose %v {perm = [1, 0]} : f32[m, 40]
      %y = kernel.anchor %a, %b, %c {inputs = 2, maps = [[1]]} do(%p: f32[n, m], %q: f32[m, 40]) {
        %r = graph.matmul %p, %q : f32[n, 40]
        yield %r
      } do(%s: f32, %t: f32) {
        %g = arith.add %s, %t : f32
        yield %g
      } : f32[n, 40]
      return %y";
    "half_weight_rounds" "graph.matmul" [sum: "416", by: 0.0123457] "(%a: f32[n, 416], %w: bf16[72, 416]) -> (y: f32[n, 72]) {
      %v = arith.cast %w {to = f32} : f32[72, 416]
      %b = graph.transpose %v {perm = [1, 0]} : f32[416, 72]
      %y = graph.matmul %a, %b : f32[n, 72]
      return %y";
    "byte_weight" "graph.matmul" [sum: "m"] "(%a: f32[n, m], %w: e4m3fn[40, m]) -> (y: f32[n, 40]) {
      %v = arith.cast %w {to = f32} : f32[40, m]
      %b = graph.transpose %v {perm = [1, 0]} : f32[m, 40]
      %y = graph.matmul %a, %b : f32[n, 40]
      return %y";
};

/// What is divided among programs along its depth: always, by the sizes.
pub const SPLIT: &[Case] = cases! {
    "split" "graph.matmul" [sum: "1100"] "(%a: f32[n, 1100], %b: f32[1100, m]) -> (y: f32[n, m]) {
      %y = graph.matmul %a, %b : f32[n, m]
      return %y";
    "split_epilogue" "kernel.anchor" [sum: "1100"] "(%a: f16[n, 1100], %b: f16[1100, 72], %c: f16[72], %r: f32[n, 72]) -> (y: f32[n, 72]) {
      %y = kernel.anchor %a, %b, %c, %r {inputs = 2, maps = [[1], [0, 1]]} do(%p: f16[n, 1100], %q: f16[1100, 72]) {
        %x = graph.matmul %p, %q : f16[n, 72]
        yield %x
      } do(%s: f16, %t: f16, %u: f32) {
        %g = arith.add %s, %t : f16
        %h = arith.cast %g {to = f32} : f32
        %i = arith.add %h, %u : f32
        yield %i
      } : f32[n, 72]
      return %y";
    "split_row" "graph.matmul" [sum: "2100"] "(%a: bf16[1, 2100], %w: bf16[72, 2100]) -> (y: bf16[1, 72]) {
      %b = graph.transpose %w {perm = [1, 0]} : bf16[2100, 72]
      %y = graph.matmul %a, %b : bf16[1, 72]
      return %y";
    "split_batched" "graph.matmul" [sum: "1040", most: 130] "(%a: f16[2, 3, 1040], %b: f16[2, 1040, m]) -> (y: f16[2, 3, m]) {
      %y = graph.matmul %a, %b : f16[2, 3, m]
      return %y";
    "split_or_not" "graph.matmul" [sum: "1030"] "(%a: f16[n, 1030], %b: f16[1030, 700]) -> (y: f16[n, 700]) {
      %y = graph.matmul %a, %b : f16[n, 700]
      return %y";
    "split_depth" "graph.matmul" [sum: "3*m"] "(%a: f32[3, 3*m], %b: f32[3*m, 5]) -> (y: f32[3, 5]) {
      %y = graph.matmul %a, %b : f32[3, 5]
      return %y";
    "split_keys" "graph.attention" [sum: "20*700", most: 130] "(%q: f32[1, 2, n, 12], %k: f32[1, 1, 700, 12], %v: f32[1, 1, 700, 5]) -> (y: f32[1, 2, n, 5]) {
      %y = graph.attention %q, %k, %v {causal = true, offset = dims[700 - n], scale = 0.001} : f32[1, 2, n, 5]
      return %y";
    "split_keys_masked" "graph.attention" [ints: &[("mask", "2", 0)], sum: "20*700", most: 130] "(%q: f16[1, n, 3, 16], %k: f16[1, 700, 3, 16], %v: f16[1, 700, 3, 16], %mask: bool[1, 1, 1, 700]) -> (y: f16[1, n, 3, 16]) {
      %y = graph.attention %q, %k, %v, %mask {tokens_first = true, zero_nan = true, softcap = 3.0, scale = 0.002} : f16[1, n, 3, 16]
      return %y";
    "split_keys_or_not" "graph.attention" [sum: "20*m"] "(%q: f32[1, 2, 1, 12], %k: f32[1, 2, 3*m, 12], %v: f32[1, 2, 3*m, 12]) -> (y: f32[1, 2, 1, 12]) {
      %y = graph.attention %q, %k, %v {scale = 0.001} : f32[1, 2, 1, 12]
      return %y";
    "split_pages" "graph.paged_attention" [ints: &[("lengths", "240", 400), ("pages", "80", 0)], sum: "20000", most: 130] "(%q: f32[n, 4, 12], %k: f32[640, 2, 12], %v: f32[640, 2, 6], %lengths: i64[n], %pages: i64[n, 80]) -> (y: f32[n, 4, 6]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages {page = 8, scale = 0.001} : f32[n, 4, 6]
      return %y";
    "split_pages_window" "graph.paged_attention" [ints: &[("lengths", "500", 700), ("pages", "80", 0)], sum: "20000", most: 130] "(%q: f16[n, 3, 16], %k: f16[1280, 1, 16], %v: f16[1280, 1, 16], %lengths: i32[n], %pages: i32[n, 80]) -> (y: f16[n, 3, 16]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages {page = 16, softcap = 2.0, window = 211} : f16[n, 3, 16]
      return %y";
    "split_pages_latent" "graph.paged_attention" [ints: &[("lengths", "240", 400), ("pages", "80", 0)], sum: "20000", most: 130] "(%q: bf16[n, 4, 20], %k: bf16[640, 1, 20], %lengths: i64[n], %pages: i64[n, 80]) -> (y: bf16[n, 4, 16]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 8, scale = 0.001, values = 16} : bf16[n, 4, 16]
      return %y";
    "split_pages_units" "graph.paged_attention" [ints: &[("ends", "ends", 0), ("lengths", "lengths", 0), ("pages", "9", 0)], sum: "2000", most: 130] "(%q: bf16[n, 4, 64], %k: bf16[144, 2, 64], %v: bf16[144, 2, 24], %lengths: i64[3], %pages: i64[3, 80], %ends: i64[3]) -> (y: bf16[n, 4, 24]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages, %ends {page = 16, scale = 0.001} : bf16[n, 4, 24]
      return %y";
};

/// Convolutions and pools.
pub const WINDOWS: &[Case] = cases! {
    "conv" "graph.conv" [sum: "27", least: 1, most: 130] "(%x: f32[2, 3, n, m], %w: f32[20, 3, 3, 3], %b: f32[20]) -> (y: f32[2, 20, n, m]) {
      %y = graph.conv %x, %w, %b {pads = dims[1, 1, 1, 1]} : f32[2, 20, n, m]
      return %y";
    "conv_last_epilogue" "kernel.anchor" [sum: "24", least: 1, most: 130] "(%x: f16[1, n + 3, m + 4, 4], %w: f16[6, 2, 3, 2], %b: f16[1, m + 2, 6]) -> (y: f32[1, floordiv(n, 2) + 1, m + 2, 6]) {
      %y = kernel.anchor %x, %w, %b {inputs = 2, maps = [[-1, 2, 3]]} do(%p: f16[1, n + 3, m + 4, 4], %q: f16[6, 2, 3, 2]) {
        %r = graph.conv %p, %q {channels_last = true, dilations = [1, 2], groups = 2, strides = [2, 1]} : f16[1, floordiv(n, 2) + 1, m + 2, 6]
        yield %r
      } do(%s: f16, %t: f16) {
        %g = arith.add %s, %t : f16
        %h = arith.cast %g {to = f32} : f32
        yield %h
      } : f32[1, floordiv(n, 2) + 1, m + 2, 6]
      return %y";
    "conv_depthwise" "graph.conv" [sum: "3", least: 1] "(%x: f32[n, 5, m], %w: f32[5, 1, 3]) -> (y: f32[n, 5, m]) {
      %y = graph.conv %x, %w {groups = 5, pads = dims[2, 0]} : f32[n, 5, m]
      return %y";
    "max_pool" "graph.max_pool" [least: 1, most: 130] "(%x: f32[n, 2, m + 2, 7]) -> (y: f32[n, 2, floordiv(m + 2, 2) + 1, 3]) {
      %y = graph.max_pool %x {kernel = [3, 2], pads = dims[1, 0, 1, 0], strides = [2, 3], ceil = true} : f32[n, 2, floordiv(m + 2, 2) + 1, 3]
      return %y";
    "average_pool" "graph.average_pool" [sum: "6", least: 1, most: 130] "(%x: f16[n, m + 2, 5]) -> (y: f16[n, m + 2, 5]) {
      %y = graph.average_pool %x {channels_last = true, count_include_pad = true, kernel = [3], pads = dims[1, 1]} : f16[n, m + 2, 5]
      return %y";
};

/// Weights in few bits, and those of experts.
pub const BLOCKS: &[Case] = cases! {
    "blocks_of_bytes" "graph.matmul_blocks" [sum: "40"] "(%a: f32[n, 40], %q: i8[m, 40], %s: f32[m, 3]) -> (y: f32[n, m]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 16} : f32[n, m]
      return %y";
    "blocks_of_nibbles" "kernel.anchor" [sum: "50"] "(%a: f16[n, 2, 50], %q: u4[m, 50], %s: f32[m, 2], %z: u4[m, 2], %r: f16[n, 2, m]) -> (y: f16[n, 2, m]) {
      %y = kernel.anchor %a, %q, %s, %z, %r {inputs = 4, maps = [[0, 1, 2]]} do(%b: f16[n, 2, 50], %c: u4[m, 50], %d: f32[m, 2], %e: u4[m, 2]) {
        %p = graph.matmul_blocks %b, %c, %d, %e {block = 32} : f16[n, 2, m]
        yield %p
      } do(%s1: f16, %t: f16) {
        %g = arith.add %s1, %t : f16
        yield %g
      } : f16[n, 2, m]
      return %y";
    "blocks_exact" "graph.matmul_blocks" [sum: "m", by: 0.0123457] "(%a: f32[n, m], %q: i8[72, m], %s: f16[72, ceildiv(m, 32)]) -> (y: f32[n, 72]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 32} : f32[n, 72]
      return %y";
    "experts_exact" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "m", by: 0.0123457] "(%x: f32[n, 1, m], %w: e4m3fn[3, 40, m], %i: i64[n, 2], %s: f32[3, 40, ceildiv(m, 128)]) -> (y: f32[n, 2, 40]) {
      %y = graph.expert_matmul %x, %w, %i, %s {block = 128} : f32[n, 2, 40]
      return %y";
    "blocks_of_floats" "graph.matmul_blocks" [sum: "m"] "(%a: f32[n, m], %q: e4m3fn[9, m], %s: f32[9, ceildiv(m, 128)]) -> (y: f32[n, 9]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 128} : f32[n, 9]
      return %y";
    "blocks_split" "kernel.anchor" [sum: "1100"] "(%a: f32[n, 1100], %q: u4[40, 1100], %s: f16[40, 35], %o: f16[40, 35], %r: f32[40]) -> (y: f32[n, 40]) {
      %y = kernel.anchor %a, %q, %s, %o, %r {inputs = 4, maps = [[1]]} do(%b: f32[n, 1100], %c: u4[40, 1100], %d: f16[40, 35], %e: f16[40, 35]) {
        %p = graph.matmul_blocks %b, %c, %d, _, %e {block = 32} : f32[n, 40]
        yield %p
      } do(%t: f32, %u: f32) {
        %g = arith.add %t, %u : f32
        yield %g
      } : f32[n, 40]
      return %y";
    "gather_blocks" "graph.gather_blocks" [ints: &[("i", "11", -3)], sum: "4"] "(%q: i4[11, m], %s: f32[11, ceildiv(m, 32)], %i: i64[n], %o: f32[11, ceildiv(m, 32)]) -> (y: f32[n, m]) {
      %y = graph.gather_blocks %q, %s, %i, _, %o {block = 32} : f32[n, m]
      return %y";
    "experts" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "m"] "(%x: f32[n, 1, m], %w: f32[3, 7, m], %i: i64[n, 2]) -> (y: f32[n, 2, 7]) {
      %y = graph.expert_matmul %x, %w, %i : f32[n, 2, 7]
      return %y";
    "experts_few" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "m"] "(%x: f32[2, 1, m], %w: f32[3, 7, m], %i: i64[2, 2]) -> (y: f32[2, 2, 7]) {
      %y = graph.expert_matmul %x, %w, %i : f32[2, 2, 7]
      return %y";
    "experts_scaled" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "20", most: 130] "(%x: f32[n, 2, 20], %w: e4m3fn[3, m, 20], %i: i32[n, 2], %s: f32[3, m, 3]) -> (y: f32[n, 2, m]) {
      %y = graph.expert_matmul %x, %w, %i, %s {block = 8} : f32[n, 2, m]
      return %y";
    "experts_offset" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "20", most: 130] "(%x: f32[n, 2, 20], %w: u4[3, m, 20], %i: i32[n, 2], %s: f32[3, m, 3], %o: f32[3, m, 3]) -> (y: f32[n, 2, m]) {
      %y = graph.expert_matmul %x, %w, %i, %s, %o {block = 8} : f32[n, 2, m]
      return %y";
};

/// Sizes of models, which have the largest tiles: what is made of them is assembled and not run.
pub const LARGE: &[Case] = cases! {
    "large_half_weight" "graph.matmul" "(%a: f32[512, 4096], %w: bf16[14336, 4096]) -> (y: f32[512, 14336]) {
      %v = arith.cast %w {to = f32} : f32[14336, 4096]
      %b = graph.transpose %v {perm = [1, 0]} : f32[4096, 14336]
      %y = graph.matmul %a, %b : f32[512, 14336]
      return %y";
    "large_blocks" "graph.matmul_blocks" "(%a: f32[512, 7168], %q: e4m3fn[18432, 7168], %s: f32[18432, 56]) -> (y: f32[512, 18432]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 128} : f32[512, 18432]
      return %y";
    "large_codes" "graph.matmul_blocks" "(%a: e4m3fn[512, 7168], %c: f32[512, 56], %q: e4m3fn[18432, 7168], %s: f32[18432, 56]) -> (y: f32[512, 18432]) {
      %x = graph.dequantize %a, %c {axis = 1, block = 128} : f32[512, 7168]
      %y = graph.matmul_blocks %x, %q, %s {block = 128} : f32[512, 18432]
      return %y";
    "large_experts" "graph.expert_matmul" "(%x: f32[512, 1, 7168], %w: e4m3fn[256, 4096, 7168], %i: i64[512, 8], %s: f32[256, 4096, 56]) -> (y: f32[512, 8, 4096]) {
      %y = graph.expert_matmul %x, %w, %i, %s {block = 128} : f32[512, 8, 4096]
      return %y";
    "large_experts_codes" "graph.expert_matmul" "(%a: e4m3fn[512, 1, 7168], %c: f32[512, 1, 56], %w: e4m3fn[256, 4096, 7168], %i: i64[512, 8], %s: f32[256, 4096, 56]) -> (y: f32[512, 8, 4096]) {
      %x = graph.dequantize %a, %c {axis = 2, block = 128} : f32[512, 1, 7168]
      %y = graph.expert_matmul %x, %w, %i, %s {block = 128} : f32[512, 8, 4096]
      return %y";
    "large_lstm" "graph.lstm" "(%x: f32[100, 4, 512], %w: f32[2, 2048, 512], %r: f32[2, 2048, 512], %b: f32[2, 4096]) -> (y: f32[100, 2, 4, 512], h: f32[2, 4, 512], c: f32[2, 4, 512]) {
      %y, %h, %c = graph.lstm %x, %w, %r, %b {direction = \"bidirectional\"} : f32[100, 2, 4, 512], f32[2, 4, 512], f32[2, 4, 512]
      return %y, %h, %c";
};

/// Codes of 8 bits with scales by blocks on both sides.
pub const CODES: &[Case] = cases! {
    "codes" "graph.matmul_blocks" [sum: "m"] "(%a: e4m3fn[n, m], %c: f32[n, ceildiv(m, 128)], %q: e4m3fn[72, m], %s: f32[72, ceildiv(m, 128)]) -> (y: f32[n, 72]) {
      %x = graph.dequantize %a, %c {axis = 1, block = 128} : f32[n, m]
      %y = graph.matmul_blocks %x, %q, %s {block = 128} : f32[n, 72]
      return %y";
    "codes_epilogue" "kernel.anchor" [sum: "200", most: 130] "(%a: e4m3fn[n, 2, 200], %c: f32[n, 2, 4], %q: e4m3fn[m, 200], %s: f32[m, 4], %r: f32[n, 2, m]) -> (y: f32[n, 2, m]) {
      %x = graph.dequantize %a, %c {axis = 2, block = 64} : f32[n, 2, 200]
      %y = kernel.anchor %x, %q, %s, %r {inputs = 3, maps = [[0, 1, 2]]} do(%b: f32[n, 2, 200], %d: e4m3fn[m, 200], %e: f32[m, 4]) {
        %p = graph.matmul_blocks %b, %d, %e {block = 64} : f32[n, 2, m]
        yield %p
      } do(%t: f32, %u: f32) {
        %g = arith.mul %t, %u : f32
        yield %g
      } : f32[n, 2, m]
      return %y";
    "codes_split" "graph.matmul_blocks" [sum: "1100"] "(%a: e4m3fn[n, 1100], %c: f32[n, 9], %q: e4m3fn[40, 1100], %s: f32[40, 9]) -> (y: f32[n, 40]) {
      %x = graph.dequantize %a, %c {axis = 1, block = 128} : f32[n, 1100]
      %y = graph.matmul_blocks %x, %q, %s {block = 128} : f32[n, 40]
      return %y";
    "experts_codes" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "m"] "(%a: e4m3fn[n, 1, m], %c: f32[n, 1, ceildiv(m, 128)], %w: e4m3fn[3, 40, m], %i: i64[n, 2], %s: f32[3, 40, ceildiv(m, 128)]) -> (y: f32[n, 2, 40]) {
      %x = graph.dequantize %a, %c {axis = 2, block = 128} : f32[n, 1, m]
      %y = graph.expert_matmul %x, %w, %i, %s {block = 128} : f32[n, 2, 40]
      return %y";
    "experts_codes_each" "graph.expert_matmul" [ints: &[("i", "5", 0)], sum: "100", most: 130] "(%a: e4m3fn[n, 3, 100], %c: f32[n, 3, 2], %w: e4m3fn[5, m, 100], %i: i32[n, 3], %s: f32[5, m, 2]) -> (y: f32[n, 3, m]) {
      %x = graph.dequantize %a, %c {axis = 2, block = 64} : f32[n, 3, 100]
      %y = graph.expert_matmul %x, %w, %i, %s {block = 64} : f32[n, 3, m]
      return %y";
};

/// What is wrong on purpose: case, argument, what its last element becomes, the report.
pub const WRONG: &[(&str, &str, i64, u32)] = &[
    ("gather_rows", "i", 11, 1),
    ("gather_rows", "i", -12, 1),
    ("gather_columns", "i", 1 << 30, 1),
    ("gather_elements", "i", 9, 1),
    ("write_rows", "i", -1, 2),
    ("write_rows", "i", 800, 2),
    ("paged", "ends", 1000, 4),
    ("paged", "lengths", 700, 4),
    ("units_pages", "ends", 1000, 4),
    ("units_pages", "lengths", 1300, 4),
    ("paged_latent", "lengths", 0, 4),
    ("paged_latent", "lengths", 1 << 40, 4),
    ("gather_blocks", "i", i64::MIN, 1),
    ("experts", "i", 3, 5),
    ("experts", "i", -1, 5),
    ("gather_nd", "i", 7, 1),
    ("scatter_elements", "i", 9, 1),
    ("scatter_elements", "i", -10, 1),
    ("scatter_nd", "i", 4, 1),
    ("scatter_nd_mul", "i", -12, 1),
    ("reverse_sequence", "l", 6, 4),
    ("reverse_sequence", "l", -1, 4),
];

/// The kernels of such a case on what is wrong, by a target.
pub fn reported(mut launch: impl FnMut(&Kernel, &mut [KernelArg]) -> Result<(), String>) {
    for &(name, arg, value, code) in WRONG {
        let case = all().find(|c| c.name == name).unwrap();
        let made = made(case);
        let mut memory = made.memory((5, 7), 0);
        memory.spoil(&made, arg, value);
        let ran = memory.run(&made, |_, k, args| launch(k, args));
        ran.unwrap_or_else(|e| panic!("{name}, {arg} {value}: {e}"));
        assert_eq!(memory.status, code, "{name}, {arg} {value}");
        assert!(silure_tile::status(code).is_some());
    }
    // One page of the last sequence.
    for name in ["paged_latent", "units_pages"] {
        let case = all().find(|c| c.name == name).unwrap();
        let made = made(case);
        for (value, code) in [(8, 0), (9, 3), (-1, 3)] {
            let mut memory = made.memory((5, 7), 0);
            memory.fill(&made, "pages", value);
            let ran = memory.run(&made, |_, k, args| launch(k, args));
            ran.unwrap_or_else(|e| panic!("{name}, page {value}: {e}"));
            assert_eq!(memory.status, code, "{name}, page {value}");
        }
    }
}

/// A case with its module, and the kernels of its op.
pub struct Made {
    pub case: &'static Case,
    pub module: Module,
    pub op: OpId,
    pub kernels: Vec<Kernel>,
}

pub fn made(case: &'static Case) -> Made {
    let state = case.body.find("state<").map(|i| {
        let s = &case.body[i + 6..];
        format!("  state @s : {}\n", s[..s.find('>').unwrap()].replace(", m]", ", 3]"))
    });
    let body = match state {
        // States have no sizes that vary.
        Some(_) => case.body.replace("m]", "3]"),
        None => case.body.to_string(),
    };
    let head = state.unwrap_or_default();
    // Every function knows both sizes.
    let body = body.replacen('(', "(%sizes: u8[n, m], ", 1).replacen(", )", ")", 1);
    let source =
        format!("module @t {{\n{head} entry @{}<n: 0.., m: 0..>{body}\n }}\n}}", case.name);
    let module = text::parse_verified(&Context::new(), case.name, &source).unwrap_or_else(|e| {
        panic!("{source}\n{}", e.iter().map(|e| format!("{e}\n")).collect::<String>())
    });
    let f = &module.funcs[0];
    let op = f.walk().into_iter().find(|op| f.op(*op).def.name == case.op).unwrap();
    let plain = kernels(f, op, "k", case.cores).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert!(plain.iter().all(|k| !k.args.contains(&Arg::Status)));
    let kernels =
        reporting(f, op, "k", case.cores).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(plain.len(), kernels.len());
    for k in &kernels {
        let mut own = Module::new("t");
        own.funcs.push(k.func.clone());
        let printed = text::print(&own);
        text::parse_verified(&Context::new(), "k", &printed).unwrap_or_else(|e| {
            panic!("{printed}\n{}", e.iter().map(|e| format!("{e}\n")).collect::<String>())
        });
    }
    Made { case, module, op, kernels }
}

/// Sizes and memory of one run.
pub struct Memory {
    /// What each buffer holds; results are not there before they are written.
    bytes: HashMap<ValueId, Vec<u8>>,
    want: Vec<(ValueId, Tensor)>,
    /// What lies between the kernels, once it is written.
    between: HashMap<usize, Vec<u8>>,
    /// What the kernels reported.
    pub status: u32,
    sizes: (i64, i64),
}

impl Made {
    fn func(&self) -> &Func {
        &self.module.funcs[0]
    }

    fn value(&self, a: &Arg) -> ValueId {
        let o = self.func().op(self.op);
        match a {
            Arg::Operand(i) => o.operand(*i).unwrap(),
            Arg::Result(i) => o.results[*i],
            Arg::Value(v) => *v,
            Arg::Size(_) | Arg::Status | Arg::Workspace(..) => panic!("{a:?} is no value"),
        }
    }

    pub fn memory(&self, (n, m): (i64, i64), seed: usize) -> Memory {
        let f = self.func();
        let size = |s: &str| Some(if s == "n" { n } else { m });
        let mut tensors = HashMap::new();
        let mut inputs = vec![];
        for (v, name) in f.args().iter().zip(&f.arg_names) {
            let t = f.ty(*v).as_tensor().unwrap();
            let mut x = super::filled(t, &size, seed);
            if t.elem.is_float() && self.case.by != 1.0 {
                let small: Vec<f64> = x.to_f64s().iter().map(|v| v * self.case.by).collect();
                x = Tensor::from_f64s(t.elem, x.shape(), &small).unwrap();
            }
            for (_, value) in self.case.wild.iter().filter(|i| i.0 == &**name) {
                let mut all = x.to_f64s();
                all.iter_mut().skip(seed).step_by(97).for_each(|v| *v = *value);
                x = Tensor::from_f64s(t.elem, x.shape(), &all).unwrap();
            }
            if let Some((_, below, first)) = self.case.ints.iter().find(|i| i.0 == &**name) {
                let ends = [n / 3, n / 3 + n / 2, n];
                if *below == "ends" || *below == "lengths" {
                    // Each sequence has its tokens and some before them.
                    let length = |i: usize| {
                        ends[i] - if i > 0 { ends[i - 1] } else { 0 } + 7 * i as i64 + seed as i64
                    };
                    let all = (0..3).map(|i| if *below == "ends" { ends[i] } else { length(i) });
                    let all: Vec<f64> = all.map(|v| v as f64).collect();
                    x = Tensor::from_f64s(t.elem, &[3], &all).unwrap();
                    tensors.insert(*v, x.clone());
                    inputs.push(Datum::from(x));
                    continue;
                }
                let below = below.parse().unwrap_or_else(|_| size(below).unwrap()).max(1);
                // Steps that have no factor in common with the modulus: positions to write to differ.
                let value = |i: usize| ((i as i64 * 7 + seed as i64 * 31) % below + first) as f64;
                let all: Vec<f64> = (0..x.len()).map(value).collect();
                x = Tensor::from_f64s(t.elem, x.shape(), &all).unwrap();
            }
            tensors.insert(*v, x.clone());
            inputs.push(Datum::from(x));
        }
        let out = Interp::new(&self.module, &NoFiles, Default::default()).run(&f.name, inputs);
        let out = out.unwrap_or_else(|e| panic!("{} of {n}, {m}: {e}", self.case.name));
        let mut want = vec![];
        let mut bytes = HashMap::new();
        let o = f.op(self.op);
        for (i, d) in out.iter().enumerate() {
            let t = (**d.tensor().unwrap()).clone();
            match self.case.op {
                "core.state_write" => {
                    let s = o.operand(0).unwrap();
                    bytes.insert(s, vec![0; t.bytes().len()]);
                    want.push((s, t));
                }
                _ => want.push((o.results[i], t)),
            }
        }
        for o in f.walk().into_iter().map(|op| f.op(op)) {
            let t = match (o.attrs.tensor("value"), o.attrs.dims("value")) {
                (Some(t), _) => (**t).clone(),
                (_, [d]) => {
                    let n = d.eval(&size).unwrap() as i128;
                    Tensor::scalar(silure_ir::Elem::I64, silure_ir::Num::I(n))
                }
                _ => continue,
            };
            // The op itself is not done yet.
            if o.def.name != self.case.op {
                bytes.insert(o.result(), t.bytes().to_vec());
            }
        }
        for (v, t) in &tensors {
            bytes.insert(*v, t.bytes().to_vec());
        }
        Memory { bytes, want, between: HashMap::new(), status: 0, sizes: (n, m) }
    }
}

impl Memory {
    /// Whether any result has elements.
    pub fn empty(&self) -> bool {
        self.want.iter().all(|w| w.1.is_empty())
    }

    pub fn small(&self) -> bool {
        self.want.iter().all(|w| w.1.len() < 400)
    }

    /// Runs the kernels, each on what those before it wrote.
    pub fn run(
        &mut self,
        made: &Made,
        mut launch: impl FnMut(usize, &Kernel, &mut [KernelArg]) -> Result<(), String>,
    ) -> Result<(), String> {
        let (n, m) = self.sizes;
        let size = |s: &str| Some(if s == "n" { n } else { m });
        for (i, k) in made.kernels.iter().enumerate() {
            let mut args: Vec<KernelArg> = k
                .args
                .iter()
                .map(|a| match a {
                    Arg::Size(d) => KernelArg::Index(d.eval(&size).unwrap()),
                    Arg::Status => KernelArg::Buffer(self.status.to_le_bytes().to_vec()),
                    Arg::Workspace(i, t) => match self.between.get(i) {
                        Some(b) => KernelArg::Buffer(b.clone()),
                        None => {
                            let n: i64 = t.dims.iter().map(|d| d.eval(&size).unwrap()).product();
                            KernelArg::Output(vec![0; n as usize * t.elem.bits() / 8])
                        }
                    },
                    a => {
                        let v = made.value(a);
                        let len =
                            self.want.iter().find(|w| w.0 == v).map_or(0, |w| w.1.bytes().len());
                        match self.bytes.get(&v) {
                            Some(b) => KernelArg::Buffer(b.clone()),
                            None => KernelArg::Output(vec![0; len]),
                        }
                    }
                })
                .collect();
            let programs = k.grid.eval(&size).unwrap();
            let own: HashMap<&str, i64> = k
                .func
                .arg_names
                .iter()
                .zip(&args)
                .filter_map(|(name, a)| match a {
                    KernelArg::Index(v) => Some((&**name, *v)),
                    _ => None,
                })
                .collect();
            let grid = silure_ir::dialects::tile::grid_of(&k.func).unwrap();
            let counted = grid[0].eval(&|s| own.get(s).copied()).unwrap();
            assert_eq!(counted, programs, "{}: programs of a launch", made.case.name);
            if programs > 0 {
                launch(i, k, &mut args)?;
            }
            for (a, b) in k.args.iter().zip(args) {
                if *a == Arg::Status {
                    self.status = u32::from_le_bytes(b.bytes().try_into().unwrap());
                    continue;
                }
                if let Arg::Workspace(i, _) = a {
                    if programs > 0 {
                        self.between.insert(*i, b.bytes().to_vec());
                    }
                    continue;
                }
                let written = matches!(a, Arg::Result(_))
                    || *a == Arg::Operand(0) && made.case.op == "core.state_write";
                if written && programs > 0 {
                    self.bytes.insert(made.value(a), b.bytes().to_vec());
                }
            }
        }
        Ok(())
    }

    fn argument(&mut self, made: &Made, name: &str) -> (silure_ir::Elem, &mut Vec<u8>) {
        let f = made.func();
        let i = f.arg_names.iter().position(|n| **n == *name).unwrap();
        let elem = f.ty(f.args()[i]).elem().unwrap();
        (elem, self.bytes.get_mut(&f.args()[i]).unwrap())
    }

    /// Another last element of an argument.
    pub fn spoil(&mut self, made: &Made, name: &str, value: i64) {
        let (e, b) = self.argument(made, name);
        let last = b.len() / e.bytes().unwrap() - 1;
        e.store(b, last, silure_ir::Num::I(value as i128).encode(e));
    }

    /// Every element of an argument.
    pub fn fill(&mut self, made: &Made, name: &str, value: i64) {
        let (e, b) = self.argument(made, name);
        for i in 0..b.len() / e.bytes().unwrap() {
            e.store(b, i, silure_ir::Num::I(value as i128).encode(e));
        }
    }

    pub fn check(&self, made: &Made) -> Result<(), String> {
        if let Some(e) = silure_tile::status(self.status) {
            return Err(e.into());
        }
        let (n, m) = self.sizes;
        let sum: i64 = match made.case.sum {
            "" => 0,
            s => s
                .split('*')
                .map(|p| match p {
                    "n" => n,
                    "m" => m,
                    p => p.parse().unwrap(),
                })
                .product(),
        };
        for (v, want) in &self.want {
            let e = want.elem();
            // Sums are of f32; what is rounded to halves is rounded a few times.
            let rounded = match (e.name(), sum) {
                (_, 0) => 0.0,
                ("f16", _) => 2f64.powi(-10),
                ("bf16", _) => 2f64.powi(-7),
                _ => 0.0,
            };
            let allowed = 4.0 * ((sum as f64).sqrt() * 2f64.powi(-23) + rounded);
            let most =
                want.to_f64s().iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
            let none = vec![];
            let got = self.bytes.get(v).unwrap_or(&none);
            for j in 0..want.len() {
                let (y, w) =
                    (e.decode(e.load(got, j).ok_or("nothing was written")?), want.get(j).f());
                let fine = (y - w).abs() <= allowed * most;
                if !(fine || y == w || y.is_nan() && w.is_nan()) {
                    return Err(format!("element {j} of {} is {y}, {w} is wanted", want.len()));
                }
            }
        }
        Ok(())
    }

    /// Only for sizes that the case takes.
    pub fn fits(case: &Case, (n, m): (i64, i64)) -> bool {
        n.max(m) <= case.most && n.min(m) >= case.least
    }
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    MOVES
        .iter()
        .chain(ROTARY)
        .chain(LINES)
        .chain(STORED)
        .chain(SPLIT)
        .chain(WINDOWS)
        .chain(BLOCKS)
        .chain(CODES)
        .chain(super::attention::all())
        .chain(super::sample::SAMPLE)
        .chain(super::units::all())
        .chain(super::rare::all())
}
