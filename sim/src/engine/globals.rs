//! @@variables, session and server functions, SET, DBCC: what a session says about itself.

use super::convert::{self, Rules};
use super::datetime::{self, DAY};
use super::datum::Datum;
use super::emit::{Emit, Stop};
use super::message_text::{SqlError, unsupported};
use super::parse::Name;
use super::server::lock;
use super::session::Session;
use super::settings::find_language;
use super::types::{Kind, SqlType};
use super::wire_types::OutColumn;

/// What the stand-in calls itself in @@VERSION.
const VERSION: &str = "Microsoft SQL Server 2022 (RTM) - 16.0.1000.6 (X64) - tdsbouncer stand-in: not Microsoft's server, a T-SQL subset on SQLite";
const PRODUCT_VERSION: &str = "16.0.1000.6";

impl Session {
    /// `@@name`.
    pub(super) fn global(&self, name: &str) -> Option<(SqlType, Datum)> {
        let int = |n: i64| (SqlType::INT, Datum::Int(n));
        let text = |s: &str| (SqlType::nvarchar(s.chars().count().clamp(1, 4000) as u16), Datum::str(s));
        Some(match name.to_ascii_uppercase().as_str() {
            "SPID" => (SqlType::SMALLINT, Datum::Int(i64::from(self.spid))),
            "TRANCOUNT" => int(i64::from(self.transaction.count)),
            "ROWCOUNT" => int(self.row_count),
            "ERROR" => int(i64::from(self.error)),
            "IDENTITY" => (
                SqlType::numeric(38, 0),
                self.last_identity.map_or(Datum::Null, |n| Datum::Dec(i128::from(n))),
            ),
            "VERSION" => (SqlType::nvarchar(300), Datum::str(VERSION)),
            "SERVERNAME" => (SqlType::SYSNAME, Datum::str(self.engine.options.server_name.as_str())),
            "SERVICENAME" => text("MSSQLSERVER"),
            "MICROSOFTVERSION" => int(0x1000_03E8),
            "MAX_PRECISION" => (SqlType::TINYINT, Datum::Int(38)),
            "MAX_CONNECTIONS" => int(32_767),
            "LANGUAGE" => (SqlType::SYSNAME, Datum::str(self.settings.language.as_str())),
            "LANGID" => {
                (SqlType::SMALLINT, Datum::Int(find_language(&self.settings.language).map_or(0, |l| l.2)))
            }
            "NESTLEVEL" => int(self.frames.iter().filter(|f| !f.procedure.is_empty()).count() as i64),
            "OPTIONS" => int(self.settings.bits()),
            "TEXTSIZE" => int(self.settings.textsize),
            "LOCK_TIMEOUT" => int(self.settings.lock_timeout),
            "DATEFIRST" => (SqlType::TINYINT, Datum::Int(i64::from(self.settings.date_first))),
            "DBTS" => (
                SqlType::varbinary(8),
                Datum::Bytes(
                    self.engine.row_version.load(std::sync::atomic::Ordering::Relaxed).to_be_bytes().to_vec(),
                ),
            ),
            "FETCH_STATUS" => int(self.fetch_status),
            "CURSOR_ROWS" => int(self.cursor_rows),
            "PROCID" => int(0),
            "TIMETICKS" => int(31_250),
            "REMSERVER" => (SqlType::SYSNAME, Datum::Null),
            "CONNECTIONS" => int(self.engine.sessions.lock().map_or(0, |s| s.len() as i64)),
            "CPU_BUSY" | "IO_BUSY" | "IDLE" | "PACK_RECEIVED" | "PACK_SENT" | "PACKET_ERRORS"
            | "TOTAL_ERRORS" | "TOTAL_READ" | "TOTAL_WRITE" => int(0),
            _ => return None,
        })
    }

    /// The user that EXECUTE AS, an application role or the login makes.
    pub(super) fn login_now(&self) -> String {
        self.security.last().cloned().unwrap_or_else(|| self.options.login_name.clone())
    }

    pub(super) fn user_now(&self) -> String {
        if let Some((role, _)) = &self.app_role {
            return role.clone();
        }
        match self.security.last() {
            Some(name) => name.clone(),
            None if self.options.sysadmin => "dbo".into(),
            None => self.options.login_name.clone(),
        }
    }

