//! What was made, below one directory: `KIND/NAME-KEY`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::{At, Error, Result};

/// A directory of finished things.
pub struct Cache {
    dir: PathBuf,
    listener: Listener,
}

/// What takes its time, for a person who waits.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Another program uses the cache.
    Waiting {
        /// The lock that it holds.
        lock: &'a Path,
    },
    /// A thing is not there yet, and is being made.
    Making {
        /// As in [`Cache::get`].
        kind: &'a str,
        /// As in [`Cache::get`].
        name: &'a str,
        /// As in [`Cache::get`].
        key: &'a str,
        /// What the tools that make it say, if they say something.
        log: &'a Path,
    },
    /// It is made.
    Made {
        /// As in [`Cache::get`].
        kind: &'a str,
        /// As in [`Cache::get`].
        name: &'a str,
        /// How long it took.
        took: Duration,
    },
}

type Listener = Box<dyn Fn(Event<'_>) + Send + Sync>;

/// Tells it on standard error.
fn tell(event: Event<'_>) {
    match event {
        Event::Waiting { lock } => {
            eprintln!("another boot is running; waiting for {}", lock.display());
        }
        Event::Making {
            kind, name, key, ..
        } => eprintln!("making {kind}/{name} ({key})"),
        Event::Made { kind, name, took } => {
            eprintln!("made {kind}/{name} in {:.1} s", took.as_secs_f64());
        }
    }
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
            listener: Box::new(tell),
        })
    }

    /// Opens the cache in cargo's target directory, where this program was built.
    ///
    /// # Errors
    /// The program is not in such a directory.
    pub fn of_this_build() -> Result<Self> {
        let program = env::current_exe().at(Path::new("/proc/self/exe"))?;
        // Cargo marks the target directory, and the one of each platform in it.
        let target = program
            .ancestors()
            .filter(|dir| dir.join("CACHEDIR.TAG").exists())
            .last();
        let target = target.ok_or_else(|| {
            Error::new(format!(
                "{}: no CACHEDIR.TAG above it; run it with cargo or make",
                program.display()
            ))
        })?;
        Self::open(&target.join("boot"))
    }

    /// The same cache, with somebody else who is told what takes its time.
    #[must_use]
    pub fn telling(self, listener: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Self {
            listener: Box::new(listener),
            ..self
        }
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
            (self.listener)(Event::Waiting { lock: &path });
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
        let log = self.log_path(kind, name);
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).at(dir)?;
        }
        fs::write(&log, "").at(&log)?;
        Ok(log)
    }

    fn log_path(&self, kind: &str, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{kind}-{name}"))
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
        (self.listener)(Event::Making {
            kind,
            name,
            key,
            log: &self.log_path(kind, name),
        });
        make(&partial)?;
        fs::rename(&partial, &path).at(&path)?;
        (self.listener)(Event::Made {
            kind,
            name,
            took: began.elapsed(),
        });
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

    /// Removes what else has the kind and the name of a finished thing: it was made of older sources.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn forget_older_than(thing: &Path) -> Result<()> {
        let (Some(dir), Some(name)) = (thing.parent(), thing.file_name()) else {
            return Ok(());
        };
        let name = name.to_string_lossy();
        let same_name = |other: &str| match (name.rsplit_once('-'), other.rsplit_once('-')) {
            (Some((ours, _)), Some((theirs, _))) => ours == theirs && name != other,
            _ => false,
        };
        for entry in fs::read_dir(dir).at(dir)? {
            let other = entry.at(dir)?.file_name();
            if same_name(&other.to_string_lossy()) {
                remove(&dir.join(other))?;
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
