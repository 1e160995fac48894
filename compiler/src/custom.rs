//! Reading kernels of the user's: a tile kernel, or PTX, beside what it computes as a graph.

use std::path::Path;

use silure_ir::{Attr, Code, Diagnostic, Func, FuncKind, Module};
use silure_passes::Custom;

use crate::{Compiler, Error, Loaded, Options, Phase, Result};

/// The longest PTX that is read.
const MOST_PTX: u64 = 16 << 20;

/// A kernel and its pattern as they were read.
pub struct KernelFile {
    /// The pattern alone, as a model of one entry.
    pub pattern: Module,
    /// The pattern's entry.
    pub entry: String,
    /// The kernel; the text of its PTX is in it.
    pub kernel: Func,
}

impl Compiler {
    /// Reads `NAME.sir`: a kernel, and in the same file or in `NAME.graph.sir` beside it an entry, which is the pattern. The
    /// body of a kernel with the attribute `ptx_file` is that file's text, from the same folder; it says its `threads`.
    pub fn load_kernel(&self, path: &Path) -> Result<KernelFile> {
        let here = self.load(path, &Default::default())?.module;
        let mut kernels = here.funcs.iter().filter(|f| f.kind == FuncKind::Kernel);
        let (Some(kernel), None) = (kernels.next(), kernels.next()) else {
            return Err(Error::Usage(format!("{}: one kernel is needed", path.display())));
        };
        let mut kernel = kernel.clone();
        let own = here.funcs.iter().any(|f| f.kind == FuncKind::Entry);
        let mut pattern = match own {
            true => here,
            false => {
                let beside = path.with_extension("graph.sir");
                if !beside.exists() {
                    return Err(Error::Usage(format!(
                        "{}: needed an entry that says what the kernel computes, in it or in {}",
                        path.display(),
                        beside.display()
                    )));
                }
                self.load(&beside, &Default::default())?.module
            }
        };
        pattern.funcs.retain(|f| f.kind != FuncKind::Kernel);
        let entries = pattern.funcs.iter().filter(|f| f.kind == FuncKind::Entry);
        let names: Vec<&str> = entries.map(|f| &*f.name).collect();
        let entry = match names.as_slice() {
            [one] => one.to_string(),
            all => match all.iter().find(|n| ***n == *kernel.name) {
                Some(n) => n.to_string(),
                None => {
                    let m = format!("{}: no entry @{}", path.display(), kernel.name);
                    return Err(Error::Usage(m));
                }
            },
        };
        pattern.funcs.retain(|f| *f.name == *entry);
        if let Some(Attr::Str(file)) = kernel.attrs.remove("ptx_file") {
            let text = ptx(path, &file)?;
            kernel.attrs.set("ptx", &*text);
        }
        Ok(KernelFile { pattern, entry, kernel })
    }
}

/// A text beside a file, by its plain name.
fn ptx(path: &Path, file: &str) -> Result<String> {
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let source = crate::Source::Beside(folder.clone());
    let at = folder.join(file);
    let bytes = std::fs::symlink_metadata(&at).map(|m| m.len());
    let bytes = bytes.map_err(|source| Error::Io { path: at.display().to_string(), source })?;
    if bytes > MOST_PTX {
        return Err(Error::Usage(format!(
            "{}: {bytes} bytes; at most {MOST_PTX} are read",
            at.display()
        )));
    }
    let read = silure_ir::WeightSource::read(&source, file, 0, bytes)?;
    let text = String::from_utf8(read);
    text.map_err(|_| Error::Usage(format!("{}: the text is not UTF-8", at.display())))
}

impl KernelFile {
    /// What looks for the pattern in modules that went to [`Phase::Graph`] with these options.
    pub fn custom(&self, c: &Compiler, options: &Options) -> Result<Custom> {
        let options = Options {
            custom: vec![],
            precision: None,
            rounded_rows: false,
            tf32: false,
            ..options.clone()
        };
        let mut m = self.pattern.clone();
        c.lower_to(&mut m, &crate::Source::None, &options, Phase::Graph, &mut |_, _| {})?;
        let Some(pattern) = m.func(&self.entry) else {
            return Err(no_entry(&self.entry).into());
        };
        Ok(Custom::new(self.kernel.clone(), pattern.clone())?)
    }

    /// The pattern as a model.
    pub fn model(&self) -> Loaded {
        Loaded::new(self.pattern.clone(), crate::Source::None, String::new())
    }
}

fn no_entry(name: &str) -> Diagnostic {
    Diagnostic::new(Code::Internal, format!("@{name} is gone"))
}