    /// Functions without arguments whose value is fixed while a statement runs.
    pub(super) fn bare_function(&self, name: &str) -> Option<(SqlType, Datum)> {
        let now = datetime::utc_now();
        let sysname = |s: &str| (SqlType::SYSNAME, Datum::str(s));
        let caught = self.caught.last();
        let error_text = |text: Option<&str>| {
            (SqlType::nvarchar(4000), text.filter(|t| !t.is_empty()).map_or(Datum::Null, Datum::str))
        };
        let error_number = |n: Option<i64>| (SqlType::INT, n.map_or(Datum::Null, Datum::Int));
        Some(match name {
            "GETDATE" | "CURRENT_TIMESTAMP" | "GETUTCDATE" => {
                (SqlType::DATETIME, Datum::Int(datetime::to_datetime(now)))
            }
            "SYSDATETIME" | "SYSUTCDATETIME" => (SqlType::scaled(Kind::DateTime2, 7), Datum::Int(now)),
            "SYSDATETIMEOFFSET" => (SqlType::scaled(Kind::DateTimeOffset, 7), Datum::Offset(now, 0)),
            "CURRENT_DATE" => (SqlType::of(Kind::Date), Datum::Int(now.div_euclid(DAY))),
            "SCOPE_IDENTITY" => (
                SqlType::numeric(38, 0),
                self.frames
                    .last()
                    .and_then(|f| f.scope_identity)
                    .map_or(Datum::Null, |n| Datum::Dec(i128::from(n))),
            ),
            "ROWCOUNT_BIG" => (SqlType::BIGINT, Datum::Int(self.row_count)),
            "XACT_STATE" => {
                let state = match (self.transaction.count, self.transaction.doomed) {
                    (0, _) => 0,
                    (_, true) => -1,
                    _ => 1,
                };
                (SqlType::SMALLINT, Datum::Int(state))
            }
            "CURRENT_TRANSACTION_ID" => (SqlType::BIGINT, Datum::Int(self.transaction.descriptor as i64)),
            "CONTEXT_INFO" => {
                let value = if self.context_info.is_empty() {
                    Datum::Null
                } else {
                    Datum::Bytes(self.context_info.clone())
                };
                (SqlType::varbinary(128), value)
            }
            "HOST_NAME" => (SqlType::SYSNAME, Datum::str(self.options.host_name.as_str())),
            "HOST_ID" => (
                SqlType { kind: Kind::Char, len: 10, scale: 0 },
                Datum::Str(format!("{:<10}", self.options.host_process_id)),
            ),
            "APP_NAME" => (SqlType::SYSNAME, Datum::str(self.options.program_name.as_str())),
            "ORIGINAL_LOGIN" => sysname(&self.options.login_name),
            "ORIGINAL_DB_NAME" => sysname(&self.options.database),
            "SYSTEM_USER" | "SUSER_SNAME" | "SUSER_NAME" => sysname(&self.login_now()),
            "USER" | "CURRENT_USER" | "SESSION_USER" | "USER_NAME" => sysname(&self.user_now()),
            "SUSER_ID" | "USER_ID" | "DATABASE_PRINCIPAL_ID" => (SqlType::INT, Datum::Int(1)),
            "SUSER_SID" => (SqlType::varbinary(85), Datum::Bytes(vec![1])),
            "ERROR_NUMBER" => error_number(caught.map(|e| i64::from(e.number))),
            "ERROR_SEVERITY" => error_number(caught.map(|e| i64::from(e.class))),
            "ERROR_STATE" => error_number(caught.map(|e| i64::from(e.state))),
            "ERROR_LINE" => error_number(caught.map(|e| i64::from(e.line))),
            "ERROR_MESSAGE" => error_text(caught.map(|e| e.text.as_str())),
            "ERROR_PROCEDURE" => error_text(caught.map(|e| e.procedure.as_str())),
            "CONNECTIONPROPERTY" => return None,
            _ => return None,
        })
    }

