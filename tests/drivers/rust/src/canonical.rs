//! Canonical answers of the Rust clients; the rules are those of `clients/canonical.py`.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// 16 MiB.
pub const MEGABYTES_16: usize = 16 * 1024 * 1024;

/// Where and how to connect: the environment that the runner sets for every client program.
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
    pub encryption: String,
    pub authority: String,
    pub table: String,
}

impl Target {
    pub fn of_environment() -> Self {
        let read = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
        Self {
            host: read("SMOKE_HOST", "127.0.0.1"),
            port: read("SMOKE_PORT", "1433").parse().expect("SMOKE_PORT is a port"),
            user: read("SMOKE_USER", "sa"),
            password: read("SMOKE_PASSWORD", ""),
            database: read("SMOKE_DATABASE", "master"),
            encryption: read("SMOKE_ENCRYPTION", "off"),
            authority: read("SMOKE_CA", ""),
            table: read("SMOKE_TABLE", "smoke"),
        }
    }
}

/// The shared list of types and the large queries.
pub struct Smoke {
    /// Name, SQL type, literal.
    pub types: Vec<(String, String, String)>,
    pub many_rows: String,
    pub big_value: String,
}

impl Smoke {
    pub fn load() -> Self {
        let text = include_str!("../../smoke.json");
        let all: Value = serde_json::from_str(text).expect("smoke.json is JSON");
        let text_of = |v: &Value| v.as_str().expect("smoke.json holds texts").to_owned();
        let types = all["types"].as_array().expect("types is a list").iter();
        Self {
            types: types.map(|t| (text_of(&t[0]), text_of(&t[1]), text_of(&t[2]))).collect(),
            many_rows: text_of(&all["many_rows"]),
            big_value: text_of(&all["big_value"]),
        }
    }
}

/// Prints one check's answer.
pub fn report(check: &str, answer: Value) {
    println!("{}", json!({ "answer": answer, "check": check }));
}

/// What was just done has this name: the runner looks at the session and says when to go on.
pub fn step(name: &str) {
    println!("{}", json!({ "step": name }));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the runner says when to go on");
}

/// Whether the runner wants those steps, and not the smoke.
pub fn is_about_holds() -> bool {
    std::env::var("SMOKE_PART").is_ok_and(|part| part == "holds")
}

pub fn digest(data: &[u8]) -> Value {
    json!({ "size": data.len(), "sha256": hex(&Sha256::digest(data)) })
}

pub fn hex(data: &[u8]) -> String {
    data.iter().map(|b| format!("{b:02x}")).collect()
}

/// Many rows: how many, and the hash of `a|b|NULL\n` for each.
#[derive(Default)]
pub struct RowsDigest {
    count: usize,
    hash: Sha256,
}

impl RowsDigest {
    pub fn add(&mut self, row: &[Value]) {
        self.count += 1;
        let cells: Vec<&str> = row.iter().map(|v| v.as_str().unwrap_or("NULL")).collect();
        self.hash.update(format!("{}\n", cells.join("|")));
    }

    pub fn answer(self) -> Value {
        json!({ "rows": self.count, "sha256": hex(&self.hash.finalize()) })
    }
}

/// `units` of 10^-`scale` seconds after midnight, as 13:14:15.1234567 without trailing zeros.
pub fn clock(units: u64, scale: u32) -> String {
    let per_second = 10u64.pow(scale);
    let (seconds, fraction) = (units / per_second, units % per_second);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return whole;
    }
    let digits = format!("{fraction:0width$}", width = scale as usize);
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// 1/300 seconds after midnight, with milliseconds.
pub fn clock_of_ticks(ticks: u32) -> String {
    clock((u64::from(ticks) * 1000 + 150) / 300, 3)
}

/// Days after 0001-01-01 as 2024-02-29.
pub fn date(days: i64) -> String {
    // Counted from 0000-03-01 in eras of 400 years.
    let shifted = days + 306;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days from 0001-01-01 to 1900-01-01.
pub const DAYS_TO_1900: i64 = 693_595;

/// A datetimeoffset from its UTC days and units, and the offset in minutes.
pub fn moment_with_offset(days: i64, units: u64, scale: u32, offset: i16) -> String {
    let per_day = 86_400 * 10i64.pow(scale);
    let local = days * per_day + units as i64 + i64::from(offset) * 60 * 10i64.pow(scale);
    let sign = if offset < 0 { '-' } else { '+' };
    let (hours, minutes) = (offset.abs() / 60, offset.abs() % 60);
    let time = clock(local.rem_euclid(per_day) as u64, scale);
    format!("{}T{time}{sign}{hours:02}:{minutes:02}", date(local.div_euclid(per_day)))
}
