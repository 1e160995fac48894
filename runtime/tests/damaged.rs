//! Damaged engine files: an error or the right answer, never a panic.

mod common;

use common::*;
use silure_engine::EngineFile;
use silure_runtime::*;

fn inputs() -> Vec<Tensor> {
    let x = Tensor::f32(&[4], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    vec![x.clone(), x, Tensor::i64(&[1], &[3]).unwrap()]
}

fn answer(file: &[u8]) -> Result<Vec<f64>> {
    let engine = load_bytes(file)?;
    let inputs = inputs();
    let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
    Ok(Session::new(&engine)?.run(0, &views)?[0].to_f64())
}

#[test]
fn truncations_and_flips() {
    let file = bytes(loop_plan());
    let right = answer(&file).unwrap();
    assert_eq!(right, [4.0, 8.0, 12.0, 16.0]);
    for i in 0..64 {
        let e = answer(&file[..file.len() * i / 64]).unwrap_err().to_string();
        assert!(e.starts_with("engine: "), "{i}/64: {e}");
    }
    let mut seed = 3u64;
    let mut refused = 0;
    for _ in 0..500 {
        let mut f = file.clone();
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = (seed >> 33) as usize % f.len();
        f[at] ^= 1 << (seed % 8);
        match answer(&f) {
            Ok(y) => assert_eq!(y, right, "flip at {at}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 400, "{refused} of 500 flips were noticed; padding is a small part");
}

#[test]
fn plans_with_right_hashes_and_wrong_contents() {
    // The plan's own defences, behind the hashes: random changes, hashed anew.
    let plan = loop_plan();
    let clean = plan.encode();
    let mut seed = 5u64;
    let mut ran = 0;
    for _ in 0..3000 {
        let mut b = clean.clone();
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = (seed >> 33) as usize % b.len();
        b[at] ^= 1 << (seed % 8);
        let Ok(plan) = silure_engine::Plan::decode(&b) else { continue };
        // What a kernel is given is the compiler's promise; everything else must hold.
        let launches = |p: &silure_engine::Plan| {
            let e = &p.entries[0];
            let ops = e.code.iter().filter_map(|op| match &op.inst {
                silure_engine::plan::Inst::Launch(l) => Some(l.clone()),
                _ => None,
            });
            (ops.collect::<Vec<_>>(), e.buffers.clone(), e.code[..e.size_end as usize].to_vec())
        };
        if launches(&plan) != launches(&loop_plan()) {
            continue;
        }
        let Ok(engine) = load_bytes(&bytes(plan)) else { continue };
        let inputs = inputs();
        let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
        let timeout = Some(std::time::Duration::from_millis(20));
        let options = RunOptions { timeout, ..Default::default() };
        let limit = SessionOptions { pool: None, memory_limit: Some(1 << 24) };
        let _ = Session::with(&engine, limit).unwrap().run_with(0, &views, &options);
        ran += 1;
    }
    assert!(ran > 100, "{ran} changed plans were run");
}

#[test]
fn hostile_sizes_are_refused_before_memory_is_taken() {
    let file = bytes(loop_plan());
    let (manifest, _) = EngineFile::manifest(&file).unwrap();
    assert_eq!(manifest.sections.len(), 1);
    let mut f = file.clone();
    f[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let e = answer(&f).unwrap_err().to_string();
    assert!(e.contains("manifest: needed 18446744073709551615 bytes"), "{e}");
}
