//! Pictures as ffmpeg writes them one after the other: binary PPM.

use std::io::{self, BufRead};

/// Most pixels that a picture may have.
const MOST_PIXELS: u64 = 1 << 26;
/// Bytes of a header.
const HEADER: usize = 64;

/// A picture of three bytes a pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Vec<u8>,
}

/// The next picture; none where the stream ends before it.
pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Picture>> {
    if from.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut left = HEADER;
    let magic = word(from, &mut left)?;
    let (width, height) = (number(from, &mut left)?, number(from, &mut left)?);
    let depth = number(from, &mut left)?;
    if magic != "P6" || depth != 255 {
        return Err(wrong("what ffmpeg writes is no PPM of 8 bits"));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MOST_PIXELS {
        let text =
            format!("a picture of {width} × {height} pixels, where at most {MOST_PIXELS} are read");
        return Err(wrong(&text));
    }
    let mut bytes = vec![0; pixels as usize * 3];
    from.read_exact(&mut bytes)?;
    Ok(Some(Picture {
        width,
        height,
        pixels: bytes,
    }))
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A word and the one space after it.
fn word(from: &mut impl BufRead, left: &mut usize) -> io::Result<String> {
    let mut word = String::new();
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        *left = left
            .checked_sub(1)
            .ok_or_else(|| wrong("a header without end"))?;
        if byte[0].is_ascii_whitespace() {
            return Ok(word);
        }
        word.push(char::from(byte[0]));
    }
}

fn number(from: &mut impl BufRead, left: &mut usize) -> io::Result<u32> {
    let word = word(from, left)?;
    word.parse().map_err(|_| wrong("a header without a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_one_after_the_other() {
        let mut bytes = Vec::new();
        for (width, height) in [(2, 1), (1, 3)] {
            bytes.extend(format!("P6\n{width} {height}\n255\n").bytes());
            bytes.extend(vec![b'\n'; 3 * width * height]);
        }
        let mut from = &bytes[..];
        let first = read(&mut from).unwrap().unwrap();
        assert_eq!((first.width, first.height, first.pixels.len()), (2, 1, 6));
        assert_eq!(read(&mut from).unwrap().unwrap().pixels.len(), 9);
        assert!(read(&mut from).unwrap().is_none());
        let mut torn = &bytes[..bytes.len() - 1];
        read(&mut torn).unwrap();
        assert_eq!(
            read(&mut torn).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn no_header_makes_more_room_than_there_may_be() {
        for header in [
            "P6\n4294967295 4294967295\n255\n",
            "P6\n100000 100000\n255\n",
            "P6\n0 5\n255\n",
            "P6\n-1 5\n255\n",
            "P6\n2 2\n65535\n",
            "P3\n2 2\n255\n",
            "\u{89}PNG",
        ] {
            assert!(read(&mut header.as_bytes()).is_err(), "{header}");
        }
        let endless = vec![b'9'; 1 << 20];
        assert!(
            read(&mut &endless[..])
                .unwrap_err()
                .to_string()
                .contains("without end")
        );
    }
}
