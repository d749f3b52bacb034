//! One piece of work of each kind, and whether its answers are right.

use rand::RngExt;
use rand::rngs::SmallRng;
use tds::request::{BeginTransaction, TransactionRequest};
use tds::rpc::{Parameter, ProcId, Procedure};
use tds::type_info::{Collation, TypeInfo};
use tds::value::Value;

use crate::client::{Answer, Client, ClientError};
use crate::plan::{Kind, Plan};

/// How a piece of work failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The connection is of no more use.
    Client(ClientError),
    /// The server or the proxy answered with an error.
    Error { number: i32, class: u8 },
    /// The answer is not the one that this request has: what must never happen.
    Wrong(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// What a program remembers between two pieces of work on one connection.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The prepared statement.
    handle: Option<i32>,
    /// What the program's row in the ledger says; none before it was read.
    pub(crate) ledger: Option<i32>,
    /// A commit's answer never came: the row may say one more, now or later.
    unsure: bool,
}

/// Who works: what its answers have to say.
pub(crate) struct Worker<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) database: &'a str,
    /// The program's row in the ledger: no other program has it.
    pub(crate) id: i64,
    /// Its LOCK_TIMEOUT: session state that has to follow it wherever it is served.
    pub(crate) lock_timeout: i32,
}

fn good(answer: Answer) -> Result<Answer, Trouble> {
    match answer.errors.first() {
        Some(error) => Err(Trouble::Error { number: error.number, class: error.class }),
        None if answer.failed => Err(Trouble::Wrong("failed without an error".to_owned())),
        None => Ok(answer),
    }
}

