//! Problems of ops that few models have: elements put somewhere, running sums, resampling, integers.

use super::graph::Case;

/// Out of little, repeated, turned.
pub const MADE: &[Case] = cases! {
    "full" "graph.full" "() -> (y: f16[n, m, 3]) {
      %y = graph.full  {shape = dims[n, m, 3], value = dense<f16[]: 1.5>} : f16[n, m, 3]
      return %y";
    "tile" "graph.tile" "(%x: f32[n, 1, m]) -> (y: f32[2*n, 5, 3*m]) {
      %y = graph.tile %x {repeats = dims[2, 5, 3]} : f32[2*n, 5, 3*m]
      return %y";
    "triu" "graph.trilu" "(%x: f32[n, m, 7]) -> (y: f32[n, m, 7]) {
      %y = graph.trilu %x {k = -1} : f32[n, m, 7]
      return %y";
    "tril" "graph.trilu" [ints: &[("k", "5", -2)]] "(%x: i64[2, n, m], %k: i64[]) -> (y: i64[2, n, m]) {
      %y = graph.trilu %x, %k {upper = false} : i64[2, n, m]
      return %y";
    "eye_like" "graph.eye_like" "(%x: u8[n, m]) -> (y: f32[n, m]) {
      %y = graph.eye_like %x {elem = f32, k = 2} : f32[n, m]
      return %y";
    "reverse_sequence" "graph.reverse_sequence" [ints: &[("l", "n", 1)], least: 1] "(%x: f32[n, m, 3], %l: i64[m]) -> (y: f32[n, m, 3]) {
      %y = graph.reverse_sequence %x, %l : f32[n, m, 3]
      return %y";
    "softmax_of_214" "graph.softmax" [sum: "214"] "(%x: f32[n, 214]) -> (y: f32[n, 214]) {
      %y = graph.softmax %x : f32[n, 214]
      return %y";
    "turned_rows_of_6" "graph.transpose" "(%x: f32[6, n, m]) -> (y: f32[n, m, 6]) {
      %y = graph.transpose %x {perm = [1, 2, 0]} : f32[n, m, 6]
      return %y";
};

