//! Where the operator's commands come in.

use crate::check::Check;
use crate::mirror;
use crate::problem::Problem;
use crate::secret::Secret;
use crate::users::Users;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where operators come in, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Its file permissions: who may connect may command.
    pub mode: u32,
    /// A TCP port for commands, if any: each needs a token.
    pub address: Option<SocketAddr>,
    /// Who shows this may command.
    pub token: Option<Secret>,
    /// Who shows this may look.
    pub view_token: Option<Secret>,
    /// The name of the console's database.
    pub database: String,
    /// Users of the console who may command.
    pub users: Vec<String>,
    /// Users of the console who may look.
    pub viewers: Vec<String>,
}

impl Admin {
    pub(crate) fn check(from: &mirror::Admin, check: &mut Check<'_>) -> Option<Self> {
        let mode = u32::from_str_radix(&from.mode, 8).ok().filter(|mode| *mode <= 0o777);
        let Some(mode) = mode else {
            let problem = Problem::new("admin.mode", "must be file permissions in octal");
            check.problem(problem.hint("such as \"0660\""));
            return None;
        };
        if mode & 0o007 != 0 {
            check.problem(Problem::new(
                "admin.mode",
                "must give nothing to others: they could command the proxy",
            ));
        }
        // sun_path has 108 bytes with its closing zero.
        if !check.given("admin.socket", &from.socket) || from.socket.len() > 107 {
            check.problem(Problem::new("admin.socket", "must be a path of 1 to 107 bytes"));
            return None;
        }
        let address =
            if from.address == "off" { None } else { check.address("admin.address", &from.address) };
        let mut secret = |key: &str, text: &str| {
            if text.is_empty() { None } else { check.secret(&format!("admin.{key}"), text) }
        };
        let (token, view_token) = (secret("token", &from.token), secret("view_token", &from.view_token));
        if let Some(address) = address {
            if from.token.is_empty() && from.view_token.is_empty() {
                let what = "must be given, or view_token: nobody could do anything at admin.address";
                check.problem(Problem::new("admin.token", what));
            }
            if !address.ip().is_loopback() {
                let what = "tokens cross the network readable there: only on a network that you trust wholly";
                check.warnings.push(Problem::new("admin.address", what));
            }
        }
        if token.is_some() && token == view_token {
            check.problem(Problem::new("admin.view_token", "is the token that may command, too"));
        }
        check.given("admin.database", &from.database);
        Some(Self {
            socket: check.directory.join(&from.socket),
            mode,
            address,
            token,
            view_token,
            database: from.database.clone(),
            users: from.users.clone(),
            viewers: from.viewers.clone(),
        })
    }

    /// Whether this database is the console, for anybody.
    pub fn is_console(&self, database: &str) -> bool {
        let open = !self.users.is_empty() || !self.viewers.is_empty();
        open && database.to_lowercase() == self.database.to_lowercase()
    }

    /// Who is named as an operator must be in the users file.
    pub(crate) fn check_users(from: &mirror::Admin, users: &Users, check: &mut Check<'_>) {
        for (key, names) in [("users", &from.users), ("viewers", &from.viewers)] {
            for (index, name) in names.iter().enumerate() {
                // A file of another machine is taken for granted and seen as empty.
                if !users.is_empty() && users.find(name).is_none() {
                    let problem = Problem::new(format!("admin.{key}[{index}]"), "is not in auth.users_file");
                    check.problem(problem.hint("`tdsbouncer hash-password --user NAME` makes the line"));
                }
            }
        }
    }
}
