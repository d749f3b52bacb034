//! Lines over time as inline SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 12.0;
const COLOURS: [&str; 5] = ["#2266aa", "#cc5522", "#448844", "#885599", "#777777"];

/// A line: its name and its points.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// All lines in one plot, with marks at moments.
pub(super) fn plot(title: &str, unit: &str, lines: &[Line], marks: &[(f64, String)]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most_x = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let most_y = nice(points().map(|(_, y)| *y).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / most_x * (WIDTH - LEFT - 10.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / most_y * (HEIGHT - BOTTOM - TOP);
    let mut out = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n",
        super::html::escape(title)
    );
    // Writing to a string cannot fail.
    for part in 0..=4 {
        let value = most_y * f64::from(part) / 4.0;
        let at = y(value);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} {unit}</text>",
            WIDTH - 10.0,
            LEFT - 4.0,
            at + 4.0,
            number(value)
        );
    }
    for part in 0..=6 {
        let value = most_x * f64::from(part) / 6.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{} s</text>",
            x(value),
            HEIGHT - 6.0,
            number(value)
        );
    }
    for (at, what) in marks {
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{1}\" stroke=\"#c00\" stroke-dasharray=\"4 3\">\
             <title>{2}</title></line>",
            x(*at),
            HEIGHT - BOTTOM,
            super::html::escape(what)
        );
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        );
    }
    out.push_str("</svg><p class=\"legend\">");
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let _ =
            write!(out, "<span style=\"color:{colour}\">&#9644; {}</span> ", super::html::escape(&line.name));
    }
    out.push_str("</p></figure>\n");
    out
}

/// The next round number: 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|round| *round >= value).unwrap_or(value)
}

fn number(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, round) in [(0.0, 1.0), (3.0, 5.0), (51.0, 100.0), (100.0, 100.0), (0.13, 0.2)] {
            assert!((nice(value) - round).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let line = Line { name: "<script>".to_owned(), points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let svg = plot("a & b", "ms", &[line], &[(0.5, "\"killed\"".to_owned())]);
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;") && svg.contains("a &amp; b"));
    }
}
