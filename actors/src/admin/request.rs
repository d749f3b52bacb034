//! What may be asked, and who answers it.

use super::table::Table;
use super::{Source, buckets, config, servers, sessions, version};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest that collecting an answer may take: a bucket that does not answer must not keep the operator.
const PATIENCE: Duration = Duration::from_secs(5);

/// One question: `{"show":"buckets"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Show(Subject),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Subject {
    Buckets,
    Sessions,
    Servers,
    Config,
    Version,
}

/// One answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Table(Table),
    Refused { error: String },
}

/// The answer to one line, a line itself.
pub(super) async fn answer(line: &[u8], source: &dyn Source) -> Vec<u8> {
    let answer = match serde_json::from_slice(line) {
        Ok(Request::Show(subject)) => match tokio::time::timeout(PATIENCE, show(subject, source)).await {
            Ok(table) => Answer::Table(table),
            Err(_) => Answer::Refused { error: format!("no answer within {PATIENCE:?}") },
        },
        Err(why) => Answer::Refused { error: format!("not understood: {why}") },
    };
    to_line(&answer)
}

/// A refusal, as a line.
pub(super) fn refusal(error: impl Into<String>) -> Vec<u8> {
    to_line(&Answer::Refused { error: error.into() })
}

async fn show(subject: Subject, source: &dyn Source) -> Table {
    match subject {
        Subject::Buckets => Table::new(buckets::COLUMNS, &source.buckets()),
        Subject::Sessions => Table::new(sessions::COLUMNS, &source.sessions()),
        Subject::Servers => Table::new(servers::COLUMNS, &source.servers().await),
        Subject::Config => Table::new(config::COLUMNS, &source.config()),
        Subject::Version => Table::new(version::COLUMNS, &[source.version()]),
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
    use super::super::{BucketRow, ConfigRow, ServerRow, SessionRow, VersionRow};
    use super::*;
    use serde_json::{Value, json};
    use std::pin::Pin;

    async fn ask(line: &str) -> Value {
        let answer = answer(line.as_bytes(), &OneOfEach).await;
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
        serde_json::from_slice(&answer(line, &OneOfEach).await).unwrap()
    }

    /// A source whose buckets never answer.
    struct Stuck;

    impl Source for Stuck {
        fn buckets(&self) -> Vec<BucketRow> {
            Vec::new()
        }
        fn sessions(&self) -> Vec<SessionRow> {
            Vec::new()
        }
        fn servers(&self) -> Pin<Box<dyn Future<Output = Vec<ServerRow>> + Send + '_>> {
            Box::pin(std::future::pending())
        }
        fn config(&self) -> Vec<ConfigRow> {
            Vec::new()
        }
        fn version(&self) -> VersionRow {
            VersionRow::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_does_not_answer_is_waited_for_a_while_only() {
        let answer: Value = serde_json::from_slice(&answer(br#"{"show":"servers"}"#, &Stuck).await).unwrap();
        assert_eq!(answer["error"], "no answer within 5s");
    }
}
