//! Results that people can see: overlays, plots and one self-contained page.
//!
//! This module only draws: every number comes ready from `evaluate` or `score`.

pub mod overlay;
pub mod page;
pub mod plot;

use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file under a temporary name beside it and renames it: it appears whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".report-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // a temporary file is private; what it becomes is for others to read
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map(drop).map_err(|error| error.error)
}
