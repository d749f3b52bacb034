//! Handles that are dropped by the text of a batch: JDBC drops many at once with `EXEC sp_unprepare 1;EXEC sp_unprepare 2;`.

use bytes::Bytes;
use tds::TdsVersion;

use super::answer;
use super::statements::{Prepared, Statements};

/// The handles that a batch drops, if it does nothing else. UTF-16LE.
pub(crate) fn unprepares(text: &[u8]) -> Option<Vec<i32>> {
    let mut words = Words { text };
    let mut handles = Vec::new();
    while let Some(word) = words.next_word()? {
        if word == ";" {
            continue;
        }
        if !["exec", "execute"].contains(&&*word) {
            return None;
        }
        let mut name = words.next_word()??;
        if name == "sys" {
            (words.next_word()?? == ".").then_some(())?;
            name = words.next_word()??;
        }
        (name == "sp_unprepare").then_some(())?;
        handles.push(words.next_word()??.parse().ok()?);
    }
    (!handles.is_empty()).then_some(handles)
}

/// The answer to a batch that drops these handles, if each is of a statement that any connection could have. The
/// statements are gone then.
pub(crate) fn answer_unprepares(
    handles: &[i32],
    statements: &mut Statements,
    version: TdsVersion,
) -> Option<Bytes> {
    for (at, handle) in handles.iter().enumerate() {
        if handles[..at].contains(handle) || !matches!(statements.get(*handle)?, Prepared::Anywhere(_)) {
            return None;
        }
    }
    for handle in handles {
        statements.remove(*handle);
    }
    Some(answer::unprepared_by_text(handles.len(), version))
}

/// The words and marks of a simple text, in lower case.
struct Words<'a> {
    text: &'a [u8],
}

/// Longer than any word that is looked for.
const LONGEST: usize = 32;

impl Words<'_> {
    /// The next one. The outer none: something that is neither a word nor one of these marks.
    fn next_word(&mut self) -> Option<Option<String>> {
        while self.peek()?.is_some_and(|c| c.is_ascii_whitespace()) {
            self.text = &self.text[2..];
        }
        let mut word = String::new();
        while let Some(c) = self.peek()? {
            let is_mark = matches!(c, b';' | b'.');
            if !is_mark && !c.is_ascii_alphanumeric() && c != b'_' {
                return if c.is_ascii_whitespace() && !word.is_empty() { Some(Some(word)) } else { None };
            }
            if is_mark && !word.is_empty() {
                return Some(Some(word));
            }
            word.push(char::from(c.to_ascii_lowercase()));
            self.text = &self.text[2..];
            if is_mark {
                return Some(Some(word));
            }
            if word.len() > LONGEST {
                return None;
            }
        }
        Some((!word.is_empty()).then_some(word))
    }

    /// The next character, if it is ASCII.
    fn peek(&self) -> Option<Option<u8>> {
        match self.text {
            [] => Some(None),
            [c, 0, ..] if c.is_ascii() => Some(Some(*c)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_that_drops_handles_and_does_nothing_else_is_one() {
        let table: &[(&str, Option<&[i32]>)] = &[
            ("EXEC sp_unprepare 1;EXEC sp_unprepare 22;", Some(&[1, 22])),
            ("exec sys.sp_unprepare 7", Some(&[7])),
            (" EXECUTE sp_unprepare 7 exec SP_UNPREPARE 8 ; ", Some(&[7, 8])),
            ("", None),
            (";", None),
            ("EXEC sp_unprepare", None),
            ("EXEC sp_unprepare @h", None),
            ("EXEC sp_unprepare 1 SELECT 1", None),
            ("EXEC sp_unprepare -1", None),
            ("EXEC sp_unprepare 1.5", None),
            ("EXEC sp_execute 1", None),
            ("EXEC dbo.sp_unprepare 1", None),
            ("EXEC sp_unprepare 99999999999", None),
            ("-- \u{e9}\nEXEC sp_unprepare 1", None),
        ];
        for (text, expected) in table {
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(unprepares(&utf16).as_deref(), *expected, "{text}");
        }
        assert_eq!(unprepares(b"e"), None);
    }
}
