//! System procedures that drivers and people call: locks, session context, catalog, help.

use std::time::Duration;

use super::applock::Mode;
use super::call::{Answer, Arg};
use super::catalog::{self, ObjectType};
use super::datum::Datum;
use super::emit::{Emit, Stop};
use super::gate::Waited;
use super::message_text::{SqlError, unsupported};
use super::metadata;
use super::parse::Name;
use super::server::lock;
use super::session::Session;
use super::types::{Kind, MAX, SqlType};
use super::wire_types::OutColumn;

/// sp_datatype_info's rows: name, ODBC type, precision, prefix, suffix, create params, case sensitive, searchable,
/// unsigned, auto increment, min scale, max scale, SQL data type, user type.
type TypeRow = (
    &'static str,
    i64,
    i64,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
    i64,
    Option<i64>,
    Option<i64>,
);

const TYPE_ROWS: &[TypeRow] = &[
    ("sql_variant", -150, 8000, None, None, None, 2, None, None),
    ("uniqueidentifier", -11, 36, Some("'"), Some("'"), None, 2, None, None),
    ("ntext", -10, 1_073_741_823, Some("N'"), Some("'"), None, 1, None, None),
    ("xml", -152, 0, Some("N'"), Some("'"), None, 0, None, None),
    ("nvarchar", -9, 4000, Some("N'"), Some("'"), Some("max length"), 3, None, None),
    ("sysname", -9, 128, Some("N'"), Some("'"), None, 3, None, None),
    ("nchar", -8, 4000, Some("N'"), Some("'"), Some("length"), 3, None, None),
    ("bit", -7, 1, None, None, None, 2, Some(0), Some(0)),
    ("tinyint", -6, 3, None, None, None, 2, Some(0), Some(0)),
    ("bigint", -5, 19, None, None, None, 2, Some(0), Some(0)),
    ("image", -4, 2_147_483_647, Some("0x"), None, None, 0, None, None),
    ("varbinary", -3, 8000, Some("0x"), None, Some("max length"), 2, None, None),
    ("binary", -2, 8000, Some("0x"), None, Some("length"), 2, None, None),
    ("timestamp", -2, 8, Some("0x"), None, None, 2, None, None),
    ("text", -1, 2_147_483_647, Some("'"), Some("'"), None, 1, None, None),
    ("char", 1, 8000, Some("'"), Some("'"), Some("length"), 3, None, None),
    ("numeric", 2, 38, None, None, Some("precision,scale"), 2, Some(0), Some(38)),
    ("decimal", 3, 38, None, None, Some("precision,scale"), 2, Some(0), Some(38)),
    ("money", 3, 19, Some("$"), None, None, 2, Some(4), Some(4)),
    ("smallmoney", 3, 10, Some("$"), None, None, 2, Some(4), Some(4)),
    ("int", 4, 10, None, None, None, 2, Some(0), Some(0)),
    ("smallint", 5, 5, None, None, None, 2, Some(0), Some(0)),
    ("float", 6, 53, None, None, None, 2, None, None),
    ("real", 7, 24, None, None, None, 2, None, None),
    ("varchar", 12, 8000, Some("'"), Some("'"), Some("max length"), 3, None, None),
    ("date", 91, 10, Some("'"), Some("'"), None, 3, None, Some(0)),
    ("time", -154, 16, Some("'"), Some("'"), Some("scale"), 3, Some(0), Some(7)),
    ("datetime2", 93, 27, Some("'"), Some("'"), Some("scale"), 3, Some(0), Some(7)),
    ("datetimeoffset", -155, 34, Some("'"), Some("'"), Some("scale"), 3, Some(0), Some(7)),
    ("datetime", 93, 23, Some("'"), Some("'"), None, 3, Some(3), Some(3)),
    ("smalldatetime", 93, 16, Some("'"), Some("'"), None, 3, Some(0), Some(0)),
];

fn text_or_null(text: Option<&str>) -> Datum {
    text.map_or(Datum::Null, Datum::str)
}

