//! NumPy's files: an error, or an array that encodes to a file with the same contents.

#![no_main]

use libfuzzer_sys::fuzz_target;
use silure::ir::Elem;
use silure_runtime::npy;

fuzz_target!(|data: &[u8]| {
    for elem in [Elem::F32, Elem::I64, Elem::U8, Elem::Bool, Elem::F16] {
        let Ok(array) = npy::decode("fuzz.npy", data) else { break };
        let Ok(tensor) = array.into_tensor(elem) else { continue };
        let bytes = npy::encode(&tensor).expect("a decoded array encodes");
        let again = npy::decode("again.npy", &bytes).expect("an encoded array decodes");
        let again = again.into_tensor(elem).expect("of the same type");
        assert_eq!(again.bytes(), tensor.bytes());
    }
    let _ = silure_runtime::npz::decode("fuzz.npz", data);
});
