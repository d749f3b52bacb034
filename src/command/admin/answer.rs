//! The proxy's answer, and how it is shown: as a table for people, as JSON for programs.

use crate::failure::Failure;
use crate::table;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Refused { error: String },
    Rows { columns: Vec<Column>, rows: Vec<Vec<serde_json::Value>> },
}

#[derive(Debug, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) kind: String,
}

impl Answer {
    /// Reads a line of the proxy's.
    pub(crate) fn read(line: &str) -> Result<Self, Failure> {
        serde_json::from_str(line).map_err(|why| Failure::AdminAnswer(format!("nothing readable: {why}")))
    }

    pub(crate) fn as_table(&self) -> Result<String, Failure> {
        let (columns, rows) = self.rows()?;
        Ok(as_table(columns, rows))
    }

    pub(crate) fn as_json(&self) -> Result<String, Failure> {
        let (columns, rows) = self.rows()?;
        Ok(as_json(columns, rows))
    }

    /// Columns and rows, unless the proxy refused.
    pub(crate) fn rows(&self) -> Result<(&[Column], &[Vec<serde_json::Value>]), Failure> {
        match self {
            Self::Refused { error } => Err(Failure::AdminAnswer(error.clone())),
            Self::Rows { columns, rows } => Ok((columns, rows)),
        }
    }
}

fn as_json(columns: &[Column], rows: &[Vec<serde_json::Value>]) -> String {
    let objects = rows.iter().map(|row| {
        // Numbers of time say their unit here; the table shows it.
        let unit = |column: &Column| if column.kind == "duration_ms" { "_ms" } else { "" };
        let names = columns.iter().map(|column| format!("{}{}", column.name, unit(column)));
        serde_json::Value::Object(names.zip(row.iter().cloned()).collect())
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
pub(crate) fn cell(kind: &str, value: &serde_json::Value) -> String {
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
        let answer = Answer::Rows { columns: columns.into(), rows };
        assert_eq!(answer.as_table().unwrap(), "BUCKET  OPEN   AGE\norders    12  1.5s\nx          3     -");
        let objects: serde_json::Value = serde_json::from_str(&answer.as_json().unwrap()).unwrap();
        assert_eq!((&objects[0]["open"], &objects[0]["age_ms"]), (&12.into(), &1500.into()));
    }
}
