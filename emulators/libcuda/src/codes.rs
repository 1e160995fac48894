//! Results of the driver's functions: number, name, sentence.

use std::ffi::CStr;

/// A result of the driver: `CUresult`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($short:ident $number:literal $name:literal $says:literal;)*) => {
        #[expect(missing_docs, reason = "each is named as in CUDA's manual")]
        impl Code {
            $(pub const $short: Code = Code($number);)*

            /// Its name in CUDA's manual, and what it says.
            pub fn texts(self) -> Option<(&'static CStr, &'static CStr)> {
                match self.0 {
                    $($number => Some(($name, $says)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    SUCCESS 0 c"CUDA_SUCCESS" c"no error";
    INVALID_VALUE 1 c"CUDA_ERROR_INVALID_VALUE" c"an argument is out of its range";
    OUT_OF_MEMORY 2 c"CUDA_ERROR_OUT_OF_MEMORY" c"the device has not enough memory";
    NOT_INITIALIZED 3 c"CUDA_ERROR_NOT_INITIALIZED" c"cuInit has not been called";
    INVALID_DEVICE 101 c"CUDA_ERROR_INVALID_DEVICE" c"there is no such device";
    INVALID_CONTEXT 201 c"CUDA_ERROR_INVALID_CONTEXT" c"no context, or one that is gone, is current";
    NO_BINARY 209 c"CUDA_ERROR_NO_BINARY_FOR_GPU" c"the module has no code for this device";
    INVALID_PTX 218 c"CUDA_ERROR_INVALID_PTX" c"the PTX text could not be translated";
    PTX_VERSION 222 c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION" c"the PTX text is of a version that the driver does not know";
    INVALID_HANDLE 400 c"CUDA_ERROR_INVALID_HANDLE" c"a handle is of nothing that exists";
    NOT_FOUND 500 c"CUDA_ERROR_NOT_FOUND" c"no such name";
    ILLEGAL_ADDRESS 700 c"CUDA_ERROR_ILLEGAL_ADDRESS" c"memory was touched that is not there";
    OUT_OF_RESOURCES 701 c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES" c"the launch needs more than the device has";
    LAUNCH_TIMEOUT 702 c"CUDA_ERROR_LAUNCH_TIMEOUT" c"the kernel did not end in the time allowed";
    MISALIGNED 716 c"CUDA_ERROR_MISALIGNED_ADDRESS" c"memory was touched at an address that is not aligned";
    LAUNCH_FAILED 719 c"CUDA_ERROR_LAUNCH_FAILED" c"a kernel failed";
    NOT_SUPPORTED 801 c"CUDA_ERROR_NOT_SUPPORTED" c"this is not supported";
    CAPTURE_UNSUPPORTED 900 c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" c"not allowed while a stream captures";
    CAPTURE_INVALIDATED 901 c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" c"an earlier error ended the capture";
    CAPTURE_UNMATCHED 903 c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED" c"the capture did not begin in this stream";
    CAPTURE_ISOLATION 905 c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION" c"a capture would depend on work outside of it";
    CAPTURE_IMPLICIT 906 c"CUDA_ERROR_STREAM_CAPTURE_IMPLICIT" c"the default stream would wait for a stream that captures";
    CAPTURED_EVENT 907 c"CUDA_ERROR_CAPTURED_EVENT" c"the event was last recorded in a capture";
    WRONG_THREAD 908 c"CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD" c"the capture was begun by another thread";
    UNKNOWN 999 c"CUDA_ERROR_UNKNOWN" c"an error of the emulator itself";
}

/// A result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Code>;
