//! What an RPC calls: a procedure by name, or a built-in one by number ([MS-TDS] 2.2.6.6).

use bytes::BufMut;

use crate::read::Reader;
use crate::{Malformed, write};

/// NameLenProcID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Procedure {
    /// A built-in procedure by its number.
    Id(ProcId),
    /// Any procedure by its name, as the client wrote it.
    Name(String),
}

/// The number of a built-in procedure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcId(pub u16);

impl ProcId {
    /// `sp_cursor`.
    pub const CURSOR: Self = Self(1);
    /// `sp_cursoropen`.
    pub const CURSOR_OPEN: Self = Self(2);
    /// `sp_cursorprepare`.
    pub const CURSOR_PREPARE: Self = Self(3);
    /// `sp_cursorexecute`.
    pub const CURSOR_EXECUTE: Self = Self(4);
    /// `sp_cursorprepexec`.
    pub const CURSOR_PREP_EXEC: Self = Self(5);
    /// `sp_cursorunprepare`.
    pub const CURSOR_UNPREPARE: Self = Self(6);
    /// `sp_cursorfetch`.
    pub const CURSOR_FETCH: Self = Self(7);
    /// `sp_cursoroption`.
    pub const CURSOR_OPTION: Self = Self(8);
    /// `sp_cursorclose`.
    pub const CURSOR_CLOSE: Self = Self(9);
    /// `sp_executesql`.
    pub const EXECUTE_SQL: Self = Self(10);
    /// `sp_prepare`.
    pub const PREPARE: Self = Self(11);
    /// `sp_execute`.
    pub const EXECUTE: Self = Self(12);
    /// `sp_prepexec`.
    pub const PREP_EXEC: Self = Self(13);
    /// `sp_prepexecrpc`.
    pub const PREP_EXEC_RPC: Self = Self(14);
    /// `sp_unprepare`.
    pub const UNPREPARE: Self = Self(15);

    /// The procedure's name, or none for a number that the specification does not list.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0).checked_sub(1)?).copied()
    }

    /// The number of a built-in procedure, whatever the case of its name. No schema, no brackets.
    pub fn by_name(name: &str) -> Option<Self> {
        let at = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u16::try_from(at + 1).ok().map(Self)
    }
}

const NAMES: [&str; 15] = [
    "sp_cursor",
    "sp_cursoropen",
    "sp_cursorprepare",
    "sp_cursorexecute",
    "sp_cursorprepexec",
    "sp_cursorunprepare",
    "sp_cursorfetch",
    "sp_cursoroption",
    "sp_cursorclose",
    "sp_executesql",
    "sp_prepare",
    "sp_execute",
    "sp_prepexec",
    "sp_prepexecrpc",
    "sp_unprepare",
];

impl std::fmt::Debug for ProcId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "procedure {}", self.0),
        }
    }
}

impl Procedure {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.u16()? {
            u16::MAX => Ok(Self::Id(ProcId(reader.u16()?))),
            // The name is at most 1,046 bytes.
            chars if chars > 523 => {
                Err(Malformed::Value { what: "a procedure name's length", value: u64::from(chars) })
            }
            chars => Ok(Self::Name(reader.utf16(usize::from(chars))?)),
        }
    }

    pub(super) fn write(&self, out: &mut impl BufMut) {
        match self {
            Self::Id(id) => {
                out.put_u16_le(u16::MAX);
                out.put_u16_le(id.0);
            }
            Self::Name(name) => write::us_varchar(out, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(ProcId::EXECUTE_SQL.name(), Some("sp_executesql"));
        assert_eq!(ProcId::by_name("SP_UnPrepare"), Some(ProcId::UNPREPARE));
        assert_eq!(ProcId(0).name(), None);
        assert_eq!(ProcId(16).name(), None);
    }
}
