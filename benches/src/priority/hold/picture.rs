use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::cell::{LOADS, URGENT};
use super::{Cell, Fleet, Outcome};

const WIDE: i32 = 96;
const HIGH: i32 = 44;
const LEFT: i32 = 120;
const TOP: i32 = 84;

/// Draws the grid as SVG: a row a fleet, a column each load and demand of P0; in each field the least share of P0 that was
/// served under any law and any arrivals, and the longest wait at its 99th percentile, in seconds.
///
/// # Errors
///
/// The file cannot be written.
pub fn picture(file: &Path, cells: &[(Cell, Outcome)]) -> Result<(), Box<dyn Error>> {
    let columns: Vec<(f64, f64)> =
        LOADS.iter().flat_map(|&load| URGENT.iter().map(move |&urgent| (load, urgent))).collect();
    let size = (LEFT + WIDE * columns.len() as i32 + 20, TOP + HIGH * Fleet::GRID.len() as i32 + 50);
    let root = SVGBackend::new(file, (size.0 as u32, size.1 as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |at: (i32, i32), size: i32, line: String| root.draw(&Text::new(line, at, ("sans-serif", size)));
    text((LEFT, 12), 18, "P0 served, and its wait at the 99th percentile: the worst of eight runs a field".into())?;
    for (x, (load, urgent)) in columns.iter().enumerate() {
        let left = LEFT + WIDE * x as i32;
        text((left + 8, 42), 14, format!("load {load}x"))?;
        text((left + 8, 60), 14, format!("P0 at {:.0} %", urgent * 100.0))?;
    }
    for (y, fleet) in Fleet::GRID.iter().enumerate() {
        let top = TOP + HIGH * y as i32;
        text((8, top + 14), 14, format!("{} slots, {} s", fleet.slots, fleet.hold))?;
        for (x, (load, urgent)) in columns.iter().enumerate() {
            let left = LEFT + WIDE * x as i32;
            let of = |cell: &Cell| {
                cell.fleet == *fleet && (cell.load - load).abs() < 1e-9 && (cell.urgent - urgent).abs() < 1e-9
            };
            let of = cells.iter().filter(|(cell, _)| of(cell)).map(|(_, outcome)| outcome);
            let served = of.clone().map(|outcome| outcome.share(0)).fold(1.0, f64::min);
            let wait = of.map(Outcome::p99).fold(0.0, f64::max);
            let field = Rectangle::new([(left, top), (left + WIDE - 2, top + HIGH - 2)], colour(served).filled());
            root.draw(&field)?;
            text((left + 8, top + 6), 14, format!("{:.2} %", served * 100.0))?;
            text((left + 8, top + 23), 13, if wait < 10.0 { format!("{wait:.1} s") } else { format!("{wait:.0} s") })?;
        }
    }
    let bottom = TOP + HIGH * Fleet::GRID.len() as i32 + 14;
    text((LEFT, bottom), 13, "four laws of length, each with Poisson arrivals and with bursts (CV 3)".into())?;
    root.present()?;
    Ok(())
}

/// From green, all served, to red, nine in ten.
fn colour(served: f64) -> RGBColor {
    let missed = ((1.0 - served) / 0.1).clamp(0.0, 1.0).sqrt();
    let mix = |from: f64, to: f64| (from + (to - from) * missed) as u8;
    RGBColor(mix(196.0, 244.0), mix(230.0, 164.0), mix(200.0, 150.0))
}
