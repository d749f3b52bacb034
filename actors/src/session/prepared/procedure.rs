//! Which called procedures deal in prepared handles.

use tds::rpc::{Callee, ProcId};

/// True for a call of which only its handle says what it does.
pub(crate) fn is_known_by_handle(callee: Callee<'_>) -> bool {
    matches!(HandleProcedure::of(callee), Some(HandleProcedure::Execute | HandleProcedure::Unprepare))
}

/// A procedure that deals in handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandleProcedure {
    Prepare,
    PrepExec,
    PrepExecRpc,
    Execute,
    Unprepare,
}

impl HandleProcedure {
    /// How many of its parameters have to be seen to know what it does.
    pub(super) fn parameters(self) -> usize {
        match self {
            Self::Prepare | Self::PrepExec => 3,
            Self::PrepExecRpc => 2,
            Self::Execute | Self::Unprepare => 1,
        }
    }

    /// Recognizes it by number, or by name in any case, with or without brackets, owner and database.
    pub(super) fn of(callee: Callee<'_>) -> Option<Self> {
        let id = match callee {
            Callee::Id(id) => id,
            Callee::Name(name) => by_name(name)?,
        };
        Some(match id {
            ProcId::PREPARE => Self::Prepare,
            ProcId::PREP_EXEC => Self::PrepExec,
            ProcId::PREP_EXEC_RPC => Self::PrepExecRpc,
            ProcId::EXECUTE => Self::Execute,
            ProcId::UNPREPARE => Self::Unprepare,
            _ => return None,
        })
    }
}

/// The longest name that is looked for.
const LONGEST: usize = "sp_prepexecrpc".len();

/// The number behind a name in UTF-16LE, read from its end: owner and database do not matter.
fn by_name(name: &[u8]) -> Option<ProcId> {
    let (mut letters, mut at) = ([0; LONGEST], LONGEST);
    let mut quoted = false;
    for pair in without_number(name).rchunks_exact(2) {
        match u8::try_from(u16::from_le_bytes([pair[0], pair[1]])).ok()? {
            b']' => quoted = true,
            b'[' => quoted = false,
            b'"' => quoted = !quoted,
            b'.' if !quoted => break,
            byte if byte.is_ascii_whitespace() => {}
            byte => {
                at = at.checked_sub(1)?;
                letters[at] = byte;
            }
        }
    }
    ProcId::by_name(std::str::from_utf8(&letters[at..]).ok()?)
}

/// Without `;1`, the number of a procedure in its group.
fn without_number(name: &[u8]) -> &[u8] {
    let digits = name.rchunks_exact(2).take_while(|pair| pair[0].is_ascii_digit() && pair[1] == 0).count();
    match name[..name.len() - 2 * digits].strip_suffix(&[b';', 0]) {
        Some(name) if digits > 0 => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<HandleProcedure> {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        HandleProcedure::of(Callee::Name(&name))
    }

    #[test]
    fn names_are_recognized_however_they_are_written() {
        for name in
            ["sp_prepexec", "SP_PrepExec", "[sys].sp_prepexec", "sys.[sp_prepexec]", "master..sp_prepexec"]
        {
            assert_eq!(of(name), Some(HandleProcedure::PrepExec), "{name}");
        }
        assert_eq!(of("\"master\".\"sys\".\"sp_execute\""), Some(HandleProcedure::Execute));
        assert_eq!(of("sp_unprepare;1"), Some(HandleProcedure::Unprepare));
    }

    #[test]
    fn other_names_are_not() {
        for name in [
            "",
            ";1",
            "sp_executesql",
            "sp_execute2",
            "[dbo.sp_execute]",
            "sp_execut\u{e9}",
            "xsp_prepexecrpc",
            "sp_cursorprepare",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
        assert_eq!(HandleProcedure::of(Callee::Id(ProcId::EXECUTE_SQL)), None);
        assert_eq!(HandleProcedure::of(Callee::Id(ProcId::PREPARE)), Some(HandleProcedure::Prepare));
    }
}