    /// Whether `name` is answered by [`Session::system_function`].
    pub(super) fn is_system_function(&self, name: &str) -> bool {
        matches!(
            name,
            "SERVERPROPERTY"
                | "SESSIONPROPERTY"
                | "DATABASEPROPERTYEX"
                | "DATABASEPROPERTY"
                | "CONNECTIONPROPERTY"
                | "SESSION_CONTEXT"
                | "APPLOCK_MODE"
                | "APPLOCK_TEST"
                | "IS_SRVROLEMEMBER"
                | "IS_MEMBER"
                | "IS_ROLEMEMBER"
                | "HAS_DBACCESS"
                | "HAS_PERMS_BY_NAME"
                | "SUSER_SNAME"
                | "SUSER_NAME"
                | "USER_NAME"
                | "SUSER_ID"
                | "USER_ID"
                | "SUSER_SID"
                | "COLLATIONPROPERTY"
                | "SQL_VARIANT_PROPERTY"
                | "FULLTEXTSERVICEPROPERTY"
                | "CURSOR_STATUS"
                | "DATABASE_PRINCIPAL_ID"
                | "PERMISSIONS"
                | "FILEPROPERTY"
        )
    }

    /// A function of the server or the session with constant arguments.
    pub(super) fn system_function(
        &self,
        name: &str,
        args: &[(SqlType, Datum)],
    ) -> Result<(SqlType, Datum), SqlError> {
        let arg = |n: usize| -> String {
            args.get(n).map_or(String::new(), |(ty, v)| {
                convert::to_string(v, *ty, SqlType::nvarchar(4000), Rules::CAST).unwrap_or_default()
            })
        };
        let first = arg(0);
        let variant_text = |s: &str| Datum::variant(SqlType::SYSNAME, Datum::str(s));
        let variant_int = |n: i64| Datum::variant(SqlType::INT, Datum::Int(n));
        let flag = |b: bool| variant_int(i64::from(b));
        let int = |n: i64| (SqlType::INT, Datum::Int(n));
        Ok(match name {
            "SERVERPROPERTY" => {
                let value = match first.to_ascii_lowercase().as_str() {
                    "productversion" => variant_text(PRODUCT_VERSION),
                    "productlevel" => variant_text("RTM"),
                    "productmajorversion" => variant_text("16"),
                    "productminorversion" => variant_text("0"),
                    "productbuild" => variant_text("1000"),
                    "edition" => variant_text("Developer Edition (64-bit)"),
                    "editionid" => Datum::variant(SqlType::BIGINT, Datum::Int(-2_117_995_310)),
                    "engineedition" => variant_int(3),
                    "servername" | "machinename" | "computernamephysicalnetbios" => {
                        variant_text(&self.engine.options.server_name)
                    }
                    "instancename" => Datum::Null,
                    "collation" => variant_text("SQL_Latin1_General_CP1_CI_AS"),
                    "collationid" => variant_int(872_468_488),
                    "lcid" => variant_int(1033),
                    "isclustered"
                    | "ishadrenabled"
                    | "isintegratedsecurityonly"
                    | "issingleuser"
                    | "isfulltextinstalled"
                    | "isxtpsupported" => variant_int(0),
                    "processid" => variant_int(i64::from(std::process::id())),
                    "resourceversion" => variant_text("16.00.1000"),
                    "sqlcharsetname" => variant_text("iso_1"),
                    "sqlsortordername" => variant_text("nocase_iso"),
                    _ => Datum::Null,
                };
                (SqlType::VARIANT, value)
            }
            "SESSIONPROPERTY" => {
                let s = &self.settings;
                let value = match first.to_ascii_uppercase().as_str() {
                    "ANSI_NULLS" => flag(s.ansi_nulls),
                    "ANSI_PADDING" => flag(s.ansi_padding),
                    "ANSI_WARNINGS" => flag(s.ansi_warnings),
                    "ARITHABORT" => flag(s.arithabort),
                    "CONCAT_NULL_YIELDS_NULL" => flag(s.concat_null_yields_null),
                    "NUMERIC_ROUNDABORT" => flag(s.numeric_roundabort),
                    "QUOTED_IDENTIFIER" => flag(s.quoted_identifier),
                    _ => Datum::Null,
                };
                (SqlType::VARIANT, value)
            }
            "DATABASEPROPERTYEX" | "DATABASEPROPERTY" => {
                let known = self.engine.database(&first).is_some();
                let value = match arg(1).to_ascii_lowercase().as_str() {
                    _ if !known => Datum::Null,
                    "collation" => variant_text("SQL_Latin1_General_CP1_CI_AS"),
                    "status" => variant_text("ONLINE"),
                    "updateability" => variant_text("READ_WRITE"),
                    "useraccess" => variant_text("MULTI_USER"),
                    "recovery" => variant_text("SIMPLE"),
                    "version" => variant_int(957),
                    "sqlsortorder" => variant_int(52),
                    "lcid" => variant_int(1033),
                    "isread_committed_snapshot_on" => variant_int(1),
                    _ => variant_int(0),
                };
                (SqlType::VARIANT, value)
            }
            "CONNECTIONPROPERTY" => {
                let value = match first.to_ascii_lowercase().as_str() {
                    "net_transport" | "physical_net_transport" => variant_text("TCP"),
                    "protocol_type" => variant_text("TSQL"),
                    "auth_scheme" => variant_text("SQL"),
                    "client_net_address" | "local_net_address" => {
                        variant_text(&self.options.client_net_address)
                    }
                    _ => Datum::Null,
                };
                (SqlType::VARIANT, value)
            }
            "SESSION_CONTEXT" => {
                let value = self
                    .session_context
                    .get(&first.to_lowercase())
                    .map_or(Datum::Null, |(ty, v, _)| Datum::variant(*ty, v.clone()));
                (SqlType::VARIANT, value)
            }
            "APPLOCK_MODE" => {
                let transaction = arg(2).eq_ignore_ascii_case("transaction") || args.len() < 3;
                let mode = self.engine.app_locks.mode(
                    self.spid,
                    &self.database,
                    &arg(1).to_lowercase(),
                    transaction,
                );
                (SqlType::nvarchar(32), Datum::str(mode.map_or("NoLock", super::applock::Mode::name)))
            }
            "APPLOCK_TEST" => return Err(unsupported("APPLOCK_TEST")),
            "IS_SRVROLEMEMBER" => {
                int(i64::from(self.options.sysadmin || first.eq_ignore_ascii_case("public")))
            }
            "IS_MEMBER" | "IS_ROLEMEMBER" => {
                int(i64::from(self.options.sysadmin || first.eq_ignore_ascii_case("public")))
            }
            "HAS_DBACCESS" => (
                SqlType::INT,
                if self.engine.database(&first).is_some() { Datum::Int(1) } else { Datum::Null },
            ),
            "HAS_PERMS_BY_NAME" | "PERMISSIONS" => int(1),
            "SUSER_SNAME" | "SUSER_NAME" => (SqlType::SYSNAME, Datum::Str(self.login_now())),
            "USER_NAME" => {
                (SqlType::SYSNAME, Datum::str(if first == "1" || first.is_empty() { "dbo" } else { "guest" }))
            }
            "SUSER_ID" | "USER_ID" | "DATABASE_PRINCIPAL_ID" => int(1),
            "SUSER_SID" => (SqlType::varbinary(85), Datum::Bytes(vec![1])),
            "COLLATIONPROPERTY" => {
                let value = match arg(1).to_ascii_lowercase().as_str() {
                    "codepage" => variant_int(1252),
                    "lcid" => variant_int(1033),
                    "comparisonstyle" => variant_int(196_609),
                    "version" => variant_int(0),
                    _ => Datum::Null,
                };
                (SqlType::VARIANT, value)
            }
            "SQL_VARIANT_PROPERTY" => {
                let (ty, value) = match args.first() {
                    Some((_, Datum::Variant(inner))) => (inner.0, inner.1.clone()),
                    Some((ty, value)) => (*ty, value.clone()),
                    None => (SqlType::NULL, Datum::Null),
                };
                let answer = match arg(1).to_ascii_lowercase().as_str() {
                    _ if value.is_null() => Datum::Null,
                    "basetype" => variant_text(ty.base_name()),
                    "precision" => variant_int(i64::from(ty.precision_scale().0)),
                    "scale" => variant_int(i64::from(ty.precision_scale().1)),
                    "maxlength" => variant_int(ty.max_length()),
                    _ => Datum::Null,
                };
                (SqlType::VARIANT, answer)
            }
            "CURSOR_STATUS" => {
                let status = match self.cursors.get(&arg(1).to_lowercase()) {
                    None => -3,
                    Some(c) if c.rows.is_none() => -1,
                    Some(c) => i64::from(c.len() > 0),
                };
                (SqlType::SMALLINT, Datum::Int(status))
            }
            _ => (SqlType::INT, Datum::Int(0)),
        })
    }

