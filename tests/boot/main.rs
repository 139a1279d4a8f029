//! Boots: real Debian systems with what `make install` has made, looked at from inside by a witness that shares no
//! code with the product.

mod boots;
mod case;
mod cases;
mod checks;
mod counting;
mod guest;
mod halves;
mod journal;
mod layouts;
mod lock;
mod matrix;
mod mkinitcpio;
mod mounts;
mod nfs;
mod observed;
mod oddities;
mod openrc;
mod preinit;
mod soak;
mod starts;
mod steps;
mod subvolume;
mod suites;
mod undoers;
mod verdict;
mod volatile;
mod watch;
mod words;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use usr_policy_tests::machine::{Cache, Error, Result, Suite, image, namespace};
use usr_policy_tests::product::STAGE;

use crate::boots::Boots;
use crate::case::Case;

/// Names the file that the boot matrix is written to; nothing but its cells is booted then, and what was seen in an
/// earlier run of the very same machine is judged again and not booted again.
const MATRIX: &str = "USR_POLICY_MATRIX";

/// What stands at the head of that file: of which revision it is, and of which day.
const MATRIX_HEAD: &str = "USR_POLICY_MATRIX_HEAD";

/// How many times one cell is booted; nothing else is then.
const SOAK: &str = "USR_POLICY_SOAK";

fn main() -> ExitCode {
    match run() {
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("boot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Conclusion> {
    let mut arguments = Arguments::from_args();
    // Two machines at once on two cores take more than twice as long each.
    arguments.test_threads = Some(1);
    let mut cases = cases::all()?;
    cases.extend(words::cases()?);
    cases.extend(halves::cases()?);
    cases.extend(oddities::cases()?);
    cases.extend(preinit::cases()?);
    cases.extend(mkinitcpio::cases()?);
    let others = cases.len();
    cases.extend(openrc::cases()?);
    cases.extend(layouts::cases()?);
    cases.extend(subvolume::cases()?);
    cases.extend(starts::cases()?);
    cases.extend(volatile::cases()?);
    cases.extend(suites::cases()?);
    cases.extend(undoers::cases()?);
    cases.extend(lock::cases()?);
    cases.extend(nfs::cases()?);
    let left_out = matrix::is_left_out_of_check(&cases[others..]);
    let cases = Arc::new(cases);
    if arguments.list {
        let trials = cases
            .iter()
            .map(|case| {
                Trial::test(case.name, || Ok(())).with_ignored_flag(left_out.contains(&case.name))
            })
            .chain([Trial::test(counting::NAME, || Ok(())).with_ignored_flag(true)])
            .chain([Trial::test(verdict::NAME, || Ok(()))])
            .chain(without_source())
            .collect();
        return Ok(libtest_mimic::run(&arguments, trials));
    }
    namespace::become_root(&[STAGE, mkinitcpio::SOURCE, MATRIX, MATRIX_HEAD, SOAK])?;
    namespace::enter_private_mounts()?;
    let stage = env::var_os(STAGE).map(PathBuf::from);
    let cache = Cache::of_this_build()?;
    forget_old(&cache, &cases, stage.as_deref())?;
    let matrix = env::var_os(MATRIX).map(PathBuf::from);
    if matrix.is_none()
        && let Some(outdated) = matrix::outdated()?
    {
        eprintln!("boot: {outdated}");
    }
    for cell in matrix::not_run() {
        eprintln!("boot: {cell}");
    }
    let boots = Arc::new(Boots::new(cache, stage));
    if let Ok(times) = env::var(SOAK) {
        let times = times
            .parse()
            .map_err(|_| Error::new(format!("{SOAK}={times}: not a number")))?;
        let trial = Trial::test("one-cell-many-times-over-is-always-the-same", move || {
            soak::run(&boots, &cases, times).map_err(Failed::from)
        });
        return Ok(libtest_mimic::run(&arguments, vec![trial]));
    }
    let passed = Arc::new(Mutex::new(BTreeMap::new()));
    let of_matrix = matrix.is_some();
    let trials = (0..cases.len())
        .filter(|index| !of_matrix || matrix::has(cases[*index].name, &cases))
        .map(|index| {
            let (boots, cases) = (Arc::clone(&boots), Arc::clone(&cases));
            let passed = Arc::clone(&passed);
            let name = cases[index].name;
            let is_left_out = !of_matrix && left_out.contains(&name);
            let trial = Trial::test(name, move || {
                let judged = judge(&boots, &cases, &cases[index], of_matrix);
                let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
                passed.insert(name.to_owned(), judged.is_ok());
                judged.map_err(Failed::from)
            });
            trial.with_ignored_flag(is_left_out)
        })
        .chain([{
            let (boots, passed) = (Arc::clone(&boots), Arc::clone(&passed));
            let trial = Trial::test(counting::NAME, move || {
                let (cache, stage) = boots.materials();
                let judged = counting::run(cache, stage);
                let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
                passed.insert(counting::NAME.to_owned(), judged.is_ok());
                judged.map_err(Failed::from)
            });
            trial.with_ignored_flag(!of_matrix)
        }])
        .chain([Trial::test(verdict::NAME, || {
            match &verdict::turns_red()[..] {
                [] => Ok(()),
                complaints => Err(Failed::from(complaints.join("\n"))),
            }
        })])
        .chain(without_source())
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(file) = matrix {
        let head = env::var(MATRIX_HEAD).unwrap_or_default();
        let passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
        matrix::write(&file, &head, &passed)?;
    }
    Ok(conclusion)
}

/// The cases that are not run for want of a checkout of mkinitcpio, so that the skip is seen.
fn without_source() -> Vec<Trial> {
    if mkinitcpio::source().is_some() {
        return Vec::new();
    }
    eprintln!(
        "boot: no boots with mkinitcpio itself: set {} to a checkout of it",
        mkinitcpio::SOURCE
    );
    mkinitcpio::WITH_SOURCE
        .iter()
        .chain(&starts::WITH_SOURCE)
        .map(|name| {
            let needs = || {
                Err(Failed::from(format!(
                    "set {} to run it",
                    mkinitcpio::SOURCE
                )))
            };
            Trial::test(*name, needs).with_ignored_flag(true)
        })
        .collect()
}

/// Boots a case, and its twin if need be, and asks its judge.
fn judge(boots: &Boots, cases: &[Case], case: &Case, may_be_known: bool) -> Result<()> {
    let twin =
        match case.twin {
            None => None,
            Some(name) => {
                let twin = cases.iter().find(|case| case.name == name);
                Some(boots.known_or_boot(
                    twin.ok_or_else(|| Error::new(format!("{name}: no such case")))?,
                )?)
            }
        };
    let seen = if may_be_known {
        boots.known_or_boot(case)?
    } else {
        boots.boot(case)?
    };
    let mut complaints = (case.judge)(&seen, twin.as_deref());
    complaints.extend(verdict::agrees(&seen, case.verdict));
    if complaints.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}\n\nall that was seen: {}",
        complaints.join("\n"),
        boots.results(case).display()
    )))
}

/// Drops what no case of the present sources starts from.
fn forget_old(cache: &Cache, cases: &[Case], stage: Option<&Path>) -> Result<()> {
    if stage.is_none() && cases.iter().any(|case| case.image.needs_stage()) {
        // A single case without the product can be run without it; nobody knows then what the others need.
        return Ok(());
    }
    let _turn = cache.turn()?;
    Suite::forget_old(cache)?;
    let counted = counting::image()?;
    let mut images: Vec<_> = cases.iter().map(|case| &case.image).collect();
    images.push(&counted);
    image::keep_only(cache, &images, stage)
}
