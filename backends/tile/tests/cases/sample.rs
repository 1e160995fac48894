//! Tokens drawn from logits, many of them equal. Rows of settings: all filters; the largest; no filter and a late draw; few of a hot
//! model and a penalty; a share, with a reward for repetition; a cold draw at the end. In the
//! second case the third temperature is below 0.

use super::graph::Case;

/// Vocabularies of less than a word, of a tile that is not full, and of two; rows that have no token.
pub const SAMPLE: &[Case] = cases! {
    "sample" "graph.sample" [by: 0.37, ints: &[("seen", "30011", -17003)]] "(%x: f32[6, 37], %seen: i32[6, m]) -> (y: i64[6]) {
      %s = constant {value = dense<f64[6, 6]: 0.8, 40.0, 0.95, 0.05, 1.3, 0.37, 0.0, 0.0, 1.0, 0.0, 1.0, 0.9, 1.0, 0.0, 1.0, 0.0, 1.0, 0.999, 2.5, 3.0, 1.0, 0.0, 1.7, 0.5, 1.5, 0.0, 0.6, 0.0, 0.5, 0.25, 0.1, 5.0, 0.9, 0.5, 1.0, 0.9999999999999999>} : f64[6, 6]
      %y = graph.sample %x, %s, %seen : i64[6]
      return %y";
    "sample_wild" "graph.sample" [by: 0.37, wild: &[("x", f64::NEG_INFINITY), ("x", f64::NAN)]] "(%x: f32[6, 30], %seen: i32[6, m]) -> (y: i64[6]) {
      %s = constant {value = dense<f64[6, 6]: 0.8, 40.0, 0.95, 0.05, 1.3, 0.37, 0.0, 0.0, 1.0, 0.0, 1.0, 0.9, -1.0, 0.0, 1.0, 0.0, 1.0, 0.999, 2.5, 3.0, 1.0, 0.0, 1.7, 0.5, 1.5, 0.0, 0.6, 0.0, 0.5, 0.25, 0.1, 5.0, 0.9, 0.5, 1.0, 0.9999999999999999>} : f64[6, 6]
      %y = graph.sample %x, %s, %seen : i64[6]
      return %y";
    "sample_tiles" "graph.sample" [by: 0.123, most: 33, least: 4, ints: &[("seen", "30011", -17003)]] "(%x: f32[6, 2311], %seen: i32[6, m]) -> (y: i64[6]) {
      %s = constant {value = dense<f64[6, 6]: 0.8, 40.0, 0.95, 0.05, 1.3, 0.37, 0.0, 0.0, 1.0, 0.0, 1.0, 0.9, 1.0, 0.0, 1.0, 0.0, 1.0, 0.999, 2.5, 3.0, 1.0, 0.0, 1.7, 0.5, 1.5, 0.0, 0.6, 0.0, 0.5, 0.25, 0.1, 5.0, 0.9, 0.5, 1.0, 0.9999999999999999>} : f64[6, 6]
      %y = graph.sample %x, %s, %seen : i64[6]
      return %y";
};
