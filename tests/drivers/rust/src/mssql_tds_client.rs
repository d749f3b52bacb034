//! mssql-tds, Microsoft's Rust core: login is "prefer off" (TLS for the login only), on, strict is TDS 8.0.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use mssql_tds::connection::bulk_copy::{BulkCopy, BulkLoadRow};
use mssql_tds::connection::client_context::ClientContext;
use mssql_tds::connection::tds_client::{
    ExecuteOptions, PreparedStatement, ResultSet, StatementResult, TdsClient,
};
use mssql_tds::connection_provider::tds_connection_provider::TdsConnectionProvider;
use mssql_tds::core::{CancelHandle, EncryptionSetting, TdsResult};
use mssql_tds::datatypes::column_values::{ColumnValues, SqlDate, SqlDateTime, SqlDateTime2, SqlTime};
use mssql_tds::datatypes::decoder::DecimalParts;
use mssql_tds::datatypes::sql_string::SqlString;
use mssql_tds::datatypes::sqltypes::SqlType;
use mssql_tds::error::Error;
use mssql_tds::message::bulk_load::StreamingBulkLoadWriter;
use mssql_tds::message::parameters::rpc_parameters::{RpcParameter, StatusFlags};
use mssql_tds::message::transaction_management::TransactionIsolationLevel;
use serde_json::{Value, json};

use crate::canonical::{
    DAYS_TO_1900, MEGABYTES_16, RowsDigest, Smoke, Target, clock, clock_of_ticks, date, digest, hex,
    is_about_holds, moment_with_offset, report, step,
};

type Answer = TdsResult<Value>;

struct Session {
    target: Target,
    smoke: Smoke,
    client: TdsClient,
}

async fn connect(target: &Target, password: &str, database: &str) -> TdsResult<TdsClient> {
    let source = format!("tcp:{},{}", target.host, target.port);
    let mut context = ClientContext::with_data_source(&source);
    context.user_name = target.user.clone();
    context.password = password.to_owned();
    context.database = database.to_owned();
    context.encryption_options.mode = match target.encryption.as_str() {
        "login" => EncryptionSetting::PreferOff,
        "on" => EncryptionSetting::On,
        "strict" => EncryptionSetting::Strict,
        other => panic!("mssql-tds has no encryption mode {other}"),
    };
    // The authority is trusted through SSL_CERT_FILE, which the runner sets; the name is checked.
    context.encryption_options.host_name_in_cert = Some("localhost".to_owned());
    TdsConnectionProvider::new().create_client(context, &source, None).await
}

