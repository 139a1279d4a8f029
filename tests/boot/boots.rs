//! Boots a case and brings back what the guest saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use usr_policy_tests::machine::key::Key;
use usr_policy_tests::machine::{At, Cache, Ended, Error, Qemu, Result, cache, command, disk};

use crate::case::Case;
use crate::guest;
use crate::observed::Observed;

/// Room for everything that a guest brings back.
const OUTPUT_SIZE: u64 = 64 << 20;

/// Lines of the console that a failure repeats.
const TAIL: usize = 25;

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

    /// What a twin has seen: in this run, or in an earlier one of the very same machine and steps.
    ///
    /// # Errors
    /// Those of [`Boots::boot`].
    pub fn twin(&self, case: &Case) -> Result<Arc<Observed>> {
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

    fn known(&self, case: &Case) -> Option<Arc<Observed>> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(case.name)
            .cloned()
    }

    fn remember(&self, case: &Case, dir: &Path) -> Result<Arc<Observed>> {
        let seen = Arc::new(Observed::load(dir)?);
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(case.name, Arc::clone(&seen));
        Ok(seen)
    }

    fn run(&self, case: &Case) -> Result<Arc<Observed>> {
        let made = case.image.make(&self.cache, self.stage.as_deref())?;
        let dir = self.results(case);
        cache::remove(&dir)?;
        fs::create_dir_all(&dir).at(&dir)?;
        let file = |name: &str| dir.join(name);
        let (console, log, input, output) = (
            file("console.log"),
            file("log"),
            file("input.tar"),
            file("output.tar"),
        );
        disk::archive(guest::input(&case.steps)?.path(), &input, &log)?;
        let machine = Qemu {
            kernel: &made.kernel,
            initramfs: &made.initramfs,
            root: &made.disk,
            input: &input,
            output: &output,
            words: case.words,
            console: &console,
            lines: &file("lines.log"),
        };
        let began = Instant::now();
        let mut ended = Ended::TimeLimit;
        for repeated in [false, true] {
            disk::empty(&output, OUTPUT_SIZE)?;
            ended = machine.run(&file("qemu.log"))?;
            if reached_user_space(&console) {
                break;
            }
            // The emulator's fault, about once in thirty boots of an old kernel; nothing else is ever repeated.
            if !repeated {
                eprintln!(
                    "{}: no line of user space on the console; booting once more",
                    case.name
                );
                fs::copy(&console, file("console-of-the-first-try.log")).at(&console)?;
            }
        }
        let took = began.elapsed();
        let guest = file("guest");
        fs::create_dir_all(&guest).at(&guest)?;
        let unpacked = command::run(
            Command::new("tar")
                .arg("--extract")
                .arg("--file")
                .arg(&output)
                .arg("-C")
                .arg(&guest),
            &log,
        );
        if ended == Ended::TimeLimit || unpacked.is_err() || !guest.join("journal.out").exists() {
            let what = match ended {
                Ended::TimeLimit => "did not switch itself off in time",
                Ended::ByItself => "brought nothing back",
            };
            return Err(Error::new(format!(
                "the guest {what}; {} ends with\n{}\n\n{} ends with\n{}",
                console.display(),
                command::tail(&console, TAIL),
                file("lines.log").display(),
                command::tail(&file("lines.log"), 5),
            )));
        }
        for done in [&input, &output] {
            cache::remove(done)?;
        }
        let key = file("key");
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

/// A key of everything that decides what a boot does.
fn boot_key(case: &Case, image: &str) -> String {
    let key = Key::new()
        .with(image)
        .with(Qemu::recipe(case.words))
        .with(include_str!("guest/late"));
    case.steps
        .iter()
        .fold(key.with(include_str!("guest/digest")), |key, step| {
            key.with(step.name).with(step.script)
        })
        .text()
}

/// Whether anything but the kernel has written to the console.
fn reached_user_space(console: &Path) -> bool {
    let text = fs::read(console).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(|line| {
        // A line of the kernel begins with its time: `[    1.234567] `.
        let time = line
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'));
        let kernel = time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok());
        !kernel && !line.trim().is_empty()
    })
}