/// Elements taken and put at places.
pub const PLACED: &[Case] = cases! {
    "gather_nd" "graph.gather_nd" [ints: &[("i", "5", -5)]] "(%x: f32[5, 7, m], %i: i64[n, 2]) -> (y: f32[n, m]) {
      %y = graph.gather_nd %x, %i : f32[n, m]
      return %y";
    "gather_nd_batches" "graph.gather_nd" [ints: &[("i", "9", 0)]] "(%x: i32[3, 9, m], %i: i32[3, n, 1]) -> (y: i32[3, n, m]) {
      %y = graph.gather_nd %x, %i {batch = 1} : i32[3, n, m]
      return %y";
    "scatter_elements" "graph.scatter_elements" [ints: &[("i", "9", -4)], most: 130] "(%x: f32[n, 9], %i: i64[n, m], %u: f32[n, m]) -> (y: f32[n, 9]) {
      %y = graph.scatter_elements %x, %i, %u {axis = 1} : f32[n, 9]
      return %y";
    "scatter_elements_add" "graph.scatter_elements" [ints: &[("i", "7", 0)], sum: "m", most: 130] "(%x: f16[7, n + 2], %i: i32[m, n], %u: f16[m, n]) -> (y: f16[7, n + 2]) {
      %y = graph.scatter_elements %x, %i, %u {axis = 0, reduction = \"add\"} : f16[7, n + 2]
      return %y";
    "scatter_elements_min" "graph.scatter_elements" [ints: &[("i", "9", 0)], most: 130] "(%x: i64[n, 9, 2], %i: i64[n, m, 2], %u: i64[n, m, 2]) -> (y: i64[n, 9, 2]) {
      %y = graph.scatter_elements %x, %i, %u {axis = 1, reduction = \"min\"} : i64[n, 9, 2]
      return %y";
    "scatter_nd" "graph.scatter_nd" [ints: &[("i", "4", -4)], most: 130] "(%x: f32[5, 4, m], %i: i64[n, 2], %u: f32[n, m]) -> (y: f32[5, 4, m]) {
      %y = graph.scatter_nd %x, %i, %u : f32[5, 4, m]
      return %y";
    "scatter_nd_mul" "graph.scatter_nd" [ints: &[("i", "11", 0)], most: 130] "(%x: i32[11, m], %i: i64[2, n, 1], %u: i32[2, n, m]) -> (y: i32[11, m]) {
      %y = graph.scatter_nd %x, %i, %u {reduction = \"mul\"} : i32[11, m]
      return %y";
    "scatter_nd_max" "graph.scatter_nd" [ints: &[("i", "11", 0)], most: 130] "(%x: f32[11], %i: i64[n, m, 1], %u: f32[n, m]) -> (y: f32[11]) {
      %y = graph.scatter_nd %x, %i, %u {reduction = \"max\"} : f32[11]
      return %y";
};

/// Running sums, and the sums of wide types.
pub const RUNNING: &[Case] = cases! {
    "cumsum" "graph.cumsum" [sum: "m"] "(%x: f32[n, m]) -> (y: f32[n, m]) {
      %y = graph.cumsum %x {axis = 1} : f32[n, m]
      return %y";
    "cumsum_back" "graph.cumsum" "(%x: i64[n, m, 2]) -> (y: i64[n, m, 2]) {
      %y = graph.cumsum %x {axis = 0, reverse = true} : i64[n, m, 2]
      return %y";
    "cumsum_before" "graph.cumsum" [sum: "n"] "(%x: f16[2, n, m]) -> (y: f16[2, n, m]) {
      %y = graph.cumsum %x {axis = 1, exclusive = true} : f16[2, n, m]
      return %y";
    "cumprod_before_back" "graph.cumsum" "(%x: i32[n, m]) -> (y: i32[n, m]) {
      %y = graph.cumsum %x {axis = 1, exclusive = true, product = true, reverse = true} : i32[n, m]
      return %y";
    "sum_of_f64" "graph.reduce" [sum: "n"] "(%x: f64[n, m]) -> (y: f64[m]) {
      %y = graph.reduce %x {axes = [0], kind = \"mean\"} : f64[m]
      return %y";
};

/// Resampling.
pub const RESIZED: &[Case] = cases! {
    "resize_twice" "graph.resize" [least: 1, most: 130] "(%x: f32[n, 2, m, 5]) -> (y: f32[n, 2, 2*m, 10]) {
      %y = graph.resize %x {scales = [1.0, 1.0, 2.0, 2.0]} : f32[n, 2, 2*m, 10]
      return %y";
    "resize_to" "graph.resize" [least: 1, most: 300] "(%x: u8[n, m]) -> (y: u8[n + 3, 11]) {
      %y = graph.resize %x {coordinates = \"align_corners\", mode = \"nearest\", nearest = \"floor\", sizes = dims[n + 3, 11]} : u8[n + 3, 11]
      return %y";
    "resize_ceil" "graph.resize" [least: 4, most: 130] "(%x: i32[m, n]) -> (y: i32[m, floordiv(5*n, 4)]) {
      %y = graph.resize %x {coordinates = \"asymmetric\", nearest = \"ceil\", scales = [1.0, 1.25]} : i32[m, floordiv(5*n, 4)]
      return %y";
    "resize_tenth" "graph.resize" [least: 50, most: 130] "(%x: f32[n]) -> (y: f32[8]) {
      %y = graph.resize %x {coordinates = \"asymmetric\", nearest = \"floor\", scales = [0.10000000149011612], sizes = dims[8]} : f32[8]
      return %y";
    "resize_tf" "graph.resize" [least: 4, most: 130] "(%x: f32[m, n]) -> (y: f32[m, floordiv(5*n, 4)]) {
      %y = graph.resize %x {coordinates = \"tf_half_pixel_for_nn\", nearest = \"round_prefer_ceil\", scales = [1.0, 1.25]} : f32[m, floordiv(5*n, 4)]
      return %y";
    "resize_linear" "graph.resize" [sum: "16", least: 1, most: 100] "(%x: f32[n, 2, m, 3]) -> (y: f32[n, 2, 2*m, 7]) {
      %y = graph.resize %x {coordinates = \"pytorch_half_pixel\", mode = \"linear\", sizes = dims[n, 2, 2*m, 7]} : f32[n, 2, 2*m, 7]
      return %y";
    "resize_linear_corners" "graph.resize" [sum: "16", least: 2, most: 100] "(%x: f16[2, m, n]) -> (y: f16[2, m + 1, 1]) {
      %y = graph.resize %x {coordinates = \"align_corners\", mode = \"linear\", sizes = dims[2, m + 1, 1]} : f16[2, m + 1, 1]
      return %y";
    "resize_linear_bytes" "graph.resize" [sum: "16", least: 1, most: 100] "(%x: u8[n, m]) -> (y: u8[2*n, 9]) {
      %y = graph.resize %x {mode = \"linear\", sizes = dims[2*n, 9]} : u8[2*n, 9]
      return %y";
    "resize_symmetric" "graph.resize" [sum: "16", least: 4, most: 300] "(%x: f32[1, n]) -> (y: f32[1, floordiv(3*n, 4)]) {
      %y = graph.resize %x {coordinates = \"half_pixel_symmetric\", mode = \"linear\", scales = [1.0, 0.75]} : f32[1, floordiv(3*n, 4)]
      return %y";
    "resize_cubic" "graph.resize" [sum: "16", least: 1, most: 100] "(%x: f32[n, 7, m]) -> (y: f32[n, 10, 3*m]) {
      %y = graph.resize %x {mode = \"cubic\", sizes = dims[n, 10, 3*m]} : f32[n, 10, 3*m]
      return %y";
    "resize_cubic_inside" "graph.resize" [sum: "16", least: 2, most: 100] "(%x: f32[n, m]) -> (y: f32[n, floordiv(3*m, 2)]) {
      %y = graph.resize %x {coordinates = \"asymmetric\", cubic_a = -0.5, exclude_outside = true, mode = \"cubic\", scales = [1.0, 1.5]} : f32[n, floordiv(3*m, 2)]
      return %y";
    "resize_antialias" "graph.resize" [sum: "16", least: 1, most: 100] "(%x: f32[n, 19]) -> (y: f32[n, 5]) {
      %y = graph.resize %x {antialias = true, mode = \"linear\", sizes = dims[n, 5]} : f32[n, 5]
      return %y";
    "resize_antialias_cubic" "graph.resize" [sum: "16", least: 4, most: 100] "(%x: f32[m, n]) -> (y: f32[m, floordiv(3*n, 8)]) {
      %y = graph.resize %x {antialias = true, exclude_outside = true, mode = \"cubic\", scales = [1.0, 0.375]} : f32[m, floordiv(3*n, 8)]
      return %y";
    "resize_crop" "graph.resize" [sum: "16", least: 1, most: 100] "(%x: f32[n, m]) -> (y: f32[4, 9]) {
      %y = graph.resize %x {coordinates = \"tf_crop_and_resize\", extrapolation = -7.5, mode = \"linear\", sizes = dims[4, 9], roi = [0.25, -0.5, 0.75, 1.125]} : f32[4, 9]
      return %y";
    "resize_crop_given" "graph.resize" [least: 1, most: 130] "(%x: i64[n, m], %r: f32[4]) -> (y: i64[4, 1]) {
      %y = graph.resize %x, _, _, %r {coordinates = \"tf_crop_and_resize\", extrapolation = 3.0, sizes = dims[4, 1]} : i64[4, 1]
      return %y";
};

/// Recurrent layers.
pub const RECURRENT: &[Case] = cases! {
    "lstm" "graph.lstm" [sum: "90", most: 130, by: 0.02] "(%x: f32[n, 2, m], %w: f32[1, 36, m], %r: f32[1, 36, 9], %b: f32[1, 72]) -> (y: f32[n, 1, 2, 9], h: f32[1, 2, 9], c: f32[1, 2, 9]) {
      %y, %h, %c = graph.lstm %x, %w, %r, %b : f32[n, 1, 2, 9], f32[1, 2, 9], f32[1, 2, 9]
      return %y, %h, %c";
    "lstm_both" "graph.lstm" [ints: &[("lens", "n", 0)], sum: "90", most: 130, by: 0.02] "(%x: f32[n, 3, m], %w: f32[2, 160, m], %r: f32[2, 160, 40], %b: f32[2, 320], %lens: i32[3], %i: f32[2, 3, 40], %j: f32[2, 3, 40], %p: f32[2, 120]) -> (y: f32[n, 2, 3, 40], h: f32[2, 3, 40], c: f32[2, 3, 40]) {
      %y, %h, %c = graph.lstm %x, %w, %r, %b, %lens, %i, %j, %p {clip = 0.9, direction = \"bidirectional\"} : f32[n, 2, 3, 40], f32[2, 3, 40], f32[2, 3, 40]
      return %y, %h, %c";
    "lstm_coupled" "graph.lstm" [sum: "90", most: 130, by: 0.02] "(%x: f32[n, 1, m], %w: f32[1, 20, m], %r: f32[1, 20, 5]) -> (y: f32[n, 1, 1, 5], h: f32[1, 1, 5], c: f32[1, 1, 5]) {
      %y, %h, %c = graph.lstm %x, %w, %r {activations = [\"HardSigmoid\", \"ScaledTanh\", \"Softsign\"], alpha = [0.3, 0.7], beta = [0.4, 1.5], input_forget = true} : f32[n, 1, 1, 5], f32[1, 1, 5], f32[1, 1, 5]
      return %y, %h, %c";
    "gru" "graph.gru" [sum: "90", most: 130, by: 0.02] "(%x: f32[n, 2, m], %w: f32[1, 120, m], %r: f32[1, 120, 40], %b: f32[1, 240]) -> (y: f32[n, 1, 2, 40], h: f32[1, 2, 40]) {
      %y, %h = graph.gru %x, %w, %r, %b : f32[n, 1, 2, 40], f32[1, 2, 40]
      return %y, %h";
    "gru_linear" "graph.gru" [ints: &[("lens", "n", 0)], sum: "90", most: 130, by: 0.02] "(%x: f32[n, 2, m], %w: f32[1, 15, m], %r: f32[1, 15, 5], %b: f32[1, 30], %lens: i64[2], %i: f32[1, 2, 5]) -> (y: f32[n, 1, 2, 5], h: f32[1, 2, 5]) {
      %y, %h = graph.gru %x, %w, %r, %b, %lens, %i {direction = \"reverse\", linear_before_reset = true} : f32[n, 1, 2, 5], f32[1, 2, 5]
      return %y, %h";
    "rnn" "graph.rnn" [sum: "90", most: 130, by: 0.02] "(%x: f32[n, 2, m], %w: f32[2, 5, m], %r: f32[2, 5, 5], %b: f32[2, 10]) -> (y: f32[n, 2, 2, 5], h: f32[2, 2, 5]) {
      %y, %h = graph.rnn %x, %w, %r, %b {direction = \"bidirectional\"} : f32[n, 2, 2, 5], f32[2, 2, 5]
      return %y, %h";
};

/// Integers: quantised, and multiplied.
pub const INTEGERS: &[Case] = cases! {
    "quantize_rows" "graph.quantize_rows" "(%x: f32[n, 2, m]) -> (y: i8[n, 2, m], s: f32[n, 2, 1]) {
      %y, %s = graph.quantize_rows %x : i8[n, 2, m], f32[n, 2, 1]
      return %y, %s";
    "quantize_blocks" "graph.quantize_rows" [least: 1] "(%x: f32[n, 2, m]) -> (y: e4m3fn[n, 2, m], s: f32[n, 2, ceildiv(m, 32)]) {
      %y, %s = graph.quantize_rows %x {block = 32, elem = e4m3fn} : e4m3fn[n, 2, m], f32[n, 2, ceildiv(m, 32)]
      return %y, %s";
    "dequantize_blocks" "graph.dequantize" "(%x: e4m3fn[n, m], %s: f32[n, ceildiv(m, 32)], %q: e4m3fn[9, m], %t: f32[9, ceildiv(m, 32)]) -> (y: f32[n, m]) {
      %y = graph.dequantize %x, %s {axis = 1, block = 32} : f32[n, m]
      %z = graph.matmul_blocks %y, %q, %t {block = 32} : f32[n, 9]
      return %y";
    "dynamic_quantize" "graph.dynamic_quantize" "(%x: f32[n, m]) -> (y: u8[n, m], s: f32[], z: u8[]) {
      %y, %s, %z = graph.dynamic_quantize %x : u8[n, m], f32[], u8[]
      return %y, %s, %z";
    "bytes" "graph.matmul_integer" "(%a: i8[n, m], %b: i8[m, 17]) -> (y: i32[n, 17]) {
      %y = graph.matmul_integer %a, %b : i32[n, 17]
      return %y";
    "bytes_with_zeros" "graph.matmul_integer" "(%a: u8[n, m], %b: i8[m, 19], %p: u8[], %q: i8[19]) -> (y: i32[n, 19]) {
      %y = graph.matmul_integer %a, %b, %p, %q : i32[n, 19]
      return %y";
    "bytes_in_batches" "graph.matmul_integer" "(%a: i8[2, n, 40], %b: u8[2, 40, m], %p: i8[2, n, 1], %q: u8[2, 1, m]) -> (y: i32[2, n, m]) {
      %y = graph.matmul_integer %a, %b, %p, %q : i32[2, n, m]
      return %y";
    "bytes_one_zero" "graph.matmul_integer" "(%a: u8[n, 40], %b: u8[40, m], %p: u8[n]) -> (y: i32[n, m]) {
      %y = graph.matmul_integer %a, %b, %p : i32[n, m]
      return %y";
    "bytes_epilogue" "kernel.anchor" "(%a: u8[n, m], %b: i8[m, 20], %p: u8[], %c: f32[20]) -> (y: f32[n, 20]) {
      %y = kernel.anchor %a, %b, %p, %c {inputs = 3, maps = [[1]]} do(%d: u8[n, m], %e: i8[m, 20], %g: u8[]) {
        %r = graph.matmul_integer %d, %e, %g : i32[n, 20]
        yield %r
      } do(%s: i32, %t: f32) {
        %h = arith.cast %s {to = f32} : f32
        %k = arith.mul %h, %t : f32
        yield %k
      } : f32[n, 20]
      return %y";
    "conv_of_bytes" "graph.conv_integer" [least: 1, most: 70] "(%x: u8[2, 3, n, m], %w: i8[20, 3, 3, 3], %p: u8[], %q: i8[20]) -> (y: i32[2, 20, n, m]) {
      %y = graph.conv_integer %x, %w, %p, %q {pads = dims[1, 1, 1, 1]} : i32[2, 20, n, m]
      return %y";
    "conv_of_bytes_last" "graph.conv_integer" [least: 1, most: 130] "(%x: i8[1, n + 3, m, 4], %w: i8[6, 2, 3, 1]) -> (y: i32[1, floordiv(n, 2) + 1, m, 6]) {
      %y = graph.conv_integer %x, %w {channels_last = true, groups = 2, strides = [2, 1]} : i32[1, floordiv(n, 2) + 1, m, 6]
      return %y";
    "conv_transpose" "graph.conv_transpose" [sum: "18", least: 1, most: 70] "(%x: f32[2, 3, n, m], %w: f32[3, 5, 3, 2], %b: f32[5]) -> (y: f32[2, 5, 2*n, m + 1]) {
      %y = graph.conv_transpose %x, %w, %b {pads = dims[1, 0, 0, 0], strides = [2, 1]} : f32[2, 5, 2*n, m + 1]
      return %y";
    "conv_transpose_groups" "graph.conv_transpose" [sum: "6", least: 1] "(%x: f16[1, 4, n], %w: f16[4, 3, 3]) -> (y: f16[1, 6, 3*n + 3]) {
      %y = graph.conv_transpose %x, %w {dilations = [2], groups = 2, output_padding = [1], strides = [3]} : f16[1, 6, 3*n + 3]
      return %y";
};

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    MADE.iter().chain(PLACED).chain(RUNNING).chain(RESIZED).chain(INTEGERS).chain(RECURRENT)
}
