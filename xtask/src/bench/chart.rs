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
    let area = SVGBackend::with_string(text, (WIDTH, AROUND + BAR * arms)).into_drawing_area();
    area.fill(&WHITE)?;
    // The first arm on top, where reading begins.
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: speed, baseline = 1", report.name), (FONT, 20))
        .margin(12)
        .margin_right(70)
        .x_label_area_size(30)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..fastest * 1.05, f64::from(arms)..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .max_light_lines(0)
        .disable_y_axis()
        .y_labels(0)
        .draw()?;
    let bars = report.arms.iter().zip(0_u32..).map(|(arm, row)| (arm, f64::from(row)));
    for (arm, row) in bars {
        let speed = arm.speed;
        let middle = row + 0.5;
        let bar = [(0.0, row + 0.2), (speed.median, row + 0.8)];
        chart.draw_series([Rectangle::new(bar, FILL.filled())])?;
        let spread = vec![(speed.low, middle), (speed.high, middle)];
        chart.draw_series([PathElement::new(spread, BLACK.stroke_width(2))])?;
        let (right, y) = chart.backend_coord(&(speed.high, middle));
        let value = format!("{:.1}x", speed.median);
        area.draw(&Text::new(value, (right + 6, y - 8), (FONT, 16)))?;
        area.draw(&Text::new(arm.name, (12, y - 8), (FONT, 16)))?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_arm_is_named_with_its_speed() {
        let svg = svg(&report()).unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        for word in ["slow", "fast", "1.0x", "4.0x", "messages"] {
            assert!(svg.contains(word), "no {word} in\n{svg}");
        }
    }
}