fn expect(answer: &Answer, row: &[Value], of: &str) -> Result<(), Trouble> {
    if answer.is_row(row) {
        Ok(())
    } else {
        Err(Trouble::Wrong(format!("{of}: {:?} instead of {row:?}", answer.rows.first())))
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn nvarchar() -> TypeInfo {
    TypeInfo::nvarchar(200, Collation::LATIN1)
}

fn int(value: i32) -> Parameter {
    Parameter::new("", TypeInfo::IntN(4), Value::Int(value))
}

fn named(name: &str, value: i32) -> Parameter {
    Parameter::new(name, TypeInfo::IntN(4), Value::Int(value))
}

impl Worker<'_> {
    /// What a program says right after its login: session state, and its row in the ledger.
    pub(crate) async fn begin(&self, client: &mut Client, memory: &mut Memory) -> Result<(), Trouble> {
        memory.handle = None;
        good(client.batch(&format!("SET LOCK_TIMEOUT {}", self.lock_timeout)).await?)?;
        if self.plan.mix.0[Kind::Transaction as usize] == 0 {
            return Ok(());
        }
        let id = self.id;
        let read = format!("SELECT n FROM dbo.loadgen_ledger WHERE id = {id}");
        let answer = good(client.batch(&read).await?)?;
        let found = answer.rows.first().and_then(|row| row.first()).and_then(Value::as_i64);
        match (found, memory.ledger) {
            (None, None | Some(0)) => {
                good(
                    client.batch(&format!("INSERT INTO dbo.loadgen_ledger (id, n) VALUES ({id}, 0)")).await?,
                )?;
                memory.ledger = Some(0);
            }
            (Some(n), before) if n == i64::from(before.unwrap_or(0)) => memory.ledger = i32::try_from(n).ok(),
            (Some(n), before) if memory.unsure && n == i64::from(before.unwrap_or(0)) + 1 => {
                memory.ledger = i32::try_from(n).ok();
                memory.unsure = false;
            }
            (found, before) => {
                return Err(Trouble::Wrong(format!(
                    "the ledger says {found:?} where {before:?} was committed"
                )));
            }
        }
        Ok(())
    }

    pub(crate) async fn work(
        &self,
        kind: Kind,
        client: &mut Client,
        memory: &mut Memory,
        random: &mut SmallRng,
    ) -> Result<(), Trouble> {
        match kind {
            Kind::Simple => self.simple(client, random).await,
            Kind::Prepared => self.prepared(client, memory, random).await,
            Kind::Transaction => self.transaction(client, memory, random).await,
            Kind::Procedure => self.procedure(client, random).await,
            Kind::Ddl => self.ddl(client, random).await,
        }
    }

    async fn simple(&self, client: &mut Client, random: &mut SmallRng) -> Result<(), Trouble> {
        let plan = self.plan;
        if plan.rows_every > 0 && random.random_range(0..plan.rows_every) == 0 {
            let (rows, width) = (plan.rows, plan.row_width);
            let sql = format!("SELECT value, REPLICATE('x', {width}) AS t FROM GENERATE_SERIES(1, {rows})");
            let answer = good(client.batch(&sql).await?)?;
            let wide = |row: &Vec<Value>| row[1].as_str().is_some_and(|text| text.len() == width as usize);
            let in_order = (1..).zip(&answer.rows).all(|(n, row)| row[0].as_i64() == Some(n) && wide(row));
            return if answer.rows.len() == rows as usize && in_order {
                Ok(())
            } else {
                Err(Trouble::Wrong(format!("{} rows of {rows}", answer.rows.len())))
            };
        }
        let n: i32 = random.random();
        let sql = format!("SELECT {n} AS n, DB_NAME() AS d, @@LOCK_TIMEOUT AS l");
        let answer = good(client.batch(&sql).await?)?;
        expect(&answer, &[Value::Int(n), text(self.database), Value::Int(self.lock_timeout)], "simple")
    }

    async fn prepared(
        &self,
        client: &mut Client,
        memory: &mut Memory,
        random: &mut SmallRng,
    ) -> Result<(), Trouble> {
        let n: i32 = random.random();
        let expected = [Value::Int(n), text(self.database)];
        match memory.handle {
            None => {
                let parameters = vec![
                    Parameter::new("", TypeInfo::IntN(4), Value::Null).by_ref(),
                    Parameter::new("", nvarchar(), text("@n int")),
                    Parameter::new("", nvarchar(), text("SELECT @n AS n, DB_NAME() AS d")),
                    named("@n", n),
                ];
                let answer = good(client.call(Procedure::Id(ProcId::PREP_EXEC), parameters).await?)?;
                expect(&answer, &expected, "prepare")?;
                let Some(Value::Int(handle)) = answer.outputs.first() else {
                    return Err(Trouble::Wrong(format!("no handle but {:?}", answer.outputs)));
                };
                memory.handle = Some(*handle);
            }
            Some(handle) => {
                let parameters = vec![int(handle), named("@n", n)];
                let answer = good(client.call(Procedure::Id(ProcId::EXECUTE), parameters).await?)?;
                expect(&answer, &expected, "execute")?;
            }
        }
        if (self.plan.always_prepare || random.random_range(0..50) == 0)
            && let Some(handle) = memory.handle.take()
        {
            good(client.call(Procedure::Id(ProcId::UNPREPARE), vec![int(handle)]).await?)?;
        }
        Ok(())
    }

    async fn transaction(
        &self,
        client: &mut Client,
        memory: &mut Memory,
        random: &mut SmallRng,
    ) -> Result<(), Trouble> {
        let id = self.id;
        let by_text = random.random_bool(0.5);
        if by_text {
            good(client.batch("BEGIN TRANSACTION").await?)?;
        } else {
            good(client.transaction(&TransactionRequest::Begin(BeginTransaction::default())).await?)?;
        }
        let done = self.inside(client, id, memory).await;
        if let Err(trouble) = done {
            if matches!(trouble, Trouble::Error { class, .. } if class < 20) && client.in_transaction() {
                good(client.batch("ROLLBACK TRANSACTION").await?)?;
            }
            return Err(trouble);
        }
        let commit = random.random_range(0..10) > 0;
        memory.unsure |= commit;
        match (by_text, commit) {
            (true, true) => good(client.batch("COMMIT TRANSACTION").await?)?,
            (true, false) => good(client.batch("ROLLBACK TRANSACTION").await?)?,
            (false, true) => {
                let commit = TransactionRequest::Commit { name: String::new(), begin: None };
                good(client.transaction(&commit).await?)?
            }
            (false, false) => {
                let rollback = TransactionRequest::Rollback { name: String::new(), begin: None };
                good(client.transaction(&rollback).await?)?
            }
        };
        if commit {
            memory.ledger = memory.ledger.map(|n| n + 1);
            memory.unsure = false;
        }
        if client.in_transaction() {
            return Err(Trouble::Wrong("a transaction that was ended goes on".to_owned()));
        }
        Ok(())
    }

    async fn inside(&self, client: &mut Client, id: i64, memory: &mut Memory) -> Result<(), Trouble> {
        if !self.plan.hold.is_zero() {
            // Open, but without locks: programs that stay in a transaction while their user thinks.
            good(client.batch("SELECT @@TRANCOUNT AS t").await?)?;
            tokio::time::sleep(self.plan.hold).await;
        }
        good(client.batch(&format!("UPDATE dbo.loadgen_ledger SET n = n + 1 WHERE id = {id}")).await?)?;
        let read = format!("SELECT n, @@TRANCOUNT AS t FROM dbo.loadgen_ledger WHERE id = {id}");
        let answer = good(client.batch(&read).await?)?;
        let before = memory.ledger.unwrap_or(0);
        if memory.unsure && answer.is_row(&[Value::Int(before + 2), Value::Int(1)]) {
            // The commit whose answer was lost was done after all.
            (memory.ledger, memory.unsure) = (Some(before + 1), false);
            return Ok(());
        }
        expect(&answer, &[Value::Int(before + 1), Value::Int(1)], "transaction")
    }

    async fn procedure(&self, client: &mut Client, random: &mut SmallRng) -> Result<(), Trouble> {
        let (a, b) = (random.random_range(0..1_000_000), random.random_range(0..1_000_000));
        let sum = Parameter::new("@sum", TypeInfo::IntN(4), Value::Null).by_ref();
        let parameters = vec![named("@a", a), named("@b", b), sum];
        let answer = good(client.call(Procedure::Name("dbo.loadgen_add".to_owned()), parameters).await?)?;
        expect(&answer, &[Value::Int(a), text(self.database)], "procedure")?;
        if answer.status == Some(7) && answer.outputs == [Value::Int(a + b)] {
            Ok(())
        } else {
            Err(Trouble::Wrong(format!("{:?} and {:?} from a procedure", answer.status, answer.outputs)))
        }
    }

    async fn ddl(&self, client: &mut Client, random: &mut SmallRng) -> Result<(), Trouble> {
        let rows: i32 = random.random_range(1..20);
        let values: Vec<String> = (1..=rows).map(|n| format!("({n})")).collect();
        let fill = format!("CREATE TABLE #loadgen (n int); INSERT INTO #loadgen VALUES {}", values.join(","));
        good(client.batch(&fill).await?)?;
        let answer = good(client.batch("SELECT COUNT(*) AS c, SUM(n) AS s FROM #loadgen").await?)?;
        expect(&answer, &[Value::Int(rows), Value::Int(rows * (rows + 1) / 2)], "temporary table")?;
        good(client.batch("DROP TABLE #loadgen").await?)?;
        Ok(())
    }
}
