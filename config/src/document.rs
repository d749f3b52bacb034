//! The file as text with places: reads it into the mirror, finds every misspelt or mistyped key, knows each one's line.

use crate::mirror;
use crate::problem::Problem;
use serde::Deserialize;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// A parsed file. Paths are written `buckets[3].server_tls.mode`.
pub(crate) struct Document<'a> {
    text: &'a str,
    /// As written, before anything faulty was taken out: for lines and values.
    written: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Reads the whole file into the mirror. Keys that cannot be read are reported and left at their default, so that
    /// one pass finds every problem. No document comes back from a file that is not TOML at all.
    pub(crate) fn read(text: &'a str, problems: &mut Vec<Problem>) -> Option<(Self, mirror::File)> {
        let (table, mistakes) = DeTable::parse_recoverable(text);
        if !mistakes.is_empty() {
            problems.extend(mistakes.iter().map(|mistake| {
                let line = mistake.span().map(|span| line_at(text, span.start));
                Problem { line, ..Problem::new("", format!("not TOML: {}", mistake.message())) }
            }));
            return None;
        }
        let document = Self { text, written: table.get_ref().clone() };
        let mut table = table;
        let file = document.read_what_can_be_read(&mut table, problems)?;
        if !inherit_defaults(table.get_mut()) {
            return Some((document, file));
        }
        // Nothing new can be wrong: the same keys were read as `[defaults]` and as `[[buckets]]` before.
        let file = mirror::File::deserialize(Deserializer::from(table)).unwrap_or(file);
        Some((document, file))
    }

    /// serde stops at the first mistake: note it, take the key out, try again.
    fn read_what_can_be_read(
        &self,
        table: &mut Spanned<DeTable<'a>>,
        problems: &mut Vec<Problem>,
    ) -> Option<mirror::File> {
        loop {
            let mistake = match mirror::File::deserialize(Deserializer::from(table.clone())) {
                Ok(file) => return Some(file),
                Err(mistake) => mistake,
            };
            let place = mistake.span().and_then(|span| key_at(table.get_ref(), &span, ""));
            let Some(path) = place else {
                problems.push(Problem::new("", mistake.message()));
                return None;
            };
            problems.push(self.explain(&path, mistake.message()));
            remove(table.get_mut(), &path);
        }
    }

    /// Says a mistake of serde's in the operator's words.
    fn explain(&self, path: &str, message: &str) -> Problem {
        let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let problem = match (message.split_once('`').map(|(before, _)| before.trim_end()), &*names) {
            (Some("unknown field"), [name, known @ ..]) => {
                Problem { hint: resembling(name, known), ..Problem::new(path, "no such key") }
            }
            (Some("unknown variant"), [name, known @ ..]) => {
                let problem = Problem::new(path, format!("must be one of {}", quoted(known)));
                Problem { hint: resembling(name, known), ..problem }
            }
            _ if is_secret(path) => {
                Problem::new(path, "must be a text such as \"env:NAME\" or \"file:PATH\"")
            }
            _ => Problem::new(path, message.trim_end_matches('\n')),
        };
        self.placed(problem)
    }

    /// Adds value and line. A bucket's key that only `[defaults]` has is reported there.
    pub(crate) fn placed(&self, mut problem: Problem) -> Problem {
        let of_bucket = problem.path.strip_prefix("buckets[").and_then(|rest| rest.split_once("]."));
        if let Some((_, key)) = of_bucket {
            let inherited = format!("defaults.{key}");
            if !self.has(&problem.path) && self.has(&inherited) {
                problem.path = inherited;
            }
        }
        if let Some(found) = find(&self.written, &problem.path) {
            let shown = found.shows && !is_secret(&problem.path) && problem.what != "no such key";
            problem.value = shown.then(|| self.text[found.value].trim().to_owned());
            problem.line = Some(line_at(self.text, found.key.start));
            return problem;
        }
        // A missing key: the line of the table that lacks it.
        let parent = problem.path.rsplit_once('.').map_or("", |(parent, _)| parent);
        problem.line = find(&self.written, parent).map(|found| line_at(self.text, found.key.start));
        problem
    }

    /// Whether the file itself has this key.
    pub(crate) fn has(&self, path: &str) -> bool {
        find(&self.written, path).is_some()
    }
}

