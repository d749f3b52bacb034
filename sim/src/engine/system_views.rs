//! System views: rows that the engine makes from what it knows, at the moment a query asks.

use super::catalog::{self, Object, ObjectType};
use super::datetime;
use super::datum::Datum;
use super::message_text::SqlError;
use super::metadata;
use super::parse::Name;
use super::server::lock;
use super::session::Session;
use super::settings::LANGUAGES;
use super::types::{Kind, SqlType};

/// A view's columns and rows.
pub(super) struct Rows {
    pub(super) columns: Vec<(&'static str, SqlType)>,
    rows: Vec<Vec<Datum>>,
}

/// The rows as the JSON that the binder's `json_each` reads; blobs in hex.
pub(super) fn to_json(rows: &Rows) -> String {
    let cell = |value: &Datum| match value.to_lite() {
        rusqlite::types::Value::Null => serde_json::Value::Null,
        rusqlite::types::Value::Integer(n) => n.into(),
        rusqlite::types::Value::Real(f) => f.into(),
        rusqlite::types::Value::Text(text) => text.into(),
        rusqlite::types::Value::Blob(bytes) => {
            bytes.iter().map(|b| format!("{b:02X}")).collect::<String>().into()
        }
    };
    let all: Vec<serde_json::Value> =
        rows.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().into()).collect();
    serde_json::Value::from(all).to_string()
}

const N: SqlType = SqlType::SYSNAME;
const I: SqlType = SqlType::INT;
const B: SqlType = SqlType::BIT;
const DT: SqlType = SqlType::DATETIME;
const S: SqlType = SqlType::SMALLINT;
const T: SqlType = SqlType::TINYINT;

fn flag(b: bool) -> Datum {
    Datum::Int(i64::from(b))
}
fn when(ticks: i64) -> Datum {
    Datum::Int(datetime::to_datetime(ticks))
}
fn stamp(time: std::time::SystemTime) -> Datum {
    when(datetime::ticks_of(time))
}
fn kind_of(object: &Object) -> (&'static str, &'static str) {
    match object.kind {
        ObjectType::Table => ("U ", "USER_TABLE"),
        ObjectType::View => ("V ", "VIEW"),
        ObjectType::Procedure => ("P ", "SQL_STORED_PROCEDURE"),
    }
}

