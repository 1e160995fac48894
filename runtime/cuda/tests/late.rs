//! The host waits where it must: here copies happen when their turn comes and never earlier, as those of pinned memory do.

mod common;

use common::plans::*;
use silure_runtime::Session;

#[test]
fn nothing_is_read_or_overwritten_too_early() {
    // SAFETY: no other thread is there yet.
    unsafe { std::env::set_var("SILURE_EMULATED_COPIES", "late") };
    for between in [false, true] {
        let engine = engine(sums(between));
        let mut s = Session::new(&engine).unwrap();
        for turn in 0..4 {
            let x: Vec<f32> = (0..40).map(|i| (i * 3 + turn) as f32).collect();
            assert_eq!(run(&mut s, &x), expected(&x), "turn {turn}, {between}");
        }
    }
}
