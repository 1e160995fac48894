//! cudarc as it is, with its own tracking of events: context, module, memory, capture, launch, copy back.

use std::path::PathBuf;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const TEXT: &str = include_str!("../../../backends/cuda/tests/golden/softmax.ptx");

/// Loads the library that cargo built beside this test, so that the driver's name finds it.
fn load() {
    let deps = std::env::current_exe().unwrap().parent().map(PathBuf::from).unwrap();
    let file = deps.join("libsilure_libcuda.so");
    // SAFETY: its initialisation does nothing.
    std::mem::forget(unsafe { libloading::Library::new(file) }.unwrap());
}

#[test]
fn an_unchanged_program_runs() {
    load();
    // SAFETY: loading a driver has no conditions.
    assert!(unsafe { cudarc::driver::sys::is_culib_present() });
    let ctx = CudaContext::new(0).unwrap();
    assert_eq!(ctx.name().unwrap(), "PTX emulator (CPU)");
    assert_eq!(ctx.compute_capability().unwrap(), (8, 0));
    let module = ctx.load_module(Ptx::from_src(TEXT)).unwrap();
    let softmax = module.load_function("softmax").unwrap();
    let stream = ctx.new_stream().unwrap();
    let (rows, n) = (5usize, 40usize);
    let x: Vec<f32> = (0..rows * n).map(|i| (i % 7) as f32).collect();
    let a = stream.clone_htod(&x).unwrap();
    let mut b = stream.alloc_zeros::<f32>(rows * n).unwrap();
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
    let sums = |y: &[f32]| y.chunks(n).map(|r| r.iter().sum::<f32>()).collect::<Vec<_>>();
    let near = |s: Vec<f32>| assert!(s.iter().all(|v| (v - 1.0).abs() < 1e-5), "{s:?}");
    let (r, c) = (rows as u64, n as u64);
    // SAFETY: the parameters are those of the kernel.
    unsafe { stream.launch_builder(&softmax).arg(&a).arg(&mut b).arg(&r).arg(&c).launch(config) }
        .unwrap();
    near(sums(&stream.clone_dtoh(&b).unwrap()));
    // Captured, with nothing of the tracking in it.
    stream.memset_zeros(&mut b).unwrap();
    stream.synchronize().unwrap();
    // SAFETY: all is in one stream.
    unsafe { ctx.disable_event_tracking() };
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    // SAFETY: as above.
    unsafe { stream.launch_builder(&softmax).arg(&a).arg(&mut b).arg(&r).arg(&c).launch(config) }
        .unwrap();
    let graph = stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&b).unwrap(), vec![0.0; rows * n]);
    graph.launch().unwrap();
    near(sums(&stream.clone_dtoh(&b).unwrap()));
}
