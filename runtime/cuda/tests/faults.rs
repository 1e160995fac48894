//! What goes wrong in a kernel is named; the device is then lost, and usable again when all have let go of it.

mod common;

use common::*;
use silure_runtime::{Accelerator, Command, Error};

#[test]
fn a_fault_is_named_and_stays() {
    let run = |rows: u64| {
        let d = device();
        let q = d.clone().load(&softmax())?.queue()?;
        let x = numbers(8 * 16, 0);
        let (a, b) = (new(&*d, &*q, &x), d.alloc(4 * x.len() as u64)?);
        let params = [a, b, rows, 16];
        // SAFETY: of more rows than there are the emulator tells, and touches nothing.
        unsafe {
            q.submit(Command::Launch {
                kernel: 0,
                grid: [rows.div_ceil(8) as u32, 1, 1],
                params: &params,
            })?
        };
        let first = q.synchronize();
        if first.is_err() {
            // Lost: whatever is asked fails the same way.
            let again = d.alloc(16).unwrap_err().to_string();
            assert!(again.contains("ILLEGAL_ADDRESS"), "{again}");
            // SAFETY: as above.
            let again = unsafe { q.record(&[]) }.unwrap_err().to_string();
            assert!(again.contains("ILLEGAL_ADDRESS"), "{again}");
        }
        first
    };
    run(8).unwrap();
    let e = match run(9) {
        Err(e @ Error::Fault { .. }) => e.to_string(),
        other => panic!("{other:?}"),
    };
    for word in [
        "PTX emulator (CPU)",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "kernel softmax",
        "line",
        "warp",
        "outside",
    ] {
        assert!(e.contains(word), "{word}: {e}");
    }
    // Nobody holds the device any more.
    run(8).unwrap();
}
