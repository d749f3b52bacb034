//! SET and what stands behind it.

use super::{Expect, OPTIONS, Out, Statements, Taken, Target};
use crate::tsql::Scope;
use crate::tsql::finding::{Finding, Hold, MAX_VALUE};
use crate::tsql::lexer::{Kind, Token};
use crate::tsql::set_option::{self, Treatment};

const ISOLATION_LEVEL: &str = "transaction isolation level";

impl Statements {
    pub(super) fn set_part(
        &mut self,
        token: Token<'_>,
        word: &str,
        keyword: &'static str,
        out: &mut Out<'_>,
    ) -> Taken {
        let expect = std::mem::replace(&mut self.expect, Expect::Nothing);
        match (expect, token.kind) {
            (Expect::Set, _) => self.option(token, word, out),
            // An assignment: SET column = value.
            (Expect::SetUnknown | Expect::Option | Expect::ContextInfo, Kind::Symbol('=' | '.'))
            | (Expect::SetUnknown, Kind::Symbol('+' | '-' | '*' | '/' | '%' | '&' | '|' | '^'))
            | (Expect::Negative, Kind::Symbol('=')) => Taken::Yes,
            (Expect::Option, Kind::Symbol(',')) => {
                let statistics =
                    self.options().last().is_some_and(|(option, _)| option.starts_with("statistics "));
                self.expect(if statistics { Expect::Statistics } else { Expect::Set })
            }
            (Expect::Option, Kind::Symbol('-')) => {
                self.value.push('-');
                self.expect(Expect::Negative)
            }
            (Expect::Option, Kind::Word) if !keyword.is_empty() && !matches!(word, "on" | "off") => {
                self.not_understood(out)
            }
            (Expect::Negative, Kind::Number)
            | (Expect::Option, Kind::Word | Kind::Number | Kind::String | Kind::Quoted | Kind::Variable) => {
                let whole = self.keep_value(token, word);
                self.settle(whole, out);
                Taken::Yes
            }
            (Expect::Statistics, Kind::Word) => match set_option::statistics(word) {
                Some(option) => self.add(option, Treatment::HoldUntilOff, out),
                None => self.not_understood(out),
            },
            (Expect::Isolation, Kind::Word) => self.isolation(word, out),
            (Expect::IdentityInsert, Kind::Word) if matches!(word, "on" | "off") => {
                self.was_value = true;
                let path = std::mem::take(&mut self.path);
                match word {
                    _ if self.cut => self.unsure("a name too long to keep", out),
                    "on" => self.begins(Hold::IdentityInsert, &path, out),
                    _ => self.ends(Hold::IdentityInsert, &path, out),
                }
                self.path = path;
                Taken::Yes
            }
            (Expect::ContextInfo, _) => {
                self.begins(Hold::ContextInfo, "", out);
                Taken::No
            }
            _ => self.not_understood(out),
        }
    }

    /// The word behind SET.
    fn option(&mut self, token: Token<'_>, word: &str, out: &mut Out<'_>) -> Taken {
        match (token.kind, word) {
            (Kind::Variable, _) | (Kind::Word, "null" | "default") => Taken::Yes,
            // ALTER .. SET (..)
            (Kind::Symbol('('), _) => Taken::No,
            (Kind::Word, "tran" | "transaction") => self.expect(Expect::Isolation),
            (Kind::Word, "statistics") => self.expect(Expect::Statistics),
            (Kind::Word, "identity_insert") => self.begin_name(Target::IdentityInsert),
            (Kind::Word, "context_info") => self.expect(Expect::ContextInfo),
            (Kind::Word | Kind::Quoted, _) => match set_option::known(word) {
                Some((option, treatment)) => self.add(option, treatment, out),
                None => self.expect(Expect::SetUnknown),
            },
            _ => self.not_understood(out),
        }
    }

    fn add(&mut self, option: &'static str, treatment: Treatment, out: &mut Out<'_>) -> Taken {
        match self.options.get_mut(self.option_count) {
            Some(slot) => {
                *slot = (option, treatment);
                self.option_count += 1;
                self.expect(Expect::Option)
            }
            None => self.not_understood(out),
        }
    }

    fn isolation(&mut self, word: &str, out: &mut Out<'_>) -> Taken {
        let level = match (self.value.as_str(), word) {
            ("", "isolation" | "level") => return self.expect(Expect::Isolation),
            ("", "read" | "repeatable") => {
                self.value.push_str(word);
                return self.expect(Expect::Isolation);
            }
            ("", "snapshot") => "snapshot",
            ("", "serializable") => "serializable",
            ("read", "uncommitted") => "read uncommitted",
            ("read", "committed") => "read committed",
            ("repeatable", "read") => "repeatable read",
            _ => return self.not_understood(out),
        };
        self.value.clear();
        self.value.push_str(level);
        self.options[0] = (ISOLATION_LEVEL, Treatment::Replay);
        self.option_count = 1;
        self.settle(true, out);
        Taken::Yes
    }

    fn expect(&mut self, expect: Expect) -> Taken {
        self.expect = expect;
        Taken::Yes
    }

    fn not_understood(&mut self, out: &mut Out<'_>) -> Taken {
        self.unsure("a SET that is not known", out);
        Taken::No
    }

    /// Keeps the value as T-SQL text. False if the text does not say it, or not all of it.
    fn keep_value(&mut self, token: Token<'_>, word: &str) -> bool {
        let doubled = match token.kind {
            Kind::String => {
                self.value.push_str("N'");
                Some('\'')
            }
            Kind::Quoted => {
                self.value.push('[');
                Some(']')
            }
            _ => None,
        };
        match doubled {
            Some(end) => {
                for character in token.text.chars() {
                    self.value.push(character);
                    if character == end {
                        self.value.push(end);
                    }
                }
                self.value.push(end);
            }
            None => self.value.push_str(if word.is_empty() { token.text } else { word }),
        }
        token.kind != Kind::Variable && !token.cut && self.value.len() <= MAX_VALUE
    }

    fn options(&self) -> &[(&'static str, Treatment)] {
        self.options.get(..self.option_count).unwrap_or_default()
    }

    /// The statement is complete; the value is known if `whole`.
    fn settle(&mut self, whole: bool, out: &mut Out<'_>) {
        self.was_value = true;
        let (options, value): ([_; OPTIONS], _) = (self.options, std::mem::take(&mut self.value));
        for (option, treatment) in options.into_iter().take(self.option_count) {
            match treatment {
                Treatment::HoldUntilOff if value == "off" => self.ends(Hold::Setting, option, out),
                Treatment::HoldUntilOff => {
                    self.asleep |= !option.starts_with("statistics ");
                    self.begins(Hold::Setting, option, out);
                }
                Treatment::Replay if option == "ansi_defaults" => {
                    for option in set_option::ANSI_DEFAULTS {
                        self.set(option, &value, whole, out);
                    }
                }
                Treatment::Replay => self.set(option, &value, whole, out),
            }
        }
        self.value = value;
    }

    fn set(&mut self, option: &'static str, value: &str, whole: bool, out: &mut Out<'_>) {
        if self.scope == Scope::Called {
            return;
        }
        self.verdict.changes_state = true;
        if !whole || self.runs.maybe {
            self.begins(Hold::Setting, option, out);
            return;
        }
        if let Some(opposite) = set_option::opposite(option).filter(|_| value == "on") {
            self.ledger.end(Hold::Setting, opposite);
            out(Finding::Set { option: opposite, value: "off" });
        }
        self.ledger.end(Hold::Setting, option);
        out(Finding::Set { option, value });
    }
}
