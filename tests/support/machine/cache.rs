//! What was made, below one directory: `KIND/NAME-KEY`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::error::{At, Result};

/// A directory of finished things.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// While it lives, no other program makes or boots a machine from the same cache.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

impl Cache {
    /// Opens a cache, which may be new.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).at(dir)?;
        Ok(Self {
            dir: dir.canonicalize().at(dir)?,
        })
    }

    /// Waits until no other program uses the cache: two machines at once take more than twice as long each.
    ///
    /// # Errors
    /// The lock cannot be made or taken.
    pub fn turn(&self) -> Result<Turn> {
        let path = self.dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .at(&path)?;
        if lock.try_lock().is_err() {
            eprintln!("another boot is running; waiting for {}", path.display());
            lock.lock().at(&path)?;
        }
        Ok(Turn { _lock: lock })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a thing is or would be.
    #[must_use]
    pub fn path(&self, kind: &str, name: &str, key: &str) -> PathBuf {
        self.dir.join(kind).join(format!("{name}-{key}"))
    }

    /// A new, empty log for the making of a thing: `logs/KIND-NAME`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn log(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("logs");
        fs::create_dir_all(&dir).at(&dir)?;
        let log = dir.join(format!("{kind}-{name}"));
        fs::write(&log, "").at(&log)?;
        Ok(log)
    }

    /// Returns a thing, and lets `make` make it if it is not there. `make` is given a path that does not exist and
    /// that only becomes the thing when it returns `Ok`: what an interrupted run left is never taken for finished.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get(
        &self,
        kind: &str,
        name: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.path(kind, name, key);
        if path.symlink_metadata().is_ok() {
            return Ok(path);
        }
        let began = Instant::now();
        let partial = path.with_extension("partial");
        remove(&partial)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        eprintln!("making {kind}/{name} ({key})");
        make(&partial)?;
        fs::rename(&partial, &path).at(&path)?;
        eprintln!(
            "made {kind}/{name} in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        Ok(path)
    }

    /// Removes every thing of a kind that `wanted` does not name (as `NAME-KEY`), so that the cache holds what
    /// the present sources need and no more.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn keep_only(&self, kind: &str, wanted: &[String]) -> Result<()> {
        let dir = self.dir.join(kind);
        // Nothing of this kind was made yet.
        let Ok(entries) = fs::read_dir(&dir) else {
            return Ok(());
        };
        for entry in entries {
            let name = entry.at(&dir)?.file_name();
            if !wanted.iter().any(|wanted| name == wanted.as_str()) {
                remove(&dir.join(name))?;
            }
        }
        Ok(())
    }
}

/// Removes a file or a whole directory; it is no error if there is none.
///
/// # Errors
/// It is there and stays.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(meta) = path.symlink_metadata() else {
        return Ok(());
    };
    if meta.is_dir() {
        fs::remove_dir_all(path).at(path)
    } else {
        fs::remove_file(path).at(path)
    }
}
