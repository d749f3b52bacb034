//! Recognises the statements that matter, token by token, and says what they do.

mod name;
mod report;
mod set;

use super::Scope;
use super::block::{Blocks, Runs};
use super::finding::{Finding, Hold, Ledger, Previous, Verdict};
use super::keyword::{begins_batch, begins_statement, keyword};
use super::lexer::{Kind, MAX_TEXT, Token};
use super::procedure::{LONGEST, Procedures, lower};
use super::set_option::Treatment;
use super::values::{Sets, Values};

/// What a name that is being read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    CreateTable,
    CreateProcedure,
    Into,
    Drop(Hold),
    Use,
    /// EXEC, or nothing at all at the batch's beginning.
    Call {
        bare: bool,
    },
    Cursor,
    Deallocate,
    IdentityInsert,
    AlterDatabase,
}

/// What the next tokens are looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Nothing,
    /// A name, or the rest of it.
    Name(Target),
    /// Another name behind a comma.
    MoreNames(Target),
    /// The rest of the text is a body that does not run now.
    Body,
    Create {
        alter: bool,
    },
    Drop,
    /// `DROP what IF EXISTS`: this IF is none.
    DropOther,
    Declare,
    /// Between the cursor's name and FOR.
    CursorWords {
        local: bool,
    },
    Deallocate,
    Execute,
    /// Behind EXEC @v.
    ExecuteVariable,
    Begin(Runs),
    End,
    Rollback,
    Permission,
    DatabaseSet,
    Set,
    /// Behind SET and a word that is no option.
    SetUnknown,
    /// Behind an option's name.
    Option,
    Statistics,
    Isolation,
    /// ON or OFF behind IDENTITY_INSERT and a table.
    IdentityInsert,
    ContextInfo,
    /// A value's sign was read.
    Negative,
    Dbcc,
    TraceFlags {
        on: bool,
        negative: bool,
    },
    Open,
}

/// Options of one SET statement: `SET ANSI_NULLS, ANSI_PADDING ON`.
const OPTIONS: usize = 16;

/// Reads the statements of one batch.
#[derive(Debug)]
pub(super) struct Statements {
    scope: Scope,
    expect: Expect,
    /// Nothing of the batch but semicolons was seen.
    first: bool,
    /// The last token, if it was a keyword, or `no`.
    previous: &'static str,
    /// The keyword that began the statement.
    leading: &'static str,
    /// INSERT, before VALUES, SELECT or EXEC.
    insert_open: bool,
    /// UPDATE, before its SET.
    update_open: bool,
    /// A value function's name was read; an opening bracket makes it a call.
    function: Option<Previous>,
    parentheses: u32,
    runs: Runs,
    blocks: Blocks,
    values: Values,
    ledger: Ledger,
    verdict: Verdict,
    /// The last part of the name that is being read, and all of it.
    name: String,
    path: String,
    parts: u8,
    wants_part: bool,
    cut: bool,
    options: [(&'static str, Treatment); OPTIONS],
    option_count: usize,
    value: String,
    /// Something counted began: it must not run again by a jump.
    counted: bool,
    /// A temporary table or procedure was dropped: a rollback brings it back.
    dropped: bool,
    /// Behind SET NOEXEC ON and its like only SET surely runs.
    asleep: bool,
    /// Whether the statement surely runs, were it not for `asleep`.
    surely: bool,
    /// The last token was a value, not the keyword it looks like: `SET NOCOUNT ON`.
    was_value: bool,
}

/// Whether a token was what was expected.
enum Taken {
    /// It was, and is done with.
    Yes,
    /// It is to be looked at once more, with other expectations.
    Again,
    /// It was not: nothing special is expected any more.
    No,
}

type Out<'o> = dyn FnMut(Finding<'_>) + 'o;

impl Statements {
    pub(super) fn new(scope: Scope) -> Self {
        let text = |tokens| String::with_capacity(3 * MAX_TEXT * tokens);
        Self::with(scope, text(1), text(4), text(2))
    }

    /// Begins before the first token of another batch; the memory is kept.
    pub(super) fn restart(&mut self, scope: Scope) {
        let [name, path, value] = [&mut self.name, &mut self.path, &mut self.value].map(std::mem::take);
        *self = Self::with(scope, name, path, value);
    }

    fn with(scope: Scope, name: String, path: String, value: String) -> Self {
        Self {
            scope,
            expect: Expect::Nothing,
            first: true,
            previous: "",
            leading: "",
            insert_open: false,
            update_open: false,
            function: None,
            parentheses: 0,
            runs: Runs::default(),
            blocks: Blocks::new(),
            values: Values::default(),
            ledger: Ledger::default(),
            verdict: Verdict::default(),
            name,
            path,
            parts: 0,
            wants_part: false,
            cut: false,
            options: [("", Treatment::Replay); OPTIONS],
            option_count: 0,
            value,
            counted: false,
            dropped: false,
            asleep: false,
            surely: true,
            was_value: false,
        }
    }

