//! Whether a JPEG file is all there.
//!
//! The decoder fills what is missing of a JPEG with grey and reports success; half an image of a part would then
//! be scored as a defect. So the marker structure is walked first: a file that ends before its end-of-image marker
//! was cut short.

const END_OF_IMAGE: u8 = 0xd9;

/// Markers without a length: TEM, RST0..7 and SOI.
fn stands_alone(marker: u8) -> bool {
    marker == 0x01 || (0xd0..=0xd8).contains(&marker)
}

/// Whether the end-of-image marker is reached when the segments are walked from the start.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let mut at = 0;
    loop {
        // the next marker: in entropy-coded data 0xff is followed by 0x00 or by a restart marker
        let Some(found) = bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|b| *b == 0xff))
        else {
            return false;
        };
        at += found + 1;
        let Some(marker) = bytes.get(at).copied() else {
            return false;
        };
        match marker {
            // a fill byte: look at the next one
            0xff => {}
            END_OF_IMAGE => return true,
            0x00 => at += 1,
            m if stands_alone(m) => at += 1,
            _ => {
                let Some(length) = bytes.get(at + 1..at + 3) else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                at += 1 + length.max(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_marker_inside_a_segment_does_not_count() {
        // SOI, APP1 holding a thumbnail's "ff d9", SOS, data with a stuffed ff and a restart
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9];
        bytes.extend([0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 3, 0xff, 0xd0, 4]);
        assert!(!is_complete(&bytes));
        bytes.extend([0xff, 0xff, 0xd9]);
        assert!(is_complete(&bytes));
        for keep in 0..bytes.len() {
            assert!(!is_complete(&bytes[..keep]), "{keep}");
        }
    }
}
