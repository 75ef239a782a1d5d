//! Bars where standard error is not a terminal: the escape sequences a terminal understands, for whoever shows them later.

use std::io::{self, Write as _};

use indicatif::TermLike;

/// Columns, which nobody can be asked for.
const WIDTH: u16 = 110;

#[derive(Debug)]
pub(super) struct Drawn;

fn write(text: &str) -> io::Result<()> {
    io::stderr().lock().write_all(text.as_bytes())
}

/// Moves the cursor; no step at all would mean one to a terminal.
fn by(steps: usize, direction: char) -> io::Result<()> {
    if steps == 0 {
        Ok(())
    } else {
        write(&format!("\x1b[{steps}{direction}"))
    }
}

impl TermLike for Drawn {
    fn width(&self) -> u16 {
        WIDTH
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        by(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        by(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        by(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        by(n, 'D')
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        write(&format!("{line}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        write(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        write("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
