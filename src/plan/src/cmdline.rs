//! The kernel command line, read as systemd reads it.
//!
//! White space separates words, quotes (`"` and `'`) protect it and vanish, a backslash is an ordinary byte, an unbalanced
//! quote lasts to the end. The first `=` splits key and value; in keys `-` equals `_`.
//!
//! Source: systemd src/basic/proc-cmdline.c (`proc_cmdline_parse_strv`, `proc_cmdline_key_streq`).

use alloc::vec::Vec;

/// One word of the command line, quotes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What stands before the first `=`, or the whole word.
    pub key: Vec<u8>,
    /// What stands after the first `=`; `None` where there is no `=`.
    pub value: Option<Vec<u8>>,
}

/// The command line's words, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    words: Vec<Word>,
}

impl Cmdline {
    /// Splits the text of /proc/cmdline. Total: every byte string is a command line.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        todo!("{text:?}")
    }

    /// All words, in order.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.words.iter()
    }

    /// The words with this key, in order; `-` and `_` are the same in it.
    pub fn with_key<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Word> {
        self.words.iter().filter(move |word| key_equals(&word.key, key.as_bytes()))
    }
}

/// Whether two keys are the same word to systemd.
#[must_use]
pub fn key_equals(a: &[u8], b: &[u8]) -> bool {
    todo!("{a:?} {b:?}")
}
