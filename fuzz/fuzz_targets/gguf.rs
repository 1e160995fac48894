//! A GGUF file through the whole compiler.

#![no_main]

mod folder;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::language_model(&folder::put("fuzz.gguf", data), false, folder::one_in_eight(data));
});
