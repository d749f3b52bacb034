//! What a load run is to do: how many programs, where, how often, for how long.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use tds::encryption::ServerTls;

/// What a program may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A batch with one row back, which tells database and session state.
    Simple,
    /// A statement prepared once and executed often.
    Prepared,
    /// Begin, update, read, commit or roll back: four requests.
    Transaction,
    /// A procedure with an output parameter and a return status.
    Procedure,
    /// A temporary table: created, filled, read, dropped in three requests.
    Ddl,
}

impl Kind {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 5] = [Self::Simple, Self::Prepared, Self::Transaction, Self::Procedure, Self::Ddl];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Prepared => "prepared",
            Self::Transaction => "transaction",
            Self::Procedure => "procedure",
            Self::Ddl => "ddl",
        }
    }
}

/// How often each kind of work is done, in parts of their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mix(pub [u32; 5]);

impl Mix {
    /// What small business programs do: 60 simple, 15 prepared, 15 transactions, 5 procedures, 5 temporary tables.
    pub const MIXED: Self = Self([60, 15, 15, 5, 5]);

    /// One kind only.
    pub fn only(kind: Kind) -> Self {
        let mut parts = [0; 5];
        parts[kind as usize] = 1;
        Self(parts)
    }

    /// The kind that a number between 0 (included) and 1 (excluded) falls on.
    pub fn pick(&self, chance: f64) -> Kind {
        let total: u32 = self.0.iter().sum();
        let mut left = chance * f64::from(total);
        for (kind, parts) in Kind::ALL.into_iter().zip(self.0) {
            left -= f64::from(parts);
            if left < 0.0 {
                return kind;
            }
        }
        Kind::Simple
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `mixed`, one kind's name, or `simple=60,transaction=40`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "mixed" {
            return Ok(Self::MIXED);
        }
        let mut parts = [0; 5];
        for part in text.split(',') {
            let (name, number) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name.trim()).ok_or_else(|| {
                format!("{name:?} is none of simple, prepared, transaction, procedure, ddl, mixed")
            })?;
            parts[kind as usize] =
                number.trim().parse().map_err(|_| format!("{number:?} is not a number"))?;
        }
        if parts.iter().all(|part| *part == 0) { Err("does nothing".to_owned()) } else { Ok(Self(parts)) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = Kind::ALL.into_iter().zip(self.0).filter(|(_, parts)| *parts > 0);
        let parts: Vec<String> = parts.map(|(kind, parts)| format!("{}={parts}", kind.name())).collect();
        f.write_str(&parts.join(","))
    }
}

/// Databases of one SQL Server and who logs in there.
#[derive(Clone, Debug, Serialize)]
pub struct Destination {
    /// The bucket's name, for the report.
    pub name: String,
    /// Tenants take turns in them: program n uses database n modulo their number.
    pub databases: Vec<String>,
    /// The login.
    pub user: String,
    /// Its password.
    #[serde(skip)]
    pub password: String,
    /// Its share of the programs.
    pub weight: u32,
}

/// When programs start within the ramp-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// At equal distances.
    Even,
    /// At random moments.
    Random,
}

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Where programs connect; each begins with one and goes on to the next when it fails.
    pub addresses: Vec<SocketAddr>,
    /// Addresses to connect from, in turns: each gives some 28,000 connections to one port.
    pub sources: Vec<IpAddr>,
    /// Encryption.
    #[serde(serialize_with = "show_tls")]
    pub tls: ServerTls,
    /// Where the programs' data is.
    pub destinations: Vec<Destination>,
    /// Programs.
    pub programs: usize,
    /// Over how long they start.
    pub ramp_up: Duration,
    /// How they start.
    pub arrival: Arrival,
    /// How long the run lasts from the first start on.
    pub duration: Duration,
    /// The mean pause between two pieces of work; exponentially distributed. 0: none.
    pub think: Duration,
    /// How long a connection lives before the program connects anew, as a mean; 0: as long as the run.
    pub connection_life: Duration,
    /// How long a program stays away between two connections.
    pub away: Duration,
    /// What is done.
    pub mix: Mix,
    /// One in so many simple pieces of work asks for many rows; 0: none.
    pub rows_every: u32,
    /// How many rows then.
    pub rows: u32,
    /// And of how many characters.
    pub row_width: u32,
    /// How long a transaction stays open between its requests.
    pub hold: Duration,
    /// Prepare, execute and unprepare each time.
    pub always_prepare: bool,
    /// The longest wait for an answer.
    pub patience: Duration,
    /// Make the tables and procedures that the work needs.
    pub setup: bool,
}

