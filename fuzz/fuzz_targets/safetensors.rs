//! A file of weights beside a small llama's configuration (llama.json). The input is how many zeros follow (16 bits), then
//! the file from its first byte: the length of the header, the header, elements.

#![no_main]

mod folder;

use libfuzzer_sys::fuzz_target;

const CONFIG: &[u8] = include_bytes!("llama.json");

fuzz_target!(|data: &[u8]| {
    let Some((zeros, file)) = data.split_first_chunk() else { return };
    let zeros = vec![0; u16::from_le_bytes(*zeros).into()];
    folder::put("config.json", CONFIG);
    folder::put("model.safetensors", &[file, &zeros].concat());
    folder::language_model(folder::folder(), false, folder::one_in_eight(data));
});
