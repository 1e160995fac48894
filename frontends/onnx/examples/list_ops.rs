//! Lists the operators of ONNX files: `cargo run -p silure-onnx --example list_ops -- FILE…`.

fn main() -> Result<(), silure_onnx::Error> {
    for path in std::env::args_os().skip(1) {
        let model = silure_onnx::Model::open(path.as_ref())?;
        let program = model.resolve()?;
        println!(
            "{}: {} nodes, {} tensors, {} calls inlined, {} nodes unused",
            model.name(),
            program.ops().values().sum::<usize>(),
            program.tensors.len(),
            program.inlined_calls,
            program.dead_nodes
        );
        for note in &program.notes {
            println!("  note: {note}");
        }
        for (op, count) in program.ops() {
            println!("  {count:5} {op}");
        }
    }
    Ok(())
}
