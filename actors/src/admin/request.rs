//! What may be asked and ordered, by whom, and who answers it.

use super::Source;
use super::command::{Command, NotACommand, Subject};
use super::permission::Role;
use super::table::Table;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tdsbouncer_config::Admin;

/// The longest that collecting an answer may take: a bucket that does not answer must not keep the operator.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest that an order may take: a reload reads files.
const ORDER_PATIENCE: Duration = Duration::from_secs(30);

/// Where a line came in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door<'a> {
    /// The Unix socket: who may open it may do everything.
    Socket,
    /// The TCP port: the line's token says what may be done.
    Port(&'a Admin),
}

/// One line: `{"show":"buckets"}` or `{"do":"PAUSE orders"}`, over TCP with a token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    show: Option<Subject>,
    r#do: Option<String>,
    token: Option<String>,
}

/// Why there is no answer but this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("not understood: {0}")]
    NotUnderstood(String),
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    #[error(transparent)]
    NotACommand(#[from] NotACommand),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// Whether it is the operator who may not.
    pub(crate) fn is_permission(&self) -> bool {
        matches!(self, Self::NotPermitted(_))
    }
}

/// One answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Table(Table),
    Refused { error: String },
}

/// The answer to one line, a line itself.
pub(super) async fn answer(line: &[u8], door: Door<'_>, source: &dyn Source) -> Vec<u8> {
    let answer = match read(line, door) {
        Ok((command, role)) => carry_out(command, role, source).await,
        Err(refusal) => Err(refusal),
    };
    to_line(&match answer {
        Ok(table) => Answer::Table(table),
        Err(refusal) => Answer::Refused { error: refusal.to_string() },
    })
}

/// A refusal, as a line.
pub(super) fn refusal(error: impl Into<String>) -> Vec<u8> {
    to_line(&Answer::Refused { error: error.into() })
}

fn read(line: &[u8], door: Door<'_>) -> Result<(Command, Role), Refusal> {
    let request: Request =
        serde_json::from_slice(line).map_err(|why| Refusal::NotUnderstood(why.to_string()))?;
    let role = match door {
        Door::Socket => Role::Admin,
        Door::Port(admin) => Role::of_token(admin, request.token.as_deref().unwrap_or_default())
            .ok_or(Refusal::NotPermitted("the token is missing or not known"))?,
    };
    let command = match (request.show, request.r#do) {
        (Some(subject), None) => Command::Show(subject),
        (None, Some(text)) => Command::parse(&text)?,
        _ => return Err(Refusal::NotUnderstood("either \"show\" or \"do\" is needed".to_owned())),
    };
    Ok((command, role))
}

/// Does what was asked, if the operator's role allows it.
pub(crate) async fn carry_out(command: Command, role: Role, source: &dyn Source) -> Result<Table, Refusal> {
    if !role.may(&command) {
        return Err(Refusal::NotPermitted("this operator may only look"));
    }
    match command {
        Command::Show(subject) => {
            let showing = tokio::time::timeout(PATIENCE, source.show(subject));
            showing.await.map_err(|_| Refusal::TimedOut(PATIENCE))
        }
        Command::Do(order) => {
            tracing::info!(?order, "an operator's order");
            let performing = tokio::time::timeout(ORDER_PATIENCE, source.perform(order));
            let done = performing.await.map_err(|_| Refusal::TimedOut(ORDER_PATIENCE))?;
            done.map(|rows| Table::of(&rows)).map_err(Refusal::Failed)
        }
    }
}

