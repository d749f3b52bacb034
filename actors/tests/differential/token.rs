//! A response token by token, in the form in which two servers' answers are compared.

use tds::Dialect;
use tds::col_metadata::ColMetadata;
use tds::done::{Done, DoneKind};
use tds::env_change::EnvChange;
use tds::read::Reader;
use tds::return_value::ReturnValue;
use tds::row;
use tds::server_message::ServerMessage;
use tds::token::TokenKind;
use tds::value::Value;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Columns(Option<ColMetadata>),
    Row(Vec<Value>),
    Done(Done),
    Env(EnvChange),
    Message(ServerMessage),
    Status(i32),
    Value(ReturnValue),
    /// SESSIONSTATE: whether the session could be recovered.
    State(bool),
    /// ORDER, TABNAME, COLINFO.
    Raw(TokenKind, Vec<u8>),
    /// What followed was no token.
    Broken(u8, String),
}

/// Reads the tokens of a whole response.
pub fn read(payload: &[u8], dialect: Dialect) -> Vec<Token> {
    let mut reader = Reader::new(payload, "a response");
    let mut columns = ColMetadata::default();
    let mut tokens = Vec::new();
    while !reader.is_empty() {
        let kind = TokenKind(reader.u8().unwrap_or(0));
        match read_one(kind, &mut reader, dialect, &mut columns) {
            Ok(token) => tokens.push(token),
            Err(why) => {
                tokens.push(Token::Broken(kind.0, why));
                return tokens;
            }
        }
    }
    tokens
}

fn read_one(
    kind: TokenKind,
    reader: &mut Reader<'_>,
    dialect: Dialect,
    columns: &mut ColMetadata,
) -> Result<Token, String> {
    let token = || -> Result<Option<Token>, tds::Malformed> {
        Ok(Some(match kind {
            TokenKind::COL_METADATA => {
                let read = ColMetadata::read(reader, dialect)?;
                *columns = read.clone().unwrap_or_default();
                Token::Columns(read)
            }
            TokenKind::ROW => Token::Row(row::read(reader, &columns.columns)?),
            TokenKind::NBC_ROW => Token::Row(row::read_nbc(reader, &columns.columns)?),
            TokenKind::ENV_CHANGE => Token::Env(EnvChange::read(reader)?),
            TokenKind::ERROR => Token::Message(ServerMessage::read(true, reader)?),
            TokenKind::INFO => Token::Message(ServerMessage::read(false, reader)?),
            TokenKind::RETURN_STATUS => Token::Status(i32::from_le_bytes(reader.array()?)),
            TokenKind::RETURN_VALUE => Token::Value(ReturnValue::read(reader, dialect)?),
            TokenKind::SESSION_STATE => {
                Token::State(tds::session_state::SessionState::read(reader)?.recoverable)
            }
            TokenKind::ORDER | TokenKind::TAB_NAME | TokenKind::COL_INFO => {
                Token::Raw(kind, reader.us_varbyte()?.to_vec())
            }
            TokenKind(byte) => match DoneKind::from_token(byte) {
                Some(done) => Token::Done(Done::read(done, reader, dialect.version)?),
                None => return Ok(None),
            },
        }))
    }();
    match token {
        Ok(Some(token)) => Ok(token),
        Ok(None) => Err("unknown token".to_owned()),
        Err(malformed) => Err(malformed.to_string()),
    }
}
