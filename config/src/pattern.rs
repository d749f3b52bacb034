//! Names that route: exact, or with `*` (any characters) and `?` (one character), never case-sensitive.

use std::fmt;

/// A name or glob, as of databases, servers and users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    written: String,
    folded: Vec<char>,
    exact: bool,
}

impl Pattern {
    /// Compiles a pattern; every text is one.
    pub fn new(text: &str) -> Self {
        Self {
            written: text.to_owned(),
            folded: text.chars().flat_map(char::to_lowercase).collect(),
            exact: !text.contains(['*', '?']),
        }
    }

    /// Whether it names one thing only.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// As the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The text that equal names share, for look-ups of exact patterns.
    pub(crate) fn folded(&self) -> String {
        self.folded.iter().collect()
    }

    /// Whether the whole name fits. Time grows with the product of the lengths at most, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
        let (mut p, mut n) = (0, 0);
        // The last star seen, and the place in the name up to which it has eaten.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match self.folded.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(c) if *c == '?' || *c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((at, eaten)) => {
                        star = Some((at, eaten + 1));
                        p = at + 1;
                        n = eaten + 1;
                    }
                    None => return false,
                },
            }
        }
        self.folded[p..].iter().all(|c| *c == '*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_without_regard_to_case() {
        let table = [
            ("orders", "Orders", true),
            ("orders", "orders2", false),
            ("orders_*", "ORDERS_0042", true),
            ("orders_*", "orders", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXcYYb", false),
            ("t??", "t01", true),
            ("t??", "t1", false),
            ("*_prod", "a_prod_prod", true),
            ("straße*", "STRAßE7", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, name, fits) in table {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern} against {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = Pattern::new(&format!("{}b", "*a".repeat(40)));
        assert!(!pattern.matches(&"a".repeat(5_000)));
    }
}
