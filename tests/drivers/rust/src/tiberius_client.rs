//! tiberius: off is ENCRYPT_NOT_SUP, login is ENCRYPT_OFF, on, strict is TDS 8.0.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use tiberius::{
    AuthMethod, Client, ColumnData, Command, Config, EncryptionLevel, IntoSql, ToSql, TokenRow, error::Error,
};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use crate::canonical::{
    DAYS_TO_1900, MEGABYTES_16, RowsDigest, Smoke, Target, clock, clock_of_ticks, date, digest, hex,
    is_about_holds, moment_with_offset, report, step,
};

type Connection = Client<Compat<TcpStream>>;
type Answer = Result<Value, Error>;

struct Session {
    target: Target,
    smoke: Smoke,
    client: Connection,
}

async fn connect(target: &Target, password: &str, database: &str) -> Result<Connection, Error> {
    let mut config = Config::new();
    // The certificate names localhost and 127.0.0.1.
    config.host(&target.host);
    config.port(target.port);
    config.database(database);
    config.authentication(AuthMethod::sql_server(&target.user, password));
    config.encryption(match target.encryption.as_str() {
        "off" => EncryptionLevel::NotSupported,
        "login" => EncryptionLevel::Off,
        "on" => EncryptionLevel::Required,
        "strict" => EncryptionLevel::Strict,
        other => panic!("tiberius has no encryption mode {other}"),
    });
    config.trust_cert_ca(&target.authority);
    let stream = TcpStream::connect(config.get_addr()).await?;
    stream.set_nodelay(true)?;
    Client::connect(config, stream.compat_write()).await
}

/// A value that is sent as it is, for types whose Rust counterparts would need one more crate.
struct AsIs(ColumnData<'static>);

impl ToSql for AsIs {
    fn to_sql(&self) -> ColumnData<'_> {
        self.0.clone()
    }
}

fn of_error(error: &Error) -> Value {
    match error {
        Error::Server(token) => json!({ "error": [token.code(), token.message()] }),
        other => json!({ "exception": other.to_string() }),
    }
}

fn text(value: Option<impl ToString>) -> Value {
    value.map_or(Value::Null, |v| Value::String(v.to_string()))
}

fn canonical(value: &ColumnData<'static>) -> Value {
    match value {
        ColumnData::U8(v) => text(*v),
        ColumnData::I16(v) => text(*v),
        ColumnData::I32(v) => text(*v),
        ColumnData::I64(v) => text(*v),
        ColumnData::F32(v) => text(*v),
        ColumnData::F64(v) => text(*v),
        ColumnData::Bit(v) => text(v.map(u8::from)),
        ColumnData::String(v) => text(v.as_ref()),
        ColumnData::Guid(v) => text(*v),
        ColumnData::Binary(v) => text(v.as_ref().map(|b| format!("0x{}", hex(b)))),
        ColumnData::Numeric(v) => text(v.map(|n| decimal(n.value(), n.scale()))),
        ColumnData::Xml(v) => text(v.as_ref().map(|x| x.clone().into_owned().into_string())),
        ColumnData::DateTime(v) => text(v.map(|d| {
            format!("{}T{}", date(i64::from(d.days()) + DAYS_TO_1900), clock_of_ticks(d.seconds_fragments()))
        })),
        ColumnData::SmallDateTime(v) => text(v.map(|d| {
            let minutes = u64::from(d.seconds_fragments());
            format!("{}T{}", date(i64::from(d.days()) + DAYS_TO_1900), clock(minutes * 60, 0))
        })),
        ColumnData::Time(v) => text(v.map(|t| clock(t.increments(), u32::from(t.scale())))),
        ColumnData::Date(v) => text(v.map(|d| date(i64::from(d.days())))),
        ColumnData::DateTime2(v) => text(v.map(|d| {
            let time = d.time();
            format!(
                "{}T{}",
                date(i64::from(d.date().days())),
                clock(time.increments(), u32::from(time.scale()))
            )
        })),
        ColumnData::DateTimeOffset(v) => text(v.map(|d| {
            let (day, time) = (d.datetime2().date().days(), d.datetime2().time());
            moment_with_offset(i64::from(day), time.increments(), u32::from(time.scale()), d.offset())
        })),
    }
}

