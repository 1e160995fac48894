//! tests/kernels/NAME.graph.sir is the problem of the kernel NAME in ops on whole tensors. The oracle of
//! the graph dialect and the plain loops agree on it, so either can judge a target.

#[path = "../../tests/kernels/problems.rs"]
mod problems;

use problems::Problem;
use silure_ir::dialects::tile::{KernelArg, symbol_args};
use silure_ir::eval::Interp;
use silure_ir::weight::NoFiles;
use silure_ir::{Context, Datum, Module, Tensor, Type, text};

fn parse(file: &str) -> Module {
    let path = format!("{}/../tests/kernels/{file}", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text::parse_verified(&Context::new(), file, &source)
        .unwrap_or_else(|e| panic!("{}", e.iter().map(|e| format!("{e}\n")).collect::<String>()))
}

/// The graph's inputs: the kernel's arguments of the same name, shaped by the kernel's sizes.
fn inputs(p: &Problem, kernel: &Module, graph: &Module) -> Vec<Datum> {
    let (k, g) = (&kernel.funcs[0], &graph.funcs[0]);
    let size = |s: &str| {
        let (_, arg) = symbol_args(k).into_iter().find(|(d, _)| *d.name == *s)?;
        match p.args[arg?] {
            KernelArg::Index(v) => Some(v),
            _ => None,
        }
    };
    let tensor = |(v, name): (&silure_ir::ValueId, &std::sync::Arc<str>)| {
        let at = k.arg_names.iter().position(|n| n == name).expect("same names");
        let Type::Tensor(t) = g.ty(*v) else { panic!("{name} is not a tensor") };
        let shape: Vec<usize> = t.dims.iter().map(|d| d.eval(&size).unwrap() as usize).collect();
        match &p.args[at] {
            KernelArg::Buffer(b) => Tensor::new(t.elem, &shape, b.clone()).unwrap().into(),
            KernelArg::Scalar(n) => Tensor::scalar(t.elem, *n).into(),
            other => panic!("{name} is {other:?}"),
        }
    };
    g.args().iter().zip(&g.arg_names).map(tensor).collect()
}

#[test]
fn graphs_of_the_kernels_agree_with_plain_loops() {
    for seed in 0..3 {
        for p in problems::all(seed) {
            let name = p.name;
            let (kernel, graph) =
                (parse(&format!("{name}.sir")), parse(&format!("{name}.graph.sir")));
            let args = inputs(&p, &kernel, &graph);
            let out = Interp::new(&graph, &NoFiles, Default::default())
                .run(name, args)
                .unwrap_or_else(|e| panic!("{name} {}: {e}", p.sizes));
            let y = out[0].tensor().unwrap();
            assert_eq!(y.elem(), p.output.1);
            p.whole().check(y.bytes()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        }
    }
}
