//! What the verifier and the interpreter refuse in tile kernels, and the meaning of each op on its own.

use silure_ir::dialects::tile::{KernelArg, Options, run_kernel};
use silure_ir::{Context, Elem, Module, Num, text};

/// A kernel over one vector of n elements in and one out; `body` stands after some common values.
fn kernel(body: &str) -> String {
    format!(
        "module @m {{
  kernel @k<n: 1..>(%x: ptr<f32, global>, %y: ptr<f32, global>, %n: index) {{grid = dims[n]}} {{
    %c0 = scalar {{value = dense<i64[]: 0>}} : index
    %c1 = scalar {{value = dense<i64[]: 1>}} : index
    %c2 = scalar {{value = dense<i64[]: 2>}} : index
    %f = scalar {{value = dense<f32[]: 0.5>}} : f32
    %xv = tile.view %x, %n, %c1 : view<f32, 1>
    %yv = tile.view %y, %n, %c1 : view<f32, 1>
    %p = tile.program_id : index
    {body}
    return
  }}
}}"
    )
}

fn parse(source: &str) -> Result<Module, String> {
    text::parse_verified(&Context::new(), "k", source)
        .map_err(|e| e.iter().map(|e| format!("{e}\n")).collect())
}

#[test]
fn verifier_refuses() {
    for (body, message) in [
        ("%v = tile.view %x, %n : view<f32, 1>", "as many strides as sizes"),
        ("%v = tile.view %n, %n, %c1 : view<f32, 1>", "`base` has the wrong type"),
        ("%v = tile.view %x, %n, %c1 : view<f16, 1>", "result types are wrong"),
        ("%t = tile.load %xv, %c0 {tile = [0]} : tile<1xf32>", "not a tile shape"),
        ("%t = tile.load %xv, %c0 {tile = [4194304]} : tile<4194304xf32>", "not a tile shape"),
        ("%t = tile.load %xv {tile = [4]} : tile<4xf32>", "one offset for each axis"),
        (
            "%t = tile.load %xv, %c0 {tile = [2, 4]} : tile<2x4xf32>",
            "does not lie in a view of rank 1",
        ),
        (
            "%t = tile.load %xv, %c0 {axes = [1], tile = [4]} : tile<4xf32>",
            "names one axis of the view",
        ),
        (
            "%w = tile.view %x, %n, %n, %n, %c1 : view<f32, 2>\n\
             %t = tile.load %w, %c0, %c0 {axes = [1, 0], tile = [4, 4]} : tile<4x4xf32>",
            "use tile.transpose",
        ),
        ("tile.store %yv, %c0, %c0", "`value` has the wrong type"),
        (
            "%i = tile.iota {size = 4} : tile<4xi32>\ntile.store %yv, %i, %c0",
            "a tile or scalar of f32",
        ),
        ("%t = tile.full %c0 {shape = [4]} : tile<4xi64>", "wrong type"),
        ("%t = tile.full %f {shape = []} : f32", "at least one axis"),
        (
            "%t = tile.full %f {shape = [4]} : tile<4xf32>\n%b = tile.broadcast %t {axis = 3, size = 2} : tile<4x2xf32>",
            "axis 3 is outside",
        ),
        (
            "%t = tile.full %f {shape = [4]} : tile<4xf32>\n%b = tile.reshape %t {shape = [3]} : tile<3xf32>",
            "number of elements changes",
        ),
        (
            "%t = tile.full %f {shape = [4, 2]} : tile<4x2xf32>\n%b = tile.transpose %t {perm = [0, 0]} : tile<4x4xf32>",
            "not an order of the axes",
        ),
        (
            "%t = tile.full %f {shape = [4]} : tile<4xf32>\n%b = tile.reduce %t {axis = 0, kind = \"mean\"} : f32",
            "not one of sum, prod, max, min",
        ),
        (
            "%t = tile.full %f {shape = [4, 2]} : tile<4x2xf32>\n%d = tile.dot %t, %t, %t : tile<4x2xf32>",
            "contracted sizes differ",
        ),
        (
            "%t = tile.full %f {shape = [4, 4]} : tile<4x4xf32>\n%h = arith.cast %t {to = f16} : tile<4x4xf16>\n\
             %d = tile.dot %h, %h, %h : tile<4x4xf16>",
            "`acc` has the wrong type",
        ),
        (
            "%t = tile.full %f {shape = [4, 4]} : tile<4x4xf32>\n%h = arith.cast %t {to = i16} : tile<4x4xi16>\n\
             %d = tile.dot %h, %h, %t : tile<4x4xf32>",
            "no product of i16 by i16",
        ),
        (
            "%t = tile.full %f {shape = [4]} : tile<4xf32>\n%u = tile.full %f {shape = [2]} : tile<2xf32>\n\
             %s = arith.add %t, %u : tile<4xf32>",
            "different shapes",
        ),
        ("%q = tile.program_id {axis = 1} : index", "the grid has no axis 1"),
        ("tile.for %c0, %n, %c1 do() {\nyield\n}", "not the counter and the carried values"),
        (
            "%r = tile.for %c0, %n, %c1, %f do(%i: index, %a: f32) {\nyield\n} : f32",
            "does not yield",
        ),
        (
            "%r = tile.for %c0, %n, %c1, %xv do(%i: index, %a: view<f32, 1>) {\nyield %a\n} : view<f32, 1>",
            "control flow cannot carry this",
        ),
        (
            "%b = arith.lt %c0, %n : bool\n%r = tile.if %b do {\nyield %f\n} do {\nyield %c0\n} : f32",
            "the regions yield different types",
        ),
        ("%z = graph.shape %x : i64[1]", ""),
    ] {
        let e = parse(&kernel(body)).err().unwrap_or_else(|| panic!("accepted: {body}"));
        assert!(e.contains(message), "{body}\ngave: {e}");
        assert!(e.contains("k:"), "no place in: {e}");
    }
}

