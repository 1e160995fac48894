//! Every kernel that whole models launch, assembled by NVIDIA's own assembler: nothing is spilled, registers and shared
//! memory are within what targets/*.toml say, and the machine's matrix instructions are where the text has `mma`.
//!
//! Texts that differ in names, comments and the target asked for alone are one. All are assembled for the first architecture that runs them (sm_80,
//! and sm_89 for products of 8-bit floats); of each family (kernels named alike, with and without matrix units) the
//! longest for every other one, and with SILURE_PTXAS_ALL set every text. `ptxas` is looked for in
//! $SILURE_PTXAS, on the PATH and in target/tools, `nvdisasm` on the PATH and in target/tools
//! (tests/tools/fetch_ptxas.sh gets both). Without them this says loudly what is skipped; in CI that is a failure.

#[path = "language/weights.rs"]
#[allow(dead_code, reason = "the language tests use the rest")]
mod weights;

#[path = "../../backends/cuda/tests/assembler/units.rs"]
mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use silure::hf::ImportOptions;
use silure::ir::Elem;
use silure::target::Targets;
use silure::{Compiler, Loaded, Options, Precision};
use silure_engine::{DeviceKernel, EngineFile};
use silure_tests::models;

const ARCHES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let given = std::env::var_os("SILURE_PTXAS").filter(|_| name == "ptxas").map(PathBuf::from);
    let places = std::env::split_paths(&path).chain([own]).map(|d| d.join(name));
    let found = given.into_iter().chain(places).find(|p| p.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is missing: tests/tools/fetch_ptxas.sh");
        eprintln!("SKIPPED: no {name} ($SILURE_PTXAS, PATH, target/tools)");
    }
    found
}

/// The kernels of a model, each text without comments and with one name.
fn kernels(c: &Compiler, name: &str, model: Loaded, all: &mut BTreeMap<String, DeviceKernel>) {
    kernels_for(c, name, model, ("cuda:sm_80", None), all);
}

fn kernels_for(
    c: &Compiler,
    name: &str,
    model: Loaded,
    (target, precision): (&str, Option<Precision>),
    all: &mut BTreeMap<String, DeviceKernel>,
) {
    let target = Options { targets: vec![target.into()], precision, ..Options::default() };
    let compiled = c.compile(model, &target).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = compiled.to_bytes().unwrap();
    let engine = EngineFile::parse(&bytes).unwrap();
    let mut count = 0;
    for (_, code) in engine.device_code() {
        for k in code.kernels {
            let lines = k.text.lines().map(|l| l.split("//").next().unwrap_or("").trim_end());
            let text: Vec<&str> = lines.filter(|l| !l.is_empty()).collect();
            let text = text.join("\n").replace(&k.name, "kernel");
            count += 1;
            // What asks for a later target without need is the same code there.
            let head = |l: &&str| !l.starts_with(".version") && !l.starts_with(".target");
            let key = text.lines().filter(head).collect::<Vec<_>>().join("\n");
            all.entry(key).or_insert(DeviceKernel { text, ..k });
        }
    }
    assert!(count > 0, "{name} has no kernels");
    println!("{name}: {count} kernels");
}

fn everything() -> BTreeMap<String, DeviceKernel> {
    let c = Compiler::new().unwrap();
    let mut all = BTreeMap::new();
    let digits = include_bytes!("../../cli/demo/digits.onnx").to_vec();
    let digits = c.load_bytes("digits.onnx", digits, &Default::default()).unwrap();
    kernels(&c, "digits", digits, &mut all);
    for m in models::all().into_iter().flatten() {
        if ["minilm-int8", "ocr-rec", "ocr-det", "ocr-cls", "magika"].contains(&&*m.name) {
            let loaded = c.load(&m.file, &Default::default()).unwrap_or_else(|e| panic!("{e}"));
            kernels(&c, &m.name, loaded, &mut all);
        }
    }
    let cases = [("llama", None), ("qwen2-bf16", None), ("deepseek-v3-fp8", None)];
    for (name, cache) in cases.into_iter().chain([("deepseek-v3", Some(Elem::Bf16))]) {
        let case = weights::Case::read(name);
        let folder = tempfile::tempdir().unwrap();
        case.write(folder.path(), 1);
        let o = ImportOptions {
            context: Some(125),
            pages: Some(80),
            page: Some(5),
            cache,
            ..Default::default()
        };
        let loaded = c.load_directory(folder.path(), &o).unwrap_or_else(|e| panic!("{e}"));
        kernels(&c, name, loaded, &mut all);
        // What its weights are multiplied with in 8-bit floats too, for targets that have such products and for others.
        if name == "deepseek-v3-fp8" {
            for target in ["cuda:sm_80", "cuda:sm_89"] {
                let loaded = c.load_directory(folder.path(), &o).unwrap_or_else(|e| panic!("{e}"));
                let form = (target, Some(Precision::Fp8));
                kernels_for(&c, &format!("{name}, {target}"), loaded, form, &mut all);
            }
        }
    }
    all
}

