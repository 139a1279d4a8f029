//! Boots a case and brings back what the guest saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use usr_policy_tests::machine::key::Key;
use usr_policy_tests::machine::{At, Boot, Cache, Qemu, Result, Server, neighbour};

use crate::case::Case;
use crate::guest;
use crate::observed::Observed;

/// The boots of one run of the tests.
pub struct Boots {
    cache: Cache,
    stage: Option<PathBuf>,
    seen: Mutex<BTreeMap<&'static str, Arc<Observed>>>,
}

impl Boots {
    /// `stage` is the tree that `make install` has made.
    pub fn new(cache: Cache, stage: Option<PathBuf>) -> Self {
        Self {
            cache,
            stage,
            seen: Mutex::default(),
        }
    }

    /// The cache, and the tree that `make install` has made.
    pub fn materials(&self) -> (&Cache, Option<&Path>) {
        (&self.cache, self.stage.as_deref())
    }

    /// Where the logs and records of a case are kept.
    pub fn results(&self, case: &Case) -> PathBuf {
        self.cache.dir().join("results").join(case.name)
    }

    /// Boots a case, once in a run.
    ///
    /// # Errors
    /// The machine cannot be made, or does not come to its end.
    pub fn boot(&self, case: &Case) -> Result<Arc<Observed>> {
        if let Some(seen) = self.known(case) {
            return Ok(seen);
        }
        let _turn = self.cache.turn()?;
        self.run(case)
    }

    /// What was seen in this run, or in an earlier one of the very same machine and steps; else boots.
    ///
    /// # Errors
    /// Those of [`Boots::boot`].
    pub fn known_or_boot(&self, case: &Case) -> Result<Arc<Observed>> {
        if let Some(seen) = self.known(case) {
            return Ok(seen);
        }
        let _turn = self.cache.turn()?;
        let made = case.image.make(&self.cache, self.stage.as_deref())?;
        let dir = self.results(case);
        if fs::read_to_string(dir.join("key")).is_ok_and(|key| key == boot_key(case, &made.key)) {
            eprintln!("{}: seen in an earlier run", case.name);
            return self.remember(case, &dir);
        }
        self.run(case)
    }

    /// Boots a case whatever is known of it.
    ///
    /// # Errors
    /// Those of [`Boots::boot`].
    pub fn again(&self, case: &Case) -> Result<Arc<Observed>> {
        let _turn = self.cache.turn()?;
        self.run(case)
    }

    fn known(&self, case: &Case) -> Option<Arc<Observed>> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(case.name)
            .cloned()
    }

    fn remember(&self, case: &Case, dir: &Path) -> Result<Arc<Observed>> {
        let seen = if ends_in_the_initramfs(case) {
            Observed::on_the_console(dir)
        } else {
            Observed::load(dir)
        };
        let seen = Arc::new(seen?);
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(case.name, Arc::clone(&seen));
        Ok(seen)
    }

    fn run(&self, case: &Case) -> Result<Arc<Observed>> {
        let made = case.image.make(&self.cache, self.stage.as_deref())?;
        let dir = self.results(case);
        let boot = Boot {
            made: &made,
            words: case.words,
            firmware: None,
            dir: &dir,
            proof: (!ends_in_the_initramfs(case)).then_some("journal.out"),
        };
        let took = boot.run(guest::input(&case.steps)?.path(), || Ok(()))?;
        let key = dir.join("key");
        fs::write(&key, boot_key(case, &made.key)).at(&key)?;
        let seen = self.remember(case, &dir)?;
        let gap = seen.watch.longest_gap() / 1000;
        eprintln!(
            "{}: booted in {:.1} s; the watch never slept longer than {gap} ms",
            case.name,
            took.as_secs_f64()
        );
        Ok(seen)
    }
}

/// Whether a machine has no /usr to come to: what is in the guest to bring something back is never started.
fn ends_in_the_initramfs(case: &Case) -> bool {
    let share = case.image.share;
    share.is_some_and(|share| share.server == Server::IsDead)
}

/// A key of everything that decides what a boot does.
fn boot_key(case: &Case, image: &str) -> String {
    let key = Key::new()
        .with(image)
        .with(Qemu::recipe(case.words))
        .with(include_str!("guest/late"));
    // Nothing is added where there is none: what was seen of other machines stays known.
    let key = case
        .image
        .share
        .into_iter()
        .fold(key, |key, share| key.with(neighbour::recipe(share)));
    case.steps
        .iter()
        .fold(key.with(include_str!("guest/digest")), |key, step| {
            key.with(step.name).with(step.script)
        })
        .text()
}
