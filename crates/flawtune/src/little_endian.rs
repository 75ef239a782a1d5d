//! Numbers out of little-endian bytes.

/// Numbers of 32 bits; bytes that are left over are not looked at.
pub(crate) fn u32s(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    fours(bytes).map(u32::from_le_bytes)
}

/// Numbers of single precision; bytes that are left over are not looked at.
pub(crate) fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    fours(bytes).map(f32::from_le_bytes)
}

fn fours(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]])
}
