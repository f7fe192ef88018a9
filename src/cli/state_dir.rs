//! `[server] state_dir`: the folder of what outlives the process, which one gateway has for itself.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A folder that no other gateway has, for as long as this lives.
pub(super) struct StateDir {
    /// Locked; a process that inherits it has the lock as well.
    _lock: File,
}

impl StateDir {
    /// Makes the folder where it is missing, and takes it.
    ///
    /// # Errors
    /// It cannot be made or written, or another gateway has it; in words.
    pub(super) fn take(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| format!("error: the state directory {shown} cannot be made: {error}"))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| format!("error: the state directory {shown} cannot be used: {error}"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
                "error: another gateway uses the state directory {shown}; a second one needs its own [server] state_dir"
            )),
            Err(error) => Err(format!("error: the state directory {shown} cannot be locked: {error}")),
        }
    }
}
