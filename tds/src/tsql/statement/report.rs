//! Reports what was recognised, and keeps the batch's ledger and verdict.

use super::{Out, Statements};
use crate::tsql::Scope;
use crate::tsql::finding::{Finding, Hold, Previous};
use crate::tsql::lexer::{Kind, Token};
use crate::tsql::procedure::{Effect, LONGEST, Procedures, lower};

/// The length of `rowcount_big` and `sysprocesses`: no shorter name is looked for in expressions.
const SHORTEST: usize = 12;

impl Statements {
    pub(super) fn unsure(&mut self, why: &'static str, out: &mut Out<'_>) {
        self.verdict.unsure.get_or_insert(why);
        self.ledger.begin(Hold::Unsure, "");
        out(Finding::Unsure(why));
    }

    pub(super) fn begins(&mut self, hold: Hold, name: &str, out: &mut Out<'_>) {
        if self.is_bounded(hold, name) {
            return;
        }
        // Servers tell transactions; the rest must be counted right.
        if hold.is_counted() && hold != Hold::Transaction {
            self.counted = true;
            if self.runs.again {
                self.unsure("a loop around something that must be counted", out);
            }
        }
        self.ledger.begin(hold, name);
        out(Finding::Begins(hold, name));
    }

    pub(super) fn ends(&mut self, hold: Hold, name: &str, out: &mut Out<'_>) {
        let surely = if hold == Hold::Setting { self.surely } else { !self.runs.maybe };
        if !surely || self.is_bounded(hold, name) {
            return;
        }
        self.dropped |= matches!(hold, Hold::TempTable | Hold::TempProcedure);
        self.ledger.end(hold, name);
        out(Finding::Ends(hold, name));
    }

    pub(super) fn ends_all(&mut self, hold: Hold, out: &mut Out<'_>) {
        if !self.runs.maybe {
            self.ledger.end_all(hold);
            out(Finding::EndsAll(hold));
        }
    }

    /// Begins, with the name that was read last.
    pub(super) fn begins_named(&mut self, hold: Hold, out: &mut Out<'_>) {
        if self.cut {
            self.unsure("a name too long to keep", out);
            return;
        }
        let name = std::mem::take(&mut self.name);
        self.begins(hold, &name, out);
        self.name = name;
    }

    /// Ends, with the name that was read last.
    pub(super) fn ends_named(&mut self, hold: Hold, out: &mut Out<'_>) {
        if !self.cut {
            let name = std::mem::take(&mut self.name);
            self.ends(hold, &name, out);
            self.name = name;
        }
    }

    /// What a called procedure or text does to these ends with it.
    fn is_bounded(&self, hold: Hold, name: &str) -> bool {
        self.scope == Scope::Called
            && match hold {
                Hold::TempTable | Hold::TempProcedure => !name.starts_with("##"),
                Hold::Setting => true,
                _ => false,
            }
    }

    pub(super) fn uses(&mut self, out: &mut Out<'_>) {
        if self.cut {
            self.unsure("a name too long to keep", out);
        } else if self.scope == Scope::Batch {
            self.verdict.changes_state = true;
            out(Finding::Use(&self.name));
        }
    }

    pub(super) fn calls(&mut self, procedures: &Procedures, out: &mut Out<'_>) {
        if self.cut {
            self.unsure("a name too long to keep", out);
            return;
        }
        match procedures.effect(&self.name) {
            Effect::Harmless => {}
            Effect::Begins(Hold::ListedProcedure) => self.begins_named(Hold::ListedProcedure, out),
            Effect::Begins(hold) => self.begins(hold, "", out),
            Effect::Ends(hold) if self.is_of_the_server() => self.ends(hold, "", out),
            Effect::ExecutesHandle => out(Finding::ExecutesHandle),
            Effect::ReadsProcessId => self.reads_process_id(out),
            Effect::Ends(_) | Effect::Unknown => {
                self.verdict.calls_procedures = true;
                out(Finding::Calls(&self.name));
            }
        }
    }

    /// The name read last is not that of somebody's own procedure elsewhere.
    fn is_of_the_server(&self) -> bool {
        let before = self.path.strip_suffix(self.name.as_str()).unwrap_or(".");
        ["", "sys.", "dbo.", "master..", "master.sys.", "master.dbo."]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(before))
    }

    /// Values of the previous batch and process ids are read wherever an expression may stand.
    pub(super) fn reads(&mut self, token: Token<'_>, out: &mut Out<'_>) {
        if let Some(value) = self.function.take()
            && token.kind == Kind::Symbol('(')
        {
            self.reads_value(value, out);
        }
        let mut buffer = [0; LONGEST];
        match token.kind {
            Kind::Variable if token.text.starts_with("@@") => match lower(token.text, &mut buffer) {
                "@@identity" => self.reads_value(Previous::Identity, out),
                "@@rowcount" => self.reads_value(Previous::RowCount, out),
                "@@error" => self.reads_value(Previous::Error, out),
                "@@fetch_status" | "@@cursor_rows" => self.reads_value(Previous::FetchStatus, out),
                "@@spid" => self.reads_process_id(out),
                _ => {}
            },
            Kind::Word | Kind::Quoted if token.text.len() >= SHORTEST => match lower(token.text, &mut buffer)
            {
                "scope_identity" => self.function = Some(Previous::ScopeIdentity),
                "rowcount_big" => self.function = Some(Previous::RowCount),
                "sysprocesses"
                | "dm_exec_sessions"
                | "dm_exec_requests"
                | "dm_exec_connections"
                | "dm_tran_session_transactions" => self.reads_process_id(out),
                _ => {}
            },
            _ => {}
        }
    }

    fn reads_value(&mut self, value: Previous, out: &mut Out<'_>) {
        // A called text begins without one.
        if value == Previous::ScopeIdentity && self.scope == Scope::Called {
            return;
        }
        if let Some(surely) = self.values.read(value) {
            self.verdict.may_read_previous = true;
            self.verdict.reads_previous |= surely;
            out(Finding::ReadsPrevious { value, surely });
        }
    }

    fn reads_process_id(&mut self, out: &mut Out<'_>) {
        self.verdict.reads_process_id = true;
        out(Finding::ReadsProcessId);
    }
}
