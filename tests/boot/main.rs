//! Boots: real Debian systems with what `make install` has made, looked at from inside by a witness that shares no
//! code with the product.

mod boots;
mod case;
mod cases;
mod checks;
mod guest;
mod halves;
mod journal;
mod layouts;
mod mkinitcpio;
mod mounts;
mod observed;
mod oddities;
mod preinit;
mod starts;
mod steps;
mod suites;
mod undoers;
mod volatile;
mod watch;
mod words;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use usr_policy_tests::machine::{Cache, Error, Result, Suite, image, namespace};
use usr_policy_tests::product::STAGE;

use crate::boots::Boots;
use crate::case::Case;

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
    cases.extend(layouts::cases()?);
    cases.extend(starts::cases()?);
    cases.extend(volatile::cases()?);
    cases.extend(suites::cases()?);
    cases.extend(undoers::cases()?);
    let cases = Arc::new(cases);
    if arguments.list {
        let trials = cases
            .iter()
            .map(|case| Trial::test(case.name, || Ok(())))
            .chain(without_source())
            .collect();
        return Ok(libtest_mimic::run(&arguments, trials));
    }
    namespace::become_root(&[STAGE, mkinitcpio::SOURCE])?;
    namespace::enter_private_mounts()?;
    let stage = env::var_os(STAGE).map(PathBuf::from);
    let cache = Cache::of_this_build()?;
    forget_old(&cache, &cases, stage.as_deref())?;
    let boots = Arc::new(Boots::new(cache, stage));
    let trials = (0..cases.len())
        .map(|index| {
            let (boots, cases) = (Arc::clone(&boots), Arc::clone(&cases));
            Trial::test(cases[index].name, move || {
                judge(&boots, &cases, &cases[index]).map_err(Failed::from)
            })
        })
        .chain(without_source())
        .collect();
    Ok(libtest_mimic::run(&arguments, trials))
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
        .map(|name| Trial::test(*name, || Ok(())).with_ignored_flag(true))
        .collect()
}

/// Boots a case, and its twin if need be, and asks its judge.
fn judge(boots: &Boots, cases: &[Case], case: &Case) -> Result<()> {
    let twin = match case.twin {
        None => None,
        Some(name) => {
            let twin = cases.iter().find(|case| case.name == name);
            Some(boots.twin(twin.ok_or_else(|| Error::new(format!("{name}: no such case")))?)?)
        }
    };
    let seen = boots.boot(case)?;
    let mut complaints = (case.judge)(&seen, twin.as_deref());
    complaints.extend(checks::verify_agrees(&seen).err());
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
    image::keep_only(
        cache,
        &cases.iter().map(|case| &case.image).collect::<Vec<_>>(),
        stage,
    )
}
