//! The commands, and which file does each.

mod admin;
mod check_config;
mod completions;
mod demo;
mod hash_password;
mod loadgen;
mod probe;
mod run;
mod sim;
mod top;

use crate::failure::Failure;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start three stand-in SQL Servers and the proxy in front of them, and say what to try
    Demo(demo::Args),
    /// Run the proxy by a configuration file
    Run(run::Args),
    /// Say everything that is wrong with a configuration file
    CheckConfig(check_config::Args),
    /// Run the stand-in SQL Server alone
    Sim(sim::Args),
    /// Ask a running proxy and give it orders
    Admin(admin::Args),
    /// Ask a SQL Server, harmlessly, whether it does what pooling assumes
    Probe(probe::Args),
    /// Watch a running proxy: buckets, queues, holds, slow requests
    Top(top::Args),
    /// Let many programs work against a server or proxy and check every answer; play the scenarios
    Loadgen(loadgen::Args),
    /// Make a password hash for the users file; reads the password from the terminal or from standard input
    HashPassword(hash_password::Args),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the manual page (roff)
    Man,
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Demo(args) => demo::run(&args),
            Self::Run(args) => run::run(&args),
            Self::CheckConfig(args) => check_config::run(&args),
            Self::Sim(args) => sim::run(&args),
            Self::Admin(args) => admin::run(&args),
            Self::Probe(args) => probe::run(&args),
            Self::Top(args) => top::run(&args),
            Self::Loadgen(args) => loadgen::run(args),
            Self::HashPassword(args) => hash_password::run(&args),
            Self::Completions(args) => completions::completions(&args),
            Self::Man => completions::man(),
        }
    }
}
