//! Tests that are functions with a sentence for a name.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Runs those that the command line asks for.
#[must_use]
pub fn run(tests: &'static [(&'static str, fn())]) -> ExitCode {
    let trials = tests.iter().map(|(name, test)| {
        Trial::test(*name, || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
