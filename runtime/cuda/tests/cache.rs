//! Translations on disk: found again, made again where a file is damaged, and never in a run's way.

mod common;

use common::*;
use silure_runtime::{Accelerator, Command};

/// Loads the kernel anew and runs it.
fn run() -> silure_cuda_device::Translated {
    let d = device();
    let q = d.clone().load(&softmax()).unwrap().queue().unwrap();
    let x = numbers(8 * 16, 3);
    let (a, b) = (new(&*d, &*q, &x), d.alloc(4 * x.len() as u64).unwrap());
    let params = [a, b, 8, 16];
    // SAFETY: both are of as many numbers.
    unsafe { q.submit(Command::Launch { kernel: 0, grid: [1, 1, 1], params: &params }) }.unwrap();
    let y = get(&*q, b, x.len());
    assert!(y.iter().zip(softmax_of(&x, 16)).all(|(a, b)| (a - b).abs() < 1e-6), "{y:?}");
    d.translated()
}

#[test]
fn a_text_is_translated_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/b");
    // SAFETY: no other thread of this process is there yet.
    unsafe { std::env::set_var("SILURE_CACHE", &folder) };
    let t = run();
    assert_eq!((t.found, t.made, &t.folder, t.problem), (0, 1, &Some(folder.clone()), None));
    let files =
        || std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let t = run();
    assert_eq!((t.found, t.made), (1, 0));
    // Cut, and changed: it counts as not there and is written again.
    let whole = std::fs::read(file).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &[], &changed] {
        std::fs::write(file, damaged).unwrap();
        let t = run();
        assert_eq!((t.found, t.made), (0, 1));
        assert_eq!(std::fs::read(file).unwrap(), whole);
    }
    // A text that the driver refuses is an error with what it says, and leaves nothing.
    let mut wrong = softmax();
    wrong.kernels[0].text = wrong.kernels[0].text.replacen("ld.global", "ld.globe", 1);
    let e = device().load(&wrong).err().unwrap().to_string();
    assert!(e.contains("translating kernel 'softmax'") && e.contains("its log"), "{e}");
    assert_eq!(files().len(), 1);
    // A folder that cannot be: the run goes on, and it is said why nothing is kept.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    // SAFETY: as above; the device is opened anew.
    unsafe { std::env::set_var("SILURE_CACHE", file.join("under")) };
    let t = run();
    assert!(t.found == 0 && t.made == 1 && t.problem.is_some(), "{t:?}");
}
