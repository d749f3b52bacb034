//! A response, token by token, with the questions that checks ask of it.

use tds::Dialect;
use tds::Malformed;
use tds::col_metadata::ColMetadata;
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::{EnvChange, EnvKind};
use tds::read::Reader;
use tds::return_value::ReturnValue;
use tds::row;
use tds::server_message::ServerMessage;
use tds::session_state::SessionState;
use tds::token::TokenKind;
use tds::value::Value;

/// One token, as far as a check may ask for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Row(Vec<Value>),
    Done(Done),
    Env(EnvChange),
    Message(ServerMessage),
    Value(ReturnValue),
    /// SESSIONSTATE: the ids of the states, and whether all is recoverable.
    State(Vec<u8>, bool),
    /// What no check asks for.
    Other,
}

/// One response message.
#[derive(Debug, Default)]
pub(super) struct Answer(pub(super) Vec<Token>);

impl Answer {
    pub(super) fn read(payload: &[u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload, "a response");
        let mut columns = ColMetadata::default();
        let mut tokens = Vec::new();
        while !reader.is_empty() {
            let kind = TokenKind(reader.u8()?);
            tokens.push(match kind {
                TokenKind::COL_METADATA => {
                    columns = ColMetadata::read(&mut reader, dialect)?.unwrap_or_default();
                    Token::Other
                }
                TokenKind::ROW => Token::Row(row::read(&mut reader, &columns.columns)?),
                TokenKind::NBC_ROW => Token::Row(row::read_nbc(&mut reader, &columns.columns)?),
                TokenKind::DONE | TokenKind::DONE_PROC | TokenKind::DONE_IN_PROC => {
                    let kind = DoneKind::from_token(kind.0).unwrap_or(DoneKind::Done);
                    Token::Done(Done::read(kind, &mut reader, dialect.version)?)
                }
                TokenKind::ENV_CHANGE => Token::Env(EnvChange::read(&mut reader)?),
                TokenKind::ERROR | TokenKind::INFO => {
                    Token::Message(ServerMessage::read(kind == TokenKind::ERROR, &mut reader)?)
                }
                TokenKind::RETURN_STATUS => {
                    reader.u32()?;
                    Token::Other
                }
                TokenKind::RETURN_VALUE => Token::Value(ReturnValue::read(&mut reader, dialect)?),
                TokenKind::SESSION_STATE => {
                    let state = SessionState::read(&mut reader)?;
                    Token::State(state.states().map(|state| state.id).collect(), state.recoverable)
                }
                TokenKind::ORDER | TokenKind::TAB_NAME | TokenKind::COL_INFO => {
                    reader.us_varbyte()?;
                    Token::Other
                }
                TokenKind(value) => {
                    let what = "a token of a response";
                    return Err(Malformed::Value { what, value: u64::from(value) });
                }
            });
        }
        Ok(Self(tokens))
    }

    /// The first error.
    pub(super) fn error(&self) -> Option<&ServerMessage> {
        self.0.iter().find_map(|token| match token {
            Token::Message(message) if message.is_error => Some(message),
            _ => None,
        })
    }

    /// The first cell of the first row, as text; NULL is `null`.
    pub(super) fn cell(&self) -> Option<String> {
        self.0.iter().find_map(|token| match token {
            Token::Row(cells) => cells.first().map(text),
            _ => None,
        })
    }

    /// The first whole number that a procedure returned through a parameter.
    pub(super) fn handle(&self) -> Option<i32> {
        self.0.iter().find_map(|token| match token {
            Token::Value(value) => match value.value {
                Value::Int(handle) => Some(handle),
                _ => None,
            },
            _ => None,
        })
    }

    fn changes(&self) -> impl Iterator<Item = &EnvChange> {
        self.0.iter().filter_map(|token| match token {
            Token::Env(change) => Some(change),
            _ => None,
        })
    }

    /// The numbers of the ENVCHANGEs about transactions, in order.
    pub(super) fn transaction_signals(&self) -> Vec<u8> {
        let about = self.changes().filter(|change| change.opens_transaction() || change.ends_transaction());
        about.map(|change| change.kind().0).collect()
    }

    /// The descriptor of the transaction that is open after this response, given the one before.
    pub(super) fn transaction(&self, before: u64) -> u64 {
        self.changes().fold(before, |open, change| match change {
            EnvChange::BeginTransaction(descriptor) | EnvChange::EnlistTransaction(descriptor) => *descriptor,
            change if change.ends_transaction() => 0,
            _ => open,
        })
    }

    pub(super) fn reset_acknowledged(&self) -> bool {
        self.changes().any(|change| change.kind() == EnvKind::RESET_DONE)
    }

    /// Whether a DONE stands before the acknowledgement of a reset.
    pub(super) fn done_before_acknowledgement(&self) -> bool {
        let is_reset =
            |token: &Token| matches!(token, Token::Env(change) if change.kind() == EnvKind::RESET_DONE);
        self.0.iter().take_while(|token| !is_reset(token)).any(|token| matches!(token, Token::Done(_)))
    }

    fn dones(&self) -> impl Iterator<Item = &Done> {
        self.0.iter().filter_map(|token| match token {
            Token::Done(done) => Some(done),
            _ => None,
        })
    }

    /// How often an attention is acknowledged.
    pub(super) fn acknowledged_attentions(&self) -> usize {
        self.dones().filter(|done| done.status.contains(DoneStatus::ATTENTION)).count()
    }

    /// The message is the acknowledgement and nothing else.
    pub(super) fn is_only_an_acknowledgement(&self) -> bool {
        self.0.len() == 1 && self.acknowledged_attentions() == 1
    }

    /// What the last SESSIONSTATE says: how many states, and whether all is recoverable.
    pub(super) fn session_state(&self) -> Option<(usize, bool)> {
        self.0.iter().rev().find_map(|token| match token {
            Token::State(ids, recoverable) => Some((ids.len(), *recoverable)),
            _ => None,
        })
    }
}

/// The values that checks ask for are texts and whole numbers.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        Value::TinyInt(number) => number.to_string(),
        Value::SmallInt(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::BigInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
