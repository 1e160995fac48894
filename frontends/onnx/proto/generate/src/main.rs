//! Generates `onnx.rs` from `onnx-ml.proto` without `protoc`: `cargo run -- PROTO_DIR`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: onnx-proto-gen PROTO_DIR")?;
    let set = protox::compile(["onnx-ml.proto"], [&dir])?;
    let out = std::path::Path::new(&dir);
    // What most attributes do not have takes a pointer in each.
    let rare = ["t", "g", "sparse_tensor", "tp"].map(|f| format!(".onnx.AttributeProto.{f}"));
    let mut config = prost_build::Config::new();
    rare.iter().for_each(|field| {
        config.boxed(field);
    });
    config.bytes(["."]).out_dir(out).compile_fds(set)?;
    Ok(())
}
