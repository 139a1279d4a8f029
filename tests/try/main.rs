//! `make try`: makes a Debian machine, boots it with the policy and without, and shows a person what happens as it
//! happens. It ends with 0 only if everything was as promised.

mod interrupt;
mod screen;
mod steps;
mod transcript;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use usr_policy_tests::machine::cache::Event;
use usr_policy_tests::machine::{
    Boot, Cache, Contents, Extra, Image, Initramfs, Layout, Made, Product, Result, Suite,
    namespace, tree,
};
use usr_policy_tests::product::STAGE;

use crate::screen::{Screen, clock};
use crate::steps::{Scene, Step};
use crate::transcript::{Said, Transcript};

/// The Debian that is booted: the stable one.
const SUITE: Suite = Suite::Trixie;

/// The journal of the guest, which it brings back last.
const JOURNAL: &str = "journal.log";

fn main() -> ExitCode {
    let result = prepare().and_then(|()| {
        let screen = Screen::new();
        let result = run(&screen);
        screen.stop();
        result
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if interrupt::is_requested() => {
            eprintln!("\ntry: interrupted; nothing is left running, and what was finished is kept");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("\ntry: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that must be done while there is one thread.
fn prepare() -> Result<()> {
    namespace::become_root(&[STAGE])?;
    namespace::enter_private_mounts()?;
    interrupt::watch()
}

/// Returns whether everything was as promised.
fn run(screen: &Arc<Screen>) -> Result<bool> {
    let began = Instant::now();
    let cache = {
        let screen = Arc::clone(screen);
        Cache::of_this_build()?.telling(move |event| tell(&screen, event))
    };
    let _turn = cache.turn()?;
    screen.heading(&format!(
        "[1/4] A Debian system ({SUITE}) with systemd, dracut, pacman, a package repository and an extension"
    ));
    SUITE.system(&cache)?;
    interrupt::check()?;
    screen.line("  it is ready");
    screen.heading(
        "[2/4] A disk with that system and usr-policy, and an initramfs that dracut makes in it",
    );
    let made = machine(&cache)?;
    interrupt::check()?;
    screen.line("  they are ready");
    let mut results = Vec::new();
    for (part, scene) in [(3, steps::strict()), (4, steps::off())] {
        screen.heading(&format!(
            "[{part}/4] The machine boots with {}",
            scene.words
        ));
        let logs = cache
            .dir()
            .join("results")
            .join(format!("try-{}", scene.name));
        let kept = show(screen, &made, &scene, &logs)?;
        results.push((scene, kept, logs));
    }
    let good = results
        .iter()
        .all(|(scene, kept, _)| *kept == scene.steps.len());
    screen.heading(&format!(
        "What was shown, in {} minutes",
        clock(began.elapsed())
    ));
    for (scene, kept, logs) in &results {
        screen.line(&format!(
            "  {kept} of {} steps as promised with {}\n    logs: {}/{{console.log,guest/{JOURNAL}}}",
            scene.steps.len(),
            scene.words,
            logs.display()
        ));
    }
    screen.line(&epilogue(good, cache.dir()));
    Ok(good)
}

/// What takes its time, for a person who has not seen it before.
fn tell(screen: &Screen, event: Event<'_>) {
    match event {
        Event::Waiting { lock } => screen.line(&format!(
            "Another machine runs from the same cache; waiting for its end ({}).",
            lock.display()
        )),
        Event::Making { kind, log, .. } => match kind {
            "suites" => {
                screen.line("  Made once by mmdebstrap: about 100 MB are downloaded, and it takes one to five minutes.");
                screen.run("mmdebstrap", log, screen::system);
            }
            "initramfs" => screen.run("dracut, a few seconds", log, screen::last_line),
            _ => screen.run("mke2fs, a few seconds", log, screen::last_line),
        },
        Event::Made { kind, took, .. } => {
            screen.stop();
            screen.line(&format!("  {} in {:.0} s", done(kind), took.as_secs_f64()));
        }
    }
}

fn done(kind: &str) -> String {
    match kind {
        "suites" => "mmdebstrap has made the system".to_owned(),
        "initramfs" => "dracut has made the initramfs".to_owned(),
        "disks" => "mke2fs has made the disk".to_owned(),
        other => format!("made: {other}"),
    }
}

/// The machine of both boots: what is written to its disk is forgotten, so that the second starts like the first.
fn machine(cache: &Cache) -> Result<Made> {
    let contents = Contents {
        product: Product::Stage {
            without: Vec::new(),
        },
        removed: Vec::new(),
        extras: Vec::new(),
    };
    let image = Image {
        name: "try".to_owned(),
        suite: SUITE,
        root: contents.clone(),
        layout: Layout::whole(),
        share: None,
        initramfs: Initramfs::Dracut,
        initramfs_tree: contents,
        initramfs_extras: Vec::new(),
        root_extras: Extra::unit(
            "multi-user.target",
            "try.service",
            include_str!("guest/try.service"),
        )
        .to_vec(),
    };
    let stage = env::var_os(STAGE).map(PathBuf::from);
    let made = image.make(cache, stage.as_deref())?;
    for thing in std::iter::once(&made.disks).chain(&made.initramfs) {
        Cache::forget_older_than(thing)?;
    }
    Ok(made)
}

/// Boots the machine and shows the steps while it takes them. Returns how many were as promised.
fn show(screen: &Screen, made: &Made, scene: &Scene, logs: &Path) -> Result<usize> {
    let mut files = vec![Extra::file("run", include_str!("guest/run"))];
    files.extend(scene.steps.iter().enumerate().map(|(number, step)| {
        // Names that sort as the numbers do.
        Extra::file(&format!("steps/{number:03}"), &step.command)
    }));
    let boot = Boot {
        made,
        words: scene.words,
        firmware: None,
        dir: logs,
        proof: Some(JOURNAL),
    };
    let mut transcript = Transcript::of(boot.lines());
    let mut output = Vec::new();
    let mut kept = 0;
    screen.line("  The first step comes within a minute.");
    screen.run("starting", &boot.console(), screen::last_line);
    boot.run(tree::gather(&files)?.path(), || {
        interrupt::check()?;
        for said in transcript.news() {
            match said {
                Said::Begin(number) => {
                    screen.stop();
                    output.clear();
                    if let Some(step) = scene.steps.get(number) {
                        begin(screen, number, scene.steps.len(), step);
                    }
                }
                Said::Line(line) => {
                    screen.line(&line);
                    output.push(line);
                }
                Said::End(number, code) => {
                    if let Some(step) = scene.steps.get(number) {
                        let complaint = step.complaint(code, &output);
                        screen.verdict(code, complaint.as_deref(), step.promise);
                        kept += usize::from(complaint.is_none());
                    }
                }
                Said::Over => {
                    screen.line("");
                    screen.run("switching off", &boot.console(), screen::last_line);
                }
            }
        }
        Ok(())
    })?;
    screen.stop();
    Ok(kept)
}

fn begin(screen: &Screen, number: usize, of: usize, step: &Step) {
    screen.line(&format!("\n{}/{of} {}", number + 1, step.why));
    screen.command(&step.command);
}

/// How to go on.
fn epilogue(good: bool, cache: &Path) -> String {
    let judgement = if good {
        "Everything was as promised."
    } else {
        "NOT everything was as promised; the lines above that say so, and the logs, tell what."
    };
    format!(
        "\n{judgement}\n\n\
         The system is kept in {}: the next make try needs no download.\n\
         To go on: README.md, \"Turning it on\" and \"The way back\".",
        cache.display()
    )
}
