//! Holds `proxy.toml` to the truth: every key there is, nothing else, each with its real default.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tdsbouncer_config::{Config, Nowhere, mirror};
use toml::{Table, Value};

/// What the file says about one key.
struct Written {
    /// None: the key has no default to tell.
    default: Option<Value>,
}

fn reference() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proxy.toml"))
        .expect("the reference file is here")
}

/// Key path (without indexes) → what is told as its default: the value behind "#", or that of a "# Default:" line.
fn written(text: &str) -> BTreeMap<String, Written> {
    let (mut table, mut told, mut keys) = (String::new(), None, BTreeMap::new());
    for line in text.lines().map(str::trim_end) {
        if let Some(default) = line.strip_prefix("# Default: ") {
            told = Some(default.to_owned());
        } else if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")
            && !line.starts_with("# ")
        {
            let default = if line.starts_with('#') { Some(value.to_owned()) } else { told.take() };
            let default = default.map(|text| {
                let read: Table = toml::from_str(&format!("x = {text}")).expect("a default is a TOML value");
                read["x"].clone()
            });
            // Later lines of the same key are examples.
            keys.entry(format!("{table}.{key}")).or_insert(Written { default });
        }
    }
    keys
}

/// Key path → default, of everything that the mirror accepts.
fn accepted() -> BTreeMap<String, Value> {
    let file = mirror::File {
        listeners: vec![mirror::Listener::default()],
        buckets: vec![mirror::Bucket::default()],
        ..mirror::File::default()
    };
    let table = Table::try_from(file).expect("defaults can be written");
    let mut keys = BTreeMap::new();
    walk("", &Value::Table(table), &mut keys);
    keys
}

fn walk(path: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, value, keys);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter().for_each(|item| walk(path, item, keys));
        }
        _ => {
            keys.insert(path.to_owned(), value.clone());
        }
    }
}

/// A setting of buckets is explained once: in `[defaults]`, or in `[[buckets]]` when it cannot be common to all.
fn explained_at(path: &str) -> String {
    let own = ["name", "host", "databases", "server_names", "users", "default"];
    match path.split_once('.') {
        Some(("buckets" | "defaults", key)) if own.contains(&key) => format!("buckets.{key}"),
        Some(("buckets" | "defaults", key)) => format!("defaults.{key}"),
        _ => path.to_owned(),
    }
}

#[test]
fn every_key_that_is_accepted_stands_in_the_reference_file_with_its_real_default() {
    let written = written(&reference());
    // These must be given: there is nothing that would be right for everybody.
    let required = ["buckets.name", "buckets.host", "buckets.databases", "defaults.max_connections"];
    for (path, default) in accepted() {
        let place = explained_at(&path);
        let Some(told) = written.get(&place) else { panic!("{place} is not in proxy.toml") };
        match &told.default {
            Some(told) => assert_eq!(*told, default, "{place}: proxy.toml tells another default"),
            None => assert!(
                required.contains(&&*place) || place == "buckets.default",
                "{place}: no default is told"
            ),
        }
    }
}

#[test]
fn the_reference_file_has_no_key_that_is_not_accepted() {
    let accepted: Vec<String> = accepted().keys().map(|path| explained_at(path)).collect();
    for path in written(&reference()).keys() {
        let example = path.starts_with("buckets.")
            && ["max_connections", "server_tls"].iter().any(|k| path.ends_with(k));
        assert!(example || accepted.contains(path), "{path} is no key");
    }
}

#[test]
fn the_reference_file_is_valid_as_it_is_and_with_every_default_written_out() {
    let text = reference();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    Config::parse_with(&text, directory, &Nowhere).expect("valid as it is");
    let spelt_out: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
            _ => line,
        })
        .collect();
    Config::parse_with(&spelt_out.join("\n"), directory, &Nowhere).expect("valid when spelt out");
}
