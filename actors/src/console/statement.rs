//! What an operator's text means: commands, and what SQL clients say by themselves.

use crate::admin::{Command, NotACommand};

/// One statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// Clients set options, change databases and end transactions by themselves: here it means nothing.
    Nothing,
    /// Pools and drivers ask for a constant to see whether somebody is there.
    Select(Constant),
    Command(Result<Command, NotACommand>),
}

/// What is selected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Constant(String);

/// A value of the console's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selected {
    Number(i64),
    Text(String),
}

impl Constant {
    /// Its value; none where it would take a server.
    pub(super) fn value(&self, user: &str, database: &str) -> Option<Selected> {
        let text = self.0.trim();
        if let Ok(number) = text.parse() {
            return Some(Selected::Number(number));
        }
        if let Some(inner) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            return (!inner.contains('\'')).then(|| Selected::Text(inner.to_owned()));
        }
        match &*text.to_uppercase() {
            "@@VERSION" => Some(Selected::Text(
                concat!("tdsbouncer ", env!("CARGO_PKG_VERSION"), " (console)").to_owned(),
            )),
            "@@SERVERNAME" => Some(Selected::Text("tdsbouncer".to_owned())),
            "@@SPID" => Some(Selected::Number(0)),
            "@@TRANCOUNT" => Some(Selected::Number(0)),
            "DB_NAME()" => Some(Selected::Text(database.to_owned())),
            "SUSER_NAME()" | "SUSER_SNAME()" | "SYSTEM_USER" | "CURRENT_USER" | "USER_NAME()" => {
                Some(Selected::Text(user.to_owned()))
            }
            _ => None,
        }
    }
}

/// The statements of a text: each line, and each part of a line between semicolons, is one.
pub(super) fn read(text: &str) -> Vec<Statement> {
    let lines = text.lines().flat_map(parts);
    let statements: Vec<Statement> =
        lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--")).map(one).collect();
    if statements.is_empty() { vec![Statement::Nothing] } else { statements }
}

/// Cuts at semicolons that are not in quotes.
fn parts(line: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut quote) = (Vec::new(), 0, None);
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (None, ';') => {
                parts.push(&line[begin..at]);
                begin = at + 1;
            }
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    parts.push(&line[begin..]);
    parts
}

fn one(statement: &str) -> Statement {
    let mut words = statement.split_whitespace();
    let first = words.next().unwrap_or_default().to_uppercase();
    match &*first {
        "SELECT" => Statement::Select(Constant(statement["SELECT".len()..].to_owned())),
        "USE" | "BEGIN" | "COMMIT" | "ROLLBACK" | "IF" | "DECLARE" | "PRINT" => Statement::Nothing,
        // An option of the session, unless it is a limit of ours.
        "SET" if !statement.to_lowercase().contains(".max_connections") => Statement::Nothing,
        _ => Statement::Command(Command::parse(statement)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Order, Subject};

    #[test]
    fn a_text_may_hold_several_commands() {
        let read = read("-- first\nSHOW BUCKETS; PAUSE [orders]\nSHOW POOLS\n;");
        let expected = [
            Command::Show(Subject::Buckets),
            Command::Do(Order::Pause(Some("orders".to_owned()))),
            Command::Show(Subject::Pools),
        ];
        assert_eq!(read, expected.map(|command| Statement::Command(Ok(command))));
        let killed = super::read("KILL TENANT 'a;b'");
        assert_eq!(killed, [Statement::Command(Ok(Command::Do(Order::KillTenant("a;b".to_owned()))))]);
    }

    #[test]
    fn what_clients_say_by_themselves_means_nothing() {
        for text in [
            "SET TEXTSIZE 64512",
            "set quoted_identifier on",
            "USE tdsbouncer",
            "IF @@TRANCOUNT > 0 ROLLBACK TRAN",
            "",
        ] {
            assert_eq!(read(text), [Statement::Nothing], "{text}");
        }
        let set = Order::SetMaxConnections { bucket: "orders".to_owned(), max_connections: 7 };
        assert_eq!(read("SET orders.max_connections = 7"), [Statement::Command(Ok(Command::Do(set)))]);
    }

    #[test]
    fn constants_are_selected_and_nothing_else() {
        let select = |text: &str| match &read(text)[..] {
            [Statement::Select(constant)] => constant.value("dba", "tdsbouncer"),
            other => panic!("{other:?}"),
        };
        assert_eq!(select("SELECT 1"), Some(Selected::Number(1)));
        assert_eq!(select("select 'x y'"), Some(Selected::Text("x y".to_owned())));
        assert_eq!(select("SELECT DB_NAME()"), Some(Selected::Text("tdsbouncer".to_owned())));
        assert_eq!(select("SELECT * FROM sys.databases"), None);
        assert_eq!(select("SELECT 'a' + 'b'"), None);
    }
}
