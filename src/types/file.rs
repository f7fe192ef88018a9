//! Reading files that operators name, with errors that say what to do.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bytes of a file.
///
/// # Errors
/// It cannot be read, in words; where that is not allowed, whose it is and who asks.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| unreadable(path, &error))
}

/// The text of a file.
///
/// # Errors
/// As [`read`], and text that is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

/// Why a file cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> String {
    let whose = match (error.kind(), std::fs::metadata(path)) {
        (ErrorKind::PermissionDenied, Ok(file)) => format!(
            ": it belongs to user {} and group {} with mode {:o}, and the gateway runs as user {} and group {}",
            file.uid(),
            file.gid(),
            file.mode() & 0o7777,
            rustix::process::geteuid(),
            rustix::process::getegid()
        ),
        _ => String::new(),
    };
    format!("cannot read {}: {error}{whose}", path.display())
}
