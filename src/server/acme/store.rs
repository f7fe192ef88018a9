//! The files of the state: accounts with CAs, and certificates with their keys.
//!
//! ```text
//! acme/accounts/3f1c….json
//! acme/certificates/api.example.com-9a2b….pem     the private key, then the chain
//! ```
//!
//! Folders have the mode 0700, files 0600. A file is written beside its place, synced and renamed, so that there is the
//! old one or the new one, whole.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::config::Settings;

/// The folder of the state.
#[derive(Clone)]
pub(super) struct Store {
    root: PathBuf,
}

/// What could not be done, where and why.
#[derive(Debug)]
pub(super) struct Failure {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// No file of ours is larger.
const LARGEST: u64 = 1 << 20;

impl Store {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a certificate is.
    pub(super) fn certificate(&self, settings: &Settings) -> PathBuf {
        // A name may have 253 bytes, a file 255.
        let first: String = settings.name().chars().take(100).collect();
        self.root.join("certificates").join(format!("{first}-{}.pem", short_hash(&settings.identity())))
    }

    /// Where an account is.
    pub(super) fn account(&self, settings: &Settings) -> PathBuf {
        self.root.join("accounts").join(format!("{}.json", short_hash(&settings.account())))
    }

    /// The contents of a file; `None` if there is none.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Failure> {
        let mut contents = Vec::new();
        match File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut contents)) {
            Ok(_) => Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new("read", path)(error)),
        }
    }

    /// Puts a file in its place.
    pub(super) fn write(&self, path: &Path, contents: &[u8]) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(&self.root);
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(folder).map_err(Failure::new("make the folder", folder))?;
        let new = path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(folder)?.sync_all()
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&new);
            Failure::new("write", path)(error)
        })
    }

    /// Forgets a file.
    pub(super) fn remove(&self, path: &Path) -> Result<(), Failure> {
        fs::remove_file(path).map_err(Failure::new("remove", path))
    }

    /// Whether a certificate could be written now: a CA is not asked for what would be lost.
    pub(super) fn probe(&self, settings: &Settings) -> Result<(), Failure> {
        let probe = self.certificate(settings).with_extension("probe");
        // As large as a key with its chain.
        self.write(&probe, &[b'\n'; 16 << 10])?;
        self.remove(&probe)
    }
}

/// Half of it is more than enough to tell files apart.
fn short_hash(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl Failure {
    fn new(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self { doing, path, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.path.display(), self.error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("acme"));
        let path = store.root.join("accounts/a.json");
        assert!(store.read(&path).unwrap().is_none());
        store.write(&path, b"first, and longer").unwrap();
        store.write(&path, b"second").unwrap();
        assert_eq!(store.read(&path).unwrap().unwrap(), b"second");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(&store.root)), (0o600, 0o700, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        store.remove(&path).unwrap();
        assert!(store.read(&path).unwrap().is_none());
    }

    #[test]
    fn a_failure_says_where() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("acme"), "").unwrap();
        let store = Store::new(dir.path().join("acme"));
        let said = store.write(&store.root.join("accounts/a.json"), b"x").unwrap_err().to_string();
        assert!(said.starts_with("cannot make the folder ") && said.contains("acme/accounts: "), "{said}");
    }
}