fn decimal(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn cells(row: tiberius::Row) -> Vec<Value> {
    row.cells().map(|(_, value)| canonical(value)).collect()
}

fn sets_of(results: Vec<Vec<tiberius::Row>>) -> Vec<Vec<Vec<Value>>> {
    results.into_iter().map(|rows| rows.into_iter().map(cells).collect()).collect()
}

impl Session {
    async fn batch(&mut self, sql: &str) -> Result<Vec<Vec<Vec<Value>>>, Error> {
        Ok(sets_of(self.client.simple_query(sql).await?.into_results().await?))
    }

    async fn query(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Vec<Vec<Value>>, Error> {
        let sets = sets_of(self.client.query(sql, parameters).await?.into_results().await?);
        Ok(sets.into_iter().next().unwrap_or_default())
    }

    async fn value(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Answer {
        let rows = self.query(sql, parameters).await?;
        Ok(rows.into_iter().flatten().next().unwrap_or_else(|| json!({ "exception": "no row" })))
    }

    async fn reconnect(&mut self) {
        if let Ok(client) = connect(&self.target, &self.target.password, &self.target.database).await {
            self.client = client;
        }
    }

    async fn fresh(&mut self, columns: &str) -> Result<String, Error> {
        let table = self.target.table.clone();
        self.batch(&format!("DROP TABLE IF EXISTS {table}")).await?;
        self.batch(&format!("CREATE TABLE {table} ({columns})")).await?;
        Ok(table)
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

    async fn types(&mut self) {
        for (name, sql_type, literal) in self.smoke.types.clone() {
            let answer = self.value(&format!("SELECT CAST({literal} AS {sql_type}) AS v"), &[]).await;
            self.tell(&format!("type.{name}"), answer).await;
        }
        for (name, sql_type, _) in self.smoke.types.clone() {
            let answer = self.value(&format!("SELECT CAST(NULL AS {sql_type}) AS v"), &[]).await;
            self.tell(&format!("null.{name}"), answer).await;
        }
    }

    async fn parameters(&mut self) {
        let guid =
            tiberius::Uuid::parse_str("6f9619ff-8b86-d011-b42d-00c04fc964ff").expect("a well-formed GUID");
        let number = tiberius::numeric::Numeric::new_with_scale(12_345_678, 3);
        let day = tiberius::time::Date::new(738_944);
        let moment = tiberius::time::DateTime2::new(day, tiberius::time::Time::new(476_551_230_000, 7));
        let bytes: &[u8] = &[0, 1, 0xfe, 0xff];
        let given: [(&str, &dyn ToSql); 13] = [
            ("int", &42i32),
            ("negative", &-7i16),
            ("bigint", &i64::MAX),
            ("bit", &true),
            ("float", &2.5f64),
            ("decimal", &number),
            ("text", &"Žluťoučký 漢字 😀"),
            ("empty", &""),
            ("bytes", &bytes),
            ("datetime", &AsIs(ColumnData::DateTime2(Some(moment)))),
            ("date", &AsIs(ColumnData::Date(Some(day)))),
            ("guid", &guid),
            ("null", &Option::<&str>::None),
        ];
        for (name, parameter) in given {
            let answer = self.value("SELECT @P1 AS v", &[parameter]).await;
            self.tell(&format!("parameter.{name}"), answer).await;
        }
    }

    async fn out_parameter(&mut self) -> Answer {
        let mut command = Command::new("sp_executesql");
        command.bind_param("@stmt", "SET @o = @i * 2");
        command.bind_param("@params", "@i int, @o int OUTPUT");
        command.bind_param("@i", 21i32);
        command.bind_out_param("@o", Option::<i32>::None);
        let result = command.exec(&mut self.client).await?.into_command_result().await?;
        Ok(text(result.try_return_value::<i32>("@o")?))
    }

    async fn procedure(&mut self) -> Answer {
        let name = format!("{}_p", self.target.table);
        self.batch(&format!("DROP PROCEDURE IF EXISTS {name}")).await?;
        self.batch(&format!(
            "CREATE PROCEDURE {name} @i int, @o int OUTPUT AS BEGIN SET NOCOUNT ON; SELECT @i AS i; SET @o = @i * 2; RETURN 7 END"
        ))
        .await?;
        let mut command = Command::new(name.clone());
        command.bind_param("@i", 21i32);
        command.bind_out_param("@o", Option::<i32>::None);
        let result = command.exec(&mut self.client).await?.into_command_result().await?;
        let (out, status) = (text(result.try_return_value::<i32>("@o")?), text(Some(result.return_code())));
        let rows = sets_of(result.into_iter().collect()).into_iter().find(|set| !set.is_empty());
        self.batch(&format!("DROP PROCEDURE {name}")).await?;
        Ok(json!({ "rows": rows, "out": out, "status": status }))
    }

    async fn in_transaction(&mut self, commit: bool) -> Answer {
        let table = self.fresh("a int").await?;
        self.client.begin_transaction().await?;
        self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
        self.batch(&format!("INSERT INTO {table} VALUES (2)")).await?;
        let inside = self.value("SELECT @@TRANCOUNT", &[]).await?;
        if commit {
            self.client.commit_transaction().await?;
        } else {
            self.client.rollback_transaction().await?;
        }
        let rows = self.value(&format!("SELECT COUNT(*) FROM {table}"), &[]).await?;
        Ok(json!({ "inside": inside, "rows": rows }))
    }

    async fn closed_in_transaction(&mut self) -> Answer {
        let table = self.fresh("a int").await?;
        self.client.begin_transaction().await?;
        self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
        self.batch(&format!("INSERT INTO {table} VALUES (2)")).await?;
        let inside = self.value("SELECT @@TRANCOUNT", &[]).await?;
        self.reconnect().await;
        let rows = self.value(&format!("SELECT COUNT(*) FROM {table}"), &[]).await?;
        Ok(json!({ "inside": inside, "rows": rows }))
    }

    async fn transaction_text(&mut self) -> Answer {
        let table = self.fresh("a int").await?;
        let mut counts = Vec::new();
        for end in ["ROLLBACK", "COMMIT"] {
            self.batch("BEGIN TRANSACTION").await?;
            self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
            counts.push(self.value("SELECT @@TRANCOUNT", &[]).await?);
            self.batch(end).await?;
            counts.push(self.value(&format!("SELECT COUNT(*) FROM {table}"), &[]).await?);
        }
        Ok(json!(counts))
    }

    async fn temp_table(&mut self) -> Answer {
        self.batch("CREATE TABLE #t (a int, b nvarchar(20))").await?;
        self.batch("INSERT INTO #t VALUES (1, N'jedna'), (2, NULL)").await?;
        self.batch("INSERT INTO #t SELECT a + 10, b FROM #t").await?;
        Ok(json!(self.query("SELECT a, b FROM #t ORDER BY a", &[]).await?))
    }

    async fn temp_table_elsewhere(&mut self) -> Answer {
        let mut other = connect(&self.target, &self.target.password, &self.target.database).await?;
        let said = match other.simple_query("SELECT a FROM #t").await {
            Ok(stream) => stream.into_results().await.err(),
            Err(error) => Some(error),
        };
        Ok(said.as_ref().map_or(json!("no error"), of_error))
    }

    async fn repeated(&mut self) -> Answer {
        let mut answers = Vec::new();
        for n in 0..5i32 {
            answers.extend(
                self.query("SELECT @P1 * 2 AS d, @P2 AS s", &[&n, &format!("value {n}").as_str()]).await?,
            );
        }
        Ok(json!(answers))
    }

    async fn many_rows(&mut self) -> Answer {
        let mut seen = RowsDigest::default();
        let mut rows = self.client.simple_query(self.smoke.many_rows.as_str()).await?.into_row_stream();
        while let Some(row) = rows.try_next().await? {
            seen.add(&cells(row));
        }
        Ok(seen.answer())
    }

    async fn big_down(&mut self) -> Answer {
        let sql = self.smoke.big_value.clone();
        let value = self.value(&sql, &[]).await?;
        Ok(digest(value.as_str().unwrap_or_default().as_bytes()))
    }

    async fn big_up(&mut self) -> Answer {
        let data: Vec<u8> = (0..MEGABYTES_16).map(|n| (n % 256) as u8).collect();
        let length = self.value("SELECT DATALENGTH(@P1) AS n", &[&data.as_slice()]).await?;
        let row = self.client.query("SELECT @P1 AS v", &[&data.as_slice()]).await?.into_row().await?;
        let back = row.as_ref().and_then(|r| r.get::<&[u8], _>(0)).map(digest);
        Ok(json!({ "length": length, "back": back }))
    }

    async fn big_up_text(&mut self) -> Answer {
        let data = "0123456789abčdef".repeat(MEGABYTES_16 / 32);
        let length = self.value("SELECT DATALENGTH(@P1) AS n", &[&data.as_str()]).await?;
        let row = self.client.query("SELECT @P1 AS v", &[&data.as_str()]).await?.into_row().await?;
        let back = row.as_ref().and_then(|r| r.get::<&str, _>(0)).map(|s| digest(s.as_bytes()));
        Ok(json!({ "length": length, "back": back }))
    }

    /// tiberius looks for the acknowledgement of its attention in the response that it stops, not behind it.
    async fn attention_in_response(&mut self) -> Result<(), Error> {
        self.batch("EXEC sim_fault 'attention_in_response'").await.map(drop)
    }

    async fn cancel_waitfor(&mut self) -> Answer {
        self.attention_in_response().await?;
        let began = Instant::now();
        let running = self.client.simple_query("WAITFOR DELAY '00:00:30'");
        let said = match tokio::time::timeout(Duration::from_millis(500), running).await {
            Ok(_) => "not cancelled",
            Err(_) => "cancelled",
        };
        self.client.cancel_query().await?;
        let then = self.value("SELECT 'still here' AS v", &[]).await?;
        Ok(json!({ "said": said, "soon": began.elapsed() < Duration::from_secs(10), "then": then }))
    }

    async fn cancel_rows(&mut self) -> Answer {
        self.attention_in_response().await?;
        let mut first = Vec::new();
        {
            let mut rows = self.client.simple_query(self.smoke.many_rows.as_str()).await?.into_row_stream();
            while first.len() < 10
                && let Some(row) = rows.try_next().await?
            {
                first.push(cells(row).swap_remove(0));
            }
        }
        self.client.cancel_query().await?;
        Ok(json!({ "first": first, "then": self.value("SELECT 'still here' AS v", &[]).await? }))
    }

    async fn bulk(&mut self) -> Answer {
        let table = self
            .fresh("id int NOT NULL, name nvarchar(50) NULL, price decimal(10,2) NULL, at datetime NULL")
            .await?;
        let mut load = self.client.bulk_insert(&table).await?;
        for n in 1..=1000i32 {
            let name = (n % 5 != 0).then(|| format!("řádek {n}"));
            let price = tiberius::numeric::Numeric::new_with_scale(i128::from(n) * 25, 2);
            let at = tiberius::time::DateTime::new(45_290, (n % 60) as u32 * 300);
            let mut row = TokenRow::new();
            row.push(n.into_sql());
            row.push(name.into_sql());
            row.push(price.into_sql());
            row.push(ColumnData::DateTime(Some(at)));
            load.send(row).await?;
        }
        load.finalize().await?;
        let totals = self
            .query(&format!("SELECT COUNT(*), COUNT(name), SUM(id), SUM(price) FROM {table}"), &[])
            .await?;
        let first =
            self.query(&format!("SELECT * FROM {table} WHERE id IN (1, 5, 777) ORDER BY id"), &[]).await?;
        Ok(json!({ "totals": totals, "first": first }))
    }

    async fn error_then(&mut self, sql: &str) -> Answer {
        let first = match self.batch(sql).await {
            Ok(sets) => json!({ "no error": sets }),
            Err(error) => of_error(&error),
        };
        Ok(json!({ "first": first, "then": self.value("SELECT 'still here' AS v", &[]).await? }))
    }

    async fn duplicate(&mut self) -> Answer {
        let table = self.fresh("a int PRIMARY KEY").await?;
        self.batch(&format!("INSERT INTO {table} VALUES (1)")).await?;
        let said = match self.batch(&format!("INSERT INTO {table} VALUES (1)")).await {
            Ok(_) => Value::Null,
            Err(error) => of_error(&error)["error"][0].clone(),
        };
        Ok(json!({ "number": said, "then": self.query(&format!("SELECT a FROM {table}"), &[]).await? }))
    }

    async fn count(&mut self) -> Answer {
        let table = self.fresh("a int, b int").await?;
        let mut counts = Vec::new();
        for sql in [
            format!("INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)"),
            format!("UPDATE {table} SET b = b + 1 WHERE a > 1"),
            format!("DELETE FROM {table}"),
        ] {
            counts.push(self.client.execute(sql, &[]).await?.total());
        }
        Ok(json!(counts))
    }

    async fn identity(&mut self) -> Answer {
        let table = self.fresh("id int IDENTITY(10, 5) PRIMARY KEY, a int").await?;
        let sql = format!(
            "SET NOCOUNT ON; INSERT INTO {table} (a) VALUES (1); INSERT INTO {table} (a) VALUES (2); \
             SELECT SCOPE_IDENTITY() AS i, @@ROWCOUNT AS n"
        );
        Ok(json!(self.batch(&sql).await?.into_iter().next()))
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
    async fn holds(&mut self) -> Result<(), Error> {
        self.batch("SELECT 1 AS n").await?;
        step("query");
        self.query("SELECT @P1 AS n", &[&1i32]).await?;
        step("parameters");
        self.batch("SET LOCK_TIMEOUT 1234").await?;
        step("set");
        let table = self.fresh("id int NOT NULL").await?;
        let insert = format!("INSERT INTO {table} VALUES (1)");
        self.batch(&insert).await?;
        step("insert");
        self.batch("SELECT 1 AS n").await?;
        step("insert.next");
        self.client.begin_transaction().await?;
        step("transaction.begun");
        self.batch(&insert).await?;
        step("transaction");
        self.client.commit_transaction().await?;
        step("transaction.ended");
        self.batch("CREATE TABLE #t (a int)").await?;
        step("temp_table");
        self.batch("DROP TABLE #t").await?;
        step("temp_table.ended");
        self.batch("DECLARE c CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2)) v(n); OPEN c").await?;
        step("cursor");
        self.batch("CLOSE c; DEALLOCATE c").await?;
        step("cursor.ended");
        let mut load = self.client.bulk_insert(&table).await?;
        let mut row = TokenRow::new();
        row.push(1i32.into_sql());
        load.send(row).await?;
        load.finalize().await?;
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
    let answer = s.query(about, &[]).await.map(|rows| json!(rows));
    s.tell("session", answer).await;
    s.types().await;
    s.parameters().await;
    check!("parameter.out", s.out_parameter());
    check!("procedure", s.procedure());
    check!("transaction.commit", s.in_transaction(true));
    check!("transaction.rollback", s.in_transaction(false));
    check!("transaction.autocommit_off", s.closed_in_transaction());
    check!("transaction.text", s.transaction_text());
    check!("temp_table", s.temp_table());
    check!("temp_table.elsewhere", s.temp_table_elsewhere());
    check!("prepared", s.repeated());
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
        .map(|sets| json!(sets));
    s.tell("sets", sets).await;
    check!("count", s.count());
    check!("identity", s.identity());
    let (wrong, database) = (format!("wrong {}", s.target.password), s.target.database.clone());
    check!("login.wrong_password", s.refused(&wrong, &database));
    let password = s.target.password.clone();
    check!("login.unknown_database", s.refused(&password, "no_such_database"));
    let answer = s.query(about, &[]).await.map(|rows| json!(rows));
    s.tell("last", answer).await;
}
