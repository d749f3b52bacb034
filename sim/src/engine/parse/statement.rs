//! What a batch is made of: the statements of the T-SQL subset.

use sqlparser::ast::{Cte, Expr, Query, SelectItem, TableWithJoins};

use super::super::types::SqlType;

/// A statement and the line on which it begins.
#[derive(Debug, Clone)]
pub(in super::super) struct Stmt {
    pub(in super::super) line: u32,
    pub(in super::super) body: Body,
}

/// A name of up to four parts; missing ones are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct Name {
    pub(in super::super) database: String,
    pub(in super::super) schema: String,
    pub(in super::super) name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.database.is_empty() {
            write!(f, "{}.{}.", self.database, self.schema)?;
        } else if !self.schema.is_empty() {
            write!(f, "{}.", self.schema)?;
        }
        f.write_str(&self.name)
    }
}

#[derive(Debug, Clone)]
pub(in super::super) enum Body {
    Block(Vec<Stmt>),
    If {
        condition: Expr,
        then: Box<Stmt>,
        otherwise: Option<Box<Stmt>>,
    },
    While {
        condition: Expr,
        body: Box<Stmt>,
    },
    Break,
    Continue,
    Return(Option<Expr>),
    Label,
    Print(Expr),
    RaisError {
        args: Vec<Expr>,
        options: Vec<String>,
    },
    Throw(Option<Box<[Expr; 3]>>),
    Try {
        body: Vec<Stmt>,
        handler: Vec<Stmt>,
    },
    WaitFor {
        delay: bool,
        time: Expr,
    },
    Declare(Vec<Declaration>),
    SetVariable {
        name: String,
        op: Option<char>,
        value: Expr,
    },
    SetOption {
        name: String,
        value: Vec<String>,
    },
    Select(Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Truncate(Name),
    CreateTable(Box<CreateTable>),
    AlterTable {
        table: Name,
        change: AlterTable,
    },
    Drop {
        kind: ObjectKind,
        if_exists: bool,
        names: Vec<Name>,
    },
    CreateIndex {
        name: String,
        table: Name,
        columns: Vec<String>,
        unique: bool,
    },
    DropIndex {
        name: String,
        table: Name,
        if_exists: bool,
    },
    CreateView {
        name: Name,
        columns: Vec<String>,
        text: String,
        replace: Replace,
    },
    CreateProcedure {
        name: Name,
        text: String,
        replace: Replace,
    },
    CreateDatabase(String),
    CreateSchema(String),
    Execute(Box<Execute>),
    ExecuteText {
        text: Expr,
        more: Vec<Expr>,
    },
    BeginTransaction(TranName),
    Commit,
    Rollback(TranName),
    Save(TranName),
    Use(String),
    DeclareCursor {
        name: String,
        query: Box<Query>,
        options: Vec<String>,
    },
    OpenCursor(String),
    CloseCursor(String),
    Deallocate(String),
    Fetch {
        how: FetchHow,
        cursor: String,
        into: Vec<String>,
    },
    Kill(i64),
    ExecuteAs(Option<String>),
    Revert,
    Dbcc {
        command: String,
        args: Vec<String>,
    },
    InsertBulk {
        table: Name,
        columns: Vec<(String, SqlType)>,
    },
    /// A statement that changes nothing that the stand-in has (GRANT, CHECKPOINT, UPDATE STATISTICS …).
    Ignored,
}

impl Body {
    /// Statements that count no rows set @@ROWCOUNT to 0, as SQL Server's documentation says of SET, USE, PRINT,
    /// transactions and cursors.
    pub(in super::super) fn resets_row_count(&self) -> bool {
        matches!(
            self,
            Body::Print(_)
                | Body::RaisError { .. }
                | Body::WaitFor { .. }
                | Body::SetOption { .. }
                | Body::Truncate(_)
                | Body::CreateTable(_)
                | Body::AlterTable { .. }
                | Body::Drop { .. }
                | Body::CreateIndex { .. }
                | Body::DropIndex { .. }
                | Body::CreateView { .. }
                | Body::CreateProcedure { .. }
                | Body::CreateDatabase(_)
                | Body::CreateSchema(_)
                | Body::BeginTransaction(_)
                | Body::Commit
                | Body::Rollback(_)
                | Body::Save(_)
                | Body::Use(_)
                | Body::DeclareCursor { .. }
                | Body::OpenCursor(_)
                | Body::CloseCursor(_)
                | Body::Deallocate(_)
                | Body::ExecuteAs(_)
                | Body::Revert
                | Body::InsertBulk { .. }
        )
    }
}

/// CREATE, ALTER or CREATE OR ALTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Replace {
    Create,
    Alter,
    Either,
}

#[derive(Debug, Clone)]
pub(in super::super) enum TranName {
    None,
    Name(String),
    Variable(String),
}

