//! Masking (RFC 6455, 5.3). It is its own inverse.

/// Masks or unmasks `bytes`, which begin `offset` bytes into the frame's payload.
pub fn mask(key: [u8; 4], offset: usize, bytes: &mut [u8]) {
    let mut key = key;
    key.rotate_left(offset % 4);
    mask_ascii(key, bytes);
}

/// Masks or unmasks a payload from its beginning; answers whether what comes out is ASCII.
#[inline]
pub(super) fn mask_ascii(key: [u8; 4], bytes: &mut [u8]) -> bool {
    let word = u32::from_ne_bytes(key);
    // The key four times over. Blocks of a fixed size become vector instructions, and no loop is left for less than one.
    let wide = u128::from(word) * 0x0000_0001_0000_0001_0000_0001_0000_0001;
    let mut seen = 0;
    let (blocks, rest) = bytes.as_chunks_mut::<16>();
    for block in blocks {
        let plain = u128::from_ne_bytes(*block) ^ wide;
        seen |= plain;
        *block = plain.to_ne_bytes();
    }
    let mut seen = (seen >> 64) as u64 | seen as u64;
    let rest = match rest.split_first_chunk_mut::<8>() {
        Some((block, rest)) => {
            let plain = u64::from_ne_bytes(*block) ^ (wide as u64);
            seen |= plain;
            *block = plain.to_ne_bytes();
            rest
        }
        None => rest,
    };
    let rest = match rest.split_first_chunk_mut::<4>() {
        Some((block, rest)) => {
            let plain = u32::from_ne_bytes(*block) ^ word;
            seen |= u64::from(plain);
            *block = plain.to_ne_bytes();
            rest
        }
        None => rest,
    };
    let [a, b, c, _] = key;
    for (byte, key) in rest.iter_mut().zip([a, b, c]) {
        *byte ^= key;
        seen |= u64::from(*byte);
    }
    seen & 0x8080_8080_8080_8080 == 0
}

#[cfg(test)]
mod tests {
    use super::{mask, mask_ascii};

    #[test]
    fn a_byte_that_is_not_ascii_is_seen_wherever_it_is() {
        let key = [0xb7, 0x7a, 0x21, 0xff];
        for len in 0..100 {
            let mut masked = vec![b'a'; len];
            mask(key, 0, &mut masked);
            assert!(mask_ascii(key, &mut masked.clone()), "length {len}");
            for at in 0..len {
                let mut masked = masked.clone();
                masked[at] ^= 0x80;
                assert!(!mask_ascii(key, &mut masked), "length {len}, at {at}");
            }
        }
    }

    #[test]
    fn every_length_at_every_offset_is_masked_as_the_rfc_defines() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..100u8 {
            for offset in [0, 1, 2, 3, 4, 5, 126, usize::MAX] {
                let plain: Vec<u8> = (0..len).collect();
                let mut masked = plain.clone();
                mask(key, offset, &mut masked);
                for (i, (masked, plain)) in masked.iter().zip(&plain).enumerate() {
                    assert_eq!(
                        *masked,
                        plain ^ key[(offset % 4 + i) % 4],
                        "length {len}, offset {offset}"
                    );
                }
            }
        }
    }
}
