//! `tdsbouncer admin`: asks the running proxy over its Unix socket, one line of JSON each way, and shows the answer.

use crate::failure::Failure;
use crate::table;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The proxy answers at once; one that does not is stuck, and saying so helps more than waiting.
const PATIENCE: Duration = Duration::from_secs(10);
/// Far above a row for each of a hundred thousand sessions.
const LONGEST_ANSWER: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The proxy's admin socket
    #[arg(
        long,
        global = true,
        env = "TDSBOUNCER_ADMIN_SOCKET",
        default_value = "/run/tdsbouncer/admin.sock",
        value_name = "PATH"
    )]
    socket: PathBuf,
    /// Print the answer as JSON: one object a row
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what the proxy knows
    Show {
        /// About what
        what: Subject,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Subject {
    /// Each bucket: limit, connections, clients, waiting
    Buckets,
    /// Each client
    Sessions,
    /// Each server connection
    Servers,
    /// The configuration in force, without secrets
    Config,
    /// The program's version
    Version,
}

#[derive(Debug, Serialize)]
struct Request {
    show: Subject,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Refused { error: String },
    Rows { columns: Vec<Column>, rows: Vec<Vec<serde_json::Value>> },
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    kind: String,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Command::Show { what } = args.command;
    let line = ask(&args.socket, &Request { show: what })
        .map_err(|source| Failure::AdminSocket { path: args.socket.clone(), source })?;
    let answer = serde_json::from_str(&line)
        .map_err(|why| Failure::AdminAnswer(format!("nothing readable: {why}")))?;
    match answer {
        Answer::Refused { error } => Err(Failure::AdminAnswer(error)),
        Answer::Rows { columns, rows } => {
            println!("{}", if args.json { as_json(&columns, rows) } else { as_table(&columns, &rows) });
            Ok(())
        }
    }
}

fn ask(socket: &Path, request: &Request) -> Result<String, Error> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut answer)?;
    if answer.ends_with('\n') { Ok(answer) } else { Err(Error::from(ErrorKind::UnexpectedEof)) }
}

fn as_json(columns: &[Column], rows: Vec<Vec<serde_json::Value>>) -> String {
    let objects = rows.into_iter().map(|row| {
        // Numbers of time say their unit here; the table shows it.
        let unit = |column: &Column| if column.kind == "duration_ms" { "_ms" } else { "" };
        let names = columns.iter().map(|column| format!("{}{}", column.name, unit(column)));
        serde_json::Value::Object(names.zip(row).collect())
    });
    let array = serde_json::Value::Array(objects.collect());
    serde_json::to_string_pretty(&array).unwrap_or_else(|_| "[]".to_owned())
}

fn as_table(columns: &[Column], rows: &[Vec<serde_json::Value>]) -> String {
    let heads: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
    let numbers: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].kind != "text").collect();
    let cells = |row: &Vec<serde_json::Value>| {
        columns.iter().zip(row).map(|(column, value)| cell(&column.kind, value)).collect()
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table::render(&heads, &rows, &numbers)
}

/// How a value is shown on a terminal.
fn cell(kind: &str, value: &serde_json::Value) -> String {
    match (kind, value) {
        (_, serde_json::Value::Null) => "-".to_owned(),
        (_, serde_json::Value::String(text)) => text.clone(),
        ("duration_ms", number) => number.as_u64().map_or_else(|| number.to_string(), duration),
        ("bytes", number) => number.as_f64().map_or_else(|| number.to_string(), bytes),
        (_, other) => other.to_string(),
    }
}

/// The two largest units: `250ms`, `12.3s`, `4m 5s`, `3h 2m`, `8d 1h`.
fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Three significant digits at least.
fn bytes(mut number: f64) -> String {
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" { format!("{number}B") } else { format!("{number:.1}{unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.1}TiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    fn answering(answer: &'static str) -> (PathBuf, thread::JoinHandle<String>) {
        let path = std::env::temp_dir().join(format!(
            "tdsbouncer-admin-{}-{}.sock",
            std::process::id(),
            answer.len()
        ));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let proxy = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            asked
        });
        (path, proxy)
    }

    #[test]
    fn a_question_is_one_line_and_so_is_the_answer() {
        let (path, proxy) = answering("{\"columns\":[],\"rows\":[]}\n");
        assert_eq!(
            ask(&path, &Request { show: Subject::Buckets }).unwrap(),
            "{\"columns\":[],\"rows\":[]}\n"
        );
        assert_eq!(proxy.join().unwrap(), "{\"show\":\"buckets\"}\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn half_an_answer_is_none() {
        let (path, proxy) = answering("{\"columns\":[],");
        assert_eq!(
            ask(&path, &Request { show: Subject::Version }).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        proxy.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn durations_and_sizes_are_shown_in_units_that_people_read() {
        let table = [(0, "0ms"), (999, "999ms"), (1_500, "1.5s"), (61_000, "1m 1s"), (7_260_000, "2h 1m")];
        for (millis, shown) in table {
            assert_eq!(cell("duration_ms", &millis.into()), shown);
        }
        for (number, shown) in [(0_u64, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (5 << 40, "5.0TiB")] {
            assert_eq!(cell("bytes", &number.into()), shown);
        }
    }

    #[test]
    fn an_answer_is_shown_as_a_table_or_as_objects() {
        let columns = [("bucket", "text"), ("open", "number"), ("age", "duration_ms")]
            .map(|(name, kind)| Column { name: name.to_owned(), kind: kind.to_owned() });
        let rows = vec![vec!["orders".into(), 12.into(), 1500.into()], vec!["x".into(), 3.into(), ().into()]];
        assert_eq!(as_table(&columns, &rows), "BUCKET  OPEN   AGE\norders    12  1.5s\nx          3     -");
        let objects: serde_json::Value = serde_json::from_str(&as_json(&columns, rows)).unwrap();
        assert_eq!((&objects[0]["open"], &objects[0]["age_ms"]), (&12.into(), &1500.into()));
    }
}
