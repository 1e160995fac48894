//! The kernels and tools that the tests share.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::PathBuf;

use silure_ascend::Tools;
use silure_ir::{Context, Module, text};
use silure_target::Target;

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Parses a module of tile kernels.
pub fn parse(name: &str, source: &str) -> Module {
    text::parse_verified(&Context::new(), name, source)
        .unwrap_or_else(|e| panic!("{}", e.iter().map(|e| format!("{e}\n")).collect::<String>()))
}

/// One of the kernels in tests/kernels.
pub fn kernel(name: &str) -> Module {
    let path = root().join(format!("tests/kernels/{name}.sir"));
    let source =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    parse(&format!("{name}.sir"), &source)
}

/// A target by its name in the family.
pub fn target(name: &str) -> Target {
    Target::parse(&format!("ascend:{name}")).unwrap_or_else(|e| panic!("{e}"))
}

/// The vendor's compiler; without it the test says so and checks nothing.
pub fn tools(test: &str) -> Option<Tools> {
    let dir = root().join("target/tools/ascend");
    let found = Tools::find(&[&dir]);
    if found.is_none() {
        eprintln!(
            "SKIPPED {test}: the Ascend compiler is not here; tests/tools/fetch_ascend.sh fetches it"
        );
    }
    found
}

/// A kernel over one line of `elem`s: `x` and `y` are tiles of 256, the tile `out` is stored.
pub fn line_kernel(elem: &str, body: &str) -> Module {
    let source = format!(
        "module @m {{\n  kernel @k<n: 1..>(%x: ptr<{elem}, global>, %y: ptr<{elem}, global>, %z: ptr<{elem}, global>, %n: index) \
         {{grid = dims[floordiv(n + 255, 256)]}} {{\n\
         %c256 = scalar {{value = dense<i64[]: 256>}} : index\n\
         %one = scalar {{value = dense<i64[]: 1>}} : index\n\
         %xv = tile.view %x, %n, %one : view<{elem}, 1>\n\
         %yv = tile.view %y, %n, %one : view<{elem}, 1>\n\
         %zv = tile.view %z, %n, %one : view<{elem}, 1>\n\
         %p = tile.program_id : index\n\
         %at = arith.mul %p, %c256 : index\n\
         %a = tile.load %xv, %at {{tile = [256]}} : tile<256x{elem}>\n\
         %b = tile.load %yv, %at {{tile = [256]}} : tile<256x{elem}>\n\
         {body}\n\
         tile.store %zv, %out, %at\n return\n }}\n}}\n"
    );
    parse("line.sir", &source)
}
