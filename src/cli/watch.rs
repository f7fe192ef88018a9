//! Files that change while the gateway runs: certificates are loaded again, and with `watch = true` the configuration.
//!
//! Every second each file is looked at, not read. A change counts once a second has gone by without another, so that
//! what is being written is not read by halves.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reload::Running;

const EVERY: Duration = Duration::from_secs(1);

/// Watches for as long as the process runs.
pub(super) async fn watch(running: Arc<Running>) {
    let (mut certificates, mut configuration) = (Watched::default(), Watched::default());
    loop {
        let theirs = running.clone();
        let look = tokio::task::spawn_blocking(move || {
            look(&theirs, &mut certificates, &mut configuration);
            (certificates, configuration)
        });
        let Ok(watched) = look.await else { return };
        (certificates, configuration) = watched;
        tokio::time::sleep(EVERY).await;
    }
}

fn look(running: &Running, certificates: &mut Watched, configuration: &mut Watched) {
    let (named, read) = {
        let state = running.state.lock();
        let read: Vec<PathBuf> = if state.loaded.is_watched() { state.loaded.files().collect() } else { Vec::new() };
        (state.files.clone(), read)
    };
    if configuration.has_changed(read)
        && let Err(mistakes) = running.catch_up(true)
    {
        log::error!("the configuration stays as it is:\n{mistakes}");
    }
    if certificates.has_changed(named)
        && let Err(mistakes) = running.catch_up(false)
    {
        log::error!("the certificates stay as they are:\n{mistakes}");
    }
}

/// Files as they were when they were acted upon, and when they were looked at last.
#[derive(Default)]
struct Watched {
    settled: Option<Stamps>,
    last: Stamps,
}

/// What tells a file from what it was before; `None` where there is no file.
type Stamps = BTreeMap<PathBuf, Option<(u64, u64, u64, i64, i64)>>;

impl Watched {
    /// Whether there was a change, and none since the last look.
    fn has_changed(&mut self, files: Vec<PathBuf>) -> bool {
        let stamp = |data: Metadata| (data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec());
        let now: Stamps = files
            .into_iter()
            .map(|path| {
                let stamp = std::fs::metadata(&path).ok().map(stamp);
                (path, stamp)
            })
            .collect();
        let quiet = now == self.last;
        self.last = now;
        let settled = self.settled.get_or_insert_with(|| self.last.clone());
        let changed = quiet && *settled != self.last;
        if changed {
            settled.clone_from(&self.last);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut watched = Watched::default();
        let mut look = || watched.has_changed(vec![path.clone()]);
        assert_eq!([look(), look()], [false, false]);
        std::fs::write(&path, "a").unwrap();
        assert!(!look());
        std::fs::write(&path, "ab").unwrap();
        assert_eq!([look(), look(), look()], [false, true, false]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!([look(), look(), look()], [false, true, false]);
    }
}
