//! Chance that is none: tokio wakes those who wait for the same thing in an order of its own choosing, by
//! numbers from the operating system, which no seed reaches. So the operating system's are fixed here, for
//! the whole process. What they are is of no importance: where chance matters to the tests, it is
//! the seed's.
#![expect(unsafe_code, reason = "takes the place of a function of the C library")]

use std::{
    ffi::{c_uint, c_void},
    hint::black_box,
};

/// As the C library's, but always the same bytes.
///
/// # Safety
///
/// As its: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(
    buffer: *mut c_void,
    length: usize,
    _flags: c_uint,
) -> isize {
    // SAFETY: the caller vouches for the room.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for byte in buffer {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    length.cast_signed()
}

/// Makes the linker take it.
pub(crate) fn fix() {
    black_box(getrandom as unsafe extern "C" fn(_, _, _) -> _);
}
