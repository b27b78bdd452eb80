//! The chart: how many times as fast as the baseline each arm was.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::Report;

const WIDTH: u32 = 900;
const BAR: u32 = 60;
/// Room for the caption above the bars and the axis below them.
const AROUND: u32 = 110;
const LABELS: u32 = 300;

const FONT: &str = "sans-serif";
const FILL: RGBColor = RGBColor(70, 110, 180);

/// Draws a bar an arm, with a line from the lowest to the highest round.
pub(super) fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| anyhow!("failed to draw the chart: {error}"))?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let arms = u32::try_from(report.arms.len())?;
    let fastest = report.arms.iter().map(|arm| arm.speed.high).fold(1.0, f64::max);
    let slowest = report.arms.iter().map(|arm| arm.speed.low).fold(1.0, f64::min);
    let scale = Scale::of(slowest, fastest);
    let area = SVGBackend::with_string(text, (WIDTH, AROUND + BAR * arms)).into_drawing_area();
    area.fill(&WHITE)?;
    // The first arm on top, where reading begins.
    let mut chart = ChartBuilder::on(&area)
        .caption(report.caption(), (FONT, 20))
        .margin(12)
        .margin_right(70)
        .x_label_area_size(30)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..scale.place(fastest) * 1.05, f64::from(arms)..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .max_light_lines(0)
        .disable_y_axis()
        .y_labels(0)
        .x_label_formatter(&|place| scale.label(*place))
        .draw()?;
    let bars = report.arms.iter().zip(0_u32..).map(|(arm, row)| (arm, f64::from(row)));
    for (arm, row) in bars {
        let speed = arm.speed;
        let middle = row + 0.5;
        let bar = [(0.0, row + 0.2), (scale.place(speed.median), row + 0.8)];
        chart.draw_series([Rectangle::new(bar, FILL.filled())])?;
        let (low, high) = (scale.place(speed.low), scale.place(speed.high));
        let spread = vec![(low, middle), (high, middle)];
        chart.draw_series([PathElement::new(spread, BLACK.stroke_width(2))])?;
        let (right, y) = chart.backend_coord(&(high, middle));
        let digits = if speed.median < 1.0 { 2 } else { 1 };
        let value = format!("{:.digits$}x", speed.median);
        area.draw(&Text::new(value, (right + 6, y - 8), (FONT, 16)))?;
        area.draw(&Text::new(arm.name, (12, y - 8), (FONT, 16)))?;
    }
    area.present()?;
    Ok(())
}

/// Where on the axis a speed lies.
#[derive(Clone, Copy, Debug)]
enum Scale {
    Linear,
    /// In powers of ten from this one on, for speeds that would make the baseline's bar vanish.
    Powers(f64),
}

impl Scale {
    fn of(slowest: f64, fastest: f64) -> Self {
        const FAR: f64 = 30.0;
        if fastest < FAR { Self::Linear } else { Self::Powers((slowest / 2.0).log10().floor()) }
    }

    fn place(self, speed: f64) -> f64 {
        match self {
            Self::Linear => speed,
            Self::Powers(first) => speed.log10() - first,
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Linear => format!("{place:.1}"),
            Self::Powers(first) => {
                let speed = 10_f64.powf(place + first);
                let digits = usize::from(speed < 10.0);
                format!("{speed:.digits$}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn speeds_far_apart_are_shown_by_powers_of_ten() {
        let scale = Scale::of(1.0, 1000.0);
        assert!((scale.place(100.0) - scale.place(10.0) - 1.0).abs() < 1e-9);
        assert_eq!(scale.label(scale.place(100.0)), "100");
        assert_eq!(Scale::of(0.01, 4.0).label(2.0), "2.0");
    }

    #[test]
    fn every_arm_is_named_with_its_speed() {
        let svg = svg(&report()).unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        for word in ["slow", "fast", "1.0x", "4.0x", "messages"] {
            assert!(svg.contains(word), "no {word} in\n{svg}");
        }
    }
}