fn of_error(error: &Error) -> Value {
    match error {
        Error::SqlServerError { diagnostics } => match diagnostics.errors.first() {
            Some(first) => json!({ "error": [first.number, first.message] }),
            None => json!({ "exception": "an error without diagnostics" }),
        },
        other => json!({ "exception": other.to_string() }),
    }
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn time_units(time: &SqlTime) -> u64 {
    // The field's name says nanoseconds; what is decoded are units of 100 ns.
    time.time_nanoseconds
}

fn canonical(value: &ColumnValues) -> Value {
    match value {
        ColumnValues::Null => Value::Null,
        ColumnValues::TinyInt(v) => text(v),
        ColumnValues::SmallInt(v) => text(v),
        ColumnValues::Int(v) => text(v),
        ColumnValues::BigInt(v) => text(v),
        ColumnValues::Real(v) => text(v),
        ColumnValues::Float(v) => text(v),
        ColumnValues::Decimal(v) | ColumnValues::Numeric(v) => text(v),
        ColumnValues::Bit(v) => text(u8::from(*v)),
        ColumnValues::String(v) => text(v.to_utf8_string()),
        ColumnValues::Bytes(v) => text(format!("0x{}", hex(v))),
        ColumnValues::Xml(v) => text(v.as_string().trim_start_matches('\u{feff}')),
        ColumnValues::Uuid(v) => text(v),
        ColumnValues::Money(v) => {
            let scaled = (i64::from(v.msb_part) << 32) | i64::from(v.lsb_part as u32);
            text(money(scaled))
        }
        ColumnValues::SmallMoney(v) => text(money(i64::from(v.int_val))),
        ColumnValues::Date(v) => text(date(i64::from(v.get_days()))),
        ColumnValues::Time(v) => text(clock(time_units(v), 7)),
        ColumnValues::DateTime(v) => {
            text(format!("{}T{}", date(i64::from(v.days) + DAYS_TO_1900), clock_of_ticks(v.time)))
        }
        ColumnValues::SmallDateTime(v) => {
            text(format!("{}T{}", date(i64::from(v.days) + DAYS_TO_1900), clock(u64::from(v.time) * 60, 0)))
        }
        ColumnValues::DateTime2(v) => {
            text(format!("{}T{}", date(i64::from(v.days)), clock(time_units(&v.time), 7)))
        }
        ColumnValues::DateTimeOffset(v) => {
            let utc = &v.datetime2;
            text(moment_with_offset(i64::from(utc.days), time_units(&utc.time), 7, v.offset))
        }
        other => json!({ "exception": format!("unexpected value {other:?}") }),
    }
}

fn money(scaled: i64) -> String {
    let sign = if scaled < 0 { "-" } else { "" };
    let magnitude = scaled.unsigned_abs();
    format!("{sign}{}.{:04}", magnitude / 10_000, magnitude % 10_000)
}

fn string(value: &str) -> SqlString {
    SqlString::from_utf8_string(value.to_owned())
}

fn input(name: &str, value: SqlType) -> RpcParameter {
    RpcParameter::new(Some(name.to_owned()), StatusFlags::NONE, value)
}

fn output(name: &str, value: SqlType) -> RpcParameter {
    RpcParameter::new(Some(name.to_owned()), StatusFlags::BY_REF_VALUE, value)
}

struct BulkRow(i32);

#[async_trait]
impl BulkLoadRow for BulkRow {
    async fn write_to_packet(
        &self,
        writer: &mut StreamingBulkLoadWriter<'_>,
        column: &mut usize,
    ) -> TdsResult<()> {
        let n = self.0;
        let name = if n % 5 == 0 {
            ColumnValues::Null
        } else {
            ColumnValues::String(string(&format!("řádek {n}")))
        };
        for value in [
            ColumnValues::Int(n),
            name,
            ColumnValues::Decimal(DecimalParts::new(true, 10, 2, n as u128 * 25)),
            ColumnValues::DateTime(SqlDateTime { days: 45_290, time: (n % 60) as u32 * 300 }),
        ] {
            writer.write_column_value(*column, &value).await?;
            *column += 1;
        }
        Ok(())
    }
}

impl Session {
    /// Every result set of what runs now, and the counts of statements without rows.
    async fn rest(&mut self, first: StatementResult) -> TdsResult<(Vec<Vec<Vec<Value>>>, Vec<u64>)> {
        let (mut sets, mut counts, mut at) = (Vec::new(), Vec::new(), first);
        loop {
            match at {
                StatementResult::Rows => {
                    let mut rows = Vec::new();
                    while let Some(row) = self.client.next_row().await? {
                        rows.push(row.iter().map(canonical).collect());
                    }
                    sets.push(rows);
                }
                StatementResult::NoRows { rows_affected } => counts.extend(rows_affected),
                StatementResult::End => break,
            }
            at = self.client.advance().await?;
        }
        self.client.close_query().await?;
        Ok((sets, counts))
    }

    async fn batch(&mut self, sql: &str) -> TdsResult<(Vec<Vec<Vec<Value>>>, Vec<u64>)> {
        let first = self.client.execute(sql.to_owned(), ()).await?;
        self.rest(first).await
    }

    async fn query(&mut self, sql: &str, parameters: Vec<RpcParameter>) -> TdsResult<Vec<Vec<Value>>> {
        let first = self.client.execute_sp_executesql(sql.to_owned(), parameters, ()).await?;
        let (sets, _) = self.rest(first).await?;
        Ok(sets.into_iter().next().unwrap_or_default())
    }

    async fn value(&mut self, sql: &str, parameters: Vec<RpcParameter>) -> Answer {
        let rows = self.query(sql, parameters).await?;
        Ok(rows.into_iter().flatten().next().unwrap_or_else(|| json!({ "exception": "no row" })))
    }

    async fn reconnect(&mut self) {
        if let Ok(client) = connect(&self.target, &self.target.password, &self.target.database).await {
            self.client = client;
        }
    }

    async fn tell(&mut self, check: &str, answer: Answer) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.reconnect().await;
                of_error(&error)
            }
        };
        report(check, answer);
    }

    async fn fresh(&mut self, columns: &str) -> TdsResult<String> {
        let table = self.target.table.clone();
        self.batch(&format!("DROP TABLE IF EXISTS {table}")).await?;
        self.batch(&format!("CREATE TABLE {table} ({columns})")).await?;
        Ok(table)
    }

    async fn types(&mut self) {
        for (name, sql_type, literal) in self.smoke.types.clone() {
            let answer = self.value(&format!("SELECT CAST({literal} AS {sql_type}) AS v"), Vec::new()).await;
            self.tell(&format!("type.{name}"), answer).await;
        }
        for (name, sql_type, _) in self.smoke.types.clone() {
            let answer = self.value(&format!("SELECT CAST(NULL AS {sql_type}) AS v"), Vec::new()).await;
            self.tell(&format!("null.{name}"), answer).await;
        }
    }

    async fn parameters(&mut self) {
        let moment =
            SqlDateTime2 { days: 738_944, time: SqlTime { time_nanoseconds: 476_551_230_000, scale: 7 } };
        let guid = uuid::Uuid::parse_str("6f9619ff-8b86-d011-b42d-00c04fc964ff").expect("a well-formed GUID");
        let day = SqlDate::create(738_944).expect("a day in the calendar");
        for (name, given) in [
            ("int", SqlType::Int(Some(42))),
            ("negative", SqlType::SmallInt(Some(-7))),
            ("bigint", SqlType::BigInt(Some(i64::MAX))),
            ("bit", SqlType::Bit(Some(true))),
            ("float", SqlType::Float(Some(2.5))),
            ("decimal", SqlType::Decimal(Some(DecimalParts::new(true, 12, 3, 12_345_678)))),
            ("text", SqlType::NVarchar(Some(string("Žluťoučký 漢字 😀")), 50)),
            ("empty", SqlType::NVarchar(Some(string("")), 50)),
            ("bytes", SqlType::VarBinary(Some(vec![0, 1, 0xfe, 0xff]), 10)),
            ("datetime", SqlType::DateTime2(Some(moment))),
            ("date", SqlType::Date(Some(day))),
            ("guid", SqlType::Uuid(Some(guid))),
            ("null", SqlType::NVarchar(None, 50)),
        ] {
            let answer = self.value("SELECT @p AS v", vec![input("@p", given)]).await;
            self.tell(&format!("parameter.{name}"), answer).await;
        }
    }

    async fn out_parameter(&mut self) -> Answer {
        let parameters = vec![input("@i", SqlType::Int(Some(21))), output("@o", SqlType::Int(None))];
        let first = self.client.execute_sp_executesql("SET @o = @i * 2".to_owned(), parameters, ()).await?;
        self.rest(first).await?;
        Ok(self.client.get_return_values().last().map_or(Value::Null, |v| canonical(&v.value)))
    }

    async fn procedure(&mut self) -> Answer {
        let name = format!("{}_p", self.target.table);
        self.batch(&format!("DROP PROCEDURE IF EXISTS {name}")).await?;
        self.batch(&format!(
            "CREATE PROCEDURE {name} @i int, @o int OUTPUT AS BEGIN SET NOCOUNT ON; SELECT @i AS i; SET @o = @i * 2; RETURN 7 END"
        ))
        .await?;
        let parameters = vec![input("@i", SqlType::Int(Some(21))), output("@o", SqlType::Int(None))];
        let first = self.client.execute_stored_procedure(name.clone(), None, Some(parameters), ()).await?;
        let (sets, _) = self.rest(first).await?;
        let out = self.client.get_return_values().last().map_or(Value::Null, |v| canonical(&v.value));
        let status = self.client.get_return_status().map_or(Value::Null, text);
        self.batch(&format!("DROP PROCEDURE {name}")).await?;
        Ok(json!({ "rows": sets.into_iter().next(), "out": out, "status": status }))
    }

    async fn begin(&mut self, table: &str) -> Answer {
        self.client.begin_transaction(TransactionIsolationLevel::ReadCommitted, None).await?;
        self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
        self.batch(&format!("INSERT INTO {table} VALUES (2)")).await?;
        self.value("SELECT @@TRANCOUNT", Vec::new()).await
    }

    async fn in_transaction(&mut self, commit: bool) -> Answer {
        let table = self.fresh("a int").await?;
        let inside = self.begin(&table).await?;
        if commit {
            self.client.commit_transaction(None, None).await?;
        } else {
            self.client.rollback_transaction(None, None).await?;
        }
        let rows = self.value(&format!("SELECT COUNT(*) FROM {table}"), Vec::new()).await?;
        Ok(json!({ "inside": inside, "rows": rows }))
    }

    async fn closed_in_transaction(&mut self) -> Answer {
        let table = self.fresh("a int").await?;
        let inside = self.begin(&table).await?;
        self.client.close_connection().await?;
        self.reconnect().await;
        let rows = self.value(&format!("SELECT COUNT(*) FROM {table}"), Vec::new()).await?;
        Ok(json!({ "inside": inside, "rows": rows }))
    }

    async fn savepoint(&mut self) -> Answer {
        let table = self.fresh("a int").await?;
        self.client.begin_transaction(TransactionIsolationLevel::NoChange, None).await?;
        self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
        self.client.save_transaction("here".to_owned()).await?;
        self.batch(&format!("INSERT INTO {table} VALUES (2)")).await?;
        self.client.rollback_transaction(Some("here".to_owned()), None).await?;
        self.client.commit_transaction(None, None).await?;
        Ok(json!(self.query(&format!("SELECT a FROM {table}"), Vec::new()).await?))
    }

    async fn transaction_text(&mut self) -> Answer {
        let table = self.fresh("a int").await?;
        let mut counts = Vec::new();
        for end in ["ROLLBACK", "COMMIT"] {
            self.batch("BEGIN TRANSACTION").await?;
            self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
            counts.push(self.value("SELECT @@TRANCOUNT", Vec::new()).await?);
            self.batch(end).await?;
            counts.push(self.value(&format!("SELECT COUNT(*) FROM {table}"), Vec::new()).await?);
        }
        Ok(json!(counts))
    }

    async fn temp_table(&mut self) -> Answer {
        self.batch("CREATE TABLE #t (a int, b nvarchar(20))").await?;
        self.batch("INSERT INTO #t VALUES (1, N'jedna'), (2, NULL)").await?;
        self.batch("INSERT INTO #t SELECT a + 10, b FROM #t").await?;
        Ok(json!(self.query("SELECT a, b FROM #t ORDER BY a", Vec::new()).await?))
    }

    async fn temp_table_elsewhere(&mut self) -> Answer {
        let mut other = connect(&self.target, &self.target.password, &self.target.database).await?;
        let said = other.execute("SELECT a FROM #t".to_owned(), ()).await.err();
        Ok(said.as_ref().map_or(json!("no error"), of_error))
    }

    async fn prepared(&mut self) -> Answer {
        let mut answers = Vec::new();
        let mut statement = PreparedStatement::new("SELECT @n * 2 AS d, @s AS s");
        for n in 0..5 {
            let parameters = vec![
                input("@n", SqlType::Int(Some(n))),
                input("@s", SqlType::NVarchar(Some(string(&format!("value {n}"))), 50)),
            ];
            let first = self.client.execute_prepared(&mut statement, parameters, &mut None, ()).await?;
            answers.extend(self.rest(first).await?.0.into_iter().flatten());
        }
        if let Some(id) = statement.take_id() {
            self.client.unprepare(id, ()).await?;
        }
        Ok(json!(answers))
    }

    async fn many_rows(&mut self) -> Answer {
        let mut seen = RowsDigest::default();
        self.client.execute(self.smoke.many_rows.clone(), ()).await?;
        while let Some(row) = self.client.next_row().await? {
            seen.add(&row.iter().map(canonical).collect::<Vec<_>>());
        }
        self.client.close_query().await?;
        Ok(seen.answer())
    }

    async fn big_down(&mut self) -> Answer {
        let sql = self.smoke.big_value.clone();
        let value = self.value(&sql, Vec::new()).await?;
        Ok(digest(value.as_str().unwrap_or_default().as_bytes()))
    }

    async fn big_up(&mut self) -> Answer {
        let data: Vec<u8> = (0..MEGABYTES_16).map(|n| (n % 256) as u8).collect();
        let parameter = input("@p", SqlType::VarBinaryMax(Some(data)));
        let length = self.value("SELECT DATALENGTH(@p) AS n", vec![parameter.clone()]).await?;
        self.client.execute_sp_executesql("SELECT @p AS v".to_owned(), vec![parameter], ()).await?;
        let row = self.client.next_row().await?.unwrap_or_default();
        self.client.close_query().await?;
        let back = match row.first() {
            Some(ColumnValues::Bytes(bytes)) => digest(bytes),
            other => json!({ "exception": format!("{} bytes expected", other.is_some()) }),
        };
        Ok(json!({ "length": length, "back": back }))
    }

    async fn big_up_text(&mut self) -> Answer {
        let parameter =
            input("@p", SqlType::NVarcharMax(Some(string(&"0123456789abčdef".repeat(MEGABYTES_16 / 32)))));
        let length = self.value("SELECT DATALENGTH(@p) AS n", vec![parameter.clone()]).await?;
        let back = self.value("SELECT @p AS v", vec![parameter]).await?;
        Ok(json!({ "length": length, "back": digest(back.as_str().unwrap_or_default().as_bytes()) }))
    }

    async fn cancel_waitfor(&mut self) -> Answer {
        let began = Instant::now();
        let handle = CancelHandle::new();
        let other = handle.child_handle();
        let waiting =
            self.client.execute("WAITFOR DELAY '00:00:30'".to_owned(), ExecuteOptions::new().cancel(&other));
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            handle.cancel();
        };
        let said = match tokio::join!(waiting, cancelling).0 {
            Err(Error::OperationCancelledError(_)) => json!("cancelled"),
            Err(error) => of_error(&error),
            Ok(_) => json!("not cancelled"),
        };
        let then = self.value("SELECT 'still here' AS v", Vec::new()).await?;
        Ok(json!({ "said": said, "soon": began.elapsed() < Duration::from_secs(10), "then": then }))
    }

    async fn cancel_rows(&mut self) -> Answer {
        let mut first = Vec::new();
        self.client.execute(self.smoke.many_rows.clone(), ()).await?;
        while first.len() < 10
            && let Some(row) = self.client.next_row().await?
        {
            first.push(row.first().map(canonical));
        }
        self.client.cancel_query(10).await?;
        Ok(json!({ "first": first, "then": self.value("SELECT 'still here' AS v", Vec::new()).await? }))
    }

    async fn bulk(&mut self) -> Answer {
        let table = self
            .fresh("id int NOT NULL, name nvarchar(50) NULL, price decimal(10,2) NULL, at datetime NULL")
            .await?;
        BulkCopy::new(&mut self.client, table.clone())
            .write_to_server_zerocopy((1..=1000).map(BulkRow))
            .await?;
        let sums = format!("SELECT COUNT(*), COUNT(name), SUM(id), SUM(price) FROM {table}");
        let totals = self.query(&sums, Vec::new()).await?;
        let some = format!("SELECT * FROM {table} WHERE id IN (1, 5, 777) ORDER BY id");
        Ok(json!({ "totals": totals, "first": self.query(&some, Vec::new()).await? }))
    }

    async fn error_then(&mut self, sql: &str) -> Answer {
        let first = match self.batch(sql).await {
            Ok((sets, _)) => json!({ "no error": sets }),
            Err(error) => of_error(&error),
        };
        Ok(json!({ "first": first, "then": self.value("SELECT 'still here' AS v", Vec::new()).await? }))
    }

    async fn duplicate(&mut self) -> Answer {
        let table = self.fresh("a int PRIMARY KEY").await?;
        self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
        let said = match self.batch(&format!("INSERT INTO {table} VALUES (1)")).await {
            Ok(_) => Value::Null,
            Err(error) => of_error(&error)["error"][0].clone(),
        };
        Ok(
            json!({ "number": said, "then": self.query(&format!("SELECT a FROM {table}"), Vec::new()).await? }),
        )
    }

    async fn messages(&mut self) -> Answer {
        self.client.take_info_messages();
        self.batch("PRINT 'hello'; RAISERROR('careful', 10, 1)").await?;
        let heard: Vec<_> =
            self.client.take_info_messages().into_iter().map(|m| json!([m.number, m.message])).collect();
        Ok(json!(heard))
    }

    async fn count(&mut self) -> Answer {
        let table = self.fresh("a int, b int").await?;
        let mut counts = Vec::new();
        for sql in [
            format!("INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)"),
            format!("UPDATE {table} SET b = b + 1 WHERE a > 1"),
            format!("DELETE FROM {table}"),
        ] {
            counts.extend(self.batch(&sql).await?.1);
        }
        Ok(json!(counts))
    }

    async fn identity(&mut self) -> Answer {
        let table = self.fresh("id int IDENTITY(10, 5) PRIMARY KEY, a int").await?;
        let sql = format!(
            "SET NOCOUNT ON; INSERT INTO {table} (a) VALUES (1); INSERT INTO {table} (a) VALUES (2); \
             SELECT SCOPE_IDENTITY() AS i, @@ROWCOUNT AS n"
        );
        Ok(json!(self.batch(&sql).await?.0.into_iter().next()))
    }

    async fn reset(&mut self) -> Answer {
        self.batch("SET LOCK_TIMEOUT 1234").await?;
        let before = self.value("SELECT @@LOCK_TIMEOUT AS t", Vec::new()).await?;
        self.client.prepare_reset_connection(false);
        let after = self.value("SELECT @@LOCK_TIMEOUT AS t", Vec::new()).await?;
        Ok(json!([before, after, self.value("SELECT DB_NAME() AS d", Vec::new()).await?]))
    }

    async fn refused(&mut self, password: &str, database: &str) -> Answer {
        Ok(match connect(&self.target, password, database).await {
            Ok(_) => json!("no error"),
            Err(error) => of_error(&error),
        })
    }
}

