//! Writes usr-policy(8) and the completions of three shells into a directory: `cargo run --example pages -- DIRECTORY`.
//!
//! An example and not a build script, so that the program itself, and whoever builds it, needs no library of these; `make build`
//! runs it once, and `make install` copies what it left.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

#[allow(
    dead_code,
    reason = "only the definition is needed, nobody parses with it"
)]
#[path = "../src/arguments.rs"]
mod arguments;

/// Every exit code, for all verbs together.
const EXIT_CODES: [(&str, &str); 5] = [
    ("0", "everything holds, was told or done"),
    (
        "1",
        "something promised does not hold; a word or a line could not be understood; something differs",
    ),
    ("2", "wrong usage"),
    ("3", "it could not be told, or not be done"),
    ("4", "refused, with the reason"),
];

/// Other pages: name and section.
const SEE_ALSO: [(&str, &str); 6] = [
    ("usr-policy", "(7)"),
    ("usr-policy.conf", "(5)"),
    ("usr-policy-generator", "(8)"),
    ("systemd-sysext", "(8)"),
    ("findmnt", "(8)"),
    ("pacman", "(8)"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1);
    let (Some(directory), None) = (words.next(), words.next()) else {
        return Err("wrong arguments; use one directory".into());
    };
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    fs::write(directory.join("usr-policy.8"), page()?)?;
    for (shell, name) in [
        (Shell::Bash, "usr-policy.bash"),
        (Shell::Zsh, "_usr-policy"),
        (Shell::Fish, "usr-policy.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut visible(true), "usr-policy", &mut script);
        fs::write(directory.join(name), mended(&script))?;
    }
    Ok(())
}

/// In the script for bash the labels of a program with a hyphen in its name are not those that are set, and no option of a verb
/// is completed. Source: clap issue 6421; where that is mended this finds nothing.
fn mended(script: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(script);
    text.replace("usr__subcmd__policy", "usr__policy")
        .into_bytes()
}

/// The definition without what only other programs call.
fn visible(has_help: bool) -> Command {
    let whole = arguments::Arguments::command();
    let about = whole.get_about().cloned().unwrap_or_default();
    let verbs = whole.get_subcommands().filter(|verb| !verb.is_hide_set());
    Command::new("usr-policy")
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .disable_help_flag(!has_help)
        .disable_version_flag(!has_help)
        .subcommands(verbs.map(|verb| verb.clone().disable_help_flag(!has_help)))
}

/// One page for all verbs: who looks for one of them finds the others, and what the exit codes have in common is said once.
fn page() -> io::Result<Vec<u8>> {
    let mut whole = visible(false);
    whole.build();
    let mut page = Vec::new();
    // What the sections say an apostrophe with.
    Roff::new().to_writer(&mut page)?;
    // By hand: clap_mangen leaves an empty date out, and the name of the source would be taken for it. A date of the build would
    // make two builds differ, and the version says more.
    page.extend_from_slice(
        concat!(
            ".TH USR-POLICY 8 \"\" \"usr-policy ",
            env!("CARGO_PKG_VERSION"),
            "\" usr-policy\n"
        )
        .as_bytes(),
    );
    let section = |name: &str| format!(".SH {name}\n").into_bytes();
    page.extend(section("NAME"));
    page.extend(text(|roff| {
        let about = whole.get_about().map(ToString::to_string);
        roff.text([roman(format!("usr-policy - {}", about.unwrap_or_default()))]);
    }));
    page.extend(section("SYNOPSIS"));
    for (at, verb) in whole.get_subcommands().enumerate() {
        if at > 0 {
            page.extend(b".br\n");
        }
        page.extend(body(|out| {
            Man::new(verb.clone()).render_synopsis_section(out)
        })?);
    }
    page.extend(section("COMMANDS"));
    for verb in whole.get_subcommands() {
        page.extend(format!(".SS {}\n", verb.get_name()).bytes());
        let man = Man::new(verb.clone());
        page.extend(body(|out| man.render_description_section(out))?);
        page.extend(body(|out| man.render_options_section(out))?);
    }
    page.extend(section("EXIT STATUS"));
    page.extend(text(|roff| {
        for (code, meaning) in EXIT_CODES {
            roff.control("TP", []);
            roff.text([bold(code)]);
            roff.text([roman(meaning)]);
        }
    }));
    page.extend(section("SEE ALSO"));
    page.extend(text(|roff| {
        for (at, (name, number)) in SEE_ALSO.into_iter().enumerate() {
            let end = if at + 1 < SEE_ALSO.len() { "," } else { "" };
            roff.text([italic(name), roman(format!("{number}{end}"))]);
        }
    }));
    Ok(page)
}

/// Text of ours, escaped.
fn text(write: impl FnOnce(&mut Roff)) -> Vec<u8> {
    let mut roff = Roff::new();
    write(&mut roff);
    roff.to_roff().into_bytes()
}

/// A section without its head, and without what stands once at the top of the page.
fn body(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut section = Vec::new();
    render(&mut section)?;
    let lines = section.split_inclusive(|&byte| byte == b'\n');
    let head: [&[u8]; 3] = [b".SH ", b".ie ", b".el "];
    let lines = lines.filter(|line| !head.iter().any(|head| line.starts_with(head)));
    Ok(lines.flatten().copied().collect())
}
