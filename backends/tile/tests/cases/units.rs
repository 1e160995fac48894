//! Problems of what matrix units multiply in another type than it is stored in, and of heads that share their keys.

use super::graph::Case;

/// Products of f32 that are rounded to tf32.
pub const TF32: &[Case] = cases! {
    "tf32" "graph.matmul" [sum: "m", by: 0.0123457] "(%a: f32[n, m], %b: f32[m, 70]) -> (y: f32[n, 70]) {
      %y = graph.matmul %a, %b {tf32 = true} : f32[n, 70]
      return %y";
    "tf32_rounds" "kernel.anchor" [sum: "416", by: 0.0123457] "(%a: f32[n, 416], %w: f32[72, 416], %c: f32[72]) -> (y: f32[n, 72]) {
      %b = graph.transpose %w {perm = [1, 0]} : f32[416, 72]
      %y = kernel.anchor %a, %b, %c {inputs = 2, maps = [[1]]} do(%p: f32[n, 416], %q: f32[416, 72]) {
        %r = graph.matmul %p, %q {tf32 = true} : f32[n, 72]
        yield %r
      } do(%s: f32, %t: f32) {
        %g = arith.add %s, %t : f32
        yield %g
      } : f32[n, 72]
      return %y";
    "tf32_turned_both" "graph.matmul" [sum: "m", by: 0.0123457] "(%a: f32[2, m, n], %w: f32[2, 24, m]) -> (y: f32[2, n, 24]) {
      %b = graph.transpose %w {perm = [0, 2, 1]} : f32[2, m, 24]
      %c = graph.transpose %a {perm = [0, 2, 1]} : f32[2, n, m]
      %y = graph.matmul %c, %b {tf32 = true} : f32[2, n, 24]
      return %y";
    "tf32_half_weight" "graph.matmul" [sum: "m", by: 0.0123457] "(%a: f32[n, m], %w: bf16[40, m]) -> (y: f32[n, 40]) {
      %v = arith.cast %w {to = f32} : f32[40, m]
      %b = graph.transpose %v {perm = [1, 0]} : f32[m, 40]
      %y = graph.matmul %a, %b {tf32 = true} : f32[n, 40]
      return %y";
    "tf32_split" "graph.matmul" [sum: "1100", by: 0.0123457] "(%a: f32[3, 1100], %w: f32[40, 1100]) -> (y: f32[3, 40]) {
      %b = graph.transpose %w {perm = [1, 0]} : f32[1100, 40]
      %y = graph.matmul %a, %b {tf32 = true} : f32[3, 40]
      return %y";
    "tf32_wild" "graph.matmul" [sum: "m", wild: &[("a", f64::INFINITY), ("b", f64::NAN)]] "(%a: f32[n, m], %b: f32[m, 20]) -> (y: f32[n, 20]) {
      %y = graph.matmul %a, %b {tf32 = true} : f32[n, 20]
      return %y";
};

/// f32 as the sum of three bf16, beside what is not finite.
pub const WILD: &[Case] = cases! {
    "wild_weight" "graph.matmul" [sum: "m", by: 0.5, wild: &[("w", f64::INFINITY)]] "(%a: f32[n, m], %w: bf16[40, m]) -> (y: f32[n, 40]) {
      %v = arith.cast %w {to = f32} : f32[40, m]
      %b = graph.transpose %v {perm = [1, 0]} : f32[m, 40]
      %y = graph.matmul %a, %b : f32[n, 40]
      return %y";
    "wild_rows" "graph.matmul" [sum: "m", by: 0.0123457, wild: &[("a", f64::NEG_INFINITY)]] "(%a: f32[n, m], %w: bf16[40, m]) -> (y: f32[n, 40]) {
      %v = arith.cast %w {to = f32} : f32[40, m]
      %b = graph.transpose %v {perm = [1, 0]} : f32[m, 40]
      %y = graph.matmul %a, %b : f32[n, 40]
      return %y";
    "wild_nan" "graph.matmul" [sum: "m", by: 0.0123457, wild: &[("a", f64::NAN), ("w", f64::NEG_INFINITY)]] "(%a: f32[n, m], %w: bf16[40, m]) -> (y: f32[n, 40]) {
      %v = arith.cast %w {to = f32} : f32[40, m]
      %b = graph.transpose %v {perm = [1, 0]} : f32[m, 40]
      %y = graph.matmul %a, %b : f32[n, 40]
      return %y";
    "wild_blocks" "graph.matmul_blocks" [sum: "m", by: 0.0123457, wild: &[("a", f64::INFINITY), ("s", f64::NAN)]] "(%a: f32[n, m], %q: i8[40, m], %s: f32[40, ceildiv(m, 32)]) -> (y: f32[n, 40]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 32} : f32[n, 40]
      return %y";
};