impl Session {
    /// Uses one thing after the other; what each keeps is looked at in between.
    async fn holds(&mut self) -> TdsResult<()> {
        self.batch("SELECT 1 AS n").await?;
        step("query");
        self.query("SELECT @P1 AS n", vec![input("@P1", SqlType::Int(Some(1)))]).await?;
        step("parameters");
        let mut statement = PreparedStatement::new("SELECT @n * 2 AS d");
        let parameters = vec![input("@n", SqlType::Int(Some(1)))];
        let first = self.client.execute_prepared(&mut statement, parameters, &mut None, ()).await?;
        self.rest(first).await?;
        step("prepared");
        if let Some(id) = statement.take_id() {
            self.client.unprepare(id, ()).await?;
        }
        step("prepared.ended");
        self.batch("SET LOCK_TIMEOUT 1234").await?;
        step("set");
        let table = self.fresh("id int NOT NULL").await?;
        let insert = format!("INSERT INTO {table} VALUES (1)");
        self.batch(&insert).await?;
        step("insert");
        self.batch("SELECT 1 AS n").await?;
        step("insert.next");
        self.client.begin_transaction(TransactionIsolationLevel::NoChange, None).await?;
        step("transaction.begun");
        self.batch(&insert).await?;
        step("transaction");
        self.client.commit_transaction(None, None).await?;
        step("transaction.ended");
        self.batch("CREATE TABLE #t (a int)").await?;
        step("temp_table");
        self.batch("DROP TABLE #t").await?;
        step("temp_table.ended");
        self.batch("DECLARE c CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2)) v(n); OPEN c").await?;
        step("cursor");
        self.batch("CLOSE c; DEALLOCATE c").await?;
        step("cursor.ended");
        self.bulk().await?;
        step("bulk.ended");
        Ok(())
    }
}