    /// Takes the next token. The last one is [`Kind::End`].
    pub(super) fn take(&mut self, token: Token<'_>, procedures: &Procedures, out: &mut Out<'_>) {
        if self.expect == Expect::Body {
            return;
        }
        if let Kind::Odd(why) = token.kind {
            self.unsure(why, out);
            return;
        }
        let mut buffer = [0; LONGEST];
        let word = if token.kind == Kind::Word { lower(token.text, &mut buffer) } else { "" };
        let keyword = keyword(word).unwrap_or("");
        self.reads(token, out);
        match token.kind {
            Kind::Symbol('(') => self.parentheses = self.parentheses.saturating_add(1),
            Kind::Symbol(')') => self.parentheses = self.parentheses.saturating_sub(1),
            Kind::Symbol(';') => self.parentheses = 0,
            _ => {}
        }
        loop {
            match self.expected(token, word, keyword, procedures, out) {
                Taken::Yes => break,
                Taken::Again => {}
                Taken::No => {
                    self.expect = Expect::Nothing;
                    if !self.unexpected(token, word, keyword, out) {
                        break;
                    }
                }
            }
        }
        self.first &= matches!(token.kind, Kind::Symbol(';' | '{' | '?' | '='));
        self.previous = match word {
            _ if std::mem::take(&mut self.was_value) => "",
            "no" => "no",
            _ => keyword,
        };
    }

    /// What the batch comes to, after [`Kind::End`].
    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict;
        verdict.holds = self.ledger.holds();
        verdict.leaves_identity = self.values.leaves_identity();
        verdict.leaves_row_count = self.values.leaves_row_count();
        verdict.sets_identity = self.values.sets(Previous::Identity);
        verdict.sets_outcome = self.values.sets(Previous::RowCount);
        verdict.sets_fetch = self.values.sets(Previous::FetchStatus);
        verdict
    }

