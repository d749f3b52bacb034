//! The language of operators: `SHOW ...` and the orders, as the command line, the SQL console and the TCP port take
//! them.

use serde::Deserialize;

/// Each subject once: what the socket, the console and the command line know it by, and what it tells.
macro_rules! subjects {
    ($($name:ident $word:literal $meaning:literal;)*) => {
        /// What may be shown.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub(crate) enum Subject { $($name),* }

        impl Subject {
            pub(super) const ALL: &[(Self, &str, &str)] = &[$((Self::$name, $word, $meaning)),*];
        }

        /// What `SHOW` shows, by name and meaning.
        pub const SUBJECTS: &[(&str, &str)] = &[$(($word, $meaning)),*];
    };
}

subjects! {
    Buckets "buckets" "Each SQL Server with its limit, its connections and who waits for them";
    Pools "pools" "Each sub-pool: the server connections that are interchangeable for a client";
    Sessions "sessions" "Each client with what its session does";
    Servers "servers" "Each server connection";
    Traits "traits" "What each bucket's server was found to do, and the pool mode that follows";
    Holds "holds" "Each session that keeps a server connection between requests, and why";
    Waiters "waiters" "Each client that waits for a server connection, in its order";
    Tenants "tenants" "Clients by tenant";
    Coordinator "coordinator" "Who shares out each bucket's limit, and what each proxy has of it";
    Crashes "crashes" "The last crashes of actors";
    Stats "stats" "What each bucket did since the start";
    Config "config" "The configuration in force, without secrets";
    Memory "memory" "What the process takes of the machine";
    Version "version" "The program's version";
    Help "help" "Every command with its meaning";
}

/// What an operator may want done. Without a bucket: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Pause(Option<String>),
    Resume(Option<String>),
    Disable(Option<String>),
    Enable(Option<String>),
    Reconnect(Option<String>),
    Drain(Option<String>),
    KillSession(u64),
    KillServer(u64),
    KillTenant(String),
    SetMaxConnections { bucket: String, max_connections: u32 },
    Reload,
    Shutdown { wait: bool },
    LogLevel(String),
}

/// Something to show or to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Show(Subject),
    Do(Order),
}

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotACommand {
    #[error("no command given")]
    Empty,
    #[error("no such command: {0} (SHOW HELP lists them)")]
    Unknown(String),
    #[error("cannot show {0} (SHOW HELP lists what can be shown)")]
    NothingToShow(String),
    #[error("{command} needs {what}")]
    Missing { command: &'static str, what: &'static str },
    #[error("{command}: {word} is not {what}")]
    Wrong { command: &'static str, word: String, what: &'static str },
    #[error("{command} does not take \"{word}\"")]
    TooMuch { command: &'static str, word: String },
    #[error("a quote is not closed")]
    OpenQuote,
}

/// Every order with its meaning, for SHOW HELP.
pub(super) const ORDERS: &[(&str, &str)] = &[
    ("PAUSE [bucket]", "Lend no server connection and close those that come home; clients wait"),
    ("RESUME [bucket]", "End the pause"),
    ("DISABLE [bucket]", "Refuse new clients; those that are there go on"),
    ("ENABLE [bucket]", "Undo DISABLE and DRAIN"),
    ("RECONNECT [bucket]", "Replace every server connection as soon as nobody uses it"),
    ("DRAIN [bucket]", "Refuse new clients and end the others when nothing of theirs is under way"),
    ("KILL SESSION id", "End a client's session"),
    ("KILL SERVER id", "Close a server connection, with the session that uses it"),
    ("KILL TENANT name", "End every session of a tenant"),
    ("SET bucket.max_connections = n", "Another limit, until the next reload"),
    ("RELOAD", "Read the configuration file again; says what changed and what needs a restart"),
    ("SHUTDOWN [WAIT]", "Drain and end; WAIT: however long the clients stay"),
    ("LOG-LEVEL filter", "Which events are logged, as info,tdsbouncer_actors=debug"),
];

impl Command {
    /// Whether it changes anything.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Self::Do(_))
    }

    /// Reads one command. Names may be quoted with `'`, `"` or `[]`; case does not matter but in names.
    pub(crate) fn parse(text: &str) -> Result<Self, NotACommand> {
        let words = words(text)?;
        let mut words = Words { command: "", rest: words.iter().map(String::as_str) };
        let first = words.rest.next().ok_or(NotACommand::Empty)?;
        let command = words.command(first)?;
        if let Some(word) = words.rest.next() {
            return Err(NotACommand::TooMuch { command: words.command, word: word.to_owned() });
        }
        Ok(command)
    }
}