/// Runs every check and prints the answers.
pub async fn run() {
    let target = Target::of_environment();
    let client =
        connect(&target, &target.password, &target.database).await.expect("the first connection opens");
    let mut session = Session { target, smoke: Smoke::load(), client };
    let s = &mut session;
    if is_about_holds() {
        return s.holds().await.expect("nothing fails");
    }
    let about = "SELECT DB_NAME(), SUSER_SNAME(), @@TRANCOUNT";

    macro_rules! check {
        ($name:expr, $answer:expr) => {{
            let answer: Answer = $answer.await;
            s.tell($name, answer).await;
        }};
    }
    let answer = s.query(about, Vec::new()).await.map(|rows| json!(rows));
    s.tell("session", answer).await;
    s.types().await;
    s.parameters().await;
    check!("parameter.out", s.out_parameter());
    check!("procedure", s.procedure());
    check!("transaction.commit", s.in_transaction(true));
    check!("transaction.rollback", s.in_transaction(false));
    check!("transaction.autocommit_off", s.closed_in_transaction());
    check!("transaction.savepoint", s.savepoint());
    check!("transaction.text", s.transaction_text());
    check!("temp_table", s.temp_table());
    check!("temp_table.elsewhere", s.temp_table_elsewhere());
    check!("prepared", s.prepared());
    check!("rows.100000", s.many_rows());
    check!("big.down", s.big_down());
    check!("big.up", s.big_up());
    check!("big.up_text", s.big_up_text());
    check!("cancel.waitfor", s.cancel_waitfor());
    check!("cancel.rows", s.cancel_rows());
    check!("bulk", s.bulk());
    check!("error.divide", s.error_then("SELECT 1/0 AS v"));
    check!("error.object", s.error_then("SELECT * FROM no_such_table"));
    check!("error.syntax", s.error_then("SELECT FROM t"));
    check!("error.raiserror", s.error_then("RAISERROR('boom %d', 16, 1, 42)"));
    check!("error.throw", s.error_then("THROW 50001, 'thrown', 1"));
    check!("error.duplicate", s.duplicate());
    let sets = s
        .batch("SELECT 1 AS a; SELECT 'x' AS b, 'y' AS c UNION ALL SELECT 'z', NULL; SELECT 3 AS d WHERE 1 = 0; SELECT 4 AS e")
        .await
        .map(|(sets, _)| json!(sets));
    s.tell("sets", sets).await;
    check!("messages", s.messages());
    check!("count", s.count());
    check!("identity", s.identity());
    check!("reset", s.reset());
    let (wrong, database) = (format!("wrong {}", s.target.password), s.target.database.clone());
    check!("login.wrong_password", s.refused(&wrong, &database));
    let password = s.target.password.clone();
    check!("login.unknown_database", s.refused(&password, "no_such_database"));
    let answer = s.query(about, Vec::new()).await.map(|rows| json!(rows));
    s.tell("last", answer).await;
}
