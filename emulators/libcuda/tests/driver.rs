//! The driver's functions as a C program calls them: handles, order, captures. One context is shared by the tests of a
//! process, so all that holds it runs in one test after the other.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use silure_libcuda::Code;
use silure_libcuda::api::context::*;
use silure_libcuda::api::graph::*;
use silure_libcuda::api::memory::*;
use silure_libcuda::api::module::*;
use silure_libcuda::api::stream::*;

/// `p[i] += add` for 32 words.
const TEXT: &CStr = c".version 7.0
.target sm_80
.address_size 64
.visible .entry more(.param .u64 p, .param .u32 add) {
  .reg .b64 %d<3>; .reg .b32 %r<4>;
  ld.param.u64 %d0, [p];
  ld.param.u32 %r0, [add];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d1, %r1, 4;
  add.s64 %d2, %d0, %d1;
  ld.global.u32 %r2, [%d2];
  add.u32 %r3, %r2, %r0;
  st.global.u32 [%d2], %r3;
  ret;
}";

fn ok(code: Code) {
    assert_eq!(code, Code::SUCCESS, "{:?}", code.texts());
}

/// One result that a function writes.
fn give<T: Default>(f: impl FnOnce(*mut T) -> Code) -> T {
    let mut v = T::default();
    ok(f(&mut v));
    v
}

struct Kernel {
    module: usize,
    function: usize,
    stream: usize,
    words: u64,
}

impl Kernel {
    fn new() -> Kernel {
        // SAFETY: here and below: what is given lives, and is of the size that is said.
        unsafe {
            ok(cuInit(0));
            let context = give(|c| cuDevicePrimaryCtxRetain(c, 0));
            ok(cuCtxSetCurrent(context));
            let module = give(|m| cuModuleLoadData(m, TEXT.as_ptr().cast()));
            let function = give(|f| cuModuleGetFunction(f, module, c"more".as_ptr()));
            let stream = give(|s| cuStreamCreate(s, 1));
            let words = give(|a| cuMemAlloc_v2(a, 128));
            ok(cuMemsetD32Async(words, 1, 32, stream));
            Kernel { module, function, stream, words }
        }
    }

    fn add(&self, n: u32) -> Code {
        let mut params: [*mut c_void; 2] =
            [(&raw const self.words).cast_mut().cast(), (&raw const n).cast_mut().cast()];
        let (f, s) = (self.function, self.stream);
        // SAFETY: the kernel has two parameters.
        unsafe { cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 0, s, params.as_mut_ptr(), null_mut()) }
    }

    fn words(&self) -> Vec<u32> {
        let mut w = vec![0u32; 32];
        // SAFETY: 32 words.
        ok(unsafe { cuMemcpyDtoH_v2(w.as_mut_ptr().cast(), self.words, 128) });
        w
    }

    fn end(self) {
        // SAFETY: nothing.
        unsafe { ok(cuDevicePrimaryCtxRelease_v2(0)) }
    }
}

#[test]
fn one_after_the_other() {
    stale_handles_are_errors();
    a_pinned_copy_waits_for_its_turn();
    captures_and_what_ends_them();
    what_the_host_reads_was_written();
}

fn stale_handles_are_errors() {
    let k = Kernel::new();
    // SAFETY: handles are numbers here.
    unsafe {
        let event = give(|e| cuEventCreate(e, 0));
        ok(cuEventDestroy_v2(event));
        assert_eq!(cuEventRecord(event, k.stream), Code::INVALID_HANDLE);
        assert_eq!(cuStreamSynchronize(event), Code::INVALID_HANDLE);
        assert_eq!(cuGraphLaunch(k.module, k.stream), Code::INVALID_HANDLE);
        ok(cuModuleUnload(k.module));
        assert_eq!(cuModuleUnload(k.module), Code::INVALID_HANDLE);
        assert_eq!(k.add(1), Code::INVALID_HANDLE);
        ok(cuStreamDestroy_v2(k.stream));
        assert_eq!(cuMemsetD8Async(k.words, 0, 1, k.stream), Code::INVALID_HANDLE);
        ok(cuMemFree_v2(k.words));
        assert_eq!(cuMemFree_v2(k.words), Code::INVALID_VALUE);
        let context = give(|c| cuCtxGetCurrent(c));
        k.end();
        assert_eq!(cuCtxSynchronize(), Code::INVALID_CONTEXT);
        assert_eq!(cuCtxSetCurrent(context), Code::INVALID_CONTEXT);
        assert_eq!(
            cuModuleLoadDataEx(null_mut(), null(), 0, null(), null_mut()),
            Code::INVALID_CONTEXT
        );
    }
}

fn a_pinned_copy_waits_for_its_turn() {
    let k = Kernel::new();
    // SAFETY: pinned memory of 32 words, and a vector of as many.
    unsafe {
        let pinned: *mut u32 = {
            let mut p = null_mut();
            ok(cuMemHostAlloc(&mut p, 128, 0));
            p.cast()
        };
        ok(k.add(4));
        ok(cuMemcpyDtoHAsync_v2(pinned.cast(), k.words, 128, k.stream));
        assert_eq!(*pinned, 0, "nothing has waited for the copy");
        ok(cuStreamSynchronize(k.stream));
        assert_eq!(*pinned, 5);
        // To the device: pageable memory is read at once, pinned memory when the copy is done.
        let mut pageable = [7u32; 32];
        ok(cuMemcpyHtoDAsync_v2(k.words, pageable.as_ptr().cast(), 128, k.stream));
        pageable.fill(8);
        assert_eq!(k.words(), [7; 32]);
        *pinned = 9;
        ok(cuMemcpyHtoDAsync_v2(k.words, pinned.cast(), 128, k.stream));
        *pinned = 10;
        assert_eq!(k.words()[0], 10);
        ok(cuMemFreeHost(pinned.cast()));
    }
    k.end();
}

