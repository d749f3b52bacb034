//! How a request is changed: bytes in place of others, and the calls that are put there.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use tds::Dialect;
use tds::rpc::{ParamFlags, ProcId};
use tds::type_info::TypeId;

use super::statement::{Kind, Statement};

/// Bytes that take the place of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    /// Of the payload, in bytes. Empty where something is inserted.
    pub(crate) range: Range<usize>,
    pub(crate) bytes: Bytes,
}

impl Splice {
    /// True if the payload keeps its length.
    pub(crate) fn is_in_place(&self) -> bool {
        self.range.len() == self.bytes.len()
    }

    /// Changes the payload where it lies; only splices that are in place.
    pub(crate) fn apply_in_place(splices: &[Self], payload: &mut [u8]) {
        for splice in splices {
            debug_assert!(splice.is_in_place());
            if let Some(place) = payload.get_mut(splice.range.clone()) {
                place.copy_from_slice(&splice.bytes);
            }
        }
    }

    /// The beginning of a payload as it is to be sent. The rest follows as it is.
    pub(crate) fn apply(splices: &[Self], payload: &[u8], out: &mut BytesMut) {
        let mut at = 0;
        for splice in splices {
            debug_assert!(at <= splice.range.start);
            out.put_slice(payload.get(at..splice.range.start).unwrap_or_default());
            out.put_slice(&splice.bytes);
            at = splice.range.end;
        }
        out.put_slice(payload.get(at..).unwrap_or_default());
    }
}

/// NULL by reference: where the server is to put a new handle.
pub(super) fn put_new_handle(out: &mut impl BufMut) {
    out.put_slice(&[0, ParamFlags::BY_REF.0, TypeId::INT_N.0, 4, 0]);
}

/// A number by position.
fn put_handle(out: &mut impl BufMut, number: i32) {
    out.put_slice(&[0, 0, TypeId::INT_N.0, 4, 4]);
    out.put_i32_le(number);
}

/// The beginning of a call: its number, and what stood between the name and the parameters of the call that it replaces.
fn put_call(out: &mut impl BufMut, id: ProcId, manner: &[u8]) {
    out.put_u16_le(u16::MAX);
    out.put_u16_le(id.0);
    out.put_slice(manner);
}

/// The beginning of a call of the proxy's own.
fn put_own_call(out: &mut impl BufMut, id: ProcId, dialect: Dialect) {
    put_call(out, id, if dialect.column_encryption >= 2 { &[0; 4] } else { &[0; 2] });
}

/// BatchFlag from TDS 7.2 on.
const NEXT_CALL: u8 = 0xFF;

/// sp_execute becomes sp_prepexec or sp_prepexecrpc, up to the statement's own parameters. How many parameters stand
/// before those then, beyond the one of sp_execute.
pub(super) fn prepare_and_execute(statement: &Statement, manner: &[u8], out: &mut impl BufMut) -> i16 {
    let (id, shift) = match statement.kind() {
        Kind::Text => (ProcId::PREP_EXEC, 2),
        Kind::Procedure => (ProcId::PREP_EXEC_RPC, 1),
    };
    put_call(out, id, manner);
    put_new_handle(out);
    statement.put_params_and_text(out);
    shift
}

/// sp_execute becomes sp_executesql, or a call of the procedure: both leave nothing behind.
pub(super) fn execute_once(statement: &Statement, manner: &[u8], out: &mut impl BufMut) -> i16 {
    match statement.kind() {
        Kind::Text => {
            put_call(out, ProcId::EXECUTE_SQL, manner);
            statement.put_text_and_params(out);
            1
        }
        Kind::Procedure => {
            let name = statement.procedure_name();
            out.put_u16_le((name.len() / 2) as u16);
            out.put_slice(name);
            out.put_slice(manner);
            -1
        }
    }
}

/// A message that prepares these texts; `headers` is the ALL_HEADERS of the client's request.
pub(super) fn prepare_all<'a>(
    headers: &[u8],
    statements: impl Iterator<Item = &'a Statement>,
    dialect: Dialect,
) -> Bytes {
    let mut out = BytesMut::from(headers);
    for (at, statement) in statements.enumerate() {
        if at > 0 {
            out.put_u8(NEXT_CALL);
        }
        put_own_call(&mut out, ProcId::PREPARE, dialect);
        put_new_handle(&mut out);
        statement.put_params_and_text(&mut out);
    }
    out.freeze()
}

/// sp_unprepare of a real handle, as a call before another one.
pub(super) fn unprepare_before(number: i32, dialect: Dialect, out: &mut impl BufMut) {
    put_own_call(out, ProcId::UNPREPARE, dialect);
    put_handle(out, number);
    out.put_u8(NEXT_CALL);
}

/// A call that does nothing and answers as sp_unprepare does: RETURNSTATUS and DONEPROC, no DONEINPROC.
pub(super) fn nothing(dialect: Dialect, out: &mut impl BufMut) {
    const TEXT: &str = "declare @nothing int";
    put_own_call(out, ProcId::EXECUTE_SQL, dialect);
    let bytes = (TEXT.len() * 2) as u16;
    out.put_slice(&[0, 0, TypeId::NVARCHAR.0]);
    out.put_u16_le(8000);
    // The collation of an nvarchar is of no interest.
    out.put_slice(&[0x09, 0x04, 0xD0, 0x00, 0x34]);
    out.put_u16_le(bytes);
    TEXT.encode_utf16().for_each(|unit| out.put_u16_le(unit));
}
