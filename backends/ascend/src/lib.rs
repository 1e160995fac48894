//! Tile kernels on Huawei Ascend NPUs: MLIR text in the tile ABI of the vendor's compiler, and that
//! compiler as a subprocess.
//!
//! [`can`] says what a target cannot do, [`emit()`] makes the text, [`compile`] runs the vendor's compiler
//! on it (package `ascendnpu-ir`, see [`tools`]) and reads what it leaves, [`link`] checks that every
//! library function the result calls exists. Nothing here needs a device or the vendor's runtime.
//!
//! ```
//! use silure_ir::{Context, text};
//! use silure_target::Target;
//! let m = text::parse_verified(&Context::new(), "scale.sir", r#"module @m {
//!   kernel @scale<n: 1..>(%x: ptr<f32, global>, %a: f32, %n: index) {grid = dims[floordiv(n + 255, 256)]} {
//!     %c256 = scalar {value = dense<i64[]: 256>} : index
//!     %one = scalar {value = dense<i64[]: 1>} : index
//!     %v = tile.view %x, %n, %one : view<f32, 1>
//!     %p = tile.program_id : index
//!     %at = arith.mul %p, %c256 : index
//!     %t = tile.load %v, %at {tile = [256]} : tile<256xf32>
//!     %f = tile.full %a {shape = [256]} : tile<256xf32>
//!     %y = arith.mul %t, %f : tile<256xf32>
//!     tile.store %v, %y, %at
//!     return
//!   }
//! }"#).unwrap();
//! let target = Target::parse("ascend:Ascend910B2").unwrap();
//! let out = silure_ascend::emit(m.func("scale").unwrap(), &target).unwrap();
//! assert!(out.mlir.contains("memref.reinterpret_cast"));
//! assert_eq!(out.kernel, "scale");
//! ```

mod capacity;
pub mod driver;
pub mod emit;
mod facts;
pub mod legal;
pub mod link;
mod mlir;
pub mod tools;

pub use driver::{Compiled, TaskType, compile};
pub use emit::{Arg, AscendModule, Blocks, Launch, Pass, emit, emit_with};
pub use legal::{can, can_with};
pub use tools::Tools;