fn show_tls<S: serde::Serializer>(tls: &ServerTls, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(match tls {
        ServerTls::Never => "off",
        ServerTls::Off => "login",
        ServerTls::On => "on",
        ServerTls::Strict => "strict",
    })
}

impl Plan {
    /// Ten programs that work for ten seconds, ten pieces of work a minute each.
    pub fn new(addresses: Vec<SocketAddr>, destinations: Vec<Destination>) -> Self {
        Self {
            addresses,
            sources: Vec::new(),
            tls: ServerTls::Never,
            destinations,
            programs: 10,
            ramp_up: Duration::ZERO,
            arrival: Arrival::Even,
            duration: Duration::from_secs(10),
            think: Duration::from_secs(6),
            connection_life: Duration::ZERO,
            away: Duration::ZERO,
            mix: Mix::MIXED,
            rows_every: 0,
            rows: 1000,
            row_width: 100,
            hold: Duration::ZERO,
            always_prepare: false,
            patience: Duration::from_secs(60),
            setup: true,
        }
    }

    /// The destination and the database of a program.
    pub fn place(&self, program: usize) -> (&Destination, &str) {
        let total: usize = self.destinations.iter().map(|to| to.weight as usize).sum();
        // Spread evenly: with weights 8 and 2, of ten programs in a row eight go to the first.
        let mut slot = program % total.max(1);
        let round = program / total.max(1);
        for to in &self.destinations {
            let weight = to.weight as usize;
            if slot < weight {
                let number = round * weight + slot;
                return (to, &to.databases[number % to.databases.len()]);
            }
            slot -= weight;
        }
        let first = &self.destinations[0];
        (first, &first.databases[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_as_it_is_shown() {
        for text in ["simple=60,prepared=15,transaction=15,procedure=5,ddl=5", "transaction=1"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        assert_eq!("mixed".parse::<Mix>().unwrap(), Mix::MIXED);
        assert_eq!("ddl".parse::<Mix>().unwrap(), Mix::only(Kind::Ddl));
        assert!("nothing".parse::<Mix>().unwrap_err().contains("is none of"));
        assert!("simple=0".parse::<Mix>().is_err());
    }

    #[test]
    fn kinds_come_in_their_proportions() {
        let mut counts = [0; 5];
        for n in 0..1000 {
            counts[Mix::MIXED.pick(f64::from(n) / 1000.0) as usize] += 1;
        }
        assert_eq!(counts, [600, 150, 150, 50, 50]);
    }

    #[test]
    fn programs_are_spread_by_weight_and_over_all_databases() {
        let to = |name: &str, weight, databases: &[&str]| Destination {
            name: name.to_owned(),
            databases: databases.iter().map(|name| (*name).to_owned()).collect(),
            user: "sa".to_owned(),
            password: String::new(),
            weight,
        };
        let address = "127.0.0.1:1433".parse().unwrap();
        let plan = Plan::new(vec![address], vec![to("a", 8, &["a1", "a2"]), to("b", 2, &["b1", "b2"])]);
        let places: Vec<_> = (0..100).map(|n| plan.place(n)).collect();
        assert_eq!(places.iter().filter(|(to, _)| to.name == "a").count(), 80);
        for database in ["a1", "a2"] {
            assert_eq!(places.iter().filter(|(_, name)| *name == database).count(), 40);
        }
        for database in ["b1", "b2"] {
            assert_eq!(places.iter().filter(|(_, name)| *name == database).count(), 10);
        }
    }
}
