//! What the compiler does not make of plain loops: byte classes of a line's end in a few instructions, and telling the
//! cache what will be needed soon. The only module with unsafe code; each use has a plain twin that tests compare it with.

#![expect(unsafe_code, reason = "vector loads and prefetches have no safe form")]

/// How many bytes [`classify`] looks at.
pub(crate) const TAIL_BYTES: usize = 32;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

/// Where the bytes of a class stand: bit `i` is byte `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    pub(crate) spaces: u32,
    pub(crate) digits: u32,
    pub(crate) dots: u32,
}

/// Classifies bytes.
pub(crate) fn classify(bytes: &[u8; TAIL_BYTES]) -> Classes {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86_64.
    unsafe {
        classify_by_sse2(bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    classify_plainly(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn classify_by_sse2(bytes: &[u8; TAIL_BYTES]) -> Classes {
    use std::arch::x86_64::{
        _mm_add_epi8, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_set1_epi8,
    };
    let half = |at: usize| {
        // SAFETY: `at` is 0 or 16, so 16 bytes from there are within the 32; the load needs no alignment.
        let bytes = unsafe { _mm_loadu_si128(bytes.as_ptr().add(at).cast()) };
        let mask = |lanes| (_mm_movemask_epi8(lanes) as u32) << at;
        // Moved so that the ten digits are the ten least signed bytes.
        let moved = _mm_add_epi8(bytes, _mm_set1_epi8(i8::MIN.wrapping_sub(b'0' as i8)));
        Classes {
            spaces: mask(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(b' ' as i8))),
            digits: mask(_mm_cmplt_epi8(moved, _mm_set1_epi8(i8::MIN + 10))),
            dots: mask(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'.' as i8))),
        }
    };
    let (low, high) = (half(0), half(16));
    Classes {
        spaces: low.spaces | high.spaces,
        digits: low.digits | high.digits,
        dots: low.dots | high.dots,
    }
}

/// Asks for the cache lines of `items[index]`, if there is such an item. Changes nothing but the time that reading it takes.
pub(crate) fn prefetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start: *const i8 = std::ptr::from_ref(item).cast();
        for offset in (0..size_of::<T>()).step_by(CACHE_LINE_BYTES) {
            // SAFETY: a prefetch reads nothing that a program could see, and the address is within a live item.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = (items, index);
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn classify_plainly(bytes: &[u8; TAIL_BYTES]) -> Classes {
    let mask = |is: fn(u8) -> bool| {
        let bits = bytes.iter().enumerate();
        bits.fold(0, |mask, (index, byte)| {
            mask | u32::from(is(*byte)) << index
        })
    };
    Classes {
        spaces: mask(|byte| byte == b' '),
        digits: mask(|byte| byte.is_ascii_digit()),
        dots: mask(|byte| byte == b'.'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_classified_as_the_plain_loop_does_it() {
        for byte in 0..=u8::MAX {
            for place in 0..TAIL_BYTES {
                let mut bytes = *b"servers.web1 cpu 12.5 1700000000";
                bytes[place] = byte;
                assert_eq!(
                    classify(&bytes),
                    classify_plainly(&bytes),
                    "{byte} at {place}"
                );
            }
        }
    }
}
