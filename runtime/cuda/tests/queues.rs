//! Kernels, copies and fills through the driver's interface, given one by one and recorded.

mod common;

use common::*;
use silure_cuda_device::EMULATOR;
use silure_runtime::{Accelerator, Command, Error};

fn launch<'a>(rows: u64, params: &'a [u64]) -> Command<'a> {
    Command::Launch { kernel: 0, grid: [rows.div_ceil(8) as u32, 1, 1], params }
}

fn plain() -> String {
    softmax().kernels[0].text.clone()
}

#[test]
fn a_kernel_runs() {
    let d = device();
    assert_eq!((d.id(), d.name()), ("cuda", EMULATOR));
    assert_eq!(d.code_targets(), ["cuda:sm_80", "cuda:sm_75"]);
    let q = d.clone().load(&softmax()).unwrap().queue().unwrap();
    let (rows, n) = (11, 70);
    let x = numbers(rows * n, 0);
    let (a, b) = (new(&*d, &*q, &x), d.alloc(4 * x.len() as u64).unwrap());
    let params = [a, b, rows as u64, n as u64];
    // SAFETY: both are of rows × n numbers.
    unsafe { q.submit(launch(rows as u64, &params)) }.unwrap();
    close(&get(&*q, b, x.len()), &softmax_of(&x, n));
    let (free, total) = d.memory().unwrap();
    assert!(free < total);
    d.free(a).unwrap();
    d.free(b).unwrap();
    let e = d.free(a).unwrap_err().to_string();
    assert!(e.contains("giving memory back") && e.contains(EMULATOR), "{e}");
}

#[test]
fn a_recording_reads_what_is_there_when_it_is_replayed() {
    let d = device();
    let q = d.clone().load(&softmax()).unwrap().queue().unwrap();
    let (rows, n) = (9, 33);
    let x = numbers(rows * n, 1);
    let bytes = 4 * x.len() as u64;
    let (a, b, c) = (new(&*d, &*q, &x), d.alloc(bytes).unwrap(), d.alloc(bytes).unwrap());
    // Softmax, a copy of it, and softmax of that into the first; then a part is zero.
    let (one, two) = ([a, b, rows as u64, n as u64], [c, b, rows as u64, n as u64]);
    let all = [
        launch(rows as u64, &one),
        Command::Copy { to: c, from: b, bytes },
        launch(rows as u64, &two),
        Command::Fill { to: c, pattern: 0, width: 4, bytes: 8 },
    ];
    let before = numbers(rows * n, 9);
    put(&*q, b, &before);
    // SAFETY: all are of rows × n numbers.
    let r = unsafe { q.record(&all) }.unwrap();
    assert_eq!(get(&*q, b, x.len()), before, "recording runs nothing");
    for seed in [1, 2, 3] {
        let x = numbers(rows * n, seed);
        put(&*q, a, &x);
        q.replay(r).unwrap();
        let first = softmax_of(&x, n);
        close(&get(&*q, b, x.len()), &softmax_of(&first, n));
        let copied = get(&*q, c, x.len());
        assert_eq!(copied[..2], [0.0; 2]);
        close(&copied[2..], &first[2..]);
        // The same, one by one.
        let replayed = get(&*q, b, x.len());
        for c in all {
            // SAFETY: as above.
            unsafe { q.submit(c) }.unwrap();
        }
        assert_eq!(get(&*q, b, x.len()), replayed);
    }
    // Parameters are those of the time of the recording, whatever became of their place.
    let mut params = vec![a, b, rows as u64, n as u64];
    // SAFETY: as above.
    let kept = unsafe { q.record(&[launch(rows as u64, &params)]) }.unwrap();
    params.fill(c);
    drop(params);
    put(&*q, c, &before);
    q.replay(kept).unwrap();
    assert_eq!(get(&*q, c, x.len()), before);
    q.forget(r).unwrap();
    let e = q.replay(r).unwrap_err().to_string();
    assert!(e.contains("is not there"), "{e}");
    q.replay(kept).unwrap();
    q.synchronize().unwrap();
}

