//! What the kills showed: as a table, a line of JSON, and a chart.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use comfy_table::{CellAlignment, Table, presets};
use plotters::prelude::*;
use serde_json::{Value, json};

use super::super::stats::Summary;
use super::{BEYOND_LEASE, Kill, LEASE_TTL};

const SIZE: (u32, u32) = (900, 360);
const FONT: &str = "sans-serif";
const QUIET: RGBColor = RGBColor(70, 110, 180);
const BUSY: RGBColor = RGBColor(200, 120, 50);

/// What the kills showed.
pub(in super::super) struct Report {
    pub(super) chats: u32,
    pub(super) kills: Vec<Kill>,
    /// What must not have happened, apart from takeovers that took too long.
    pub(super) violations: Vec<String>,
}

/// Returns how long a takeover may take.
const fn allowed() -> Duration {
    LEASE_TTL.saturating_add(BEYOND_LEASE)
}

impl Report {
    /// Returns everything that was not as it must be.
    pub(in super::super) fn violations(&self) -> Vec<String> {
        let late = self.kills.iter().zip(1..).filter(|(kill, _)| allowed() < kill.seen);
        let late = late.map(|(kill, number)| {
            format!("kill {number}: {:?} until all ran elsewhere, over {:?}", kill.seen, allowed())
        });
        late.chain(self.violations.iter().cloned()).collect()
    }

    fn takeovers(&self) -> Option<Summary> {
        let seconds: Vec<_> = self.kills.iter().map(|kill| kill.seen.as_secs_f64()).collect();
        (!seconds.is_empty()).then(|| Summary::of(&seconds))
    }

    /// Returns the report for a reader.
    pub(in super::super) fn text(&self) -> String {
        let Self { chats, kills, .. } = self;
        let allowed = allowed().as_secs();
        let mut text = format!(
            "{chats} chats on the replica that is killed; seconds after the kill, all on the \
             database's clock\n{}\n",
            self.table()
        );
        if let Some(Summary { median, high, .. }) = self.takeovers() {
            let count = kills.len();
            let _ = write!(
                text,
                "all elsewhere after {median:.1} s (median), {high:.1} s (worst of {count} \
                 kills); {allowed} s are allowed"
            );
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "kill",
            "cores",
            "beat before",
            "marked dead",
            "first claimed",
            "all taken back",
            "last claimed",
            "all seen elsewhere",
            "created in",
            "answered in",
        ]);
        for (kill, number) in self.kills.iter().zip(1..) {
            let load = if kill.busy { "busy" } else { "free" };
            let times = kill.times().map(|(_, time)| format!("{:.2}", time.as_secs_f64()));
            table.add_row([number.to_string(), load.to_owned()].into_iter().chain(times));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// Returns what the line of JSON has beside the commit and the machine.
    pub(in super::super) fn json(&self) -> Value {
        let kill = |kill: &Kill| {
            let mut value = json!({ "busy": kill.busy });
            for (name, time) in kill.times() {
                value[name] = json!(time.as_secs_f64());
            }
            value
        };
        let takeovers = self.takeovers();
        json!({
            "chats": self.chats,
            "allowed_seconds": allowed().as_secs_f64(),
            "median_seconds": takeovers.map(|seconds| seconds.median),
            "worst_seconds": takeovers.map(|seconds| seconds.high),
            "kills": self.kills.iter().map(kill).collect::<Vec<_>>(),
            "violations": self.violations(),
        })
    }

    /// Draws a bar a kill, up to when all ran elsewhere, and a line for what is allowed.
    pub(in super::super) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|error| anyhow!("failed to draw the chart: {error}"))?;
        Ok(text)
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let worst = self.takeovers().map_or(0.0, |seconds| seconds.high);
        let allowed = allowed().as_secs_f64();
        let kills = u32::try_from(self.kills.len())?;
        let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(format!("takeover of {} chats: seconds after a kill", self.chats), (FONT, 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(50)
            .build_cartesian_2d(0.0..f64::from(kills.max(1)), 0.0..worst.max(allowed) * 1.1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .x_labels(0)
            .x_desc("kills in their order; orange: all cores busy; black: the lease is marked dead")
            .draw()?;
        for (kill, place) in self.kills.iter().zip(0_u32..) {
            let (left, right) = (f64::from(place) + 0.15, f64::from(place) + 0.85);
            let fill = if kill.busy { BUSY } else { QUIET };
            let bar = [(left, 0.0), (right, kill.seen.as_secs_f64())];
            chart.draw_series([Rectangle::new(bar, fill.filled())])?;
            let marked = kill.marked.as_secs_f64();
            let mark = vec![(left, marked), (right, marked)];
            chart.draw_series([PathElement::new(mark, BLACK.stroke_width(2))])?;
        }
        let line = vec![(0.0, allowed), (f64::from(kills.max(1)), allowed)];
        chart.draw_series([PathElement::new(line, RED.stroke_width(2))])?;
        let (_, y) = chart.backend_coord(&(0.0, allowed));
        let label = format!("{allowed} s: the lease and 3 s");
        area.draw(&Text::new(label, (70, y - 18), (FONT, 14).into_font().color(&RED)))?;
        area.present()?;
        Ok(())
    }
}

impl Kill {
    /// Returns its times with their names, in the order of the table.
    fn times(&self) -> impl Iterator<Item = (&'static str, Duration)> + use<> {
        let Self { beat_age, marked, taken_back, first, last, seen, create, answer, .. } = *self;
        [
            ("beat_before", beat_age),
            ("marked_dead", marked),
            ("first_claimed", first),
            ("all_taken_back", taken_back),
            ("last_claimed", last),
            ("all_elsewhere", seen),
            ("created_in", create),
            ("answered_in", answer),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_that_takes_too_long_is_a_violation() {
        assert_eq!(report(&[14.9]).violations(), Vec::<String>::new());
        let late = report(&[14.9, 15.1]).violations();
        assert_eq!(late, ["kill 2: 15.1s until all ran elsewhere, over 15s"]);
    }

    #[test]
    fn the_worst_is_shown() {
        let report = report(&[13.0, 14.5, 12.0]);
        assert!(report.text().contains("13.0 s (median), 14.5 s (worst of 3 kills)"));
        let json = report.json();
        assert_eq!(json["worst_seconds"], 14.5);
        assert_eq!(json["kills"][1]["all_elsewhere"], 14.5);
    }

    #[test]
    fn chart_shows_what_is_allowed() {
        assert!(report(&[13.0]).svg().unwrap().contains("15 s: the lease and 3 s"));
        assert!(report(&[]).svg().is_ok());
    }

    fn report(seconds: &[f64]) -> Report {
        let kill =
            |seconds: &f64| Kill { seen: Duration::from_secs_f64(*seconds), ..Kill::default() };
        Report { chats: 10, kills: seconds.iter().map(kill).collect(), violations: Vec::new() }
    }
}
