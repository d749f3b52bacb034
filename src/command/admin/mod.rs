//! `tdsbouncer admin`: asks the running proxy and gives it orders.

pub(crate) mod answer;
pub(crate) mod ask;

use crate::failure::Failure;
use answer::Answer;
use ask::Proxy;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;
use tdsbouncer_actors::SUBJECTS;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    proxy: Proxy,
    /// Print the answer as JSON: one object a row
    #[arg(long, global = true)]
    json: bool,
    /// Ask again and again, every so many seconds
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    watch: Option<u64>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what the proxy knows
    Show {
        /// About what
        #[arg(value_parser = subject())]
        what: String,
    },
    /// Lend no server connection and close those that come home; clients wait. For a restart of the server
    Pause(Scope),
    /// End the pause
    Resume(Scope),
    /// Refuse new clients; those that are there go on
    Disable(Scope),
    /// Undo disable and drain
    Enable(Scope),
    /// Replace every server connection as soon as nobody uses it
    Reconnect(Scope),
    /// Refuse new clients and end the others when nothing of theirs is under way
    Drain(Scope),
    /// End a session, a server connection, or every session of a tenant
    Kill {
        #[command(subcommand)]
        what: Victim,
    },
    /// Set something until the next reload
    Set {
        /// BUCKET.max_connections
        key: String,
        /// Its new value
        value: String,
    },
    /// Read the configuration file again; say what changed and what needs a restart
    Reload,
    /// Drain the proxy and end it
    Shutdown {
        /// End when the last client has left, however long that takes
        #[arg(long)]
        wait: bool,
    },
    /// Change which events are logged
    LogLevel {
        /// Levels, also by module: info,tdsbouncer_actors=debug
        filter: String,
    },
}

#[derive(Debug, clap::Args)]
struct Scope {
    /// Which bucket; without: all of them
    bucket: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Victim {
    /// A client's session, by its number
    Session {
        /// Its number, as 12 or c12
        id: String,
    },
    /// A server connection, by its number; the session that uses it ends too
    Server {
        /// Its number, as 3 or s3
        id: String,
    },
    /// Every session of a tenant
    Tenant {
        /// Its name: the database named at login
        name: String,
    },
}

/// What can be shown; the completions and the manual page list it too.
fn subject() -> impl TypedValueParser<Value = String> {
    let values = SUBJECTS.iter().map(|(name, meaning)| PossibleValue::new(*name).help(*meaning));
    PossibleValuesParser::new(values)
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let command = args.command.text();
    loop {
        let answer = Answer::read(&args.proxy.ask(&command)?)?;
        let text = if args.json { answer.as_json()? } else { answer.as_table()? };
        let Some(seconds) = args.watch else {
            println!("{text}");
            return Ok(());
        };
        // On a terminal each answer takes the place of the one before.
        let clear = if stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
        writeln!(stdout(), "{clear}{text}\n")?;
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

impl Command {
    /// The command in the language of the proxy.
    fn text(&self) -> String {
        match self {
            Self::Show { what } => format!("SHOW {what}"),
            Self::Pause(scope) => scope.of("PAUSE"),
            Self::Resume(scope) => scope.of("RESUME"),
            Self::Disable(scope) => scope.of("DISABLE"),
            Self::Enable(scope) => scope.of("ENABLE"),
            Self::Reconnect(scope) => scope.of("RECONNECT"),
            Self::Drain(scope) => scope.of("DRAIN"),
            Self::Kill { what: Victim::Session { id } } => format!("KILL SESSION {}", quoted(id)),
            Self::Kill { what: Victim::Server { id } } => format!("KILL SERVER {}", quoted(id)),
            Self::Kill { what: Victim::Tenant { name } } => format!("KILL TENANT {}", quoted(name)),
            Self::Set { key, value } => format!("SET {} {}", quoted(key), quoted(value)),
            Self::Reload => "RELOAD".to_owned(),
            Self::Shutdown { wait } => format!("SHUTDOWN{}", if *wait { " WAIT" } else { "" }),
            Self::LogLevel { filter } => format!("LOG-LEVEL {}", quoted(filter)),
        }
    }
}

impl Scope {
    fn of(&self, command: &str) -> String {
        self.bucket
            .as_ref()
            .map_or_else(|| command.to_owned(), |bucket| format!("{command} {}", quoted(bucket)))
    }
}

fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_so_that_nothing_in_them_is_a_command() {
        let pause = Command::Pause(Scope { bucket: Some("a' b".to_owned()) });
        assert_eq!(pause.text(), "PAUSE 'a'' b'");
        assert_eq!(Command::Drain(Scope { bucket: None }).text(), "DRAIN");
        assert_eq!(Command::Show { what: "coordinator".to_owned() }.text(), "SHOW coordinator");
        assert_eq!(Command::Shutdown { wait: true }.text(), "SHUTDOWN WAIT");
    }
}
