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
        section(sub, "TDSBOUNCER", &mut page)?;
    }
    Ok(stdout().write_all(&page)?)
}

/// One command, and behind it those beneath it.
fn section(command: &clap::Command, above: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    let title = format!("{above} {}", command.get_name().to_uppercase());
    writeln!(page, ".SH \"{title}\"")?;
    let man = clap_mangen::Man::new(command.clone());
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(page)?;
    }
    command.get_subcommands().try_for_each(|sub| section(sub, &title, page))
}
