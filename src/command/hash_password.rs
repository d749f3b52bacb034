//! `tdsbouncer hash-password`: a line for the users file; the password never stands in the command line.

use crate::failure::Failure;
use std::io::{IsTerminal, Read, stdin};
use tdsbouncer_config::{Secret, hash_password};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the whole line of the users file, "NAME:hash"
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// A password of SQL Server's has at most 128 characters; this is for bytes, and for a file's end of line.
const LONGEST: u64 = 1024;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let password = read()?;
    if password.expose().is_empty() {
        return Err(Failure::PasswordEmpty);
    }
    let hash = hash_password(&password).map_err(|why| Failure::Hash(why.to_string()))?;
    match &args.user {
        Some(user) => println!("{user}:{hash}"),
        None => println!("{hash}"),
    }
    Ok(())
}

fn read() -> Result<Secret, Failure> {
    if stdin().is_terminal() {
        let first = Secret::new(rpassword::prompt_password("Password: ")?);
        let second = Secret::new(rpassword::prompt_password("Again: ")?);
        return if first == second { Ok(first) } else { Err(Failure::PasswordsDiffer) };
    }
    let mut text = String::new();
    stdin().take(LONGEST).read_to_string(&mut text)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(Secret::new(text))
}