fn captures_and_what_ends_them() {
    let k = Kernel::new();
    let begin = |mode| {
        // SAFETY: a stream.
        ok(unsafe { cuStreamBeginCapture_v2(k.stream, mode) });
        ok(k.add(3));
    };
    // SAFETY: results are written to variables.
    unsafe {
        let mut graph = 0;
        begin(0);
        ok(cuMemsetD32Async(k.words, 100, 4, k.stream));
        ok(k.add(20));
        graph = give(|g| cuStreamEndCapture(k.stream, g)).max(graph);
        assert_eq!(k.words(), [1; 32], "a capture runs nothing");
        let instance = give(|i| cuGraphInstantiateWithFlags(i, graph, 0));
        ok(cuGraphDestroy(graph));
        for turn in 1..=3 {
            ok(cuGraphLaunch(instance, k.stream));
            let mut expected = [1 + 23 * turn; 32];
            expected[..4].fill(120);
            assert_eq!(k.words(), expected);
        }
        ok(cuGraphExecDestroy(instance));
        assert_eq!(cuGraphLaunch(instance, k.stream), Code::INVALID_HANDLE);
        // What waits for the device ends a capture; which calls do depends on its mode.
        let other = give(|s| cuStreamCreate(s, 1));
        let mut host = [0u32; 32];
        let to: *mut c_void = host.as_mut_ptr().cast();
        type Ends<'a> = (&'a str, u32, Code, Box<dyn Fn() -> Code + 'a>);
        let calls: Vec<Ends<'_>> = vec![
            (
                "its own stream",
                2,
                Code::CAPTURE_UNSUPPORTED,
                Box::new(|| cuStreamSynchronize(k.stream)),
            ),
            ("the context", 2, Code::CAPTURE_UNSUPPORTED, Box::new(|| cuCtxSynchronize())),
            (
                "the default stream",
                2,
                Code::CAPTURE_IMPLICIT,
                Box::new(|| cuMemsetD8Async(k.words, 0, 1, 0)),
            ),
            ("memory", 0, Code::CAPTURE_UNSUPPORTED, Box::new(|| cuMemFree_v2(0x10))),
            (
                "a copy",
                1,
                Code::CAPTURE_UNSUPPORTED,
                Box::new(|| cuMemcpyDtoH_v2(to, k.words, 128)),
            ),
        ];
        for (what, mode, code, call) in &calls {
            begin(*mode);
            assert_eq!(call(), *code, "{what}");
            assert_eq!(k.add(1), Code::CAPTURE_INVALIDATED, "{what}");
            assert_eq!(
                cuStreamEndCapture(k.stream, &mut graph),
                Code::CAPTURE_INVALIDATED,
                "{what}"
            );
            assert_eq!(graph, 0);
            ok(k.add(0));
        }
        // Another stream may be waited for, and relaxed captures allow memory.
        begin(2);
        ok(cuStreamSynchronize(other));
        let more = give(|a| cuMemAlloc_v2(a, 16));
        ok(cuMemFree_v2(more));
        // An event takes another stream into the capture; one from outside may not be waited for.
        let (inner, outer) = (give(|e| cuEventCreate(e, 0)), give(|e| cuEventCreate(e, 0)));
        ok(cuEventRecord(inner, k.stream));
        ok(cuStreamWaitEvent(other, inner, 0));
        assert_eq!(give(|s| cuStreamIsCapturing(other, s)), 1);
        assert_eq!(cuEventSynchronize(inner), Code::CAPTURED_EVENT);
        assert_eq!(cuStreamEndCapture(other, &mut graph), Code::CAPTURE_UNMATCHED);
        assert_eq!(cuStreamWaitEvent(k.stream, outer, 0), Code::CAPTURE_ISOLATION);
        assert_eq!(cuStreamEndCapture(k.stream, &mut graph), Code::CAPTURE_INVALIDATED);
        assert_eq!(give(|s| cuStreamIsCapturing(other, s)), 0);
        assert_eq!(cuStreamEndCapture(k.stream, &mut graph), Code::INVALID_VALUE);
    }
    k.end();
}

fn what_the_host_reads_was_written() {
    let k = Kernel::new();
    let mut host = [0u8; 8];
    // SAFETY: 8 bytes of the 16.
    unsafe {
        let a = give(|a| cuMemAlloc_v2(a, 16));
        let b = give(|a| cuMemAlloc_v2(a, 16));
        ok(cuMemsetD8Async(a, 1, 8, k.stream));
        // A copy takes with it what was never written.
        ok(cuMemsetD8Async(b, 2, 16, k.stream));
        ok(cuMemcpyDtoDAsync_v2(b, a, 16, k.stream));
        ok(cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), b, 8));
        assert_eq!(host, [1; 8]);
        assert_eq!(cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), b + 8, 8), Code::LAUNCH_FAILED);
        let mut says = null();
        ok(cuGetErrorString(Code::LAUNCH_FAILED, &mut says));
        let says = CStr::from_ptr(says).to_str().unwrap();
        assert!(says.contains("nothing has written"), "{says}");
        assert_eq!(cuCtxSynchronize(), Code::LAUNCH_FAILED, "it stays");
    }
    k.end();
}
