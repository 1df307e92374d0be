use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

/// A curve: its name, and figures (load, goodput over capacity, share of P0 in time), by load.
#[derive(Debug, Clone)]
pub struct Line {
    /// The name beside it.
    pub name: &'static str,
    /// Its points.
    pub points: Vec<(f64, f64, f64)>,
}

/// One colour a stack; the first is drawn bold.
const COLOURS: [RGBColor; 8] = [
    RGBColor(20, 90, 200),
    RGBColor(200, 60, 50),
    RGBColor(230, 140, 20),
    RGBColor(120, 170, 60),
    RGBColor(30, 140, 110),
    RGBColor(150, 90, 180),
    RGBColor(140, 110, 80),
    RGBColor(110, 110, 110),
];

/// Draws goodput and P0 in time over load, side by side, as SVG.
///
/// # Errors
///
/// The file cannot be written.
pub fn draw(file: &Path, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (1000, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let (charts, legend) = root.split_vertically(380);
    let (left, right) = charts.split_horizontally(500);
    panel(&left, "Answers in time / capacity", lines, |point| point.1)?;
    panel(&right, "P0 answered in time", lines, |point| point.2)?;
    for (index, line) in lines.iter().enumerate() {
        let (x, y) = (60 + 235 * (index as i32 % 4), 20 + 30 * (index as i32 / 4));
        legend.draw(&PathElement::new([(x, y), (x + 24, y)], style(index)))?;
        legend.draw(&Text::new(line.name, (x + 30, y - 7), ("sans-serif", 14)))?;
    }
    root.present()?;
    Ok(())
}

fn style(index: usize) -> ShapeStyle {
    COLOURS[index % COLOURS.len()].stroke_width(if index == 0 { 4 } else { 2 })
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &[Line],
    figure: impl Fn(&(f64, f64, f64)) -> f64,
) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d((0.9..21.0).log_scale(), 0.0..1.05)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("load / capacity")
        .x_label_formatter(&|x| if [1.0, 2.0, 5.0, 10.0, 20.0].contains(x) { format!("{x}x") } else { String::new() })
        .y_label_formatter(&|y| format!("{:.0} %", y * 100.0))
        .draw()?;
    for (index, line) in lines.iter().enumerate().rev() {
        chart.draw_series(LineSeries::new(line.points.iter().map(|point| (point.0, figure(point))), style(index)))?;
    }
    Ok(())
}
