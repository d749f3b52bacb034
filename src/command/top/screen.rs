//! How a look at the proxy is drawn.

use super::snapshot::{Bucket, Rows, Snapshot};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

pub(super) fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot) {
    let buckets = u16::try_from(snapshot.buckets.len()).unwrap_or(u16::MAX).min(frame.area().height / 3);
    let [head, pools, rest] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(buckets + 3), Constraint::Min(0)])
            .areas(frame.area());
    let [queue, holds, running] = Layout::vertical([Constraint::Ratio(1, 3); 3]).areas(rest);
    frame.render_widget(Paragraph::new(summary(snapshot)), head);
    draw_buckets(frame, pools, &snapshot.buckets);
    let title = format!("Queue ({})", snapshot.waiters.total);
    let heads = ["bucket", "place", "user", "database", "wants", "waiting"];
    draw_rows(frame, queue, &title, &heads, &snapshot.waiters);
    let title = format!("Holds ({}), the longest first", snapshot.holds.total);
    let heads = ["session", "bucket", "server", "reasons", "held", "user", "database"];
    draw_rows(frame, holds, &title, &heads, &snapshot.holds);
    let title = format!("Longest requests of {} under way", snapshot.running.total);
    let heads = ["session", "bucket", "state", "for", "server", "user", "database"];
    draw_rows(frame, running, &title, &heads, &snapshot.running);
}

fn summary(snapshot: &Snapshot) -> Line<'_> {
    let sum = |count: fn(&Bucket) -> u64| snapshot.buckets.iter().map(count).sum::<u64>();
    let rate: f64 = snapshot.buckets.iter().filter_map(|bucket| bucket.rate).sum();
    let text = format!(
        " {}  up {}  memory {}  clients {}  servers {}  waiting {}  {rate:.0} requests/s   q ends",
        snapshot.version,
        snapshot.uptime,
        snapshot.resident,
        sum(|bucket| bucket.clients),
        sum(|bucket| bucket.open),
        sum(|bucket| bucket.waiting),
    );
    Line::from(vec![Span::styled("tdsbouncer", Style::new().add_modifier(Modifier::BOLD)), Span::raw(text)])
}

fn draw_buckets(frame: &mut Frame<'_>, area: Rect, buckets: &[Bucket]) {
    let heads =
        ["bucket", "state", "open/quota", "", "idle", "leased", "waiting", "clients", "requests", "slow"];
    let rows = buckets.iter().map(|bucket| {
        let style = match &*bucket.state {
            "ok" if bucket.waiting == 0 => Style::new(),
            "ok" => Style::new().fg(Color::Yellow),
            _ => Style::new().fg(Color::Red),
        };
        Row::new([
            bucket.name.clone(),
            bucket.state.clone(),
            format!("{}/{}", bucket.open, bucket.quota),
            gauge(bucket.open, bucket.quota),
            bucket.idle.to_string(),
            bucket.leased.to_string(),
            bucket.waiting.to_string(),
            bucket.clients.to_string(),
            bucket.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}/s")),
            bucket.slow.to_string(),
        ])
        .style(style)
    });
    let widths = [18, 12, 11, 12, 6, 7, 8, 8, 10, 6].map(Constraint::Length);
    let table = Table::new(rows, widths).header(head(&heads)).block(framed("Buckets"));
    frame.render_widget(table, area);
}

fn draw_rows(frame: &mut Frame<'_>, area: Rect, title: &str, heads: &[&str], rows: &Rows) {
    let widths = heads.iter().map(|_| Constraint::Fill(1));
    let rows = rows.rows.iter().map(|row| {
        let mut cells = row.clone();
        // Numbers of sessions and servers as logs have them.
        for (at, letter) in heads.iter().enumerate().filter_map(|(at, head)| letter_of(head).map(|c| (at, c)))
        {
            if let Some(cell) = cells.get_mut(at).filter(|cell| *cell != "-") {
                cell.insert(0, letter);
            }
        }
        Row::new(cells)
    });
    let table = Table::new(rows, widths).header(head(heads)).block(framed(title));
    frame.render_widget(table, area);
}

fn letter_of(head: &str) -> Option<char> {
    match head {
        "session" => Some('c'),
        "server" => Some('s'),
        _ => None,
    }
}

fn head(heads: &[&str]) -> Row<'static> {
    let cells: Vec<String> = heads.iter().map(|head| head.to_uppercase()).collect();
    Row::new(cells).style(Style::new().add_modifier(Modifier::DIM))
}

fn framed(title: &str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title.to_owned())
}

/// How full it is, in tenths.
fn gauge(part: u64, whole: u64) -> String {
    let tenths = (part * 10).div_ceil(whole.max(1)).min(10);
    let full = usize::try_from(tenths).unwrap_or(10);
    "█".repeat(full) + &"░".repeat(10 - full)
}
