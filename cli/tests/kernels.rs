//! Kernels of one's own: run on the device that the emulator is, and put into models.

mod common;

use common::{file, npy, repo, s, silure};

const EMULATED: [&str; 4] = ["--target", "cuda:sm_80", "--device", "cuda:emulated"];

#[test]
fn tile_kernels_and_entries_run_on_the_device() {
    for (name, sizes) in [
        ("softmax", &["rows=5", "n=70"][..]),
        ("matmul_bias_gelu", &["m=9", "n=33", "k=40"]),
        ("conv3x3", &["batch=2", "h=5", "w=7", "c=9", "k=20"]),
    ] {
        for form in ["sir", "graph.sir"] {
            let kernel = repo(&format!("tests/kernels/{name}.{form}"));
            let mut args = [&["kernel", "run", &kernel][..], &EMULATED].concat();
            args.extend(sizes.iter().flat_map(|s| ["--arg", s]));
            let ran = silure(&args).code(0);
            assert!(ran.out.contains("elements agree"), "{}", ran.out);
        }
    }
    for (name, sizes) in [
        ("act_quant", &["n=9", "b=2"][..]),
        ("weight_dequant", &["r=1", "c=2"]),
        ("fp8_gemm", &["m=70", "n=1", "k=2"]),
    ] {
        let kernel = repo(&format!("examples/deepseek/{name}.sir"));
        for place in [&EMULATED[..], &["--target", "interp"]] {
            let mut args = [&["kernel", "run", &kernel][..], place].concat();
            args.extend(sizes.iter().flat_map(|s| ["--arg", s]));
            let ran = silure(&args).code(0);
            assert!(ran.out.contains("elements agree"), "{}", ran.out);
        }
    }
    let kernel = repo("tests/kernels/softmax.sir");
    silure(&["kernel", "run", &kernel, "--target", "cpu:x86-64-v3", "--device", "cuda:emulated"])
        .code(2)
        .says("runs on this machine's CPU");
    let kernel = repo("tests/kernels/flash_attention.sir");
    silure(&[&["kernel", "run", &kernel][..], &EMULATED].concat())
        .code(5)
        .says("an argument is f32");
}

#[test]
fn a_kernel_takes_its_places_in_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text =
        |name: &str| std::fs::read_to_string(repo(&format!("tests/kernels/{name}"))).unwrap();
    // Two softmaxes, one of them over another type.
    let model = "module @m {
      entry @main<n: 1..>(%x: f32[n, 6], %h: f16[n, 6]) -> (y: f32[n, 6], z: f16[n, 6]) {
        %a = arith.exp %x : f32[n, 6]
        %b = graph.softmax %a : f32[n, 6]
        %y = arith.neg %b : f32[n, 6]
        %z = graph.softmax %h : f16[n, 6]
        return %y, %z
      }
    }";
    let model = file(dir.path(), "m.sir", model);
    let engine = path("m.silure");
    let with = |kernel: &str, more: &[&str]| {
        let args =
            ["compile", s(&model), "--target", "cuda:sm_80", "-o", s(&engine), "--kernel", kernel];
        silure(&[&args[..], more].concat())
    };
    let softmax = repo("tests/kernels/softmax.sir");
    with(&softmax, &[]).code(0).says("agrees with the oracle").says("in one place of the model");
    let x = file(
        dir.path(),
        "x.npy",
        npy("2, 6", &(0..12).map(|i| (i % 5) as f32 / 4.0).collect::<Vec<_>>()),
    );
    // Twelve halves, as f16.
    let mut halves = npy("2, 6", &[]);
    let at = halves.windows(3).position(|w| w == b"<f4").unwrap();
    halves[at + 2] = b'2';
    halves.extend([0, 0x38].repeat(12));
    let h = file(dir.path(), "h.npy", halves);
    let run = |what: &std::path::Path, out: &str| {
        let (x, h) = (format!("x=@{}", s(&x)), format!("h=@{}", s(&h)));
        let out = path(out);
        let args = ["run", s(what), "--input", &x, "--input", &h, "--out-dir", s(&out)];
        silure(&[&args[..], &["--device", "cuda:emulated"]].concat()).code(0);
        std::fs::read(out.join("out_0.npy")).unwrap()
    };
    let own = run(&engine, "own");
    let ours = run(&model, "ours");
    let floats = |b: &[u8]| -> Vec<f32> {
        b[b.len() - 48..].chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    };
    assert!(floats(&own).iter().zip(floats(&ours)).all(|(a, b)| (a - b).abs() < 1e-6));
    // Its pattern is nowhere.
    with(&repo("tests/kernels/matmul_bias_gelu.sir"), &[]).code(0).says("nowhere in the model");
    // Wrong: not shrunk by the maximum of later tiles; and a file without its pattern.
    let wrong =
        text("softmax.sir").replace("arith.add %l_scaled, %tile_sum", "arith.add %l, %tile_sum");
    let wrong = file(dir.path(), "wrong.sir", wrong);
    with(s(&wrong), &[]).code(2).says("wrong.graph.sir");
    file(dir.path(), "wrong.graph.sir", text("softmax.graph.sir"));
    std::fs::remove_file(&engine).unwrap();
    with(s(&wrong), &[]).code(3).says("kernel @softmax").says("elements are wrong");
    assert!(!engine.exists());
    silure(&["compile", s(&model), "-o", s(&engine), "--kernel", &softmax])
        .code(2)
        .says("cuda:sm_80");
}

