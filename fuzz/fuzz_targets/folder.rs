//! Files on a disk, for what is read by path: a directory of this process, in memory where Linux has one.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use silure::hf::ImportOptions;
use silure::ir::{Code, verify};
use silure::{Compiler, Options};

/// Whether an input is one of the eighth that is compiled, which takes a hundred times as long as reading.
pub fn one_in_eight(data: &[u8]) -> bool {
    data.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) % 8 == 0
}

/// The directory, empty when first asked for.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = base.join(format!("silure-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder of our own");
        folder
    })
}

/// Writes a file of the directory.
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("the folder is writable");
    path
}

/// A language model with a small cache: a diagnostic or a module; if that is to be `compiled` and is not large, an
/// engine that loads. A configuration alone (`meta`) has nothing to write.
pub fn language_model(path: &Path, meta: bool, compiled: bool) {
    static COMPILER: OnceLock<Compiler> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| Compiler::new().expect("the tables are sound"));
    let options = |cache: bool| {
        let n = |v: usize| cache.then_some(v);
        ImportOptions {
            context: Some(32),
            pages: n(2),
            page: n(16),
            tokens: n(8),
            sequences: Some(2),
            meta,
            ..Default::default()
        }
    };
    // Encoders have no cache, and refuse to be told of one.
    let model = compiler
        .load_directory(path, &options(true))
        .or_else(|_| compiler.load_directory(path, &options(false)));
    let bytes = model.and_then(|model| {
        verify::verify(&model.module)?;
        // A configuration may promise a model of any size.
        let large = model.module.funcs.iter().any(|f| f.walk().len() > 2000);
        if meta || large || !compiled {
            return Ok(None);
        }
        compiler.compile(model, &Options::default())?.to_bytes().map(Some)
    });
    match bytes {
        Ok(None) => {}
        Ok(Some(bytes)) => {
            drop(silure_runtime::Engine::from_bytes(&bytes).expect("what was written loads"))
        }
        Err(e) => {
            assert!(!e.to_string().trim().is_empty(), "an error without a message");
            let internal = e.diagnostics().iter().any(|d| matches!(d.code, Code::Internal));
            assert!(!internal, "a broken rule behind the importer: {e}");
        }
    }
}
