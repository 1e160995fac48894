//! Which accesses of the kernels need no bounds check. (That a "yes" is never wrong is checked by every
//! run of the interpreter, also on the sizes here.)

#[path = "../../tests/kernels/problems.rs"]
mod problems;

use silure_ir::dialects::tile::{Facts, Options, accesses, run_kernel, view_of};
use silure_ir::{Context, Module, text};

fn parse(name: &str, edit: impl Fn(String) -> String) -> Module {
    let path = format!("{}/../tests/kernels/{name}.sir", env!("CARGO_MANIFEST_DIR"));
    let source = edit(std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")));
    text::parse_verified(&Context::new(), name, &source).unwrap_or_else(|e| panic!("{}", e[0]))
}

/// Argument name and the axes shown to be inside, for each access in order.
fn inside(m: &Module) -> Vec<(String, Vec<bool>)> {
    let f = &m.funcs[0];
    accesses(f, &Facts::new(f).unwrap())
        .unwrap()
        .into_iter()
        .map(|(_, a, i)| {
            let at = f.args().iter().position(|v| *v == a.view.base).unwrap();
            (f.arg_names[at].to_string(), i)
        })
        .collect()
}

#[test]
fn whole_tiles_are_inside_where_sizes_are_multiples() {
    let tails = inside(&parse("matmul_bias_gelu", |s| s));
    assert!(tails.iter().all(|(_, axes)| axes.iter().all(|x| !x)), "{tails:?}");
    let signature = "<m: 1.., n: 1.., k: 1..>";
    let aligned =
        |s: String| s.replace(signature, "<m: 64.. mod 64, n: 64.. mod 128, k: 64.. mod 64>");
    let m = parse("matmul_bias_gelu", aligned);
    assert!(inside(&m).iter().all(|(_, axes)| axes.iter().all(|x| *x)), "{:?}", inside(&m));
    // Only k: a's columns and b's rows.
    let k_only = |s: String| s.replace(signature, "<m: 1.., n: 1.., k: 64..4096 mod 64>");
    let got = inside(&parse("matmul_bias_gelu", k_only));
    assert_eq!(got[0], ("a".into(), vec![false, true]));
    assert_eq!(got[1], ("b".into(), vec![true, false]));
    // A multiple that is too small does not help.
    let half = |s: String| s.replace(signature, "<m: 32.. mod 32, n: 1.., k: 1..>");
    assert!(!inside(&parse("matmul_bias_gelu", half))[0].1[0]);
}

#[test]
fn constant_axes_and_grid_axes_are_inside() {
    let flash = inside(&parse("flash_attention", |s| s));
    assert_eq!(flash.len(), 4);
    for (name, axes) in flash {
        assert_eq!(axes, [true, false, true], "{name}: head, row, channel");
    }
    let mla = inside(&parse("paged_mla_decode", |s| s));
    let of = |name: &str| -> Vec<_> { mla.iter().filter(|(n, _)| n == name).collect() };
    assert_eq!(of("lens")[0].1, [true]);
    // The page comes from memory; its channels are constants.
    assert!(of("cache").iter().all(|(_, axes)| *axes == [false, false, true]));
    // The channels' tile may go beyond c, the row above the image is padding.
    let conv = inside(&parse("conv3x3", |s| s));
    assert_eq!(conv[0].1, [false, false, false, false]);
    assert_eq!(conv[1].1, [true, false, false]);
}

#[test]
fn strides_are_multiples() {
    let m = parse("matmul_bias_gelu", |s| s.replace("n: 1.., k: 1..", "n: 8.. mod 8, k: 1.."));
    let f = &m.funcs[0];
    let facts = Facts::new(f).unwrap();
    let all = accesses(f, &facts).unwrap();
    let strides = |i: usize| -> Vec<i64> {
        all[i].1.view.strides.iter().map(|v| facts.multiple(*v)).collect()
    };
    assert_eq!(strides(0), [1, 1]);
    assert_eq!(strides(1), [8, 1]);
    // Offsets are whole tiles.
    assert!(all[1].1.offsets.iter().all(|v| facts.multiple(*v) == 64));
    let view = f.op(all[0].0).operand(0).unwrap();
    assert_eq!(facts.constant(view_of(f, view).unwrap().strides[1]), Some(1));
}

#[test]
fn facts_hold_on_every_run() {
    // The symbols' ranges narrowed to the problem at hand make as much as possible certain.
    for seed in 20..24 {
        for p in problems::all(seed) {
            let free = parse(p.name, |s| s);
            let symbols = silure_ir::dialects::tile::symbol_args(&free.funcs[0]);
            let narrow = |mut s: String| {
                for (d, arg) in &symbols {
                    let silure_ir::dialects::tile::KernelArg::Index(v) = p.args[arg.unwrap()]
                    else {
                        panic!("{} is not an index", d.name)
                    };
                    for before in ["<", " "] {
                        let old = format!("{before}{}: 1..", d.name);
                        let new = format!("{before}{}: {v}..{v} mod {v}", d.name);
                        s = s.replacen(&old, &new, 1);
                    }
                }
                s
            };
            let m = parse(p.name, narrow);
            let certain = |m: &Module| -> usize {
                inside(m).iter().map(|(_, axes)| axes.iter().filter(|x| **x).count()).sum()
            };
            assert!(certain(&m) >= certain(&free), "{}", p.name);
            let mut args = p.args.clone();
            run_kernel(&m.funcs[0], &mut args, &Options::default())
                .unwrap_or_else(|e| panic!("{} {}: {e}", p.name, p.sizes));
            p.check(args[p.output.0].bytes()).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}
