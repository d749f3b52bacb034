//! What came back: rows, errors, output values, and how it ended.

use tds::col_metadata::{ColMetadata, Column};
use tds::done::{Done, DoneKind, DoneStatus};
use tds::env_change::EnvChange;
use tds::read::Reader;
use tds::return_value::ReturnValue;
use tds::server_message::ServerMessage;
use tds::token::TokenKind;
use tds::value::Value;
use tds::{Dialect, Malformed, row};

/// A whole answer, decoded.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The rows of all result sets.
    pub rows: Vec<Vec<Value>>,
    /// Errors, in the server's order.
    pub errors: Vec<ServerMessage>,
    /// The values of output parameters.
    pub outputs: Vec<Value>,
    /// What a procedure returned.
    pub status: Option<u32>,
    /// Some DONE said that its statement failed.
    pub failed: bool,
    /// The transaction that is open now: 0 after its end; none if the answer said nothing about it.
    pub transaction: Option<u64>,
    /// Length without packet headers, in bytes.
    pub bytes: usize,
}

impl Answer {
    /// Decodes an answer; anything that is not one whole answer is an error.
    pub fn read(payload: &[u8], dialect: Dialect) -> Result<Self, Malformed> {
        let mut body = Reader::new(payload, "an answer");
        let mut answer = Self { bytes: payload.len(), ..Self::default() };
        let mut columns: Vec<Column> = Vec::new();
        let mut ended = false;
        while !body.is_empty() {
            let token = TokenKind(body.u8()?);
            ended = answer.token(token, &mut body, dialect, &mut columns)?;
        }
        if ended {
            Ok(answer)
        } else {
            Err(Malformed::Unexpected { what: "end", state: "before the last DONE" })
        }
    }

    /// Takes one token; true for a DONE that nothing follows.
    fn token(
        &mut self,
        token: TokenKind,
        body: &mut Reader<'_>,
        dialect: Dialect,
        columns: &mut Vec<Column>,
    ) -> Result<bool, Malformed> {
        match token {
            TokenKind::COL_METADATA => {
                *columns = ColMetadata::read(body, dialect)?.map_or_else(Vec::new, |meta| meta.columns);
            }
            TokenKind::ROW => self.rows.push(row::read(body, columns)?),
            TokenKind::NBC_ROW => self.rows.push(row::read_nbc(body, columns)?),
            TokenKind::ERROR => self.errors.push(ServerMessage::read(true, body)?),
            TokenKind::INFO => drop(ServerMessage::read(false, body)?),
            TokenKind::RETURN_STATUS => self.status = Some(body.u32()?),
            TokenKind::RETURN_VALUE => self.outputs.push(ReturnValue::read(body, dialect)?.value),
            TokenKind::ORDER | TokenKind::TAB_NAME | TokenKind::COL_INFO => drop(body.us_varbyte()?),
            TokenKind::ENV_CHANGE => match EnvChange::read(body)? {
                EnvChange::BeginTransaction(descriptor) => self.transaction = Some(descriptor),
                change if change.ends_transaction() => self.transaction = Some(0),
                _ => {}
            },
            TokenKind(byte) => {
                let Some(kind) = DoneKind::from_token(byte) else {
                    return Err(Malformed::Value { what: "token", value: u64::from(byte) });
                };
                let done = Done::read(kind, body, dialect.version)?;
                self.failed |= done.status.contains(DoneStatus::ERROR);
                return Ok(done.is_final());
            }
        }
        Ok(false)
    }

    /// The number of the first error.
    pub fn error(&self) -> Option<i32> {
        self.errors.first().map(|error| error.number)
    }

    /// True if a row, the only one, has these values.
    pub fn is_row(&self, expected: &[Value]) -> bool {
        matches!(&self.rows[..], [row] if row[..] == *expected)
    }
}