fn named<'a>(args: &'a [Arg], name: &str, at: usize) -> Option<&'a Arg> {
    args.iter()
        .find(|a| a.name.eq_ignore_ascii_case(name))
        .or_else(|| args.get(at).filter(|a| a.name.is_empty()))
        .filter(|a| !a.value.is_null() && !a.default)
}

impl Session {
    pub(super) fn plain_system_procedure(
        &mut self,
        name: &str,
        args: &[Arg],
        emit: &mut Emit<'_>,
    ) -> Result<Option<Answer>, Stop> {
        let text = |name: &str, at: usize| named(args, name, at).map(Arg::text).unwrap_or_default();
        let sysname = SqlType::SYSNAME;
        Ok(Some(match name {
            "sp_getapplock" => self.get_app_lock(args)?,
            "sp_releaseapplock" => {
                let resource = text("@Resource", 0).to_lowercase();
                let transaction = !text("@LockOwner", 1).eq_ignore_ascii_case("session");
                if !self.engine.app_locks.release(self.spid, &self.database, &resource, transaction) {
                    return Err(SqlError::new(1223, 16, 1, format!("Cannot release the application lock (Database Principal: 'public', Resource: '{}') because it is not currently held.", text("@Resource", 0))).into());
                }
                Answer::ok()
            }
            "sp_set_session_context" => {
                let key = text("@key", 0).to_lowercase();
                if self.session_context.get(&key).is_some_and(|v| v.2) {
                    return Err(SqlError::new(15664, 16, 1, format!("Cannot set key '{}' in the session context. The key has been set as read_only for this session.", text("@key", 0))).into());
                }
                let read_only = named(args, "@read_only", 2).and_then(Arg::int) == Some(1);
                match named(args, "@value", 1) {
                    Some(value) => {
                        let (ty, value) = match &value.value {
                            Datum::Variant(inner) => (inner.0, inner.1.clone()),
                            other => (value.ty, other.clone()),
                        };
                        self.session_context.insert(key, (ty, value, read_only));
                    }
                    None => drop(self.session_context.remove(&key)),
                }
                Answer::ok()
            }
            // Only that there is a document: nothing reads one.
            "sp_xml_preparedocument" => {
                self.next_document += 1;
                self.xml_documents.insert(self.next_document);
                let handle = args.iter().position(|a| a.output);
                let outputs = handle.map(|at| (at, SqlType::INT, Datum::Int(self.next_document)));
                Answer { status: 0, outputs: outputs.into_iter().collect() }
            }
            "sp_xml_removedocument" => {
                let handle = named(args, "@hdoc", 0).and_then(Arg::int).unwrap_or_default();
                if !self.xml_documents.remove(&handle) {
                    return Err(SqlError::new(
                        6607,
                        16,
                        3,
                        "sp_xml_removedocument: The value supplied for parameter number 1 is invalid.",
                    )
                    .into());
                }
                Answer::ok()
            }
            "sp_reset_connection" => {
                let report = self.reset(false, &self.cancel.clone());
                if let Some(descriptor) = report.rolled_back {
                    emit.env_change(&tds::env_change::EnvChange::RollbackTransaction(descriptor))?;
                }
                Answer::ok()
            }
            "sp_setapprole" => {
                let role = text("@rolename", 0);
                self.app_role = Some((role, 1));
                let cookie = args.iter().position(|a| a.output);
                Answer {
                    status: 0,
                    outputs: cookie
                        .map(|at| (at, SqlType::varbinary(8000), Datum::Bytes(vec![1, 2, 3, 4])))
                        .into_iter()
                        .collect(),
                }
            }
            "sp_unsetapprole" => {
                if self.app_role.take().is_none() {
                    return Err(SqlError::new(15299, 16, 1, "The cookie generation failed in the sp_unsetapprole because there is no application role.").into());
                }
                Answer::ok()
            }
            "sp_datatype_info" | "sp_datatype_info_100" | "sp_datatype_info_90" => {
                let wanted = named(args, "@data_type", 0).and_then(Arg::int).unwrap_or(0);
                let (int, small) = (SqlType::INT, SqlType::SMALLINT);
                let columns = [
                    ("TYPE_NAME", sysname),
                    ("DATA_TYPE", small),
                    ("PRECISION", int),
                    ("LITERAL_PREFIX", SqlType::varchar(32)),
                    ("LITERAL_SUFFIX", SqlType::varchar(32)),
                    ("CREATE_PARAMS", SqlType::varchar(32)),
                    ("NULLABLE", small),
                    ("CASE_SENSITIVE", small),
                    ("SEARCHABLE", small),
                    ("UNSIGNED_ATTRIBUTE", small),
                    ("MONEY", small),
                    ("AUTO_INCREMENT", small),
                    ("LOCAL_TYPE_NAME", sysname),
                    ("MINIMUM_SCALE", small),
                    ("MAXIMUM_SCALE", small),
                    ("SQL_DATA_TYPE", small),
                    ("SQL_DATETIME_SUB", small),
                    ("NUM_PREC_RADIX", int),
                    ("INTERVAL_PRECISION", small),
                    ("USERTYPE", small),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let mut rows = Vec::new();
                for row in TYPE_ROWS.iter().filter(|r| wanted == 0 || r.1 == wanted) {
                    let number = (-7..=-5).contains(&row.1) || (2..=7).contains(&row.1);
                    rows.push(vec![
                        Datum::str(row.0),
                        Datum::Int(row.1),
                        Datum::Int(row.2),
                        text_or_null(row.3),
                        text_or_null(row.4),
                        text_or_null(row.5),
                        Datum::Int(1),
                        Datum::Int(0),
                        Datum::Int(row.6),
                        if number {
                            Datum::Int(i64::from(row.0 == "tinyint" || row.0 == "bit"))
                        } else {
                            Datum::Null
                        },
                        Datum::Int(i64::from(row.0.ends_with("money"))),
                        if number { Datum::Int(0) } else { Datum::Null },
                        Datum::str(row.0),
                        row.7.map_or(Datum::Null, Datum::Int),
                        row.8.map_or(Datum::Null, Datum::Int),
                        Datum::Int(if row.1 == 93 || row.1 == 91 { 9 } else { row.1 }),
                        if row.1 == 93 { Datum::Int(3) } else { Datum::Null },
                        if number {
                            Datum::Int(if row.0 == "float" || row.0 == "real" { 2 } else { 10 })
                        } else {
                            Datum::Null
                        },
                        Datum::Null,
                        Datum::Int(0),
                    ]);
                }
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_tables" => {
                let pattern = text("@table_name", 0);
                let columns =
                    ["TABLE_QUALIFIER", "TABLE_OWNER", "TABLE_NAME", "TABLE_TYPE", "REMARKS"].map(|n| {
                        OutColumn::new(
                            n,
                            if n == "TABLE_TYPE" {
                                SqlType::varchar(32)
                            } else if n == "REMARKS" {
                                SqlType::varchar(254)
                            } else {
                                sysname
                            },
                        )
                    });
                let objects =
                    catalog::list(&self.connection, &self.database).map_err(|e| self.stop_for(&e))?;
                let rows: Vec<Vec<Datum>> = objects
                    .iter()
                    .filter(|o| {
                        o.kind != ObjectType::Procedure
                            && (pattern.is_empty() || super::functions::text::like(&o.name, &pattern, None))
                    })
                    .map(|o| {
                        let kind = if o.kind == ObjectType::Table { "TABLE" } else { "VIEW" };
                        vec![
                            Datum::str(&*o.database),
                            Datum::str(&*o.schema),
                            Datum::str(&*o.name),
                            Datum::str(kind),
                            Datum::Null,
                        ]
                    })
                    .collect();
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_columns" | "sp_columns_100" => self.columns_of(&text("@table_name", 0), emit)?,
            "sp_pkeys" => {
                let object = self.find_table(&Name {
                    name: text("@table_name", 0),
                    schema: text("@table_owner", 1),
                    ..Name::default()
                })?;
                let columns = [
                    ("TABLE_QUALIFIER", sysname),
                    ("TABLE_OWNER", sysname),
                    ("TABLE_NAME", sysname),
                    ("COLUMN_NAME", sysname),
                    ("KEY_SEQ", SqlType::SMALLINT),
                    ("PK_NAME", sysname),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let mut rows = Vec::new();
                if let Some(object) = object
                    && let Some(key) = object.primary_key()
                {
                    for (at, column) in key.columns.iter().enumerate() {
                        rows.push(vec![
                            Datum::str(&*object.database),
                            Datum::str(&*object.schema),
                            Datum::str(&*object.name),
                            Datum::str(&**column),
                            Datum::Int(at as i64 + 1),
                            Datum::str(&*key.name),
                        ]);
                    }
                }
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_databases" => {
                let columns = [
                    ("DATABASE_NAME", sysname),
                    ("DATABASE_SIZE", SqlType::INT),
                    ("REMARKS", SqlType::varchar(254)),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let rows: Vec<Vec<Datum>> = lock(&self.engine.databases)
                    .iter()
                    .map(|d| vec![Datum::str(&**d), Datum::Int(8192), Datum::Null])
                    .collect();
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_server_info" => {
                let columns = [
                    ("attribute_id", SqlType::INT),
                    ("attribute_name", SqlType::varchar(60)),
                    ("attribute_value", SqlType::varchar(255)),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let rows: Vec<Vec<Datum>> = [
                    (1, "DBMS_NAME", "Microsoft SQL Server"),
                    (2, "DBMS_VER", "Microsoft SQL Server 2022 - 16.0.1000.6"),
                    (10, "OWNER_TERM", "owner"),
                    (16, "IDENTIFIER_CASE", "MIXED"),
                    (
                        18,
                        "COLLATION_SEQ",
                        "charset=iso_1 sort_order=nocase_iso charset_num=1 sort_order_num=52",
                    ),
                ]
                .iter()
                .map(|(id, n, v)| vec![Datum::Int(*id), Datum::str(*n), Datum::str(*v)])
                .collect();
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_helptext" => {
                let parts = metadata::name_parts(&text("@objname", 0));
                let wanted = Name {
                    name: parts[0].clone(),
                    schema: parts.get(1).cloned().unwrap_or_default(),
                    ..Name::default()
                };
                let object = self.find_object(&wanted)?.filter(|o| o.kind != ObjectType::Table).ok_or_else(|| {
                    SqlError::new(15009, 16, 1, format!("The object '{}' does not exist in database '{}' or is invalid for this operation.", wanted.name, self.database))
                })?;
                let columns = [OutColumn::new("Text", SqlType::nvarchar(255))];
                let rows: Vec<Vec<Datum>> =
                    object.text.lines().map(|l| vec![Datum::Str(format!("{l}\r\n"))]).collect();
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_who" | "sp_who2" => {
                let columns = [
                    ("spid", SqlType::SMALLINT),
                    ("ecid", SqlType::SMALLINT),
                    ("status", SqlType::nvarchar(30)),
                    ("loginame", sysname),
                    ("hostname", sysname),
                    ("blk", SqlType::varchar(5)),
                    ("dbname", sysname),
                    ("cmd", SqlType::nvarchar(26)),
                    ("request_id", SqlType::INT),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let mut rows: Vec<Vec<Datum>> = lock(&self.engine.sessions)
                    .iter()
                    .map(|(spid, l)| {
                        vec![
                            Datum::Int(i64::from(*spid)),
                            Datum::Int(0),
                            Datum::str(if l.running { "runnable" } else { "sleeping" }),
                            Datum::str(&*l.options.login_name),
                            Datum::str(&*l.options.host_name),
                            Datum::str("0"),
                            Datum::str(&*l.database),
                            Datum::str(if l.running { "SELECT" } else { "AWAITING COMMAND" }),
                            Datum::Int(0),
                        ]
                    })
                    .collect();
                rows.sort_by_key(|r| r[0].as_i64());
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_describe_first_result_set" => {
                let described = self.describe_text(&text("@tsql", 0), &text("@params", 1))?;
                let columns = [
                    ("is_hidden", SqlType::BIT),
                    ("column_ordinal", SqlType::INT),
                    ("name", sysname),
                    ("is_nullable", SqlType::BIT),
                    ("system_type_id", SqlType::INT),
                    ("system_type_name", SqlType::nvarchar(256)),
                    ("max_length", SqlType::SMALLINT),
                    ("precision", SqlType::TINYINT),
                    ("scale", SqlType::TINYINT),
                    ("collation_name", sysname),
                    ("is_identity_column", SqlType::BIT),
                    ("is_updateable", SqlType::BIT),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let rows: Vec<Vec<Datum>> = described
                    .iter()
                    .enumerate()
                    .map(|(at, c)| {
                        let (precision, scale) = c.ty.precision_scale();
                        vec![
                            Datum::Int(0),
                            Datum::Int(at as i64 + 1),
                            if c.name.is_empty() { Datum::Null } else { Datum::str(&*c.name) },
                            Datum::Int(i64::from(c.nullable)),
                            Datum::Int(i64::from(c.ty.system_type_id())),
                            Datum::Str(c.ty.full_name()),
                            Datum::Int(c.ty.max_length()),
                            Datum::Int(i64::from(precision)),
                            Datum::Int(i64::from(scale)),
                            if c.ty.is_string() {
                                Datum::str("SQL_Latin1_General_CP1_CI_AS")
                            } else {
                                Datum::Null
                            },
                            Datum::Int(i64::from(c.identity)),
                            Datum::Int(i64::from(c.updatable)),
                        ]
                    })
                    .collect();
                self.answer_rows(&columns, &rows, emit)?
            }
            // Bulk copy of Microsoft's drivers asks for the collations of the columns: `.[dbo].[t]`.
            "sp_tablecollations" | "sp_tablecollations_90" | "sp_tablecollations_100" => {
                let parts = metadata::name_parts(&text("@object", 0));
                let wanted = Name {
                    name: parts[0].clone(),
                    schema: parts.get(1).cloned().unwrap_or_default(),
                    ..Name::default()
                };
                let columns = [
                    ("colid", SqlType::INT),
                    ("name", sysname),
                    ("tds_collation_100", SqlType { kind: Kind::Binary, len: 5, scale: 0 }),
                    ("collation_100", sysname),
                ]
                .map(|(n, t)| OutColumn::new(n, t));
                let object = self.find_table(&wanted)?;
                let rows: Vec<Vec<Datum>> = object
                    .iter()
                    .flat_map(|o| &o.columns)
                    .map(|c| {
                        let collated = c.ty().is_string();
                        vec![
                            Datum::Int(i64::from(c.id)),
                            Datum::str(&*c.name),
                            if collated {
                                Datum::Bytes(tds::type_info::Collation::LATIN1.0.to_vec())
                            } else {
                                Datum::Null
                            },
                            text_or_null(collated.then_some("SQL_Latin1_General_CP1_CI_AS")),
                        ]
                    })
                    .collect();
                self.answer_rows(&columns, &rows, emit)?
            }
            "sp_rename"
            | "sp_help"
            | "sp_spaceused"
            | "sp_oacreate"
            | "sp_describe_undeclared_parameters" => return Err(unsupported(name).into()),
            _ => return Ok(None),
        }))
    }

    fn get_app_lock(&mut self, args: &[Arg]) -> Result<Answer, Stop> {
        let text = |name: &str, at: usize| named(args, name, at).map(Arg::text).unwrap_or_default();
        let resource = text("@Resource", 0).to_lowercase();
        let status = |status: i32| Ok(Answer { status, outputs: Vec::new() });
        let Some(mode) = Mode::parse(&text("@LockMode", 1)) else { return status(-999) };
        let transaction = !text("@LockOwner", 2).eq_ignore_ascii_case("session");
        if transaction && self.transaction.count == 0 {
            return status(-999);
        }
        let limit =
            match named(args, "@LockTimeout", 3).and_then(Arg::int).unwrap_or(self.settings.lock_timeout) {
                n if n < 0 => Duration::from_secs(24 * 3600),
                n => Duration::from_millis(n as u64),
            };
        let (waited, had_to_wait) = self.engine.app_locks.acquire(
            self.spid,
            &self.database,
            &resource,
            mode,
            transaction,
            limit,
            &self.cancel,
        );
        match waited {
            Waited::Granted => status(i32::from(had_to_wait)),
            Waited::TimedOut => status(-1),
            Waited::Cancelled => Err(Stop::Cancelled),
        }
    }

    fn columns_of(&mut self, pattern: &str, emit: &mut Emit<'_>) -> Result<Answer, Stop> {
        let (sysname, int, small) = (SqlType::SYSNAME, SqlType::INT, SqlType::SMALLINT);
        let columns = [
            ("TABLE_QUALIFIER", sysname),
            ("TABLE_OWNER", sysname),
            ("TABLE_NAME", sysname),
            ("COLUMN_NAME", sysname),
            ("DATA_TYPE", small),
            ("TYPE_NAME", sysname),
            ("PRECISION", int),
            ("LENGTH", int),
            ("SCALE", small),
            ("RADIX", small),
            ("NULLABLE", small),
            ("REMARKS", SqlType::varchar(254)),
            ("COLUMN_DEF", SqlType::nvarchar(4000)),
            ("SQL_DATA_TYPE", small),
            ("SQL_DATETIME_SUB", small),
            ("CHAR_OCTET_LENGTH", int),
            ("ORDINAL_POSITION", int),
            ("IS_NULLABLE", SqlType::varchar(254)),
            ("SS_DATA_TYPE", SqlType::TINYINT),
        ]
        .map(|(n, t)| OutColumn::new(n, t));
        let database = if pattern.starts_with('#') { "tempdb".to_string() } else { self.database.clone() };
        let objects = catalog::list(&self.connection, &database).map_err(|e| self.stop_for(&e))?;
        let mut rows = Vec::new();
        for object in objects.iter().filter(|o| {
            o.kind != ObjectType::Procedure && super::functions::text::like(&o.name, pattern, None)
        }) {
            for column in &object.columns {
                let ty = column.ty();
                let odbc = TYPE_ROWS.iter().find(|r| r.0 == ty.base_name()).map_or(12, |r| r.1);
                let precision = match ty.precision_scale().0 {
                    0 if ty.len == MAX => 0,
                    0 => i64::from(ty.len),
                    p => i64::from(p),
                };
                let number = ty.is_number();
                let type_name = if column.identity.is_some() {
                    format!("{} identity", ty.base_name())
                } else {
                    ty.base_name().to_string()
                };
                rows.push(vec![
                    Datum::str(&*object.database),
                    Datum::str(&*object.schema),
                    Datum::str(&*object.name),
                    Datum::str(&*column.name),
                    Datum::Int(odbc),
                    Datum::Str(type_name),
                    Datum::Int(precision),
                    Datum::Int(ty.max_length().max(0)),
                    if number || ty.is_temporal() {
                        Datum::Int(i64::from(ty.precision_scale().1))
                    } else {
                        Datum::Null
                    },
                    if number { Datum::Int(10) } else { Datum::Null },
                    Datum::Int(i64::from(column.nullable)),
                    Datum::Null,
                    column.default.as_ref().map_or(Datum::Null, |d| Datum::Str(format!("({})", d.1))),
                    Datum::Int(odbc),
                    Datum::Null,
                    if ty.is_string() || ty.is_binary() { Datum::Int(ty.max_length()) } else { Datum::Null },
                    Datum::Int(i64::from(column.id)),
                    Datum::str(if column.nullable { "YES" } else { "NO" }),
                    Datum::Int(if ty.kind == Kind::Int && !column.nullable { 56 } else { 38 }),
                ]);
            }
        }
        self.answer_rows(&columns, &rows, emit)
    }
}
