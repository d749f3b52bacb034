//! Names of up to four parts, and what is done when one is complete.

use super::{Expect, Out, Statements, Taken, Target};
use crate::tsql::finding::Hold;
use crate::tsql::lexer::{Kind, Token};
use crate::tsql::procedure::Procedures;

impl Statements {
    pub(super) fn begin_name(&mut self, target: Target) -> Taken {
        self.name_begins(target);
        Taken::Yes
    }

    /// The current token is the name's first part.
    pub(super) fn name_begins(&mut self, target: Target) -> Taken {
        self.name.clear();
        self.path.clear();
        self.parts = 0;
        self.wants_part = true;
        self.cut = false;
        self.expect = Expect::Name(target);
        Taken::Again
    }

    pub(super) fn name_part(
        &mut self,
        target: Target,
        token: Token<'_>,
        keyword: &'static str,
        procedures: &Procedures,
        out: &mut Out<'_>,
    ) -> Taken {
        let first = self.parts == 0;
        match token.kind {
            Kind::Word
                if first && matches!(target, Target::Drop(_)) && matches!(keyword, "if" | "exists") =>
            {
                return Taken::Yes;
            }
            Kind::Word | Kind::Quoted
                if self.wants_part && (!first || token.kind == Kind::Quoted || keyword.is_empty()) =>
            {
                self.parts = self.parts.saturating_add(1);
                self.cut |= token.cut || self.parts > 4;
                if !self.cut {
                    self.path.push_str(token.text);
                }
                self.name.clear();
                self.name.push_str(token.text);
                self.wants_part = false;
                return Taken::Yes;
            }
            Kind::Symbol('.') => {
                if std::mem::replace(&mut self.wants_part, true) {
                    self.parts = self.parts.saturating_add(1);
                }
                if self.parts <= 4 {
                    self.path.push('.');
                }
                return Taken::Yes;
            }
            _ => {}
        }
        self.expect = Expect::Nothing;
        if target == Target::CreateProcedure {
            self.expect = Expect::Body;
        }
        if first || self.name.is_empty() {
            return if self.expect == Expect::Body { Taken::Yes } else { Taken::No };
        }
        self.named(target, token, procedures, out);
        match self.expect {
            Expect::Nothing => Taken::No,
            Expect::Body => Taken::Yes,
            _ => Taken::Again,
        }
    }

    /// A name is complete; the token is the one behind it.
    fn named(&mut self, target: Target, token: Token<'_>, procedures: &Procedures, out: &mut Out<'_>) {
        let temporary = self.name.starts_with('#');
        match target {
            Target::CreateTable if temporary => self.begins_named(Hold::TempTable, out),
            Target::CreateProcedure if temporary => self.begins_named(Hold::TempProcedure, out),
            Target::Into => {
                // Not that of OUTPUT .. INTO.
                if self.leading == "select" {
                    self.values.also_identity();
                }
                if temporary {
                    self.begins_named(Hold::TempTable, out);
                }
            }
            Target::Drop(hold) => {
                if temporary {
                    self.ends_named(hold, out);
                }
                self.expect = Expect::MoreNames(target);
            }
            Target::Use => self.uses(out),
            // A label.
            Target::Call { bare: true } if token.kind == Kind::Symbol(':') => {}
            Target::Call { bare } => {
                if bare {
                    self.start("exec");
                }
                self.calls(procedures, out);
            }
            Target::Cursor => self.expect = Expect::CursorWords { local: false },
            Target::Deallocate => self.ends_named(Hold::Cursor, out),
            Target::IdentityInsert => self.expect = Expect::IdentityInsert,
            Target::AlterDatabase => self.expect = Expect::DatabaseSet,
            Target::CreateTable | Target::CreateProcedure => {}
        }
    }
}