/// Codes of 4 bits, codes with zero points and offsets, experts in halves.
pub const NARROW: &[Case] = cases! {
    "nibbles" "graph.matmul_blocks" [sum: "2*m", by: 0.0123457] "(%a: f32[n, 2*m], %q: i4[40, 2*m], %s: f32[40, ceildiv(2*m, 32)]) -> (y: f32[n, 40]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 32} : f32[n, 40]
      return %y";
    "nibbles_exact" "graph.matmul_blocks" [sum: "96", by: 0.0123457] "(%a: f32[n, 96], %q: i4[m, 96], %s: f32[m, 3]) -> (y: f32[n, m]) {
      %y = graph.matmul_blocks %a, %q, %s {block = 32} : f32[n, m]
      return %y";
    "nibbles_zero" "graph.matmul_blocks" [sum: "100"] "(%a: bf16[n, 100], %q: u4[m, 100], %s: bf16[m, 2], %z: u4[m, 2]) -> (y: bf16[n, m]) {
      %y = graph.matmul_blocks %a, %q, %s, %z {block = 64} : bf16[n, m]
      return %y";
    "nibbles_offset" "graph.matmul_blocks" [sum: "4*250", by: 0.0123457] "(%a: f32[n, 250], %q: u4[m, 250], %s: f16[m, 2], %o: f16[m, 2]) -> (y: f32[n, m]) {
      %y = graph.matmul_blocks %a, %q, %s, _, %o {block = 128} : f32[n, m]
      return %y";
    "bytes_zero" "graph.matmul_blocks" [sum: "m"] "(%a: f16[n, m], %q: u8[40, m], %s: f32[40, ceildiv(m, 32)], %z: u8[40, ceildiv(m, 32)]) -> (y: f16[n, 40]) {
      %y = graph.matmul_blocks %a, %q, %s, %z {block = 32} : f16[n, 40]
      return %y";
    "experts_halves" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "m"] "(%x: bf16[n, 1, m], %w: bf16[3, 40, m], %i: i64[n, 2]) -> (y: bf16[n, 2, 40]) {
      %y = graph.expert_matmul %x, %w, %i : bf16[n, 2, 40]
      return %y";
    "experts_half_weight" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "m", by: 0.0123457] "(%x: f32[n, 1, m], %w: bf16[3, 40, m], %i: i64[n, 2]) -> (y: f32[n, 2, 40]) {
      %v = arith.cast %w {to = f32} : f32[3, 40, m]
      %y = graph.expert_matmul %x, %v, %i : f32[n, 2, 40]
      return %y";
    "experts_nibbles" "graph.expert_matmul" [ints: &[("i", "3", 0)], sum: "4*70", most: 130, by: 0.0123457] "(%x: f32[n, 2, 70], %w: u4[3, m, 70], %i: i32[n, 2], %s: f32[3, m, 3], %o: f32[3, m, 3]) -> (y: f32[n, 2, m]) {
      %y = graph.expert_matmul %x, %w, %i, %s, %o {block = 32} : f32[n, 2, m]
      return %y";
};