/// The rows of a system view; `None` if `name` is not one.
#[expect(clippy::too_many_lines, reason = "one arm per view, all alike")]
pub(super) fn rows(session: &Session, name: &Name) -> Result<Option<Rows>, SqlError> {
    let schema = name.schema.to_ascii_lowercase();
    let view = name.name.to_ascii_lowercase();
    let old = matches!(
        view.as_str(),
        "sysobjects" | "syscolumns" | "sysdatabases" | "sysprocesses" | "systypes" | "syslanguages"
    ) && matches!(schema.as_str(), "" | "dbo" | "sys");
    if schema != "sys" && schema != "information_schema" && !old {
        return Ok(None);
    }
    let database = if name.database.is_empty() {
        session.database.clone()
    } else {
        session
            .engine
            .database(&name.database)
            .ok_or_else(|| super::message_text::no_database(&name.database))?
    };
    let objects = || catalog::list(&session.connection, &database).map_err(|e| session.storage_error(&e));
    let schemas = || catalog::schemas(&session.connection, &database).map_err(|e| session.storage_error(&e));
    let schema_id = |o: &Object, all: &[(i64, String)]| {
        Datum::Int(all.iter().find(|s| s.1.eq_ignore_ascii_case(&o.schema)).map_or(1, |s| s.0))
    };
    let collation = || Datum::str("SQL_Latin1_General_CP1_CI_AS");
    let mut rows = Vec::new();
    let columns = match (schema.as_str(), view.as_str()) {
        ("information_schema", "tables") => {
            for o in objects()?.iter().filter(|o| o.kind != ObjectType::Procedure) {
                rows.push(vec![
                    Datum::str(&*o.database),
                    Datum::str(&*o.schema),
                    Datum::str(&*o.name),
                    Datum::str(if o.kind == ObjectType::Table { "BASE TABLE" } else { "VIEW" }),
                ]);
            }
            vec![
                ("TABLE_CATALOG", N),
                ("TABLE_SCHEMA", N),
                ("TABLE_NAME", N),
                ("TABLE_TYPE", SqlType::varchar(10)),
            ]
        }
        ("information_schema", "columns") => {
            for o in objects()?.iter().filter(|o| o.kind != ObjectType::Procedure) {
                for (at, c) in o.columns.iter().enumerate() {
                    let ty = c.ty();
                    let sized = ty.is_string() || ty.is_binary();
                    let length = if !sized {
                        Datum::Null
                    } else if ty.len == super::types::MAX {
                        Datum::Int(-1)
                    } else {
                        Datum::Int(i64::from(ty.len))
                    };
                    rows.push(vec![
                        Datum::str(&*o.database),
                        Datum::str(&*o.schema),
                        Datum::str(&*o.name),
                        Datum::str(&*c.name),
                        Datum::Int(at as i64 + 1),
                        c.default.as_ref().map_or(Datum::Null, |d| Datum::Str(format!("({})", d.1))),
                        Datum::str(if c.nullable { "YES" } else { "NO" }),
                        Datum::str(ty.base_name()),
                        length,
                        if sized { Datum::Int(ty.max_length()) } else { Datum::Null },
                        if ty.is_number() && ty.kind != Kind::Bit {
                            Datum::Int(i64::from(ty.precision_scale().0))
                        } else {
                            Datum::Null
                        },
                        if ty.is_number() && !ty.is_float() && ty.kind != Kind::Bit {
                            Datum::Int(i64::from(ty.precision_scale().1))
                        } else {
                            Datum::Null
                        },
                        if ty.is_temporal() {
                            Datum::Int(i64::from(ty.precision_scale().1))
                        } else {
                            Datum::Null
                        },
                        if ty.is_string() { collation() } else { Datum::Null },
                    ]);
                }
            }
            vec![
                ("TABLE_CATALOG", N),
                ("TABLE_SCHEMA", N),
                ("TABLE_NAME", N),
                ("COLUMN_NAME", N),
                ("ORDINAL_POSITION", I),
                ("COLUMN_DEFAULT", SqlType::nvarchar(4000)),
                ("IS_NULLABLE", SqlType::varchar(3)),
                ("DATA_TYPE", N),
                ("CHARACTER_MAXIMUM_LENGTH", I),
                ("CHARACTER_OCTET_LENGTH", I),
                ("NUMERIC_PRECISION", T),
                ("NUMERIC_SCALE", I),
                ("DATETIME_PRECISION", S),
                ("COLLATION_NAME", N),
            ]
        }
        ("information_schema", "routines") => {
            for o in objects()?.iter().filter(|o| o.kind == ObjectType::Procedure) {
                rows.push(vec![
                    Datum::str(&*o.database),
                    Datum::str(&*o.schema),
                    Datum::str(&*o.name),
                    Datum::str("PROCEDURE"),
                    Datum::str(&*o.text),
                ]);
            }
            vec![
                ("ROUTINE_CATALOG", N),
                ("ROUTINE_SCHEMA", N),
                ("ROUTINE_NAME", N),
                ("ROUTINE_TYPE", SqlType::nvarchar(20)),
                ("ROUTINE_DEFINITION", SqlType::nvarchar(4000)),
            ]
        }
        ("information_schema", "schemata") => {
            for (_, s) in schemas()? {
                rows.push(vec![Datum::str(&*database), Datum::Str(s), Datum::str("dbo")]);
            }
            vec![("CATALOG_NAME", N), ("SCHEMA_NAME", N), ("SCHEMA_OWNER", N)]
        }
        ("information_schema", _) => {
            return Err(super::message_text::unsupported(format_args!("INFORMATION_SCHEMA.{}", name.name)));
        }
        (_, "databases" | "sysdatabases") => {
            for (at, d) in lock(&session.engine.databases).iter().enumerate() {
                rows.push(vec![
                    Datum::str(&**d),
                    Datum::Int(at as i64 + 1),
                    stamp(session.engine.started),
                    Datum::Int(160),
                    collation(),
                    Datum::Int(0),
                    Datum::str("MULTI_USER"),
                    Datum::Int(0),
                    Datum::Int(0),
                    Datum::str("ONLINE"),
                    Datum::Int(3),
                    Datum::str("SIMPLE"),
                    flag(true),
                    Datum::Int(1),
                ]);
            }
            vec![
                ("name", N),
                (if view == "databases" { "database_id" } else { "dbid" }, I),
                ("create_date", DT),
                ("compatibility_level", T),
                ("collation_name", N),
                ("user_access", T),
                ("user_access_desc", SqlType::nvarchar(60)),
                ("is_read_only", B),
                ("state", T),
                ("state_desc", SqlType::nvarchar(60)),
                ("recovery_model", T),
                ("recovery_model_desc", SqlType::nvarchar(60)),
                ("is_read_committed_snapshot_on", B),
                ("snapshot_isolation_state", T),
            ]
        }
        (_, "objects" | "all_objects" | "tables" | "views" | "procedures" | "sysobjects") => {
            let all = schemas()?;
            for o in objects()?.iter().filter(|o| match view.as_str() {
                "tables" => o.kind == ObjectType::Table,
                "views" => o.kind == ObjectType::View,
                "procedures" => o.kind == ObjectType::Procedure,
                _ => true,
            }) {
                let (short, long) = kind_of(o);
                rows.push(vec![
                    Datum::str(&*o.name),
                    Datum::Int(o.id),
                    schema_id(o, &all),
                    Datum::Int(0),
                    Datum::str(short),
                    Datum::str(long),
                    when(o.created),
                    when(o.created),
                    flag(false),
                    Datum::str(short),
                ]);
            }
            let (id, schema_column, kind) = if view == "sysobjects" {
                ("id", "uid", "xtype")
            } else {
                ("object_id", "schema_id", "type")
            };
            vec![
                ("name", N),
                (id, I),
                (schema_column, I),
                ("parent_object_id", I),
                (kind, SqlType { kind: Kind::Char, len: 2, scale: 0 }),
                ("type_desc", SqlType::nvarchar(60)),
                ("create_date", DT),
                ("modify_date", DT),
                ("is_ms_shipped", B),
                (
                    if view == "sysobjects" { "type" } else { "type_code" },
                    SqlType { kind: Kind::Char, len: 2, scale: 0 },
                ),
            ]
        }
        (_, "columns" | "all_columns" | "syscolumns" | "identity_columns") => {
            for o in objects()?.iter() {
                for c in o.columns.iter().filter(|c| view != "identity_columns" || c.identity.is_some()) {
                    let ty = c.ty();
                    let (precision, scale) = ty.precision_scale();
                    let id = i64::from(ty.system_type_id());
                    rows.push(vec![
                        Datum::Int(o.id),
                        Datum::str(&*c.name),
                        Datum::Int(i64::from(c.id)),
                        Datum::Int(id),
                        Datum::Int(id),
                        Datum::Int(ty.max_length()),
                        Datum::Int(i64::from(precision)),
                        Datum::Int(i64::from(scale)),
                        if ty.is_string() { collation() } else { Datum::Null },
                        flag(c.nullable),
                        flag(c.identity.is_some()),
                        flag(c.computed.is_some()),
                        Datum::Int(0),
                    ]);
                }
            }
            let (id, column, kind, user) = if view == "syscolumns" {
                ("id", "colid", "xtype", "xusertype")
            } else {
                ("object_id", "column_id", "system_type_id", "user_type_id")
            };
            vec![
                (id, I),
                ("name", N),
                (column, I),
                (kind, T),
                (user, I),
                ("max_length", S),
                ("precision", T),
                ("scale", T),
                ("collation_name", N),
                ("is_nullable", B),
                ("is_identity", B),
                ("is_computed", B),
                ("default_object_id", I),
            ]
        }
        (_, "types" | "systypes") => {
            for (id, type_name) in metadata::TYPES {
                let ty = super::types::parse_type(type_name, &[]).unwrap_or(I);
                let (precision, scale) = ty.precision_scale();
                let system = if *id == 256 { 231 } else { *id };
                let length = if ty.is_string() && *id != 256 && ty.len == 1 { 8000 } else { ty.max_length() };
                rows.push(vec![
                    Datum::str(*type_name),
                    Datum::Int(system),
                    Datum::Int(*id),
                    Datum::Int(4),
                    Datum::Int(length),
                    Datum::Int(i64::from(precision)),
                    Datum::Int(i64::from(scale)),
                    if ty.is_string() { collation() } else { Datum::Null },
                    flag(*id != 189),
                    flag(false),
                    flag(false),
                    flag(false),
                ]);
            }
            vec![
                ("name", N),
                ("system_type_id", T),
                ("user_type_id", I),
                ("schema_id", I),
                ("max_length", S),
                ("precision", T),
                ("scale", T),
                ("collation_name", N),
                ("is_nullable", B),
                ("is_user_defined", B),
                ("is_assembly_type", B),
                ("is_table_type", B),
            ]
        }
        (_, "schemas") => {
            for (id, s) in schemas()? {
                rows.push(vec![Datum::Str(s), Datum::Int(id), Datum::Int(1)]);
            }
            vec![("name", N), ("schema_id", I), ("principal_id", I)]
        }
        (_, "indexes") => {
            for o in objects()?.iter().filter(|o| o.kind == ObjectType::Table) {
                for (at, k) in o.keys.iter().enumerate() {
                    rows.push(vec![
                        Datum::Int(o.id),
                        Datum::str(&*k.name),
                        Datum::Int(at as i64 + 1),
                        Datum::Int(if k.primary { 1 } else { 2 }),
                        Datum::str(if k.primary { "CLUSTERED" } else { "NONCLUSTERED" }),
                        flag(k.unique),
                        flag(k.primary),
                        flag(k.constraint && !k.primary),
                    ]);
                }
            }
            vec![
                ("object_id", I),
                ("name", N),
                ("index_id", I),
                ("type", T),
                ("type_desc", SqlType::nvarchar(60)),
                ("is_unique", B),
                ("is_primary_key", B),
                ("is_unique_constraint", B),
            ]
        }
        (_, "index_columns") => {
            for o in objects()?.iter().filter(|o| o.kind == ObjectType::Table) {
                for (at, k) in o.keys.iter().enumerate() {
                    for (n, c) in k.columns.iter().enumerate() {
                        let id = o.column(c).map_or(0, |at| i64::from(o.columns[at].id));
                        rows.push(vec![
                            Datum::Int(o.id),
                            Datum::Int(at as i64 + 1),
                            Datum::Int(n as i64 + 1),
                            Datum::Int(id),
                            Datum::Int(n as i64 + 1),
                            flag(false),
                        ]);
                    }
                }
            }
            vec![
                ("object_id", I),
                ("index_id", I),
                ("index_column_id", I),
                ("column_id", I),
                ("key_ordinal", T),
                ("is_descending_key", B),
            ]
        }
        (_, "sql_modules") => {
            for o in objects()?.iter().filter(|o| o.kind != ObjectType::Table) {
                rows.push(vec![Datum::Int(o.id), Datum::str(&*o.text)]);
            }
            vec![("object_id", I), ("definition", SqlType::nvarchar(super::types::MAX))]
        }
        (_, "syslanguages") => {
            for l in LANGUAGES {
                rows.push(vec![
                    Datum::Int(l.2),
                    Datum::str(l.3),
                    Datum::Int(i64::from(l.4)),
                    Datum::str(l.0),
                    Datum::str(l.1),
                ]);
            }
            vec![
                ("langid", S),
                ("dateformat", SqlType::nvarchar(3)),
                ("datefirst", T),
                ("name", N),
                ("alias", N),
            ]
        }
        (_, "dm_exec_sessions" | "sysprocesses" | "dm_exec_requests") => {
            session.publish(true);
            let databases = lock(&session.engine.databases).clone();
            for (spid, l) in lock(&session.engine.sessions).iter() {
                if view == "dm_exec_requests" && !l.running {
                    continue;
                }
                let s = &l.settings;
                let id = databases.iter().position(|d| *d == l.database).map_or(0, |at| at as i64 + 1);
                rows.push(vec![
                    Datum::Int(i64::from(*spid)),
                    stamp(l.login_time),
                    Datum::str(&*l.options.host_name),
                    Datum::str(&*l.options.program_name),
                    Datum::Int(i64::from(l.options.host_process_id)),
                    Datum::str(&*l.options.client_interface_name),
                    Datum::str(&*l.options.login_name),
                    Datum::str(if l.running { "running" } else { "sleeping" }),
                    stamp(l.last_request),
                    stamp(l.last_request),
                    Datum::Int(s.textsize),
                    Datum::str(&*s.language),
                    Datum::str(&*s.date_format),
                    Datum::Int(i64::from(s.date_first)),
                    flag(s.quoted_identifier),
                    flag(s.arithabort),
                    flag(s.ansi_null_dflt_on),
                    flag(s.ansi_padding && s.ansi_warnings && s.ansi_nulls),
                    flag(s.ansi_warnings),
                    flag(s.ansi_padding),
                    flag(s.ansi_nulls),
                    flag(s.concat_null_yields_null),
                    Datum::Int(i64::from(l.isolation)),
                    Datum::Int(s.lock_timeout),
                    Datum::Int(s.deadlock_priority),
                    Datum::Int(l.row_count),
                    Datum::Int(0),
                    Datum::str(&*l.options.login_name),
                    Datum::Int(id),
                    Datum::Int(i64::from(l.open_transactions)),
                    flag(true),
                    Datum::str(&*l.options.client_net_address),
                    Datum::Int(i64::from(session.engine.gate.blocker(*spid).unwrap_or(0))),
                ]);
            }
            let spid = if view == "sysprocesses" { "spid" } else { "session_id" };
            vec![
                (spid, S),
                ("login_time", DT),
                ("host_name", N),
                ("program_name", N),
                ("host_process_id", I),
                ("client_interface_name", SqlType::nvarchar(32)),
                (if view == "sysprocesses" { "loginame" } else { "login_name" }, N),
                ("status", SqlType::nvarchar(30)),
                ("last_request_start_time", DT),
                ("last_request_end_time", DT),
                ("text_size", I),
                ("language", N),
                ("date_format", SqlType::nvarchar(3)),
                ("date_first", S),
                ("quoted_identifier", B),
                ("arithabort", B),
                ("ansi_null_dflt_on", B),
                ("ansi_defaults", B),
                ("ansi_warnings", B),
                ("ansi_padding", B),
                ("ansi_nulls", B),
                ("concat_null_yields_null", B),
                ("transaction_isolation_level", S),
                ("lock_timeout", I),
                ("deadlock_priority", I),
                ("row_count", SqlType::BIGINT),
                ("prev_error", I),
                ("original_login_name", N),
                (if view == "sysprocesses" { "dbid" } else { "database_id" }, S),
                ("open_transaction_count", I),
                ("is_user_process", B),
                ("client_net_address", SqlType::varchar(48)),
                (if view == "sysprocesses" { "blocked" } else { "blocking_session_id" }, S),
            ]
        }
        (_, "dm_exec_connections") => {
            match &session.engine.options.connections {
                Some(connections) => {
                    for c in connections.list() {
                        rows.push(vec![
                            c.session_id.map_or(Datum::Null, |s| Datum::Int(i64::from(s))),
                            stamp(c.connect_time),
                            Datum::Str(c.net_transport),
                            Datum::str("TSQL"),
                            Datum::Int(i64::from(c.protocol_version as i32)),
                            Datum::str(if c.encrypted { "TRUE" } else { "FALSE" }),
                            Datum::str("SQL"),
                            Datum::Str(c.client_net_address),
                            Datum::Int(i64::from(c.client_tcp_port)),
                            Datum::str("127.0.0.1"),
                            Datum::Int(1433),
                        ]);
                    }
                }
                None => {
                    for (spid, l) in lock(&session.engine.sessions).iter() {
                        rows.push(vec![
                            Datum::Int(i64::from(*spid)),
                            stamp(l.login_time),
                            Datum::str("TCP"),
                            Datum::str("TSQL"),
                            Datum::Int(0x7400_0004),
                            Datum::str("FALSE"),
                            Datum::str("SQL"),
                            Datum::str(&*l.options.client_net_address),
                            Datum::Int(0),
                            Datum::str("127.0.0.1"),
                            Datum::Int(1433),
                        ]);
                    }
                }
            }
            vec![
                ("session_id", I),
                ("connect_time", DT),
                ("net_transport", SqlType::nvarchar(40)),
                ("protocol_type", SqlType::nvarchar(40)),
                ("protocol_version", I),
                ("encrypt_option", SqlType::nvarchar(40)),
                ("auth_scheme", SqlType::nvarchar(40)),
                ("client_net_address", SqlType::varchar(48)),
                ("client_tcp_port", I),
                ("local_net_address", SqlType::varchar(48)),
                ("local_tcp_port", I),
            ]
        }
        (_, "dm_os_sys_info") => {
            rows.push(vec![Datum::Int(8), Datum::Int(8_388_608), stamp(session.engine.started)]);
            vec![("cpu_count", I), ("physical_memory_kb", SqlType::BIGINT), ("sqlserver_start_time", DT)]
        }
        (_, "database_principals" | "server_principals") => {
            for (id, who, kind) in [(1, "dbo", "S"), (2, "guest", "S"), (0, "public", "R")] {
                rows.push(vec![Datum::str(who), Datum::Int(id), Datum::str(kind)]);
            }
            vec![("name", N), ("principal_id", I), ("type", SqlType { kind: Kind::Char, len: 1, scale: 0 })]
        }
        (_, "configurations") => {
            rows.push(vec![Datum::Int(103), Datum::str("user connections"), Datum::Int(0), Datum::Int(0)]);
            vec![("configuration_id", I), ("name", SqlType::nvarchar(35)), ("value", I), ("value_in_use", I)]
        }
        ("sys", _) => return Err(super::message_text::no_object(&name.to_string())),
        _ => return Ok(None),
    };
    Ok(Some(Rows { columns, rows }))
}
