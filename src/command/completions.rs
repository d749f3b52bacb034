//! `tdsbouncer completions` and `tdsbouncer man`: what a packager installs beside the program.

use crate::Cli;
use crate::failure::Failure;
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::{Write, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Completions for a shell, on standard output.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tdsbouncer", &mut text);
    Ok(stdout().write_all(&text)?)
}

/// The manual page, one section for each command, on standard output.
pub(crate) fn man() -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands() {
        writeln!(page, ".SH \"TDSBOUNCER {}\"", sub.get_name().to_uppercase())?;
        let man = clap_mangen::Man::new(sub.clone());
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        if sub.get_arguments().next().is_some() {
            man.render_options_section(&mut page)?;
        }
        if sub.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
    }
    Ok(stdout().write_all(&page)?)
}
