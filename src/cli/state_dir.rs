//! `[server] state_dir`: the folder of what outlives the process, which one gateway has for itself.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, fstat};

/// A folder that no other gateway has, for as long as this lives.
pub(super) struct StateDir {
    /// Where it is.
    pub path: PathBuf,
    /// Locked; a process that is given it has the lock as well.
    pub lock: OwnedFd,
}

impl StateDir {
    /// Makes the folder where it is missing, and takes it. `given` is the lock of a predecessor, which may be that of
    /// another folder.
    ///
    /// # Errors
    /// It cannot be made or written, or another gateway has it; in words.
    pub(super) fn take(path: &Path, given: Option<OwnedFd>) -> Result<Self, String> {
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
        let path = path.to_owned();
        if let Some(given) = given.filter(|given| same_file(given, &lock)) {
            return Ok(Self { path, lock: given });
        }
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, lock: lock.into() }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
                "error: another gateway uses the state directory {shown}; a second one needs its own [server] state_dir"
            )),
            Err(error) => Err(format!("error: the state directory {shown} cannot be locked: {error}")),
        }
    }
}

fn same_file(one: &OwnedFd, other: &File) -> bool {
    matches!((fstat(one), fstat(other)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}
