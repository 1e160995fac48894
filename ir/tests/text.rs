//! Text round trips, in both forms.

use silure_ir::{Context, text};

const STATEFUL: &str = r#"module @counter {
  weight @w : f32[4] = dense<f32[4]: 1.0, 2.0, 3.0, 4.0>
  state @kv : f32[4]
  entry @main<b: 1..8, s: 1..512 mod 8>(%x "the input": f32[b, 4]) -> (y: f32[b, 4], "the sum": f32[4])
      variant @one when b == 1 {
    %0 = weight {name = @w} : f32[4]
    %1 = graph.broadcast %0 {shape = dims[b, 4]} : f32[b, 4] loc("bcast")
    %2 = arith.add %x, %1 : f32[b, 4] loc(fused["a", "b"])
    %3 = state {name = @kv} : state<f32[4]>
    %4 = state_read %3 : f32[4]
    %5 = arith.add %4, %0 : f32[4]
    %6 = state_write %3, %5 : state<f32[4]>
    state_store %6 {name = @kv}
    return %2, %5
  }
  func @one(%x: f32[1, 4]) -> (y: f32[1, 4], s: f32[4]) {
    %0 = weight {name = @w} : f32[4]
    %1 = arith.clip %x {hi = 6.0, lo = 0.0} : f32[1, 4]
    return %1, %0
  }
}
"#;

#[test]
fn pretty_and_generic_forms_round_trip() {
    let cx = Context::new();
    let m = text::parse_verified(&cx, "t", STATEFUL).unwrap_or_else(|e| panic!("{}", e[0]));
    let plain = text::parse(&cx, "t", STATEFUL, Default::default()).unwrap();
    assert_eq!(text::print(&plain), STATEFUL);
    let generic = text::print_generic(&plain);
    let back = text::parse(&cx, "g", &generic, Default::default())
        .unwrap_or_else(|e| panic!("{e}\n{generic}"));
    assert_eq!(text::print_generic(&back), generic);
    assert_eq!(m.funcs.len(), back.funcs.len());
}
