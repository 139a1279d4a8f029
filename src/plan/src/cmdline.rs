//! The kernel command line, read as systemd reads it.
//!
//! White space separates words, quotes (`"` and `'`) protect it and vanish, a backslash is an ordinary byte, an unbalanced
//! quote lasts to the end. The first `=` splits key and value; in keys `-` equals `_`.
//!
//! Source: systemd src/basic/proc-cmdline.c (`proc_cmdline_parse_strv`, `proc_cmdline_key_streq`).

use alloc::borrow::Cow;
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
        let mut words = Vec::new();
        let mut rest = skip_separators(text);
        while !rest.is_empty() {
            let (raw, tail) = rest.split_at(end_of_word(rest));
            words.push(Word::new(&unquoted(raw)));
            rest = skip_separators(tail);
        }
        Cmdline { words }
    }

    /// All words, in order.
    pub fn words(&self) -> impl Iterator<Item = &Word> {
        self.words.iter()
    }

    /// The words with this key, in order; `-` and `_` are the same in it.
    #[must_use]
    pub fn with_key<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Word> {
        self.words
            .iter()
            .filter(move |word| key_equals(&word.key, key.as_bytes()))
    }
}

/// Whether two keys are the same word to systemd.
#[must_use]
pub fn key_equals(a: &[u8], b: &[u8]) -> bool {
    let fold = |&byte: &u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.iter().map(fold).eq(b.iter().map(fold))
}

impl Word {
    fn new(word: &[u8]) -> Self {
        match word.iter().position(|&byte| byte == b'=') {
            Some(at) => Word {
                key: word[..at].to_vec(),
                value: Some(word[at + 1..].to_vec()),
            },
            None => Word {
                key: word.to_vec(),
                value: None,
            },
        }
    }
}

/// systemd's WHITESPACE, and NUL: nothing that stands behind a stray NUL may be lost, least of all `usrpolicy=off`.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0)
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|&byte| !is_separator(byte))
        .unwrap_or(text.len());
    &text[start..]
}

/// Where the word at the start of `text` ends, its quotes included.
fn end_of_word(text: &[u8]) -> usize {
    let mut quote = None;
    let ends = |&byte: &u8| {
        let separates = quote.is_none() && is_separator(byte);
        quote = quote_after(quote, byte);
        separates
    };
    text.iter().position(ends).unwrap_or(text.len())
}

/// A word without its quotes.
fn unquoted(word: &[u8]) -> Cow<'_, [u8]> {
    if !word.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        return Cow::Borrowed(word);
    }
    let mut quote = None;
    let stays = |&byte: &u8| {
        let before = quote;
        quote = quote_after(quote, byte);
        before == quote
    };
    Cow::Owned(word.iter().copied().filter(stays).collect())
}

/// The quote that is open after `byte`, given the one that was open before it.
fn quote_after(quote: Option<u8>, byte: u8) -> Option<u8> {
    match quote {
        None if matches!(byte, b'"' | b'\'') => Some(byte),
        Some(open) if open == byte => None,
        same => same,
    }
}