struct Words<'a, I: Iterator<Item = &'a str>> {
    command: &'static str,
    rest: I,
}

impl<'a, I: Iterator<Item = &'a str>> Words<'a, I> {
    fn command(&mut self, first: &str) -> Result<Command, NotACommand> {
        type Scoped = fn(Option<String>) -> Order;
        let scoped: [(&'static str, Scoped); 6] = [
            ("PAUSE", Order::Pause),
            ("RESUME", Order::Resume),
            ("DISABLE", Order::Disable),
            ("ENABLE", Order::Enable),
            ("RECONNECT", Order::Reconnect),
            ("DRAIN", Order::Drain),
        ];
        if let Some((name, order)) = scoped.into_iter().find(|(name, _)| first.eq_ignore_ascii_case(name)) {
            self.command = name;
            return Ok(Command::Do(order(self.rest.next().map(str::to_owned))));
        }
        let order = match &*first.to_ascii_uppercase() {
            "SHOW" => return self.show(),
            "KILL" => self.kill()?,
            "SET" => self.set()?,
            "RELOAD" => {
                self.command = "RELOAD";
                Order::Reload
            }
            "SHUTDOWN" => {
                self.command = "SHUTDOWN";
                let wait = self.rest.next();
                match wait {
                    None => Order::Shutdown { wait: false },
                    Some(word) if word.eq_ignore_ascii_case("WAIT") => Order::Shutdown { wait: true },
                    Some(word) => {
                        return Err(NotACommand::TooMuch { command: self.command, word: word.to_owned() });
                    }
                }
            }
            "LOG-LEVEL" | "LOG_LEVEL" => {
                self.command = "LOG-LEVEL";
                Order::LogLevel(self.needed("a filter, as info,tdsbouncer_actors=debug")?.to_owned())
            }
            "HELP" => return Ok(Command::Show(Subject::Help)),
            _ => return Err(NotACommand::Unknown(first.to_owned())),
        };
        Ok(Command::Do(order))
    }

    fn show(&mut self) -> Result<Command, NotACommand> {
        self.command = "SHOW";
        let what = self.needed("a subject (SHOW HELP lists them)")?;
        let known = Subject::ALL.iter().find(|(_, name, _)| what.eq_ignore_ascii_case(name));
        known
            .map(|(subject, ..)| Command::Show(*subject))
            .ok_or_else(|| NotACommand::NothingToShow(what.to_owned()))
    }

    fn kill(&mut self) -> Result<Order, NotACommand> {
        self.command = "KILL";
        let what = self.needed("SESSION, SERVER or TENANT")?;
        match &*what.to_ascii_uppercase() {
            "SESSION" => Ok(Order::KillSession(self.number('c')?)),
            "SERVER" => Ok(Order::KillServer(self.number('s')?)),
            "TENANT" => Ok(Order::KillTenant(self.needed("a tenant's name")?.to_owned())),
            _ => Err(NotACommand::Wrong {
                command: "KILL",
                word: what.to_owned(),
                what: "SESSION, SERVER or TENANT",
            }),
        }
    }

    /// An id, with or without the letter that logs put before it.
    fn number(&mut self, letter: char) -> Result<u64, NotACommand> {
        let word = self.needed("a number")?;
        let digits = word.strip_prefix(letter).unwrap_or(word);
        digits.parse().map_err(|_| NotACommand::Wrong {
            command: self.command,
            word: word.to_owned(),
            what: "a number",
        })
    }

    fn set(&mut self) -> Result<Order, NotACommand> {
        self.command = "SET";
        let key = self.needed("bucket.max_connections = n")?;
        let Some(bucket) = key.strip_suffix(".max_connections").filter(|bucket| !bucket.is_empty()) else {
            let what = "a key that can be set: only bucket.max_connections";
            return Err(NotACommand::Wrong { command: "SET", word: key.to_owned(), what });
        };
        let mut word = self.needed("a number")?;
        if word == "=" {
            word = self.needed("a number")?;
        }
        // SQL Server's own ceiling on user connections.
        let number = word.parse().ok().filter(|number| (1..=32_767).contains(number));
        let Some(max_connections) = number else {
            let what = "a number from 1 to 32767";
            return Err(NotACommand::Wrong { command: "SET", word: word.to_owned(), what });
        };
        Ok(Order::SetMaxConnections { bucket: bucket.to_owned(), max_connections })
    }

    fn needed(&mut self, what: &'static str) -> Result<&'a str, NotACommand> {
        self.rest.next().ok_or(NotACommand::Missing { command: self.command, what })
    }
}

/// Words of the text, without quotes; `=` is one where blanks are around it or not.
fn words(text: &str) -> Result<Vec<String>, NotACommand> {
    let (mut words, mut word, mut inside) = (Vec::new(), String::new(), false);
    let mut letters = text.trim().trim_end_matches(';').chars().peekable();
    while let Some(letter) = letters.next() {
        let closing = match letter {
            '\'' | '"' => letter,
            '[' => ']',
            letter if letter.is_whitespace() => {
                if std::mem::take(&mut inside) {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            // A filter of the log has this sign inside words: it stands alone only behind a key.
            '=' if word.ends_with(".max_connections") => {
                words.push(std::mem::take(&mut word));
                words.push("=".to_owned());
                inside = false;
                continue;
            }
            _ => {
                word.push(letter);
                inside = true;
                continue;
            }
        };
        inside = true;
        loop {
            match letters.next() {
                // A doubled quote stands for itself, as in T-SQL.
                Some(letter) if letter == closing => {
                    if letters.peek() != Some(&closing) {
                        break;
                    }
                    letters.next();
                    word.push(closing);
                }
                Some(letter) => word.push(letter),
                None => return Err(NotACommand::OpenQuote),
            }
        }
    }
    if inside {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(text: &str) -> Order {
        match Command::parse(text) {
            Ok(Command::Do(order)) => order,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        for (command, _) in ORDERS {
            let text = command
                .replace("[bucket]", "")
                .replace("[WAIT]", "")
                .replace("id", "7")
                .replace("name", "x")
                .replace("= n", "= 5");
            let read = Command::parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert!(read.changes(), "{command}");
        }
        for (subject, name, _) in Subject::ALL {
            let read = Command::parse(&format!("show {name};"));
            assert_eq!(read, Ok(Command::Show(*subject)));
            assert!(!read.is_ok_and(|command| command.changes()), "{name}");
        }
    }

    #[test]
    fn names_are_taken_as_they_are_written() {
        assert_eq!(order("pause [my bucket]"), Order::Pause(Some("my bucket".to_owned())));
        assert_eq!(order("KILL TENANT 'O''Hara'"), Order::KillTenant("O'Hara".to_owned()));
        assert_eq!(order("Kill Session c12 ;"), Order::KillSession(12));
        assert_eq!(order("DRAIN"), Order::Drain(None));
        assert_eq!(order("shutdown wait"), Order::Shutdown { wait: true });
        assert_eq!(order("log-level info,a=debug"), Order::LogLevel("info,a=debug".to_owned()));
    }

    #[test]
    fn a_limit_is_set_with_or_without_blanks() {
        let wanted = Order::SetMaxConnections { bucket: "a.b".to_owned(), max_connections: 50 };
        for text in
            ["set a.b.max_connections = 50", "SET a.b.max_connections=50", "set a.b.max_connections 50"]
        {
            assert_eq!(order(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_command_is_said_in_words() {
        let table = [
            ("", "no command given"),
            (" ; ", "no command given"),
            ("DROP TABLE x", "no such command: DROP"),
            ("SHOW", "SHOW needs a subject"),
            ("SHOW secrets", "cannot show secrets"),
            ("KILL", "KILL needs SESSION"),
            ("KILL SESSION x", "KILL: x is not a number"),
            ("SET orders.host = x", "SET: orders.host is not a key"),
            ("SET orders.max_connections = 0", "SET: 0 is not a number from 1"),
            ("PAUSE a b", "PAUSE does not take \"b\""),
            ("SHUTDOWN NOW", "SHUTDOWN does not take \"NOW\""),
            ("PAUSE 'a", "a quote is not closed"),
        ];
        for (text, told) in table {
            let why = Command::parse(text).unwrap_err().to_string();
            assert!(why.starts_with(told), "{text}: {why}");
        }
    }
}
