//! SVG plots with horizontal bars, readable on light and dark pages.

use super::row::{Bound, Row, short};

/// Widths and heights in pixels.
const WIDTH: f64 = 860.0;
const NAMES: f64 = 250.0;
const FIGURES: f64 = 130.0;
const BAR: f64 = 16.0;
const LINE: f64 = 22.0;
const GAP: f64 = 14.0;
const HEAD: f64 = 40.0;

/// Highest ratio to a goal in a plot; longer bars are cut.
const MOST: f64 = 2.0;

/// Colours for the page's light or dark scheme.
const STYLE: &str = "text{font:13px sans-serif;fill:#24292f}.title{font-weight:bold}\
    .ours{fill:#0969da}.peer{fill:#afb8c1}.bad{fill:#bc4c00}.goal{stroke:#24292f;stroke-dasharray:4 3}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.ours{fill:#4493f8}.peer{fill:#656c76}\
    .bad{fill:#f0883e}.goal{stroke:#e6edf3}}";

/// One bar.
struct Bar {
    name: String,
    value: f64,
    figure: String,
    class: &'static str,
}

/// Plots ours and every peer, for rows in seconds that have peers.
pub(super) fn seconds(rows: &[Row]) -> String {
    let groups = rows.iter().filter(|row| row.unit == "s" && !row.peers.is_empty());
    let groups = groups.filter_map(|row| {
        let mut bars = vec![bar("ours", row.ours?, "s", "ours")];
        bars.extend(row.peers.iter().map(|(name, value)| bar(name, *value, "s", "peer")));
        Some((title(row), bars))
    });
    draw("Seconds, less is better", &groups.collect::<Vec<_>>(), None)
}

/// Plots each row relative to its goal, which is met up to the line.
pub(super) fn goals(rows: &[Row]) -> String {
    let bars = rows.iter().filter_map(|row| {
        let (figure, goal) = (row.ratio.or(row.ours)?, row.goal?);
        let of_goal = match row.bound {
            Bound::Most => figure / goal,
            Bound::Least => goal / figure,
        };
        let unit = if row.ratio.is_some() { "×" } else { row.unit.as_str() };
        let words = format!("{} {unit}, goal {goal}", short(figure));
        let class = if row.met == Some(true) { "ours" } else { "bad" };
        Some(Bar { name: title(row), value: of_goal.min(MOST), figure: words, class })
    });
    let bars = bars.collect::<Vec<_>>();
    draw(
        "Measures relative to their goals; bars up to the line meet the goal",
        &[(String::new(), bars)],
        Some(1.0),
    )
}

fn title(row: &Row) -> String {
    match &row.store {
        Some(store) => format!("{} {store}", row.measure),
        None => row.measure.clone(),
    }
}

fn bar(name: &str, value: f64, unit: &str, class: &'static str) -> Bar {
    Bar { name: name.to_owned(), value, figure: format!("{} {unit}", short(value)), class }
}

/// Draws groups of bars on one scale, with a line at `mark`.
fn draw(title: &str, groups: &[(String, Vec<Bar>)], mark: Option<f64>) -> String {
    let values = groups.iter().flat_map(|(_, bars)| bars.iter().map(|bar| bar.value));
    let most = values.chain(mark).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - NAMES - FIGURES) / most;
    let mut body = format!("<text class=\"title\" x=\"10\" y=\"22\">{}</text>", escaped(title));
    let mut y = HEAD;
    for (name, bars) in groups {
        if !name.is_empty() {
            let base = y + BAR - 3.0;
            body.push_str(&format!(
                "<text class=\"title\" x=\"10\" y=\"{base:.0}\">{}</text>",
                escaped(name)
            ));
            y += LINE;
        }
        for bar in bars {
            let (base, wide) = (y + BAR - 3.0, (bar.value * scale).max(1.0));
            body.push_str(&format!(
                "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{}\" x=\"{NAMES:.0}\" y=\"{y:.0}\" width=\"{wide:.1}\" height=\"{BAR:.0}\"/>\
                 <text x=\"{:.0}\" y=\"{base:.0}\">{}</text>",
                NAMES - 8.0,
                escaped(&bar.name),
                bar.class,
                NAMES + wide + 6.0,
                escaped(&bar.figure)
            ));
            y += LINE;
        }
        y += GAP;
    }
    if let Some(mark) = mark {
        let x = NAMES + mark * scale;
        body.push_str(&format!(
            "<line class=\"goal\" x1=\"{x:.1}\" y1=\"{HEAD:.0}\" x2=\"{x:.1}\" y2=\"{y:.0}\"/>"
        ));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{y:.0}\" \
         viewBox=\"0 0 {WIDTH:.0} {y:.0}\" role=\"img\"><style>{STYLE}</style>{body}</svg>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::row::Sample;
    use super::*;

    fn rows() -> [Row; 2] {
        let row = |ours: f64| {
            Row::of("cold-1", Some("<x>"), "s", &[Sample::of(ours)]).goal_against(
                "save | load",
                &[Sample::of(40.0)],
                Bound::Most,
                0.5,
            )
        };
        [row(10.0), row(400.0)]
    }

    #[test]
    fn bars_are_proportional_to_their_values() {
        let svg = seconds(&rows());
        let widths: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .filter_map(|part| part.split_once("width=\"")?.1.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths.len(), 4);
        assert!((widths[1] / widths[0] - 4.0).abs() < 0.1, "{widths:?}");
        assert!((widths[2] - (WIDTH - NAMES - FIGURES)).abs() < 0.1, "{widths:?}");
        assert!(svg.contains("&lt;x&gt;") && !svg.contains("<x>"));
    }

    #[test]
    fn a_missed_goal_has_its_own_colour() {
        let svg = goals(&rows());
        let bars = ["class=\"ours\"", "class=\"bad\""].map(|class| svg.matches(class).count());
        assert_eq!(bars, [1, 1]);
        assert!(svg.contains("class=\"goal\""));
    }
}
