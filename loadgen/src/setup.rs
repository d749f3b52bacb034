//! What the work needs in each database: a ledger table and a procedure.

use crate::client::{Client, ClientError, Target};
use crate::plan::Plan;

/// One row for each program: how often it has committed.
const TABLE: &str = "IF OBJECT_ID('dbo.loadgen_ledger') IS NULL \
     CREATE TABLE dbo.loadgen_ledger (id bigint NOT NULL PRIMARY KEY, n int NOT NULL)";
const PROCEDURE: &str = "CREATE OR ALTER PROCEDURE dbo.loadgen_add @a int, @b int, @sum int OUTPUT AS \
     BEGIN SET NOCOUNT ON; SET @sum = @a + @b; SELECT @a AS a, DB_NAME() AS d; RETURN 7; END";

/// Makes them where they are missing, through the first address.
pub(crate) async fn prepare(plan: &Plan) -> Result<(), ClientError> {
    for to in &plan.destinations {
        for database in &to.databases {
            let target = Target {
                tls: plan.tls,
                patience: plan.patience,
                ..Target::new(plan.addresses[0], &to.user, &to.password, database)
            };
            let mut client = Client::connect(&target).await?;
            for text in [TABLE, PROCEDURE] {
                let answer = client.batch(text).await?;
                if let Some(error) = answer.errors.first() {
                    let what = format!("set-up of {database}: {} {}", error.number, error.text);
                    return Err(ClientError::Protocol(what));
                }
            }
        }
    }
    Ok(())
}
