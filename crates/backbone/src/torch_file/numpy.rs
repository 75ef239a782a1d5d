//! Numpy numbers: training scripts leave them in histories without meaning to.

use super::pickle::Node;

/// The type that numpy calls `name` (`f8`, `<i4`, `b1`); none for anything but numbers of up to 64 bits.
pub(super) fn dtype(name: &str) -> Option<Node> {
    let (big_endian, bare) = match name.strip_prefix(['<', '>', '=', '|']) {
        Some(rest) => (name.starts_with('>'), rest),
        None => (false, name),
    };
    match bare {
        "f8" | "f4" | "f2" | "i8" | "i4" | "i2" | "i1" | "u8" | "u4" | "u2" | "u1" | "b1" => {
            let b = bare.as_bytes();
            Some(Node::NumpyDtype {
                kind: b[0],
                size: usize::from(b[1] - b'0'),
                big_endian,
            })
        }
        _ => None,
    }
}

/// The number in `bytes`; none if they are not `size`.
pub(super) fn scalar(kind: u8, size: usize, big_endian: bool, bytes: &[u8]) -> Option<Node> {
    if bytes.len() != size || size > 8 {
        return None;
    }
    let mut little = bytes.to_vec();
    if big_endian {
        little.reverse();
    }
    let sign = if kind == b'i' && little.last().is_some_and(|b| b & 0x80 != 0) {
        0xff
    } else {
        0
    };
    let mut wide = [sign; 8];
    wide[..size].copy_from_slice(&little);
    let integer = i64::from_le_bytes(wide);
    Some(match (kind, size) {
        (b'f', 8) => Node::Float(f64::from_bits(integer.cast_unsigned())),
        (b'f', 4) => Node::Float(f32::from_bits(integer as u32).into()),
        (b'f', _) => Node::Float(half::f16::from_bits(integer as u16).to_f64()),
        (b'b', _) => Node::Bool(integer != 0),
        (b'u', 8) if integer < 0 => Node::BigInt,
        _ => Node::Int(integer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width() {
        let number = |name: &str, bytes: &[u8]| {
            let Some(Node::NumpyDtype {
                kind,
                size,
                big_endian,
            }) = dtype(name)
            else {
                panic!("{name}")
            };
            format!("{:?}", scalar(kind, size, big_endian, bytes))
        };
        assert_eq!(number("f8", &1.5f64.to_le_bytes()), "Some(Float(1.5))");
        assert_eq!(
            number(">f4", &(-2.25f32).to_be_bytes()),
            "Some(Float(-2.25))"
        );
        assert_eq!(number("<f2", &[0, 0x3c]), "Some(Float(1.0))");
        assert_eq!(number("i1", &[0xfe]), "Some(Int(-2))");
        assert_eq!(
            number(">i4", &(-70_000i32).to_be_bytes()),
            "Some(Int(-70000))"
        );
        assert_eq!(number("u2", &[0xff, 0xff]), "Some(Int(65535))");
        assert_eq!(number("u8", &[0xff; 8]), "Some(BigInt)");
        assert_eq!(number("|b1", &[1]), "Some(Bool(true))");
        assert_eq!(number("f8", &[0; 4]), "None");
        for name in ["", "c16", "M8", "O8", "U5", "f16"] {
            assert!(dtype(name).is_none(), "{name}");
        }
    }
}
