//! The chart: how families came to rest, and how many parents waited, around a kill.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::float;

const SIZE: (u32, u32) = (900, 360);
const FONT: &str = "sans-serif";
const REST: RGBColor = RGBColor(70, 110, 180);
const WAIT: RGBColor = RGBColor(200, 120, 50);

/// How a round went; times count from its beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    pub(super) moments: Vec<Moment>,
    pub(super) killed: f64,
    /// When the lease of the dead was seen to be marked.
    pub(super) marked: f64,
}

/// How families stood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moment {
    pub(super) seconds: f64,
    /// Parents that have given their last answer.
    pub(super) at_rest: f64,
    pub(super) waiting: f64,
}

/// Draws a line of the parents at rest and one of those that wait on live replicas.
pub(super) fn svg(timeline: &Timeline, families: u64) -> Result<String> {
    let mut text = String::new();
    draw(timeline, families, &mut text)
        .map_err(|error| anyhow!("failed to draw the chart: {error}"))?;
    Ok(text)
}

fn draw(
    timeline: &Timeline,
    families: u64,
    text: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let end = timeline.moments.last().map_or(1.0, |moment| moment.seconds.max(1.0));
    let top = float(families) * 1.1;
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let caption = format!("{families} parents of two children each, one of 3 replicas killed");
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, (FONT, 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("seconds; blue: parents that have answered; orange: parents that wait, of live replicas")
        .draw()?;
    let moments = || timeline.moments.iter();
    let rest = moments().map(|moment| (moment.seconds, moment.at_rest));
    chart.draw_series(LineSeries::new(rest, REST.stroke_width(2)))?;
    let wait = moments().map(|moment| (moment.seconds, moment.waiting));
    chart.draw_series(LineSeries::new(wait, WAIT.stroke_width(2)))?;
    for (seconds, label, color) in
        [(timeline.killed, "killed", RED), (timeline.marked, "marked dead", BLACK)]
    {
        let line = vec![(seconds, 0.0), (seconds, top)];
        chart.draw_series([PathElement::new(line, color.stroke_width(1))])?;
        let (x, y) = chart.backend_coord(&(seconds, top));
        area.draw(&Text::new(label, (x + 4, y + 4), (FONT, 14).into_font().color(&color)))?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kill_and_the_mark_of_the_dead_are_shown() {
        let moments =
            vec![Moment::default(), Moment { seconds: 20.0, at_rest: 10.0, waiting: 2.0 }];
        let svg = svg(&Timeline { moments, killed: 5.0, marked: 15.0 }, 10).unwrap();
        for word in ["killed", "marked dead", "10 parents"] {
            assert!(svg.contains(word), "no {word}");
        }
    }
}
