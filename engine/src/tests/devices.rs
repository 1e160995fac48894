//! Plans that place work on a device besides the host.

use super::*;

/// A copy to a device, a kernel there, a state there, and the copy back.
fn device_plan() -> Plan {
    let mut p = PlanBuilder::new();
    let cuda = p.device("cuda");
    let (w, s) = (p.weight("w", 256), p.state("s", Elem::F32, &[64]));
    let (add, keep) = (p.device_kernel("add"), p.device_kernel("keep"));
    assert_eq!(p.device_kernel("add"), add);
    let mut e = p.entry("main");
    let x = e.input("x", Elem::F32, &[DimSpec::symbol("n", 1, 64)]);
    let y = e.output("y", Elem::F32, &["n"]);
    let n = e.dim(0, 0);
    let bytes = e.mul(n, 4);
    e.set_shape(0, &[n]);
    e.on(cuda);
    let (a, b) = (e.temp("a", bytes), e.temp("b", bytes));
    let (wb, sb) = (e.weight(w), e.state(s));
    e.copy(a, 0, x, 0, bytes);
    let part = e.view(wb, 0, bytes);
    e.launch_device(add, &[Arg::In(a), Arg::In(part), Arg::Out(b)], &[n], 1, n);
    e.launch_device(keep, &[Arg::In(b), Arg::Out(sb)], &[n], 1, 0);
    e.copy(y, 0, b, 0, bytes);
    e.finish();
    p.finish().unwrap()
}

fn kernel(name: &str, params: u32) -> DeviceKernel {
    DeviceKernel { name: name.into(), threads: 128, shared: 0, params, text: "text".into() }
}

fn code() -> DeviceCode {
    DeviceCode { kernels: vec![kernel("add", 4), kernel("keep", 3)] }
}

fn engine(code: &DeviceCode) -> Vec<u8> {
    let zeros = |_: u32, out: &mut dyn Write| out.write_all(&[0; 256]);
    let w = EngineWriter::new(device_plan(), "0.1.0").device_code("cuda:sm_80", code);
    w.to_bytes(zeros).unwrap()
}

#[test]
fn devices_survive_the_binary_form_and_raise_the_version() {
    let plan = device_plan();
    survives(&plan);
    let text = plan.to_string();
    assert!(text.contains("%6 = view on cuda"), "{text}");
    assert!(text.contains("launch add(%2, %6, out %3) sizes [r0] tasks 1"), "{text}");
    let bytes = engine(&code());
    let file = EngineFile::parse(&bytes).unwrap();
    assert_eq!((file.manifest.format_version, file.manifest.min_reader), (4, 4));
    assert_eq!(file.device_code(), [("cuda:sm_80", code())]);
}

#[test]
fn work_where_its_buffers_are_not_is_refused() {
    let refused = |change: &dyn Fn(&mut Plan), needed: &str| {
        let mut p = device_plan();
        change(&mut p);
        let e = p.validate().unwrap_err().to_string();
        assert!(e.contains(needed), "{e}, not {needed}");
    };
    refused(&|p| p.entries[0].buffers[2].device = 0, "memory of device 1");
    refused(&|p| p.entries[0].buffers[0].device = 1, "the host's memory");
    refused(&|p| p.entries[0].buffers[3].device = 7, "an index below 2");
    refused(&|p| p.devices.push(p.devices[1]), "a unique name");
    let at = |p: &Plan, f: &dyn Fn(&Inst) -> bool| {
        p.entries[0].code.iter().position(|op| f(&op.inst)).unwrap()
    };
    let launch = |i: &Inst| matches!(i, Inst::Launch(_));
    refused(
        &|p| {
            let i = at(p, &launch);
            p.entries[0].code[i].device = 0;
        },
        "memory of device 0",
    );
    refused(
        &|p| {
            let i = at(p, &launch);
            if let Inst::Launch(l) = &mut p.entries[0].code[i].inst {
                l.kernel = KernelRef::Code(0);
            }
        },
        "one of the op's device",
    );
    refused(
        &|p| {
            let i = at(p, &launch);
            if let Inst::Launch(l) = &mut p.entries[0].code[i].inst {
                l.kernel = KernelRef::Device(2);
            }
        },
        "an index below 2",
    );
    refused(
        &|p| {
            let mut second = p.entries[0].clone();
            second.buffers.push(BufDecl { kind: BufKind::State(0), device: 0, name: Str(0) });
            second.name = p.entries[0].symbols[0];
            p.entries.push(second);
        },
        "device 1",
    );
}

#[test]
fn code_must_be_that_of_the_plan() {
    let refused = |change: &dyn Fn(&mut DeviceCode), needed: &str| {
        let mut c = code();
        change(&mut c);
        let e = EngineFile::parse(&engine(&c)).unwrap_err().to_string();
        assert!(e.contains(needed) && e.contains("cuda:sm_80"), "{e}, not {needed}");
    };
    refused(&|c| drop(c.kernels.pop()), "2");
    refused(&|c| c.kernels.swap(0, 1), "'add'");
    refused(&|c| c.kernels[0].threads = 0, "1 to 1024 threads");
    refused(&|c| c.kernels[0].params = 5, "5 parameters");
    let bytes = code().encode();
    for n in 0..bytes.len() {
        assert!(DeviceCode::decode(&bytes[..n]).is_err(), "truncated to {n}");
    }
}
