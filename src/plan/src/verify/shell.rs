//! Lists in configuration that a shell reads: mkinitcpio.conf(5), dracut.conf(5).

use alloc::vec::Vec;

use crate::config::ConfigFile;

/// A list, as the assignments to it have left it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct List<'a> {
    words: Vec<Vec<u8>>,
    /// The file that has assigned to it last.
    pub(super) path: &'a [u8],
    /// Whether it is nothing but assignments of plain words; a shell could make anything of the rest.
    pub(super) is_certain: bool,
}

impl List<'_> {
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word.as_bytes())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

/// The list of this name that these files leave when they are read one after the other; `None` where none assigns to it.
pub(super) fn list<'a>(files: &'a [ConfigFile], name: &str) -> Option<List<'a>> {
    let mut words = Vec::new();
    let mut path = None;
    let mut is_certain = true;
    for file in files {
        let mut tokens = Tokens(&file.text).peekable();
        while let Some(token) = tokens.next() {
            let Token::Word(word) = token else {
                is_certain &= token == Token::End;
                continue;
            };
            let Some((variable, adds, value)) = word.assignment() else {
                is_certain = false;
                continue;
            };
            let mut values = Vec::new();
            if value.is_empty() && tokens.next_if_eq(&Token::Open).is_some() {
                for token in tokens.by_ref().take_while(|token| *token != Token::Close) {
                    match token {
                        Token::Word(one) => values.push(one),
                        Token::End => {}
                        Token::Open | Token::Close | Token::Other => is_certain = false,
                    }
                }
            } else {
                // Both programs take a string for a list as well.
                let parts = value.split(u8::is_ascii_whitespace);
                let parts = parts.filter(|part| !part.is_empty());
                values.extend(parts.map(|part| Word {
                    text: part.to_vec(),
                    is_plain: word.is_plain,
                }));
            }
            if variable != name.as_bytes() {
                continue;
            }
            path = Some(&*file.path);
            let before = core::mem::take(&mut words);
            if adds {
                words.clone_from(&before);
            }
            for one in values {
                if is_whole(&one.text, name) {
                    words.extend(before.iter().cloned());
                } else {
                    is_certain &= one.is_plain;
                    words.push(one.text);
                }
            }
        }
    }
    Some(List {
        words,
        path: path?,
        is_certain,
    })
}

/// Whether a word stands for the whole list that there was before.
fn is_whole(word: &[u8], name: &str) -> bool {
    let inner = word.strip_prefix(b"$").unwrap_or_default();
    let braced = inner
        .strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"));
    let inner = braced.unwrap_or(inner);
    let array = inner.strip_suffix(b"[@]").or(inner.strip_suffix(b"[*]"));
    array.unwrap_or(inner) == name.as_bytes()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    Open,
    Close,
    /// The end of a command.
    End,
    /// An operator.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
struct Word {
    /// Without its quotes.
    text: Vec<u8>,
    /// Whether the shell replaces nothing in it.
    is_plain: bool,
}

impl Word {
    /// The variable, whether it is added to, and the value.
    fn assignment(&self) -> Option<(&[u8], bool, &[u8])> {
        let at = self.text.iter().position(|&byte| byte == b'=')?;
        let (variable, value) = (self.text.get(..at)?, self.text.get(at + 1..)?);
        let (variable, adds) = match variable.strip_suffix(b"+") {
            Some(variable) => (variable, true),
            None => (variable, false),
        };
        let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        (!variable.is_empty() && variable.iter().all(is_of_name)).then_some((variable, adds, value))
    }
}

/// What a text of the shell consists of, comments left out. Source: bash(1), "DEFINITIONS", "QUOTING".
struct Tokens<'a>(&'a [u8]);

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let (&first, rest) = self.0.split_first()?;
            let token = match first {
                b' ' | b'\t' | b'\r' => None,
                b'#' => {
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    self.0 = rest.get(end.unwrap_or(rest.len())..)?;
                    continue;
                }
                b'\n' | b';' => Some(Token::End),
                b'(' => Some(Token::Open),
                b')' => Some(Token::Close),
                b'&' | b'|' | b'<' | b'>' => Some(Token::Other),
                _ => return Some(Token::Word(self.word())),
            };
            self.0 = rest;
            if token.is_some() {
                return token;
            }
        }
    }
}