#[derive(Debug, Clone)]
pub(in super::super) enum Declaration {
    Variable { name: String, ty: SqlType, value: Option<Expr> },
    Table { name: String, table: CreateTable },
    Cursor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ObjectKind {
    Table,
    View,
    Procedure,
    Database,
    Schema,
    Other,
}

#[derive(Debug, Clone)]
pub(in super::super) enum FetchHow {
    Next,
    Prior,
    First,
    Last,
    Absolute(Expr),
    Relative(Expr),
}

#[derive(Debug, Clone)]
pub(in super::super) struct OutputClause {
    pub(in super::super) items: Vec<SelectItem>,
    pub(in super::super) into: Option<(Name, Vec<String>)>,
}

#[derive(Debug, Clone)]
pub(in super::super) struct Insert {
    pub(in super::super) with: Vec<Cte>,
    pub(in super::super) table: Name,
    pub(in super::super) columns: Vec<String>,
    pub(in super::super) output: Option<OutputClause>,
    pub(in super::super) source: InsertSource,
}

#[derive(Debug, Clone)]
pub(in super::super) enum InsertSource {
    /// `DEFAULT` is `None`.
    Values(Vec<Vec<Option<Expr>>>),
    Query(Box<Query>),
    Execute(Box<Stmt>),
    Default,
}

#[derive(Debug, Clone)]
pub(in super::super) struct Assignment {
    /// `@x` of `SET @x = column = …`.
    pub(in super::super) variable: Option<String>,
    pub(in super::super) column: Option<Vec<String>>,
    pub(in super::super) op: Option<char>,
    /// `DEFAULT` is `None`.
    pub(in super::super) value: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(in super::super) struct Update {
    pub(in super::super) with: Vec<Cte>,
    pub(in super::super) top: Option<Expr>,
    pub(in super::super) table: Name,
    pub(in super::super) set: Vec<Assignment>,
    pub(in super::super) output: Option<OutputClause>,
    pub(in super::super) from: Vec<TableWithJoins>,
    pub(in super::super) filter: Option<Expr>,
    pub(in super::super) cursor: Option<String>,
}

#[derive(Debug, Clone)]
pub(in super::super) struct Delete {
    pub(in super::super) with: Vec<Cte>,
    pub(in super::super) top: Option<Expr>,
    pub(in super::super) table: Name,
    pub(in super::super) output: Option<OutputClause>,
    pub(in super::super) from: Vec<TableWithJoins>,
    pub(in super::super) filter: Option<Expr>,
    pub(in super::super) cursor: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(in super::super) struct ColumnDef {
    pub(in super::super) name: String,
    pub(in super::super) ty: Option<SqlType>,
    pub(in super::super) nullable: Option<bool>,
    pub(in super::super) identity: Option<(i64, i64)>,
    /// T-SQL text of the default.
    pub(in super::super) default: Option<String>,
    /// T-SQL text of a computed column.
    pub(in super::super) computed: Option<String>,
}

#[derive(Debug, Clone)]
pub(in super::super) enum Constraint {
    Key {
        name: Option<String>,
        primary: bool,
        columns: Vec<String>,
    },
    Check {
        name: Option<String>,
        text: String,
    },
    Foreign {
        name: Option<String>,
        columns: Vec<String>,
        table: Name,
        referenced: Vec<String>,
        cascade: bool,
    },
    Default {
        name: Option<String>,
        column: String,
        text: String,
    },
}

#[derive(Debug, Clone)]
pub(in super::super) struct CreateTable {
    pub(in super::super) name: Name,
    pub(in super::super) columns: Vec<ColumnDef>,
    pub(in super::super) constraints: Vec<Constraint>,
    /// Plain indexes written inside the table.
    pub(in super::super) indexes: Vec<(String, Vec<String>)>,
}

#[derive(Debug, Clone)]
pub(in super::super) enum AlterTable {
    Add {
        columns: Vec<ColumnDef>,
        constraints: Vec<Constraint>,
    },
    DropColumns {
        names: Vec<String>,
        if_exists: bool,
    },
    DropConstraints {
        names: Vec<String>,
        if_exists: bool,
    },
    AlterColumn(ColumnDef),
    /// CHECK/NOCHECK CONSTRAINT, REBUILD, SET …
    Nothing,
}

#[derive(Debug, Clone)]
pub(in super::super) struct ExecuteArg {
    pub(in super::super) name: Option<String>,
    /// `DEFAULT` is `None`.
    pub(in super::super) value: Option<Expr>,
    pub(in super::super) output: bool,
}

#[derive(Debug, Clone)]
pub(in super::super) struct Execute {
    pub(in super::super) status_into: Option<String>,
    pub(in super::super) procedure: ProcedureRef,
    pub(in super::super) args: Vec<ExecuteArg>,
}

#[derive(Debug, Clone)]
pub(in super::super) enum ProcedureRef {
    Name(Name),
    Variable(String),
}
