//! `tdsbouncer top`: a live view of a running proxy on a terminal.

mod screen;
mod snapshot;

use crate::command::admin::ask::Proxy;
use crate::failure::Failure;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use snapshot::Snapshot;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    proxy: Proxy,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,
    /// Print one screen and end: for scripts, and where there is no terminal
    #[arg(long)]
    once: bool,
}

/// Width and height of a screen that is printed.
const PRINTED: (u16, u16) = (118, 32);

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let every = Duration::from_secs(args.interval);
    let first = Snapshot::take(&args.proxy, None)?;
    if args.once {
        // Rates are between two looks.
        std::thread::sleep(every);
        let second = Snapshot::take(&args.proxy, Some(&first))?;
        println!("{}", printed(&second)?);
        return Ok(());
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, &args.proxy, every, first);
    ratatui::restore();
    outcome
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    proxy: &Proxy,
    every: Duration,
    mut shown: Snapshot,
) -> Result<(), Failure> {
    let mut next = Instant::now() + every;
    loop {
        terminal.draw(|frame| screen::draw(frame, &shown))?;
        while Instant::now() < next {
            if event::poll(next.saturating_duration_since(Instant::now()))? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press && ends(key.code, key.modifiers) => {
                        return Ok(());
                    }
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
        if Instant::now() >= next {
            next += every;
            shown = Snapshot::take(proxy, Some(&shown))?;
        }
    }
}

fn ends(key: KeyCode, modifiers: KeyModifiers) -> bool {
    matches!(key, KeyCode::Char('q') | KeyCode::Esc)
        || (key == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL))
}

/// A screen as text.
fn printed(snapshot: &Snapshot) -> Result<String, Failure> {
    let (width, height) = PRINTED;
    let mut terminal = match Terminal::new(TestBackend::new(width, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    match terminal.draw(|frame| screen::draw(frame, snapshot)) {
        Ok(_) => {}
        Err(never) => match never {},
    }
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_shows_buckets_queues_holds_and_slow_requests() {
        let text = printed(&snapshot::example()).unwrap();
        for part in ["orders", "paused", "12/20", "250/s", "transaction", "Longest requests", "c7", "1.5s"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn q_escape_and_control_c_end_it() {
        assert!(ends(KeyCode::Char('q'), KeyModifiers::NONE));
        assert!(ends(KeyCode::Esc, KeyModifiers::NONE));
        assert!(ends(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!ends(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
