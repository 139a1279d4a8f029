//! Where text is shown: how wide that is, and whether it has colours.

use std::env;
use std::io::{self, IsTerminal};

use anstyle::Style;
use rustix::termios::tcgetwinsize;
use textwrap::core::display_width;
use textwrap::{Options, WordSplitter, wrap};
use usr_policy_plan::text::Shown;

/// What is written to. Only a terminal has lines of a certain length and colours: what a script reads has each finding on a
/// line of its own.
pub(crate) struct Page {
    /// In columns; `None` where a line may be of any length.
    pub(crate) width: Option<usize>,
    /// Whether it shows colours.
    pub(crate) has_colours: bool,
}

/// The width of a terminal that does not tell.
const WIDTH: usize = 80;

/// Below it a line holds less than a word beside its indentation; the terminal may break it where it likes.
const TOO_NARROW: usize = 30;

impl Page {
    /// Standard output.
    pub(crate) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Page {
                width: None,
                has_colours: false,
            };
        }
        let of_terminal = tcgetwinsize(&stdout).ok().map(|size| size.ws_col.into());
        let of_shell = || env::var("COLUMNS").ok()?.parse().ok();
        // A serial line has a size of 0.
        let width = of_terminal
            .filter(|&columns| columns > 0)
            .or_else(of_shell)
            .unwrap_or(WIDTH);
        // Source: no-color.org: when present and not an empty string.
        let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_plain = env::var_os("TERM").is_none_or(|name| name == "dumb");
        Page {
            width: Some(width).filter(|&width| width >= TOO_NARROW),
            has_colours: !is_unwanted && !is_plain,
        }
    }

    /// Words in a style, where there are styles.
    pub(crate) fn styled(&self, style: Style, words: &str) -> String {
        if self.has_colours {
            format!("{style}{words}{style:#}")
        } else {
            words.to_owned()
        }
    }

    /// Adds `text` with `first` before its first line and `rest` before each line that it is broken into.
    ///
    /// A word is never broken, so that a path can be copied. Nothing that is named in the text can write elsewhere on a
    /// terminal.
    pub(crate) fn add(&self, out: &mut String, first: &str, rest: &str, text: &str) {
        let text = Shown(text.as_bytes()).to_string();
        match self.width {
            None => {
                out.push_str(first);
                out.push_str(&text);
                out.push('\n');
            }
            Some(width) => {
                let options = Options::new(width)
                    .initial_indent(first)
                    .subsequent_indent(rest)
                    .break_words(false)
                    .word_splitter(WordSplitter::NoHyphenation);
                for line in wrap(&text, options) {
                    out.push_str(&line);
                    out.push('\n');
                }
            }
        }
    }
}

/// A text and as many blanks as it lacks to so many columns.
pub(crate) fn padded(text: &str, columns: usize) -> String {
    let text = Shown(text.as_bytes()).to_string();
    let blanks = columns.saturating_sub(display_width(&text));
    text + &" ".repeat(blanks)
}

/// The columns that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    display_width(&Shown(text.as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::{Page, columns, padded};

    #[test]
    fn a_name_can_neither_write_elsewhere_on_a_terminal_nor_start_a_line() {
        for width in [None, Some(80)] {
            let page = Page {
                width,
                has_colours: true,
            };
            let mut out = String::new();
            page.add(&mut out, "", "  ", "/usr/\u{1b}[2J\n  holds");
            assert_eq!(out, "/usr/\\x1b[2J\\x0a  holds\n");
        }
        assert_eq!(padded("\u{1b}", 6), "\\x1b  ");
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!(columns("/srv/\u{8cc7}"), 7);
        assert_eq!(padded("\u{8cc7}", 3), "\u{8cc7} ");
    }
}