#[test]
fn verifier_refuses_kernels_that_cannot_be_launched() {
    let base = kernel("");
    for (from, to, message) in [
        ("{grid = dims[n]} ", "", "needs the attribute `grid`"),
        ("dims[n]", "dims[n, 1, 1, 1]", "1 to 3 dims"),
        ("dims[n]", "dims[m]", "undeclared symbol `m`"),
        ("kernel @k", "func @k", "write `kernel`"),
        ("%n: index)", "%count: index)", "no index argument is named as the symbol `n`"),
        ("%x: ptr<f32, global>", "%x: ptr<f32, shared>", "global"),
        (
            "%x: ptr<f32, global>",
            "%w: f32[4], %x: ptr<f32, global>",
            "not a pointer, index or scalar",
        ),
    ] {
        assert!(base.contains(from));
        let bad = base.replace(from, to).replace("%count: index) {", "%count: index, %n: i64) {");
        let e = parse(&bad).err().unwrap_or_else(|| panic!("accepted: {to}"));
        assert!(e.contains(message), "{to}\ngave: {e}");
    }
}

fn floats(v: &[f32]) -> KernelArg {
    KernelArg::Buffer(v.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// Runs a body on x = [1, 2, …, n]; the output's floats.
fn run(body: &str, n: usize) -> Result<Vec<f32>, String> {
    let m = parse(&kernel(body))?;
    let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
    let mut args = [floats(&x), KernelArg::Output(vec![0; 4 * n]), KernelArg::Index(n as i64)];
    let options = Options { ops: 10_000, programs: 100, ..Options::default() };
    run_kernel(&m.funcs[0], &mut args, &options).map_err(|e| e.to_string())?;
    Ok(args[1].bytes().chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

#[test]
fn interpreter_reports_what_a_device_would_not() {
    for (body, message) in [
        // Every program writes element 0.
        ("tile.store %yv, %f, %c0", "a race: element 0 is written by programs"),
        // Program p reads what another wrote.
        ("%s = tile.load %xv, %c0 {tile = []} : f32\ntile.store %xv, %s, %p", "a race: element"),
        (
            "%s = tile.load %yv, %p {tile = []} : f32\ntile.store %yv, %s, %p",
            "before it is written",
        ),
        (
            "%m = arith.add %n, %c1 : index\n%w = tile.view %x, %m, %c1 : view<f32, 1>\n\
             %s = tile.load %w, %n {tile = []} : f32",
            "outside its buffer; needed an element below 3, present 3",
        ),
        (
            "%w = tile.view %x, %n, %n : view<f32, 1>\n%s = tile.load %w, %c2 {tile = []} : f32",
            "outside its buffer",
        ),
        ("tile.for %c0, %n, %c0 do(%i: index) {\nyield\n}", "the step of a loop is not positive"),
        (
            "%big = scalar {value = dense<i64[]: 1000000000000>} : index\n\
             tile.for %c0, %big, %c1 do(%i: index) {\n%j = arith.add %i, %i : index\nyield\n}",
            "more than 10000 ops",
        ),
    ] {
        let e = run(body, 3).err().unwrap_or_else(|| panic!("ran: {body}"));
        assert!(e.contains(message), "{body}\ngave: {e}");
        assert!(e.starts_with("k:") && e.contains("in program ["), "no place in: {e}");
    }
    assert!(run("", 101).unwrap_err().contains("more than 100 programs"));
}

#[test]
fn arguments_are_checked() {
    let m = parse(&kernel("").replace("<n: 1..>", "<n: 2..8 mod 2>")).unwrap();
    let try_args = |args: &mut [KernelArg]| {
        run_kernel(&m.funcs[0], args, &Options::default()).map_err(|e| e.to_string())
    };
    let x = || floats(&[1.0, 2.0]);
    assert!(try_args(&mut [x(), x(), KernelArg::Index(2)]).is_ok());
    for bad in [0, 3, 10] {
        let e = try_args(&mut [x(), x(), KernelArg::Index(bad)]).unwrap_err();
        assert!(e.contains("`n` is out of range"), "{e}");
    }
    assert!(try_args(&mut [x(), x()]).unwrap_err().contains("number of arguments"));
    let scalar = KernelArg::Scalar(Num::F(1.0));
    assert!(try_args(&mut [x(), scalar, KernelArg::Index(2)]).unwrap_err().contains("`y`"));
    let odd = KernelArg::Buffer(vec![0; 7]);
    assert!(try_args(&mut [odd, x(), KernelArg::Index(2)]).unwrap_err().contains("whole number"));
}

#[test]
fn ops_mean_what_their_documentation_says() {
    // Each body computes %r of four elements in program 0 of 4 and stores it.
    let body = |ops: &str| {
        format!(
            "%first = arith.eq %p, %c0 : bool
             tile.if %first do {{
               %t = tile.load %xv, %c0 {{tile = [4]}} : tile<4xf32>
               %q = tile.reshape %t {{shape = [2, 2]}} : tile<2x2xf32>
               {ops}
               tile.store %yv, %r, %c0
               yield
             }} do {{
               yield
             }}"
        )
    };
    let flat = "%r = tile.reshape %z {shape = [4]} : tile<4xf32>";
    for (ops, want) in [
        ("%r = tile.scan %t {axis = 0, kind = \"sum\"} : tile<4xf32>", [1.0, 3.0, 6.0, 10.0]),
        (
            "%r = tile.scan %t {axis = 0, kind = \"prod\", reverse = true} : tile<4xf32>",
            [24.0, 24.0, 12.0, 4.0],
        ),
        (
            "%s = tile.reduce %t {axis = 0, kind = \"prod\"} : f32\n%r = tile.full %s {shape = [4]} : tile<4xf32>",
            [24.0; 4],
        ),
        (
            &format!(
                "%s = tile.reduce %q {{axis = 0, kind = \"min\"}} : tile<2xf32>\n\
                 %z = tile.broadcast %s {{axis = 1, size = 2}} : tile<2x2xf32>\n{flat}"
            ),
            [1.0, 1.0, 2.0, 2.0],
        ),
        (
            &format!(
                "%s = tile.reduce %q {{axis = -1, kind = \"max\"}} : tile<2xf32>\n\
                 %z = tile.broadcast %s {{axis = 0, size = 2}} : tile<2x2xf32>\n{flat}"
            ),
            [2.0, 4.0, 2.0, 4.0],
        ),
        (
            &format!("%z = tile.transpose %q {{perm = [1, 0]}} : tile<2x2xf32>\n{flat}"),
            [1.0, 3.0, 2.0, 4.0],
        ),
        (
            &format!("%z = tile.dot %q, %q, %q : tile<2x2xf32>\n{flat}"),
            [1.0 + 7.0, 2.0 + 10.0, 3.0 + 15.0, 4.0 + 22.0],
        ),
        (
            "%i = tile.iota {size = 4} : tile<4xi32>\n%r = arith.cast %i {to = f32} : tile<4xf32>",
            [0.0, 1.0, 2.0, 3.0],
        ),
        // Offsets of any sign, and the padding.
        (
            "%m = arith.sub %c0, %c2 : index\n%r = tile.load %xv, %m {pad = 9.0, tile = [4]} : tile<4xf32>",
            [9.0, 9.0, 1.0, 2.0],
        ),
        // A row out of a matrix stored by columns: axis 0 is dropped, and the tail is padding.
        (
            "%w = tile.view %x, %c2, %c2, %c1, %c2 : view<f32, 2>\n\
             %r = tile.load %w, %c1, %c0 {axes = [1], tile = [4]} : tile<4xf32>",
            [2.0, 4.0, 0.0, 0.0],
        ),
        (
            "%a, %b = tile.for %c0, %n, %c1, %c1, %f do(%i: index, %j: index, %g: f32) {\n\
             %k = arith.add %j, %i : index\n%h = arith.add %g, %g : f32\nyield %k, %h\n} : index, f32\n\
             %g2 = arith.cast %a {to = f32} : f32\n%s = arith.add %g2, %b : f32\n\
             %r = tile.full %s {shape = [4]} : tile<4xf32>",
            [1.0 + 6.0 + 8.0; 4],
        ),
        (
            "%k = tile.num_programs : index\n%s = arith.cast %k {to = f32} : f32\n\
             %r = tile.full %s {shape = [4]} : tile<4xf32>",
            [4.0; 4],
        ),
    ] {
        let got = run(&body(ops), 4).unwrap_or_else(|e| panic!("{ops}\n{e}"));
        assert_eq!(got, want, "{ops}");
    }
}

#[test]
fn integer_products_are_exact_and_the_order_of_programs_is_seeded() {
    let source = "module @m {
  kernel @k<n: 1..>(%y: ptr<i32, global>, %order: ptr<i32, global>, %n: index) {grid = dims[n]} {
    %c1 = scalar {value = dense<i64[]: 1>} : index
    %big = scalar {value = dense<i8[]: -128>} : i8
    %byte = scalar {value = dense<u8[]: 255>} : u8
    %seven = scalar {value = dense<i32[]: 7>} : i32
    %p = tile.program_id : index
    %a = tile.full %big {shape = [1, 8]} : tile<1x8xi8>
    %b = tile.full %byte {shape = [8, 1]} : tile<8x1xu8>
    %c = tile.full %seven {shape = [1, 1]} : tile<1x1xi32>
    %d = tile.dot %a, %b, %c : tile<1x1xi32>
    %v = tile.view %y, %n, %c1, %c1, %c1 : view<i32, 2>
    tile.store %v, %d, %p, %p
    return
  }
}";
    let m = parse(source).unwrap_or_else(|e| panic!("{e}"));
    // Strides of 1 and 1: element (p, p) is 2p, but only (0, 0) is inside.
    let mut args = [KernelArg::Output(vec![0; 8]), KernelArg::Output(vec![]), KernelArg::Index(2)];
    let r = run_kernel(&m.funcs[0], &mut args, &Options::default()).unwrap();
    assert_eq!((r.programs, r.unwritten), (2, 1));
    assert_eq!(
        Elem::I32.decode_int(Elem::I32.load(args[0].bytes(), 0).unwrap()),
        7 - 8 * 128 * 255
    );
    assert_eq!(args[0].bytes()[4..], [0xFF; 4]);
}
