//! What `usr-policy verify` prints for programs, read by the descriptions of others: JSON Schema, and the text format of
//! Prometheus. Nothing here is shared with the product.

use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;

use boon::{Compiler, Schemas};
use serde_json::Value;

use crate::product;

/// Where the schema is installed, below the stage.
const SCHEMA: &str = "usr/share/usr-policy/verify.schema.json";

/// The schema, as it is installed.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn schema() -> &'static Value {
    static TEXT: OnceLock<Value> = OnceLock::new();
    TEXT.get_or_init(|| {
        let path = product::stage().join(SCHEMA);
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap()
    })
}

/// Reads what `verify --json` printed; it must be what the schema says, and hold no key that the schema does not explain.
///
/// # Errors
/// What is wrong with it.
///
/// # Panics
/// Where the schema is none.
pub fn object(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
    let schema = schema();
    let name = schema["$id"].as_str().unwrap();
    let mut compiler = Compiler::new();
    compiler.add_resource(name, schema.clone()).unwrap();
    let mut schemas = Schemas::new();
    let index = compiler
        .compile(name, &mut schemas)
        .unwrap_or_else(|error| panic!("{SCHEMA}: {error:#}"));
    schemas
        .validate(&value, index)
        .map_err(|error| format!("{error:#}\n{text}"))?;
    let finding = &schema["properties"]["findings"]["items"];
    let lock = &schema["properties"]["lock"];
    let mut pairs = vec![(&value, schema), (&value["lock"], lock)];
    let findings = value["findings"].as_array().unwrap();
    pairs.extend(findings.iter().map(|row| (row, finding)));
    let tmpfs = &schema["properties"]["tmpfs"]["items"];
    let fills = value["tmpfs"].as_array().unwrap();
    pairs.extend(fills.iter().map(|row| (row, tmpfs)));
    let layers = findings.iter().map(|row| &row["layers"]);
    let beneath = layers.clone().map(|layer| &layer["beneath"]);
    let layer = &schema["$defs"]["layer"];
    pairs.extend(layers.chain(beneath).map(|object| (object, layer)));
    for (object, description) in pairs {
        for key in object.as_object().into_iter().flat_map(|map| map.keys()) {
            let explained = &description["properties"][key]["description"];
            if !explained.is_string() {
                return Err(format!("{SCHEMA} does not explain \"{key}\""));
            }
        }
    }
    Ok(value)
}

/// A line of metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric.
    pub name: String,
    /// Its labels with their values, in order.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Reads metrics by the grammar: each metric explained and typed before its samples, which stand together, each but once.
///
/// Source: prometheus.io/docs/instrumenting/exposition_formats, "Text format details".
///
/// # Errors
/// The line that is none.
pub fn metrics(text: &str) -> Result<Vec<Sample>, String> {
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let mut samples: Vec<Sample> = Vec::new();
    let mut families: Vec<(&str, bool)> = Vec::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let fail = |what: &str| Err(format!("{what}: {line}"));
        let family = families.last().copied();
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, help)) = rest.split_once(' ') else {
                return fail("no help");
            };
            if !is_name(name, true) || help.is_empty() || help.contains('\\') {
                return fail("no such help");
            }
            if families.iter().any(|(family, _)| *family == name) {
                return fail("a second time");
            }
            families.push((name, false));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            match (rest.split_once(' '), family) {
                (Some((name, "gauge")), Some((family, false))) if name == family => {
                    families.pop();
                    families.push((family, true));
                }
                _ => return fail("no type of the metric before it"),
            }
        } else {
            let Some(sample) = sample(line) else {
                return fail("no sample");
            };
            if family != Some((sample.name.as_str(), true)) {
                return fail("not where its metric stands");
            }
            let mut labels = sample.labels.clone();
            labels.sort();
            if !seen.insert((sample.name.clone(), labels)) {
                return fail("twice");
            }
            samples.push(sample);
        }
    }
    match families
        .iter()
        .find(|(name, _)| !samples.iter().any(|sample| sample.name == *name))
    {
        Some((name, _)) => Err(format!("{name} has no sample")),
        None => Ok(samples),
    }
}

fn is_name(name: &str, is_metric: bool) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' && is_metric;
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label, false) || labels.iter().any(|(name, _)| name == label) {
                return None;
            }
            labels.push((label.to_owned(), value));
            rest = match after.strip_prefix(',') {
                Some(next) => next,
                None => {
                    rest = after.strip_prefix('}')?;
                    break;
                }
            };
        }
    }
    let number = rest.strip_prefix(' ')?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: number.parse().ok()?,
    })
    .filter(|_| is_name(name, true))
}

/// The text up to the quote that ends it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (end, '"') => return Some((value, &text[end + 1..])),
            (_, '\\') => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            (_, c) => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::metrics;

    const HEAD: &str = "# HELP a_b What.\n# TYPE a_b gauge\n";

    #[test]
    fn metrics_by_the_grammar_are_read() {
        let text = format!("{HEAD}a_b{{c=\"x\\\\\\\"\\n,}}\",d=\"\"}} 1\na_b 2.5\n");
        let samples = metrics(&text).unwrap();
        assert_eq!(samples[0].label("c"), Some("x\\\"\n,}"));
        assert_eq!((samples[0].label("d"), samples[1].value), (Some(""), 2.5));
    }

    #[test]
    fn what_is_against_the_grammar_is_not() {
        for lines in [
            "a_b 1",
            "a_b\n",
            "a-b 1\n",
            "a_b{c=\"x} 1\n",
            "a_b{c=x} 1\n",
            "a_b{c=\"\\t\"} 1\n",
            "a_b{c=\"x\",c=\"y\"} 1\n",
            "a_b one\n",
            "other 1\n",
            "a_b 1\na_b 2\n",
            "a_b{c=\"x\",d=\"y\"} 1\na_b{d=\"y\",c=\"x\"} 1\n",
            "a_b 1\n# HELP a_b Again.\n",
            "\n",
        ] {
            assert!(metrics(&format!("{HEAD}{lines}")).is_err(), "{lines}");
        }
        for text in [
            "a 1\n",
            "# TYPE a gauge\na 1\n",
            "# HELP a What.\na 1\n",
            HEAD,
        ] {
            assert!(metrics(text).is_err(), "{text}");
        }
    }
}