impl Tokens<'_> {
    fn word(&mut self) -> Word {
        let mut word = Word {
            text: Vec::new(),
            is_plain: true,
        };
        let mut quote = None;
        while let Some((&byte, rest)) = self.0.split_first() {
            if quote.is_none() && b" \t\r\n;()&|<>".contains(&byte) {
                break;
            }
            self.0 = rest;
            match (quote, byte) {
                (Some(own), byte) if own == byte => quote = None,
                (None, b'"' | b'\'') => quote = Some(byte),
                (None | Some(b'"'), b'\\') => {
                    if let Some((&escaped, rest)) = self.0.split_first() {
                        self.0 = rest;
                        // A line that goes on in the next one.
                        if escaped != b'\n' {
                            word.text.push(escaped);
                        }
                    }
                }
                (quote, byte) => {
                    word.is_plain &= match byte {
                        b'$' | b'`' => quote == Some(b'\''),
                        b'{' | b'*' | b'?' | b'[' => quote.is_some(),
                        _ => true,
                    };
                    word.text.push(byte);
                }
            }
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Vec<ConfigFile> {
        let texts = texts.iter().enumerate();
        texts
            .map(|(at, text)| ConfigFile {
                path: alloc::format!("/{at}").into(),
                text: text.as_bytes().into(),
            })
            .collect()
    }

    #[track_caller]
    fn has(texts: &[&str], words: &[&str], is_certain: bool) {
        let files = files(texts);
        let list = list(&files, "HOOKS").unwrap();
        let own: Vec<&str> = list
            .words
            .iter()
            .map(|word| str::from_utf8(word).unwrap())
            .collect();
        assert_eq!((&*own, list.is_certain), (words, is_certain), "{texts:?}");
    }

    #[test]
    fn a_list_is_found_whatever_stands_before_it() {
        has(&["COMPRESSION=\"zstd\"\nHOOKS=(a b)\n"], &["a", "b"], true);
        has(&["A=() ; HOOKS=(a\n # c)\n  'b'\n)"], &["a", "b"], true);
        has(&["#HOOKS=(x)\nHOOKS=(a#b) # )\n"], &["a#b"], true);
        has(&["A='HOOKS=(x)'\nHOOKS=\"a b\"\n"], &["a", "b"], true);
        has(&["A=\"\\\"HOOKS=(x)\"\nHOOKS=(a\\\n b)"], &["a", "b"], true);
        has(&["MYHOOKS=(x)\nHOOKS=()\nHOOKSX=(x)"], &[], true);
        assert_eq!(list(&files(&["A=(HOOKS=x)\n#HOOKS=(a)"]), "HOOKS"), None);
    }

    #[test]
    fn the_last_assignment_counts_and_an_addition_adds() {
        has(&["HOOKS=(a b)", "HOOKS=(c)\n"], &["c"], true);
        has(
            &["HOOKS=(a)", "HOOKS+=(b)\nHOOKS+=' c'"],
            &["a", "b", "c"],
            true,
        );
        has(
            &["HOOKS=(a)", "HOOKS=(\"${HOOKS[@]}\" b)"],
            &["a", "b"],
            true,
        );
        let files = files(&["HOOKS=(a)", "A=1", "HOOKS=(b)", "B=2"]);
        assert_eq!(list(&files, "HOOKS").unwrap().path, b"/2");
    }

    #[test]
    fn what_only_a_shell_can_tell_is_not_certain() {
        for text in [
            "if true; then\nHOOKS=(a)\nfi",
            ". /etc/other\nHOOKS=(a)",
            "[[ x ]] && HOOKS=(a)",
            "HOOKS=(a)\nX=$(date)",
        ] {
            has(&[text], &["a"], false);
        }
        has(&["HOOKS=(a $b)"], &["a", "$b"], false);
        has(
            &["HOOKS=(a \"${HOOKS[@]/a/b}\")"],
            &["a", "${HOOKS[@]/a/b}"],
            false,
        );
        has(&["HOOKS=(a"], &["a"], true);
    }
}
