//! Records as `TFRecord` frames them.

/// Added to a rotated checksum, so that a checksum of data that holds checksums stays useful.
const MASK: u32 = 0xa282_ead8;

/// CRC-32C, rotated right by 15 bits, plus a constant.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(MASK)
        .to_le_bytes()
}

/// The length and its checksum, the bytes and theirs; little-endian.
pub(super) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length));
    record.extend(bytes);
    record.extend(masked_crc(bytes));
    record
}
