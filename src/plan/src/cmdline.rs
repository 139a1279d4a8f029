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

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec;

    use super::*;

    fn words(text: &str) -> Vec<(String, Option<String>)> {
        let string = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        Cmdline::parse(text.as_bytes())
            .words()
            .map(|word| (string(&word.key), word.value.as_ref().map(string)))
            .collect()
    }

    fn word(key: &str, value: Option<&str>) -> (String, Option<String>) {
        (key.into(), value.map(Into::into))
    }

    #[test]
    fn words_are_separated_by_any_white_space_and_the_final_newline_goes() {
        let expected = vec![
            word("quiet", None),
            word("rw", None),
            word("root", Some("/dev/vda")),
        ];
        assert_eq!(words(" quiet \t rw\r\nroot=/dev/vda\n"), expected);
    }

    #[test]
    fn nothing_has_no_words() {
        for text in ["", " ", "\n", "\0", " \t\r\n\0"] {
            assert_eq!(words(text), vec![], "{text:?}");
        }
    }

    #[test]
    fn the_first_equals_sign_splits() {
        let expected = vec![
            word("root", Some("PARTUUID=1=2")),
            word("", Some("x")),
            word("empty", Some("")),
        ];
        assert_eq!(words("root=PARTUUID=1=2 =x empty="), expected);
    }

    #[test]
    fn quotes_protect_white_space_and_vanish_wherever_they_stand() {
        let expected = word("usrpolicy.path", Some("/var/a b:rw"));
        for text in [
            r#"usrpolicy.path="/var/a b:rw""#,
            r#""usrpolicy.path=/var/a b:rw""#,
            r"usrpolicy.path='/var/a b:rw'",
            r#"usrpolicy.path=/var/a" "b:rw"#,
            r#"usr"policy".path='/var/'"a b":rw"#,
        ] {
            assert_eq!(words(text), vec![expected.clone()], "{text}");
        }
    }

    #[test]
    fn one_kind_of_quote_protects_the_other() {
        assert_eq!(
            words(r#"a="it's" b='"'"#),
            vec![word("a", Some("it's")), word("b", Some("\""))]
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_lasts_to_the_end() {
        assert_eq!(
            words("a 'b usrpolicy=strict"),
            vec![word("a", None), word("b usrpolicy", Some("strict"))]
        );
    }

    #[test]
    fn an_empty_pair_of_quotes_is_an_empty_word() {
        assert_eq!(
            words("a '' b"),
            vec![word("a", None), word("", None), word("b", None)]
        );
    }

    #[test]
    fn a_backslash_is_an_ordinary_byte_and_protects_nothing() {
        let expected = vec![
            word("a\\", None),
            word("b\\c", Some("\\x20")),
            word("d\\e f", None),
        ];
        assert_eq!(words(r#"a\ b\c=\x20 d\"e f""#), expected);
    }

    #[test]
    fn a_word_behind_a_nul_is_still_seen() {
        assert_eq!(
            words("quiet\0usrpolicy=off\0"),
            vec![word("quiet", None), word("usrpolicy", Some("off"))]
        );
    }

    #[test]
    fn dash_and_underscore_are_the_same_in_a_key_and_nothing_else_is() {
        assert!(key_equals(b"a-b_c", b"a_b-c"));
        assert!(!key_equals(b"usr-policy", b"usrpolicy"));
        assert!(!key_equals(b"usrpolicy", b"Usrpolicy"));
        assert!(!key_equals(b"usrpolicy", b"usrpolicy."));
        assert!(!key_equals(b"usrpolicy.", b"usrpolicy"));
    }

    #[test]
    fn all_words_of_a_key_are_found_in_order_and_no_longer_key_is() {
        let cmdline = Cmdline::parse(
            b"usrpolicy=strict usrpolicy.lock=off usrpolicy usrpolicy=off xusrpolicy=audit",
        );
        let values: Vec<_> = cmdline
            .with_key("usrpolicy")
            .map(|word| word.value.as_deref())
            .collect();
        assert_eq!(values, [Some(b"strict".as_slice()), None, Some(b"off")]);
    }

    #[test]
    fn the_last_word_of_a_key_is_the_first_from_the_back() {
        let cmdline = Cmdline::parse(b"root=a root=b");
        assert_eq!(
            cmdline
                .with_key("root")
                .next_back()
                .unwrap()
                .value
                .as_deref(),
            Some(b"b".as_slice())
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_stay() {
        let cmdline = Cmdline::parse(b"a\xff=\xfe");
        assert_eq!(
            cmdline.words().next().unwrap().value.as_deref(),
            Some(b"\xfe".as_slice())
        );
    }
}