fn to_line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("texts and numbers under text keys are always JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::OneOfEach;
    use super::super::{DoneRow, Later, Order};
    use super::*;
    use serde_json::{Value, json};
    use tdsbouncer_config::Secret;

    async fn ask(line: &str) -> Value {
        let answer = answer(line.as_bytes(), Door::Socket, &OneOfEach).await;
        let (end, json) = answer.split_last().unwrap();
        assert!(*end == b'\n' && !json.contains(&b'\n'), "an answer is one line");
        serde_json::from_slice(json).unwrap()
    }

    /// The cell of the first row under this name, and the column's kind.
    fn cell<'a>(answer: &'a Value, name: &str) -> (&'a str, &'a Value) {
        let columns = answer["columns"].as_array().unwrap();
        let index = columns.iter().position(|column| column["name"] == name).unwrap();
        (columns[index]["kind"].as_str().unwrap(), &answer["rows"][0][index])
    }

    #[tokio::test]
    async fn each_show_command_answers_with_its_own_table() {
        let answer = ask(r#"{"show":"buckets"}"#).await;
        assert_eq!(cell(&answer, "bucket"), ("text", &json!("orders")));
        assert_eq!(cell(&answer, "max_connections"), ("number", &json!(20)));
        assert_eq!(cell(&answer, "last_error"), ("text", &Value::Null));
        let answer = ask(r#"{"show":"sessions"}"#).await;
        assert_eq!(cell(&answer, "session"), ("number", &json!(7)));
        assert_eq!(cell(&answer, "waiting_for"), ("duration_ms", &json!(1500)));
        assert_eq!(cell(&answer, "bytes_in"), ("bytes", &json!(0)));
        let answer = ask(r#"{"show":"servers"}"#).await;
        assert_eq!(cell(&answer, "session"), ("number", &json!(7)));
        let answer = ask(r#"{"show":"coordinator"}"#).await;
        assert_eq!(cell(&answer, "quota"), ("number", &json!(5)));
        assert_eq!(cell(&answer, "state"), ("text", &json!("normal")));
        let answer = ask(r#"{"show":"config"}"#).await;
        assert_eq!(cell(&answer, "key"), ("text", &json!("limits.max_clients")));
        let answer = ask(r#" { "show" : "version" } "#).await;
        assert_eq!(cell(&answer, "version"), ("text", &json!("1.2.3")));
        assert_eq!(cell(&answer, "uptime"), ("duration_ms", &json!(61_000)));
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused_with_the_reason() {
        let answer = ask(r#"{"show":"secrets"}"#).await;
        assert!(answer["error"].as_str().unwrap().contains("expected one of `buckets`"), "{answer}");
        for line in [
            "",
            "show buckets",
            "{}",
            "[]",
            "null",
            "{\"show\":\"buckets\"} x",
            "{\"drop\":\"buckets\"}",
            "\u{0}",
        ] {
            assert!(ask(line).await["error"].is_string(), "{line:?}");
        }
        assert!(answer_of_bytes(&[0xff, 0xfe]).await["error"].is_string());
    }

    async fn answer_of_bytes(line: &[u8]) -> Value {
        serde_json::from_slice(&answer(line, Door::Socket, &OneOfEach).await).unwrap()
    }

    /// A source whose buckets never answer.
    struct Stuck;

    impl Source for Stuck {
        fn show(&self, _: Subject) -> Later<'_, Table> {
            Box::pin(std::future::pending())
        }
        fn perform(&self, _: Order) -> Later<'_, Result<Vec<DoneRow>, String>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_does_not_answer_is_waited_for_a_while_only() {
        let answer: Value =
            serde_json::from_slice(&answer(br#"{"show":"servers"}"#, Door::Socket, &Stuck).await).unwrap();
        assert_eq!(answer["error"], "no answer within 5s");
    }

    #[tokio::test]
    async fn an_order_is_carried_out_or_its_failure_is_told() {
        let answer = ask(r#"{"do":"pause orders"}"#).await;
        assert_eq!(cell(&answer, "what"), ("text", &json!("orders")));
        assert!(cell(&answer, "outcome").1.as_str().unwrap().contains("Pause"));
        assert_eq!(ask(r#"{"do":"pause nobody"}"#).await["error"], "no bucket nobody");
        assert!(ask(r#"{"do":"explode"}"#).await["error"].as_str().unwrap().contains("no such command"));
    }

    #[tokio::test]
    async fn over_tcp_the_token_says_what_may_be_done() {
        let config = tdsbouncer_config::Config::of(vec![], vec![]);
        let admin = Admin {
            token: Some(Secret::new("big".to_owned())),
            view_token: Some(Secret::new("small".to_owned())),
            ..config.admin
        };
        let ask = async |line: &str| -> Value {
            serde_json::from_slice(&answer(line.as_bytes(), Door::Port(&admin), &OneOfEach).await).unwrap()
        };
        for line in [r#"{"show":"version"}"#, r#"{"show":"version","token":"x"}"#] {
            assert_eq!(ask(line).await["error"], "not permitted: the token is missing or not known");
        }
        assert!(ask(r#"{"show":"version","token":"small"}"#).await["rows"].is_array());
        let refused = ask(r#"{"do":"reload","token":"small"}"#).await;
        assert_eq!(refused["error"], "not permitted: this operator may only look");
        assert!(ask(r#"{"do":"reload","token":"big"}"#).await["rows"].is_array());
    }
}
