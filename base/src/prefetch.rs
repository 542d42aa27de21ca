//! A hint to the processor: this memory is wanted soon.
//!
//! Used where it is known long before the access which cache line that will miss.

/// Asks for the cache line in which `wanted` begins; it changes nothing but how long a later access takes.
#[inline]
pub fn prefetch<T>(wanted: &T) {
    prefetch_at(std::ptr::from_ref(wanted).addr());
}

/// Asks for the cache line at an address. Whatever lies there, or nothing: it is not looked at.
#[inline]
pub fn prefetch_at(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction reads and writes no memory, and faults on no address, be it mapped, freed or made up;
        // so the pointer, which may be used for no access, needs none.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