/// Heads that share their keys.
pub const HEADS: &[Case] = cases! {
    "latent_units" "graph.paged_attention" [ints: &[("lengths", "90", 1), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: bf16[n, 20, 40], %k: bf16[144, 1, 40], %lengths: i64[n], %pages: i64[n, 6]) -> (y: bf16[n, 20, 30]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 16, scale = 0.001, values = 30} : bf16[n, 20, 30]
      return %y";
    "latent_prompt" "graph.paged_attention" [ints: &[("ends", "ends", 0), ("lengths", "lengths", 0), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f16[n, 5, 36], %k: f16[144, 1, 36], %lengths: i64[3], %pages: i64[3, 80], %ends: i64[3]) -> (y: f16[n, 5, 32]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages, %ends {page = 16, scale = -0.002, values = 32} : f16[n, 5, 32]
      return %y";
    "latent_parts" "graph.paged_attention" [ints: &[("lengths", "640", 1), ("pages", "40", 0)], sum: "20000", most: 70] "(%q: bf16[n, 6, 40], %k: bf16[640, 1, 40], %lengths: i64[n], %pages: i64[n, 40]) -> (y: bf16[n, 6, 32]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 16, scale = 0.001, values = 32} : bf16[n, 6, 32]
      return %y";
    "latent_whole" "graph.paged_attention" [ints: &[("lengths", "90", 1), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f32[n, 20, 40], %k: bf16[144, 1, 40], %lengths: i64[n], %pages: i64[n, 6]) -> (y: f32[n, 20, 32]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 16, scale = 0.001, values = 32} : f32[n, 20, 32]
      return %y";
    "heads_window" "graph.paged_attention" [ints: &[("lengths", "90", 1), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f16[n, 8, 24], %k: f16[288, 2, 24], %v: f16[288, 2, 16], %lengths: i32[n], %pages: i32[n, 3]) -> (y: f16[n, 8, 16]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages {page = 32, softcap = 2.0, window = 37} : f16[n, 8, 16]
      return %y";
    "heads_parts" "graph.paged_attention" [ints: &[("lengths", "500", 700), ("pages", "80", 0)], sum: "20000", most: 40] "(%q: f16[n, 4, 16], %k: f16[1280, 1, 16], %v: f16[1280, 1, 16], %lengths: i32[n], %pages: i32[n, 80]) -> (y: f16[n, 4, 16]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages {page = 16, softcap = 2.0, window = 611} : f16[n, 4, 16]
      return %y";
};

/// Sizes of models, which are assembled and not run.
pub const LARGE: &[Case] = cases! {
    "large_tf32" "graph.matmul" "(%a: f32[512, 4096], %w: f32[14336, 4096]) -> (y: f32[512, 14336]) {
      %b = graph.transpose %w {perm = [1, 0]} : f32[4096, 14336]
      %y = graph.matmul %a, %b {tf32 = true} : f32[512, 14336]
      return %y";
    "large_tf32_stored" "graph.matmul" "(%a: f32[512, 4096], %b: f32[4096, 4096]) -> (y: f32[512, 4096]) {
      %y = graph.matmul %a, %b {tf32 = true} : f32[512, 4096]
      return %y";
    "large_nibbles" "graph.matmul_blocks" "(%a: f32[512, 4096], %q: u4[14336, 4096], %s: f32[14336, 128], %z: u4[14336, 128]) -> (y: f32[512, 14336]) {
      %y = graph.matmul_blocks %a, %q, %s, %z {block = 32} : f32[512, 14336]
      return %y";
    "large_nibbles_offset" "graph.matmul_blocks" "(%a: bf16[512, 4096], %q: u4[14336, 4096], %s: f16[14336, 128], %o: f16[14336, 128]) -> (y: bf16[512, 14336]) {
      %y = graph.matmul_blocks %a, %q, %s, _, %o {block = 32} : bf16[512, 14336]
      return %y";
    "large_experts_halves" "graph.expert_matmul" "(%x: bf16[512, 1, 7168], %w: bf16[256, 4096, 7168], %i: i64[512, 8]) -> (y: bf16[512, 8, 4096]) {
      %y = graph.expert_matmul %x, %w, %i : bf16[512, 8, 4096]
      return %y";
    "large_latent" "graph.paged_attention" "(%q: bf16[4, 128, 576], %k: bf16[65536, 1, 576], %lengths: i64[4], %pages: i64[4, 1024]) -> (y: bf16[4, 128, 512]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 64, scale = 0.07, values = 512} : bf16[4, 128, 512]
      return %y";
    "large_latent_whole" "graph.paged_attention" "(%q: f32[4, 128, 576], %k: bf16[65536, 1, 576], %lengths: i64[4], %pages: i64[4, 1024]) -> (y: f32[4, 128, 512]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 64, scale = 0.07, values = 512} : f32[4, 128, 512]
      return %y";
    "large_heads_whole" "graph.paged_attention" "(%q: f32[4, 64, 128], %k: bf16[65536, 8, 128], %v: bf16[65536, 8, 128], %lengths: i64[4], %pages: i64[4, 1024]) -> (y: f32[4, 64, 128]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages {page = 64} : f32[4, 64, 128]
      return %y";
    "large_heads" "graph.paged_attention" "(%q: bf16[4, 64, 128], %k: bf16[65536, 8, 128], %v: bf16[65536, 8, 128], %lengths: i64[4], %pages: i64[4, 1024]) -> (y: bf16[4, 64, 128]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages {page = 64} : bf16[4, 64, 128]
      return %y";
};

/// Depths of several rounds, copied ahead where they are even.
pub const ROUNDS: &[Case] = cases! {
    "rounds" "graph.matmul" [sum: "m"] "(%a: f16[n, m], %b: f16[m, 72]) -> (y: f16[n, 72]) {
      %y = graph.matmul %a, %b : f16[n, 72]
      return %y";
    "rounds_split" "graph.matmul" [sum: "3*m"] "(%a: f16[3, 3*m], %b: f16[3*m, 40]) -> (y: f16[3, 40]) {
      %y = graph.matmul %a, %b : f16[3, 40]
      return %y";
    "rounds_conv" "graph.conv" [sum: "72", least: 1, most: 40] "(%x: f32[1, 8, n, m], %w: f32[20, 8, 3, 3]) -> (y: f32[1, 20, n, m]) {
      %y = graph.conv %x, %w {pads = dims[1, 1, 1, 1]} : f32[1, 20, n, m]
      return %y";
    "rounds_bytes" "graph.conv_integer" [least: 1, most: 40] "(%x: u8[1, 8, n, m], %w: i8[6, 8, 3, 3], %a: u8[], %b: i8[6]) -> (y: i32[1, 6, n, m]) {
      %y = graph.conv_integer %x, %w, %a, %b {pads = dims[1, 1, 1, 1]} : i32[1, 6, n, m]
      return %y";
};

/// All that is run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    TF32.iter().chain(WILD).chain(NARROW).chain(HEADS).chain(ROUNDS)
}