/// The architectures that run a text, the first one first.
fn runs(k: &DeviceKernel) -> &'static [&'static str] {
    match k.text.contains(".target sm_89") {
        true => &ARCHES[2..],
        false => &ARCHES,
    }
}

/// Assembles a kernel; what is wrong with the result.
fn assemble(
    (ptxas, dump): (&Path, Option<&Path>),
    k: &DeviceKernel,
    arch: &str,
    (registers, shared): (u64, u64),
) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (source, object) = (dir.path().join("k.ptx"), dir.path().join("k.cubin"));
    std::fs::write(&source, &k.text).unwrap();
    let out = Command::new(ptxas)
        .arg(format!("-arch={arch}"))
        .args(["-v", "-Werror", "-warn-spills", "-warn-lmem-usage"])
        .args([&source, Path::new("-o"), &object])
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    if !out.status.success() || !said.contains(" 0 bytes spill stores, 0 bytes spill loads") {
        return Err(said);
    }
    let used = said.split("Used ").nth(1).and_then(|s| s.split(' ').next()?.parse::<u64>().ok());
    let Some(used) = used else { return Err(format!("no count of registers: {said}")) };
    // A warp's are given out by 8 for each lane.
    let block = used.div_ceil(8) * 8 * k.threads as u64 * 4;
    let smem = said.split(" bytes smem").next().filter(|s| s.len() < said.len());
    let smem = smem.and_then(|s| s.rsplit([' ', ',']).next()?.parse::<u64>().ok()).unwrap_or(0);
    let memory = smem + k.shared as u64;
    if used > 255 || block > registers || memory > shared {
        return Err(format!(
            "{used} registers of {} threads of {registers} bytes, {memory} bytes of {shared}",
            k.threads
        ));
    }
    let Some(dump) = dump else { return Ok(()) };
    let out = Command::new(dump).arg(&object).output().unwrap();
    let sass = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        return Err(format!("no machine code: {}", String::from_utf8_lossy(&out.stderr)));
    }
    units::compare(&k.text, arch, &sass).map(|_| ())
}

#[test]
fn kernels_of_models_are_assembled_without_spills() {
    let Some(ptxas) = tool("ptxas") else { return };
    let dump = tool("nvdisasm");
    let all = everything();
    let targets = Targets::embedded().unwrap();
    let mut longest: BTreeMap<(String, bool), &DeviceKernel> = BTreeMap::new();
    for k in all.values() {
        let family = k.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
        let at = (format!("{family}, {}", runs(k)[0]), k.text.contains("mma.sync"));
        let old = longest.entry(at).or_insert(k);
        if k.text.len() > old.text.len() {
            *old = k;
        }
    }
    let float8 = |k: &&DeviceKernel| k.text.contains(".e4m3.e4m3");
    assert!(all.values().filter(float8).count() > 1, "no products of 8-bit floats");
    let mut work: Vec<(&DeviceKernel, &str)> = all.values().map(|k| (k, runs(k)[0])).collect();
    let others: Vec<&DeviceKernel> = match std::env::var_os("SILURE_PTXAS_ALL") {
        Some(_) => all.values().collect(),
        None => longest.values().copied().collect(),
    };
    for k in others {
        work.extend(runs(k)[1..].iter().map(|a| (k, *a)));
    }
    println!("{} texts, {} families, {} to assemble", all.len(), longest.len(), work.len());
    let budget: BTreeMap<&str, (u64, u64)> = ARCHES
        .iter()
        .map(|a| {
            let t = targets.parse(&format!("cuda:{a}")).unwrap_or_else(|e| panic!("{e}"));
            let bytes = |name: &str| t.memory(name).map_or(0, |m| m.bytes);
            (*a, (bytes("registers"), bytes("shared")))
        })
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(vec![]));
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                while let Some((k, arch)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(e) = assemble((&ptxas, dump.as_deref()), k, arch, budget[arch]) {
                        wrong.lock().unwrap().push(format!("@{} for {arch}: {e}", k.name));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), work.len(), wrong.join("\n"));
}