    /// SET option value.
    pub(super) fn set_option(
        &mut self,
        names: &str,
        value: &[String],
        emit: &mut Emit<'_>,
    ) -> Result<(), Stop> {
        let text = value.first().cloned().unwrap_or_default();
        let on = text.eq_ignore_ascii_case("on");
        let off = text.eq_ignore_ascii_case("off");
        let given: Result<i64, SqlError> = if text.starts_with('@') {
            self.variable(&text)
                .map(|v| v.value.as_i64().unwrap_or(0))
                .ok_or_else(|| super::message_text::undeclared(&text))
        } else {
            text.parse().map_err(|_| super::message_text::syntax_near(&text))
        };
        let number = || given.clone();
        for name in names.split(',') {
            match name {
                "TRANSACTION ISOLATION LEVEL" => {
                    self.isolation = match text.as_str() {
                        "READ UNCOMMITTED" => 1,
                        "READ COMMITTED" => 2,
                        "REPEATABLE READ" => 3,
                        "SERIALIZABLE" => 4,
                        "SNAPSHOT" => 5,
                        _ => return Err(super::message_text::syntax_near(&text).into()),
                    };
                }
                "IDENTITY_INSERT" => {
                    let parts = super::metadata::name_parts(&text);
                    let table = Name {
                        name: parts[0].clone(),
                        schema: parts.get(1).cloned().unwrap_or_default(),
                        database: parts.get(2).cloned().unwrap_or_default(),
                    };
                    let object = self.find_table(&table)?.ok_or_else(|| {
                        SqlError::new(1088, 16, 11, format!("Cannot find the object \"{}\" because it does not exist or you do not have permissions.", table.name))
                    })?;
                    if object.identity_column().is_none() {
                        return Err(SqlError::new(8106, 16, 1, format!("Table '{}' does not have the identity property. Cannot perform SET operation.", object.name)).into());
                    }
                    let on = value.get(1).is_some_and(|v| v == "ON");
                    match self.identity_insert {
                        Some(id) if on && id != object.id => {
                            return Err(SqlError::new(8107, 16, 1, format!("IDENTITY_INSERT is already ON for another table. Cannot perform SET operation for table '{}'.", object.name)).into());
                        }
                        _ => self.identity_insert = on.then_some(object.id),
                    }
                }
                "ROWCOUNT" => self.settings.rowcount = number()?.max(0),
                "TEXTSIZE" => {
                    let n = number()?;
                    self.settings.textsize = match n {
                        0 => 4096,
                        n if n < 0 => 2_147_483_647,
                        n => n,
                    };
                }
                "LOCK_TIMEOUT" => self.settings.lock_timeout = number()?,
                "DATEFIRST" => {
                    let n = number()?;
                    if !(1..=7).contains(&n) {
                        return Err(SqlError::new(
                            2744,
                            16,
                            1,
                            format!("The value '{n}' is not a valid DATEFIRST."),
                        )
                        .into());
                    }
                    self.settings.date_first = n as u8;
                }
                "DATEFORMAT" => {
                    let lower = text.to_ascii_lowercase();
                    if !matches!(lower.as_str(), "mdy" | "dmy" | "ymd" | "ydm" | "myd" | "dym") {
                        return Err(SqlError::new(
                            2741,
                            16,
                            1,
                            format!("SET DATEFORMAT date order '{text}' is invalid."),
                        )
                        .into());
                    }
                    self.settings.date_format = lower;
                }
                "DEADLOCK_PRIORITY" => {
                    self.settings.deadlock_priority = match text.to_ascii_uppercase().as_str() {
                        "LOW" => -5,
                        "NORMAL" => 0,
                        "HIGH" => 5,
                        _ => number()?,
                    };
                }
                "LANGUAGE" => {
                    let wanted = match text.strip_prefix('@') {
                        Some(_) => self
                            .variable(&text)
                            .and_then(|v| v.value.as_str().map(str::to_string))
                            .unwrap_or_default(),
                        None => text.clone(),
                    };
                    let Some(language) = find_language(&wanted) else {
                        return Err(SqlError::new(2732, 16, 1, format!("The language '{wanted}' is not an official language name or a language alias on this SQL Server.")).into());
                    };
                    let old = std::mem::replace(&mut self.settings.language, language.0.to_string());
                    self.settings.date_format = language.3.to_string();
                    self.settings.date_first = language.4;
                    emit.env_change(&tds::env_change::EnvChange::Language {
                        new: language.0.to_string(),
                        old,
                    })?;
                    let mut info =
                        SqlError::new(5703, 0, 1, format!("Changed language setting to {}.", language.0));
                    info.line = self.line;
                    emit.message(&info, false)?;
                }
                "CONTEXT_INFO" => {
                    let bytes = if let Some(digits) = text.strip_prefix("0x") {
                        convert::unhex(digits).unwrap_or_default()
                    } else if text.starts_with('@') {
                        let variable = self
                            .variable(&text)
                            .ok_or_else(|| super::message_text::undeclared(&text))?
                            .clone();
                        match convert::cast(
                            variable.value,
                            variable.ty,
                            SqlType::varbinary(128),
                            Rules::CAST,
                        )? {
                            Datum::Bytes(bytes) => bytes,
                            _ => Vec::new(),
                        }
                    } else {
                        return Err(super::message_text::syntax_near(&text).into());
                    };
                    let mut bytes = bytes;
                    // 128 bytes, padded with zeros, as SQL Server keeps it.
                    bytes.resize(128, 0);
                    self.context_info = bytes;
                }
                "ANSI_DEFAULTS" if on || off => {
                    for name in [
                        "ANSI_NULLS",
                        "ANSI_NULL_DFLT_ON",
                        "ANSI_PADDING",
                        "ANSI_WARNINGS",
                        "CURSOR_CLOSE_ON_COMMIT",
                        "IMPLICIT_TRANSACTIONS",
                        "QUOTED_IDENTIFIER",
                    ] {
                        if let Some(flag) = self.settings.flag(name) {
                            *flag = on;
                        }
                    }
                }
                "FORCEPLAN"
                | "REMOTE_PROC_TRANSACTIONS"
                | "SHOWPLAN_ALL"
                | "SHOWPLAN_TEXT"
                | "SHOWPLAN_XML"
                | "QUERY_GOVERNOR_COST_LIMIT"
                | "FIPS_FLAGGER"
                | "DISABLE_DEF_CNST_CHK"
                | "OFFSETS" => {}
                other => match self.settings.flag(other) {
                    Some(flag) if on || off => {
                        *flag = on;
                        // At most one of the two is on.
                        match other {
                            "ANSI_NULL_DFLT_ON" if on => self.settings.ansi_null_dflt_off = false,
                            "ANSI_NULL_DFLT_OFF" if on => self.settings.ansi_null_dflt_on = false,
                            _ => {}
                        }
                    }
                    Some(_) => return Err(super::message_text::syntax_near(&text).into()),
                    None => {
                        return Err(SqlError::new(
                            195,
                            15,
                            5,
                            format!("'{other}' is not a recognized SET option."),
                        )
                        .into());
                    }
                },
            }
        }
        self.settings_changed();
        Ok(())
    }