#[test]
fn fills_of_every_width() {
    let d = device();
    let q = d.clone().load(&softmax()).unwrap().queue().unwrap();
    let at = d.alloc(64).unwrap();
    let bytes = |x: Vec<f32>| x.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect::<Vec<_>>();
    for (pattern, width) in [
        (0x5Au64, 1u8),
        (0xABCD, 2),
        (0x0102_0304, 4),
        (0x0102_0304_0506_0708, 8),
        (0x7777_7777_7777_7777, 8),
    ] {
        let fill = |pattern, width, bytes| Command::Fill { to: at, pattern, width, bytes };
        // SAFETY: within the 64 bytes.
        unsafe {
            q.submit(fill(0, 1, 64)).unwrap();
            q.submit(fill(pattern, width, 40)).unwrap();
        }
        let unit = &pattern.to_le_bytes()[..width as usize];
        let mut expected = unit.repeat(40 / width as usize);
        expected.resize(64, 0);
        assert_eq!(bytes(get(&*q, at, 16)), expected, "{width}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let d = device();
    let fault = |r: silure_runtime::Result<std::sync::Arc<dyn silure_runtime::Program>>| match r {
        Err(e @ Error::Fault { .. }) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("no error"),
    };
    // The driver's log says where.
    let text = plain().replace("setp.ge.s64", "setp.never.s64");
    let e = fault(d.clone().load(&code(&text, "softmax", 64, 0)));
    assert!(e.contains("INVALID_PTX") && e.contains("log") && e.contains("line"), "{e}");
    let text = plain().replace(".version 7.0", ".version 9.9");
    let e = fault(d.clone().load(&code(&text, "softmax", 64, 0)));
    assert!(e.contains("UNSUPPORTED_PTX_VERSION") && e.contains("9.9"), "{e}");
    let text = plain().replace("sm_80", "sm_90a");
    let e = fault(d.clone().load(&code(&text, "softmax", 64, 0)));
    assert!(e.contains("NO_BINARY_FOR_GPU") && e.contains("sm_90a"), "{e}");
    let e = fault(d.clone().load(&code(&plain(), "other", 64, 0)));
    assert!(e.contains("kernel 'other'") && e.contains("NOT_FOUND"), "{e}");
    let e = fault(d.clone().load(&code(&plain(), "softmax", 64, 1 << 20)));
    assert!(e.contains("needed 1048576 bytes of shared memory, a block has 166912"), "{e}");
    // More than a block has without asking.
    let q = d.clone().load(&code(&plain(), "softmax", 64, 100 << 10)).unwrap().queue().unwrap();
    let at = d.alloc(4096).unwrap();
    // SAFETY: no rows.
    unsafe { q.submit(launch(1, &[at, at, 0, 1])) }.unwrap();
    q.synchronize().unwrap();
    // A block of another size than the kernel states.
    let q = d.clone().load(&code(&plain(), "softmax", 32, 0)).unwrap().queue().unwrap();
    // SAFETY: as above.
    let e = unsafe { q.submit(launch(1, &[at, at, 0, 1])) }.unwrap_err().to_string();
    assert!(e.contains("launching") && e.contains("INVALID_VALUE"), "{e}");
    // SAFETY: as above.
    let e = unsafe { q.record(&[launch(1, &[at, at, 0, 1])]) }.unwrap_err().to_string();
    assert!(e.contains("launching") && e.contains("INVALID_VALUE"), "{e}");
    q.synchronize().unwrap();
    // More memory than there is.
    match d.alloc(1 << 45) {
        Err(Error::Memory { needed, available, .. }) => {
            assert!(needed == 1 << 45 && available.contains(EMULATOR), "{available}");
        }
        other => panic!("{other:?}"),
    }
}