    fn expected(
        &mut self,
        token: Token<'_>,
        word: &str,
        keyword: &'static str,
        procedures: &Procedures,
        out: &mut Out<'_>,
    ) -> Taken {
        let kind = token.kind;
        let is_name = kind == Kind::Quoted || (kind == Kind::Word && keyword.is_empty());
        let done = |this: &mut Self| {
            this.expect = Expect::Nothing;
            Taken::Yes
        };
        match self.expect {
            Expect::Nothing | Expect::Body => Taken::No,
            Expect::Name(target) => self.name_part(target, token, keyword, procedures, out),
            Expect::MoreNames(target) if kind == Kind::Symbol(',') => self.begin_name(target),
            Expect::MoreNames(_) => Taken::No,
            Expect::Create { alter } => match word {
                "or" | "alter" => Taken::Yes,
                "proc" | "procedure" => self.begin_name(Target::CreateProcedure),
                "function" | "trigger" | "view" => {
                    self.expect = Expect::Body;
                    Taken::Yes
                }
                "table" if !alter => self.begin_name(Target::CreateTable),
                "database" if alter => self.begin_name(Target::AlterDatabase),
                _ if kind == Kind::Word => done(self),
                _ => Taken::No,
            },
            Expect::Drop => match word {
                "table" => self.begin_name(Target::Drop(Hold::TempTable)),
                "proc" | "procedure" => self.begin_name(Target::Drop(Hold::TempProcedure)),
                _ if kind == Kind::Word => {
                    self.expect = Expect::DropOther;
                    Taken::Yes
                }
                _ => Taken::No,
            },
            Expect::DropOther if word == "if" => done(self),
            Expect::DropOther => Taken::No,
            Expect::Declare if is_name => self.name_begins(Target::Cursor),
            Expect::Declare => Taken::No,
            Expect::CursorWords { local } => match word {
                "local" => {
                    self.expect = Expect::CursorWords { local: true };
                    Taken::Yes
                }
                "cursor" => Taken::Yes,
                _ if is_name => Taken::Yes,
                _ => {
                    if !local {
                        self.begins_named(Hold::Cursor, out);
                    }
                    if word == "for" { done(self) } else { Taken::No }
                }
            },
            Expect::Deallocate if word == "global" => Taken::Yes,
            Expect::Deallocate if is_name => self.name_begins(Target::Deallocate),
            Expect::Deallocate => Taken::No,
            Expect::Execute => match kind {
                Kind::Variable => {
                    self.expect = Expect::ExecuteVariable;
                    Taken::Yes
                }
                Kind::Symbol('(') | Kind::String => {
                    self.begins(Hold::DynamicText, "", out);
                    done(self)
                }
                _ if word == "as" => {
                    self.begins(Hold::SecurityContext, "", out);
                    done(self)
                }
                _ if is_name => self.name_begins(Target::Call { bare: false }),
                _ => {
                    self.unsure("EXECUTE of something else than a procedure", out);
                    Taken::No
                }
            },
            Expect::ExecuteVariable if kind == Kind::Symbol('=') => {
                self.expect = Expect::Execute;
                Taken::Yes
            }
            Expect::ExecuteVariable => {
                self.begins(Hold::DynamicText, "", out);
                Taken::No
            }
            Expect::Begin(runs) => {
                let (open, taken) = match word {
                    "tran" | "transaction" | "distributed" => {
                        self.values.statement(Sets { outcome: true, ..Sets::default() }, runs);
                        self.begins(Hold::Transaction, "", out);
                        return done(self);
                    }
                    "dialog" | "conversation" => return done(self),
                    // What goes wrong in TRY is no error to the client.
                    "try" | "catch" => (Runs { maybe: true, ..runs }, Taken::Yes),
                    "atomic" => (runs, Taken::Yes),
                    _ => (runs, Taken::Again),
                };
                self.expect = Expect::Nothing;
                if !self.blocks.open(open) {
                    self.unsure("blocks too deep", out);
                    self.blocks.jump(true);
                }
                taken
            }
            Expect::End if word == "conversation" => done(self),
            Expect::End => {
                if !self.blocks.close() {
                    self.unsure("END without BEGIN", out);
                }
                if matches!(word, "try" | "catch") { done(self) } else { Taken::No }
            }
            Expect::Rollback => match word {
                "tran" | "transaction" | "work" => Taken::Yes,
                // To a savepoint, or by the transaction's name: which, the text does not tell.
                _ if is_name || kind == Kind::Variable => done(self),
                _ => {
                    self.ends_all(Hold::Transaction, out);
                    Taken::No
                }
            },
            Expect::Permission => match keyword {
                "on" | "to" | "from" => {
                    self.was_value = true;
                    done(self)
                }
                _ if matches!(kind, Kind::Symbol(';') | Kind::End) => Taken::No,
                _ => Taken::Yes,
            },
            Expect::DatabaseSet if word == "set" => done(self),
            Expect::DatabaseSet => Taken::No,
            Expect::Dbcc => match word {
                "traceon" | "traceoff" => {
                    self.expect = Expect::TraceFlags { on: word == "traceon", negative: false };
                    Taken::Yes
                }
                _ => done(self),
            },
            Expect::TraceFlags { on, negative } => {
                match kind {
                    Kind::Symbol('(' | ',') => self.expect = Expect::TraceFlags { on, negative: false },
                    Kind::Symbol('-') => self.expect = Expect::TraceFlags { on, negative: true },
                    // -1 among them: for the whole server.
                    Kind::Number if negative => {}
                    Kind::Number if on => self.begins(Hold::TraceFlag, token.text, out),
                    Kind::Number => self.ends(Hold::TraceFlag, token.text, out),
                    Kind::Symbol(')') => return done(self),
                    _ => {
                        if on {
                            self.begins(Hold::TraceFlag, "", out);
                        }
                        return Taken::No;
                    }
                }
                Taken::Yes
            }
            Expect::Open if matches!(word, "symmetric" | "master") => {
                self.begins(Hold::OpenKey, "", out);
                done(self)
            }
            Expect::Open => Taken::No,
            Expect::Set
            | Expect::SetUnknown
            | Expect::Option
            | Expect::Negative
            | Expect::Statistics
            | Expect::Isolation
            | Expect::IdentityInsert
            | Expect::ContextInfo => self.set_part(token, word, keyword, out),
        }
    }

    /// A token where anything may stand. True: look at it again.
    fn unexpected(&mut self, token: Token<'_>, word: &str, keyword: &'static str, out: &mut Out<'_>) -> bool {
        match token.kind {
            Kind::Symbol(';') => {
                self.values.end_statement();
                self.insert_open = false;
                self.update_open = false;
                self.leading = "";
            }
            Kind::End => {
                self.values.end_statement();
                if self.blocks.is_open() {
                    self.unsure("BEGIN or CASE without END", out);
                }
            }
            Kind::Word if !keyword.is_empty() => self.keyword(keyword, out),
            Kind::Word if self.first && word == "call" => self.expect = Expect::Execute,
            Kind::Word if self.first && begins_batch(word) => {}
            Kind::Word | Kind::Quoted if self.first => {
                self.name_begins(Target::Call { bare: true });
                return true;
            }
            Kind::Word if self.leading == "alter" && word == "single_user" => {
                self.begins(Hold::SingleUser, "", out);
            }
            Kind::Word if self.leading == "alter" && word == "multi_user" => {
                self.ends(Hold::SingleUser, "", out);
            }
            _ => {}
        }
        false
    }

