//! What the server would have answered to sp_unprepare.

use bytes::{BufMut, Bytes, BytesMut};
use tds::TdsVersion;
use tds::done::{Done, DoneKind, DoneStatus};
use tds::token::TokenKind;

/// The current command of a DONEPROC that ends an RPC.
const EXECUTE: u16 = 0xE0;

/// The tokens for so many successful calls of sp_unprepare in one message.
pub(super) fn unprepared(calls: usize, version: TdsVersion) -> Bytes {
    tokens(calls, DoneStatus::MORE.with(DoneStatus::RPC_IN_BATCH), version)
}

/// The tokens for as many in the text of a batch.
pub(super) fn unprepared_by_text(calls: usize, version: TdsVersion) -> Bytes {
    tokens(calls, DoneStatus::MORE, version)
}

/// `more`: the status of all but the last.
fn tokens(calls: usize, more: DoneStatus, version: TdsVersion) -> Bytes {
    let mut tokens = BytesMut::new();
    for call in 1..=calls {
        let status = if call < calls { more } else { DoneStatus::FINAL };
        tokens.put_u8(TokenKind::RETURN_STATUS.0);
        tokens.put_i32_le(0);
        Done { kind: DoneKind::DoneProc, status, current_command: EXECUTE, rows: 0 }
            .write(&mut tokens, version);
    }
    tokens.freeze()
}
