//! A config.json without weights: every field of every family.

#![no_main]

mod folder;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::language_model(&folder::put("config.json", data), true, false);
});