#[test]
fn a_kernel_of_ptx_that_costs_more_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let ptx = "
.version 7.0
.target sm_80
.address_size 64
.visible .entry twice(.param .u64 x, .param .u64 y, .param .u64 n) {
  .reg .pred %p<2>; .reg .b64 %d<9>; .reg .b32 %r<5>; .reg .f32 %f<4>;
  ld.param.u64 %d0, [x];
  ld.param.u64 %d1, [y];
  ld.param.u64 %d2, [n];
  mov.u32 %r0, %ctaid.x;
  mov.u32 %r1, %ntid.x;
  mov.u32 %r2, %tid.x;
  mad.lo.u32 %r3, %r0, %r1, %r2;
  cvt.u64.u32 %d4, %r3;
  setp.ge.u64 %p0, %d4, %d2;
  @%p0 ret;
  shl.b64 %d5, %d4, 2;
  add.s64 %d6, %d0, %d5;
  add.s64 %d7, %d1, %d5;
  ld.global.f32 %f0, [%d6];
  add.f32 %f1, %f0, %f0;
  st.global.f32 [%d7], %f1;
  ret;
}";
    file(dir.path(), "twice.ptx", ptx);
    let kernel = |threads: u32, spread: u32, file_name: &str| {
        let text = format!(
            "module @twice {{
  entry @double<n: 1..>(%x: f32[n]) -> (y: f32[n]) {{
    %y = arith.add %x, %x : f32[n]
    return %y
  }}
  kernel @twice<n: 1..>(%x: ptr<f32, global>, %y: ptr<f32, global>, %n: index) {{grid = dims[floordiv(n + {}, {spread})], ptx_file = \"{file_name}\", threads = {threads}}} {{
    return
  }}
}}",
            spread - 1
        );
        file(dir.path(), "twice.sir", text)
    };
    let model = file(
        dir.path(),
        "m.sir",
        "module @m {
          entry @main<b: 1..>(%v: f32[b]) -> (w: f32[b]) {
            %w = arith.add %v, %v : f32[b]
            return %w
          }
        }",
    );
    let engine = dir.path().join("m.silure");
    let with = |kernel: &std::path::Path, more: &[&str]| {
        let args = [
            "compile",
            s(&model),
            "--target",
            "cuda:sm_80",
            "-o",
            s(&engine),
            "--kernel",
            s(kernel),
        ];
        silure(&[&args[..], more].concat())
    };
    let k = kernel(32, 32, "twice.ptx");
    with(&k, &["--kernel-always"]).code(0).says("in one place of the model");
    let v = file(dir.path(), "v.npy", npy("40", &(0..40).map(|i| i as f32).collect::<Vec<_>>()));
    let out = dir.path().join("out");
    let args =
        ["run", s(&engine), "--inputs", s(&v), "--out-dir", s(&out), "--device", "cuda:emulated"];
    silure(&args).code(0);
    let bytes = std::fs::read(out.join("out_0.npy")).unwrap();
    let last = f32::from_le_bytes(bytes[bytes.len() - 4..].try_into().unwrap());
    assert_eq!(last, 78.0);
    // Many more threads than have something to do.
    let k = kernel(1024, 32, "twice.ptx");
    with(&k, &[]).code(0).says("ours is taken (--kernel-always)");
    // Blocks that leave some out; a text that is not there, or outside; one for a newer device.
    let k = kernel(32, 64, "twice.ptx");
    with(&k, &["--kernel-always"]).code(1).says("kernel @twice").says("nothing has written");
    with(&kernel(32, 32, "absent.ptx"), &[]).code(1).says("absent.ptx");
    with(&kernel(32, 32, "../twice.ptx"), &[]).code(1).says("../twice.ptx");
    file(dir.path(), "new.ptx", ptx.replace("sm_80", "sm_90"));
    with(&kernel(32, 32, "new.ptx"), &[]).code(5).says("sm_90");
    with(&kernel(0, 32, "twice.ptx"), &[]).code(1).says("threads");
}