    fn keyword(&mut self, keyword: &'static str, out: &mut Out<'_>) {
        if keyword == "update" && !matches!(self.previous, "for" | "on") && self.parentheses == 0 {
            self.update_open = true;
        }
        if keyword == "set" && std::mem::take(&mut self.update_open) {
            return;
        }
        if begins_statement(keyword) && self.begins_here(keyword) {
            self.start(keyword);
        }
        match keyword {
            "alter" => self.expect = Expect::Create { alter: true },
            "begin" => self.expect = Expect::Begin(self.runs),
            "bulk" if self.previous == "insert" => {
                self.values.not_surely_identity();
                self.begins(Hold::BulkLoad, "", out);
            }
            "case" if !self.blocks.open_case() => self.unsure("blocks too deep", out),
            "commit" => self.ends(Hold::Transaction, "", out),
            "create" => self.expect = Expect::Create { alter: false },
            "dbcc" => self.expect = Expect::Dbcc,
            "deallocate" => self.expect = Expect::Deallocate,
            "declare" => self.expect = Expect::Declare,
            "deny" | "grant" | "revoke" => self.expect = Expect::Permission,
            "drop" => self.expect = Expect::Drop,
            "else" if !self.blocks.in_case() => self.blocks.condition(self.runs, false),
            "end" if self.blocks.in_case() => {
                self.blocks.close();
            }
            "end" => self.expect = Expect::End,
            "exec" | "execute" => self.expect = Expect::Execute,
            "goto" => {
                self.blocks.jump(true);
                if self.counted {
                    self.unsure("a jump, and something that must be counted", out);
                }
            }
            "if" | "while" => self.blocks.condition(self.runs, keyword == "while"),
            "into" if !matches!(self.previous, "insert" | "merge") => {
                self.begin_name(Target::Into);
            }
            "open" => self.expect = Expect::Open,
            "return" => self.blocks.jump(false),
            "revert" if self.previous == "no" => self.begins(Hold::SecurityContextForGood, "", out),
            "revert" => self.ends(Hold::SecurityContext, "", out),
            "rollback" => {
                // Which, a savepoint's name would not tell.
                if std::mem::take(&mut self.dropped) {
                    self.begins(Hold::TempTable, "", out);
                }
                self.expect = Expect::Rollback;
            }
            "set" => {
                self.option_count = 0;
                self.value.clear();
                self.expect = Expect::Set;
            }
            "setuser" => self.begins(Hold::SecurityContext, "", out),
            "statistics" if self.previous == "update" => self.update_open = false,
            "use" if self.parentheses == 0 => {
                self.begin_name(Target::Use);
            }
            "values" => self.insert_open = false,
            _ => {}
        }
    }

    /// False where the keyword is part of the statement before it.
    fn begins_here(&mut self, keyword: &str) -> bool {
        if self.parentheses > 0 || self.blocks.in_case() {
            return false;
        }
        match keyword {
            "select" | "exec" | "execute" if self.insert_open => {
                self.insert_open = false;
                false
            }
            "select" => !matches!(self.previous, "union" | "except" | "intersect" | "all" | "for"),
            "insert" | "update" | "delete" => !matches!(self.previous, "for" | "on" | "then"),
            "revert" => self.previous != "no",
            "bulk" => self.previous != "insert",
            _ => true,
        }
    }

    fn start(&mut self, keyword: &'static str) {
        self.runs = self.blocks.statement();
        self.surely = !self.runs.maybe;
        self.runs.maybe |= self.asleep;
        let control = matches!(
            keyword,
            "declare" | "if" | "while" | "begin" | "else" | "return" | "goto" | "break" | "continue"
        );
        let sets = Sets {
            identity: keyword == "insert",
            maybe_identity: matches!(keyword, "merge" | "exec" | "execute" | "bulk"),
            // Whether DBCC sets the row count is not documented.
            outcome: !control && keyword != "dbcc",
            fetch: keyword == "fetch",
            rows: matches!(keyword, "insert" | "update" | "delete" | "merge" | "exec" | "execute" | "bulk"),
        };
        self.values.statement(sets, self.runs);
        self.leading = keyword;
        self.insert_open = keyword == "insert";
        self.update_open = keyword == "update";
    }
}