/// Puts every key of `[defaults]` into each bucket that lacks it, tables key by key. False: nothing to put.
fn inherit_defaults(root: &mut DeTable<'_>) -> bool {
    let Some(DeValue::Table(defaults)) = root.get("defaults").map(|d| d.get_ref().clone()) else {
        return false;
    };
    let Some(DeValue::Array(buckets)) = root.get_mut("buckets").map(Spanned::get_mut) else { return false };
    for bucket in buckets.iter_mut() {
        if let DeValue::Table(bucket) = bucket.get_mut() {
            inherit(bucket, &defaults);
        }
    }
    true
}

fn inherit<'a>(table: &mut DeTable<'a>, defaults: &DeTable<'a>) {
    for (key, default) in defaults {
        match (table.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), default.get_ref()) {
            (Some(DeValue::Table(own)), DeValue::Table(default)) => inherit(own, default),
            (Some(_), _) => {}
            (None, _) => {
                table.insert(key.clone(), default.clone());
            }
        }
    }
}

/// The deepest key whose name or value contains the span.
fn key_at(table: &DeTable<'_>, span: &Range<usize>, above: &str) -> Option<String> {
    let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        let path = join(above, key.get_ref());
        let deeper = match value.get_ref() {
            DeValue::Table(table) => key_at(table, span, &path),
            DeValue::Array(items) => {
                items.iter().enumerate().find_map(|(index, item)| match item.get_ref() {
                    DeValue::Table(table) => key_at(table, span, &format!("{path}[{index}]")),
                    _ => None,
                })
            }
            _ => None,
        };
        if deeper.is_some() {
            return deeper;
        }
        if inside(key.span()) || inside(value.span()) {
            return Some(path);
        }
    }
    None
}

struct Found {
    key: Range<usize>,
    value: Range<usize>,
    /// Whether the value is short enough to be repeated: no table, no array of tables.
    shows: bool,
}

fn find(root: &DeTable<'_>, path: &str) -> Option<Found> {
    let mut table = root;
    let mut steps = path.split('.').peekable();
    while let Some(step) = steps.next() {
        let (name, indexes) = step.split_once('[').map_or((step, ""), |(name, rest)| (name, rest));
        let (key, mut value) = table.get_key_value(name)?;
        let mut place = key.span();
        for index in indexes.split('[').filter_map(|i| i.strip_suffix(']')) {
            value = value.get_ref().as_array()?.get(index.parse::<usize>().ok()?)?;
            place = value.span();
        }
        if steps.peek().is_none() {
            let shows = match value.get_ref() {
                DeValue::Table(_) => false,
                DeValue::Array(items) => items.iter().all(|item| !item.get_ref().is_table()),
                _ => true,
            };
            return Some(Found { key: place, value: value.span(), shows });
        }
        table = value.get_ref().as_table()?;
    }
    None
}

fn remove(table: &mut DeTable<'_>, path: &str) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let (name, index) = step.split_once('[').map_or((step, None), |(name, i)| (name, Some(i)));
    let Some(rest) = rest else {
        table.remove(name);
        return;
    };
    let next = table.get_mut(name).map(Spanned::get_mut);
    let next = match (next, index.and_then(|i| i.strip_suffix(']')).and_then(|i| i.parse::<usize>().ok())) {
        (Some(DeValue::Array(items)), Some(index)) => items.get_mut(index).map(Spanned::get_mut),
        (next, _) => next,
    };
    if let Some(DeValue::Table(next)) = next {
        remove(next, rest);
    }
}

fn join(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

/// Keys whose values must never be repeated.
fn is_secret(path: &str) -> bool {
    path.ends_with("password")
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// `did you mean ...?`, if one of the known names is close.
pub(crate) fn resembling(name: &str, known: &[&str]) -> Option<String> {
    let near = known.iter().map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
    let (_, best) = near.filter(|(likeness, _)| *likeness > 0.6).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!("did you mean {best}?"))
}
