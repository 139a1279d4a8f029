//! Every message of `usr-policy` is in a test: the sources are read, and each text for a person is looked for.
//!
//! A text for a person is a string literal with a blank in it. Of a text with placeholders each part of several words counts,
//! and the longest one in any case. It is in a test where a recorded state or golden text has it, or a literal of a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::Lit;

/// What is read, below the workspace; of a directory every source.
const SOURCES: &[&str] = &[
    "src/plan/src/verify",
    "src/plan/src/explain",
    "src/plan/src/difference.rs",
    "src/cli/src",
];

/// Macros whose text no run of the program shows, as long as it is right.
const SILENT: &[&str] = &["assert", "assert_eq", "debug_assert", "unreachable"];

/// The literals of a source.
#[derive(Debug, Default)]
struct Literals {
    /// Line and text of those that the product has.
    product: Vec<(usize, String)>,
    /// Those of its own tests.
    tests: Vec<String>,
}

impl Literals {
    /// Reads a source; a source of tests has nothing else.
    fn of(text: &str, is_test: bool) -> Self {
        let mut literals = Literals::default();
        let tokens = TokenStream::from_str(text).unwrap();
        literals.read(tokens, is_test);
        literals
    }

    fn read(&mut self, tokens: TokenStream, mut is_test: bool) {
        let is_outer_test = is_test;
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    tokens.next_if(
                        |token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == '!'),
                    );
                    // Documentation is an attribute, too, and what clap makes of it has tests of its own.
                    if let Some(TokenTree::Group(attribute)) = tokens.next() {
                        let text = attribute.stream().to_string().replace(' ', "");
                        is_test |= text == "cfg(test)" || text == "test";
                    }
                }
                TokenTree::Ident(name)
                    if !is_test && SILENT.iter().any(|silent| name == silent) =>
                {
                    let mark = tokens.next_if(
                        |token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == '!'),
                    );
                    if mark.is_some() {
                        let _ = tokens.next();
                    }
                }
                TokenTree::Group(group) => {
                    self.read(group.stream(), is_test);
                    // The item that the attribute stands before ends with its body.
                    if group.delimiter() == Delimiter::Brace {
                        is_test = is_outer_test;
                    }
                }
                TokenTree::Punct(mark) if mark.as_char() == ';' => is_test = is_outer_test,
                TokenTree::Literal(literal) => {
                    let line = literal.span().start().line;
                    let text = match Lit::new(literal) {
                        Lit::Str(text) => text.value(),
                        Lit::ByteStr(text) => String::from_utf8_lossy(&text.value()).into_owned(),
                        _ => continue,
                    };
                    if is_test {
                        self.tests.push(text);
                    } else if text.trim().contains(' ') {
                        self.product.push((line, text));
                    }
                }
                _ => {}
            }
        }
    }
}

/// The parts of a text that stand in every message which is made of it.
fn fixed_parts(text: &str) -> Vec<String> {
    // Doubled braces are braces.
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut parts = Vec::new();
    for part in text.split('{') {
        let part = match part.split_once('}') {
            Some((_, after)) => after,
            None => part,
        };
        // What one test has in a line another one reads from several.
        for line in part.split('\n') {
            let line = line.trim_matches([' ', ';', ':', ',', '.']);
            parts.push(line.replace('\u{1}', "{").replace('\u{2}', "}"));
        }
    }
    let longest = parts.iter().map(String::len).max().unwrap_or_default();
    parts.retain(|part| part.contains(' ') || part.len() == longest && longest > 0);
    parts
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files below a directory, or the file itself.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap();
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| files(&entry.unwrap().path()))
        .collect();
    files.sort();
    files
}

fn sources(path: &str) -> impl Iterator<Item = (PathBuf, Literals)> {
    let path = workspace().join(path);
    assert!(path.exists(), "{}", path.display());
    let files = files(&path).into_iter();
    let sources = files.filter(|file| file.extension().is_some_and(|kind| kind == "rs"));
    sources.map(|file| {
        let name = file.file_name().unwrap().to_str().unwrap();
        let is_test = file.starts_with(env!("CARGO_MANIFEST_DIR"))
            || is_module_of_tests(&file)
            || name.ends_with("_tests.rs");
        let text = fs::read_to_string(&file).unwrap();
        (file, Literals::of(&text, is_test))
    })
}

/// Whether the module above a file has it for tests alone.
fn is_module_of_tests(file: &Path) -> bool {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let above = fs::read_to_string(file.with_file_name("mod.rs")).unwrap_or_default();
    above.contains(&format!("#[cfg(test)]\nmod {name};"))
}

/// What tests expect: their literals, and what was recorded.
fn expected() -> Vec<String> {
    let mut texts = Vec::new();
    for directory in ["src", "generator", "tests"] {
        for (path, literals) in sources(directory) {
            // Not the texts of this one, which are invented.
            if path != Path::new(env!("CARGO_MANIFEST_DIR")).join("messages.rs") {
                texts.extend(literals.tests);
            }
        }
    }
    for directory in ["tests/states", "tests/golden"] {
        let recorded = files(&workspace().join(directory)).into_iter();
        let recorded = recorded.filter(|path| path.extension().is_none_or(|kind| kind != "rs"));
        // Some are links that lead nowhere on purpose.
        let recorded = recorded.filter_map(|path| fs::read(path).ok());
        texts.extend(recorded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    texts
}

/// The lines of a source whose text no test expects, and what is missing.
fn untested(literals: &Literals, expected: &[String]) -> Vec<(usize, String)> {
    let texts = literals.product.iter();
    let parts = texts.flat_map(|(line, text)| {
        let parts = fixed_parts(text).into_iter();
        parts.map(move |part| (*line, part))
    });
    parts
        .filter(|(_, part)| !expected.iter().any(|text| text.contains(part.as_str())))
        .collect()
}

#[test]
fn every_message_is_in_a_test() {
    let expected = expected();
    let mut read = 0;
    let mut missing = Vec::new();
    for path in SOURCES {
        for (path, literals) in sources(path) {
            read += literals.product.len();
            let path = path.strip_prefix(workspace()).unwrap().display();
            let lines = untested(&literals, &expected).into_iter();
            missing.extend(lines.map(|(line, part)| format!("{path}:{line}: {part}")));
        }
    }
    assert!(read > 400, "{read} texts are too few");
    assert!(
        missing.is_empty(),
        "{}:\n{}",
        missing.len(),
        missing.join("\n")
    );
}

#[test]
fn a_message_that_no_test_expects_is_found_with_its_line() {
    let source = r#"
        //! Documentation is no message.
        #[doc = "nor is this"]
        fn say(who: &str) {
            let id = "no-message";
            tell(format!("{who}: the moon is {{blue}}, by {who} (again and again)"));
            assert!(who.is_empty(), "nobody sees this");
            tell("one is seen");
        }
        #[cfg(test)]
        mod tests {
            const EXPECTED: &str = "one \
                is seen";
        }
        fn other() -> &'static str { "after the tests" }
    "#;
    let literals = Literals::of(source, false);
    assert_eq!(literals.tests, ["one is seen"]);
    let missing = |expected: &[&str]| {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        untested(&literals, &expected)
    };
    let moon = (6, "the moon is {blue}, by".to_owned());
    let again = (6, "(again and again)".to_owned());
    let seen = (8, "one is seen".to_owned());
    let after = (15, "after the tests".to_owned());
    assert_eq!(missing(&[]), [moon, again.clone(), seen.clone(), after]);
    let but_one = ["x: the moon is {blue}, by x", "is after the tests", "again"];
    assert_eq!(missing(&but_one), [again, seen]);
}