    pub(super) fn dbcc(&mut self, command: &str, args: &[String], emit: &mut Emit<'_>) -> Result<(), Stop> {
        match command {
            "USEROPTIONS" => {
                let columns = [
                    OutColumn::new("Set Option", SqlType::SYSNAME),
                    OutColumn::new("Value", SqlType::SYSNAME),
                ];
                emit.columns(&columns)?;
                let rows = self.settings.user_options(self.isolation);
                let count = rows.len() as i64;
                for (name, value) in rows {
                    emit.row(&columns, &[Datum::str(name), Datum::Str(value)])?;
                }
                emit.done(0xC1, Some(count), false)?;
            }
            "CHECKIDENT" => {
                let parts = super::metadata::name_parts(args.first().map_or("", String::as_str));
                let table = Name {
                    name: parts[0].clone(),
                    schema: parts.get(1).cloned().unwrap_or_default(),
                    ..Name::default()
                };
                let object = self.writable(&table)?;
                if args.get(1).is_some_and(|a| a.eq_ignore_ascii_case("reseed"))
                    && let Some(value) = args.last().and_then(|v| v.parse::<i64>().ok())
                {
                    lock(&self.engine.identities).insert(object.id, value);
                }
            }
            "TRACEON" | "TRACEOFF" | "FREEPROCCACHE" | "DROPCLEANBUFFERS" | "CHECKDB" | "CHECKTABLE"
            | "FREESYSTEMCACHE" => {}
            other => return Err(unsupported(format_args!("DBCC {other}")).into()),
        }
        let mut info = SqlError::new(
            2528,
            0,
            1,
            "DBCC execution completed. If DBCC printed error messages, contact your system administrator.",
        );
        info.line = self.line;
        emit.message(&info, false)
    }
}
