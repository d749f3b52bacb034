//! Whether two servers told a client the same, and where they did not.

use tds::done::DoneStatus;

use super::player::{Told, is_acknowledgement};
use super::script::Check;
use super::token::Token;

/// The first step whose answers differ.
#[derive(Clone, Debug)]
pub struct Difference {
    pub client: usize,
    pub at: usize,
    pub direct: String,
    pub proxied: String,
    /// How the pool was then.
    pub pool: String,
}

/// What a run showed beside its differences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub requests: usize,
    /// Reads of the previous batch's values, and those that the proxy refused.
    pub reads_of_previous: usize,
    pub refused_reads: usize,
}

impl Count {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.reads_of_previous += other.reads_of_previous;
        self.refused_reads += other.refused_reads;
    }
}

impl Count {
    /// Whether the two answers to a step agree.
    pub fn agree(&mut self, check: Check, direct: &Told, proxied: &Told) -> bool {
        self.requests += 1;
        match check {
            Check::Equal => direct == proxied || agree_that_it_is_over(direct, proxied),
            Check::UntilStopped => direct == proxied || agree_until_stopped(direct, proxied),
            Check::OrValuesGone => {
                self.reads_of_previous += 1;
                let refused = says_values_gone(proxied);
                self.refused_reads += usize::from(refused);
                refused || direct == proxied
            }
        }
    }
}

impl Difference {
    /// Error 1205: what no script means to make.
    pub fn is_deadlock(&self) -> bool {
        self.direct.contains("number: 1205") || self.proxied.contains("number: 1205")
    }

    /// Of what came of step `at`; none from a run that panicked.
    pub fn new(client: usize, at: usize, direct: Option<&Answered>, proxied: Option<&Answered>) -> Self {
        // What both have before the difference says nothing.
        let same = match (direct, proxied) {
            (Some(Ok(Told::Said(left))), Some(Ok(Told::Said(right)))) => {
                left.iter().flatten().zip(right.iter().flatten()).take_while(|(l, r)| l == r).count()
            }
            _ => 0,
        };
        let show = |told: Option<&Answered>| -> String {
            let text = match told {
                Some(Ok(Told::Said(said))) => {
                    let rest: Vec<&Token> = said.iter().flatten().skip(same).collect();
                    format!("{} messages, from token {same}: {rest:?}", said.len())
                }
                other => format!("{other:?}"),
            };
            text.chars().take(1500).collect()
        };
        Self { client, at, direct: show(direct), proxied: show(proxied), pool: String::new() }
    }
}

/// What came of a step, or why nothing did.
pub type Answered = Result<Told, String>;

/// Both were stopped, each somewhere: the shorter one's rows are the longer one's first.
fn agree_until_stopped(left: &Told, right: &Told) -> bool {
    let (Told::Said(left), Told::Said(right)) = (left, right) else { return false };
    let rows = |said: &[Vec<Token>]| -> Vec<Token> {
        let shown = |token: &&Token| matches!(token, Token::Columns(_) | Token::Row(_));
        said.iter().flatten().filter(shown).cloned().collect()
    };
    let acknowledged = |said: &[Vec<Token>]| said.iter().flatten().filter(|t| is_acknowledgement(t)).count();
    let (left_rows, right_rows) = (rows(left), rows(right));
    let common = left_rows.len().min(right_rows.len());
    acknowledged(left) == 1 && acknowledged(right) == 1 && left_rows[..common] == right_rows[..common]
}

/// The server closed the connection (a reset with an application role in force, say): the proxy says so, and closes.
fn agree_that_it_is_over(direct: &Told, proxied: &Told) -> bool {
    let (Told::Closed(_), Told::Said(messages)) = (direct, proxied) else { return false };
    let [tokens] = &messages[..] else { return false };
    let [Token::Message(message), Token::Done(_)] = &tokens[..] else { return false };
    message.is_error
        && message.class == 20
        && message.text.starts_with("tdsbouncer: the server connection was lost")
}

/// The proxy's own error, alone: the values of the previous batch are gone with the connection that had them.
fn says_values_gone(told: &Told) -> bool {
    let Told::Said(messages) = told else { return false };
    let [tokens] = &messages[..] else { return false };
    let [Token::Message(message), Token::Done(done)] = &tokens[..] else { return false };
    message.is_error
        && message.class < 20
        && message.text.starts_with("tdsbouncer: ")
        && message.text.contains("previous")
        && done.status == DoneStatus::ERROR
}
