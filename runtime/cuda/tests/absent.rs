//! Without a driver there is an error; and the emulator is never taken for a GPU.

use silure_cuda_device::{Cuda, EMULATOR, Which};
use silure_runtime::{Accelerator, Error};

#[test]
fn no_driver_and_no_mistake() {
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("NOT CHECKED: this machine has a driver");
        return;
    }
    match Cuda::open(Which::Gpu).map(drop) {
        Err(e @ Error::NoDevice { .. }) => {
            assert_eq!(e.to_string(), "device 'cuda': no CUDA driver: libcuda could not be loaded");
            assert_eq!(e.exit_code(), 5);
        }
        other => panic!("{other:?}"),
    }
    let d = Cuda::open(Which::Emulated).unwrap();
    assert!(d.is_emulated() && d.name() == EMULATOR);
    // From now on the driver's name finds the emulator.
    let e = Cuda::open(Which::Gpu).map(drop).unwrap_err().to_string();
    assert!(e.starts_with("device 'cuda': ") && e.contains(EMULATOR), "{e}");
}
