//! Problems of attention: dense and over pages, by lanes and by matrix units.

use super::graph::Case;

/// Attention.
pub const ATTENTION: &[Case] = cases! {
    "causal" "graph.attention" [sum: "20*m", most: 130] "(%q: f32[2, 4, m, 12], %k: f32[2, 2, m, 12], %v: f32[2, 2, m, 5]) -> (y: f32[2, 4, m, 5]) {
      %y = graph.attention %q, %k, %v {causal = true, scale = 0.001} : f32[2, 4, m, 5]
      return %y";
    "masked" "graph.attention" [ints: &[("mask", "2", 0)], sum: "20*m", most: 130] "(%q: f32[1, n, 3, 12], %k: f32[1, m, 3, 12], %v: f32[1, m, 3, 12], %mask: bool[1, 1, 1, m]) -> (y: f32[1, n, 3, 12]) {
      %y = graph.attention %q, %k, %v, %mask {tokens_first = true, zero_nan = true, softcap = 3.0} : f32[1, n, 3, 12]
      return %y";
    "added" "graph.attention" [sum: "20*m", most: 130] "(%q: f16[1, 2, n, 16], %k: f16[1, 2, m, 16], %v: f16[1, 2, m, 20], %mask: f16[n, m]) -> (y: f16[1, 2, n, 20]) {
      %y = graph.attention %q, %k, %v, %mask {causal = true, offset = dims[m - n], scale = 0.002} : f16[1, 2, n, 20]
      return %y";
};

/// Attention by matrix units.
pub const UNITS: &[Case] = cases! {
    "units_causal" "graph.attention" [sum: "20*m", most: 130] "(%q: f16[2, 4, m, 64], %k: f16[2, 2, m, 64], %v: f16[2, 2, m, 64]) -> (y: f16[2, 4, m, 64]) {
      %y = graph.attention %q, %k, %v {causal = true, scale = 0.001} : f16[2, 4, m, 64]
      return %y";
    "units_many" "graph.attention" [sum: "6400"] "(%q: f16[1, 1, 256, 64], %k: f16[1, 1, 320, 64], %v: f16[1, 1, 320, 64]) -> (y: f16[1, 1, 256, 64]) {
      %y = graph.attention %q, %k, %v {causal = true, offset = dims[64], scale = 0.001} : f16[1, 1, 256, 64]
      return %y";
    "units_tokens_first" "graph.attention" [sum: "20*m", most: 130] "(%q: bf16[1, n, 3, 40], %k: bf16[1, m, 3, 40], %v: bf16[1, m, 3, 20]) -> (y: bf16[1, n, 3, 20]) {
      %y = graph.attention %q, %k, %v {tokens_first = true, zero_nan = true, softcap = 3.0, scale = 0.002} : bf16[1, n, 3, 20]
      return %y";
    "units_behind" "graph.attention" [sum: "20*m", most: 130] "(%q: f16[1, 2, n, 128], %k: f16[1, 1, m, 128], %v: f16[1, 1, m, 128]) -> (y: f16[1, 2, n, 128]) {
      %y = graph.attention %q, %k, %v {causal = true, offset = dims[m - n], zero_nan = true, scale = -0.001} : f16[1, 2, n, 128]
      return %y";
};

/// Attention over pages by matrix units.
pub const UNIT_PAGES: &[Case] = cases! {
    "units_pages" "graph.paged_attention" [ints: &[("ends", "ends", 0), ("lengths", "lengths", 0), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: bf16[n, 4, 64], %k: bf16[144, 2, 64], %v: bf16[144, 2, 24], %lengths: i64[3], %pages: i64[3, 80], %ends: i64[3]) -> (y: bf16[n, 4, 24]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages, %ends {page = 16, scale = 0.001} : bf16[n, 4, 24]
      return %y";
    "units_pages_window" "graph.paged_attention" [ints: &[("ends", "ends", 0), ("lengths", "lengths", 0), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f16[n, 3, 16], %k: f16[144, 1, 16], %v: f16[144, 1, 16], %lengths: i32[3], %pages: i32[3, 80], %ends: i32[3]) -> (y: f16[n, 3, 16]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages, %ends {page = 16, softcap = 2.0, window = 21} : f16[n, 3, 16]
      return %y";
};

/// Attention over pages. Lengths and ends are made for n tokens of three sequences.
pub const PAGED: &[Case] = cases! {
    "paged" "graph.paged_attention" [ints: &[("ends", "ends", 0), ("lengths", "lengths", 0), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f32[n, 4, 12], %k: f32[72, 2, 12], %v: f32[72, 2, 6], %lengths: i64[3], %pages: i64[3, 80], %ends: i64[3]) -> (y: f32[n, 4, 6]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages, %ends {page = 8, scale = 0.001} : f32[n, 4, 6]
      return %y";
    "paged_window" "graph.paged_attention" [ints: &[("ends", "ends", 0), ("lengths", "lengths", 0), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f16[n, 3, 16], %k: f16[72, 1, 16], %v: f16[72, 1, 16], %lengths: i32[3], %pages: i32[3, 80], %ends: i32[3]) -> (y: f16[n, 3, 16]) {
      %y = graph.paged_attention %q, %k, %v, %lengths, %pages, %ends {page = 8, softcap = 2.0, window = 11} : f16[n, 3, 16]
      return %y";
    "paged_latent" "graph.paged_attention" [ints: &[("lengths", "90", 1), ("pages", "9", 0)], sum: "2000", most: 130, cores: 1] "(%q: f32[n, 4, 20], %k: f32[72, 1, 20], %lengths: i64[n], %pages: i64[n, 12]) -> (y: f32[n, 4, 16]) {
      %y = graph.paged_attention %q, %k, _, %lengths, %pages {page = 8, scale = 0.001, values = 16} : f32[n, 4, 16]
      return %y";
};

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    ATTENTION.iter().chain(UNITS).chain(UNIT_PAGES).chain(PAGED)
}
