//! Plots of what was measured, as SVG that shows on light and on dark pages.

use std::fmt::Write as _;

use crate::figures::Summary;
use crate::report::Plot;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Around what is plotted: left, top, right, bottom.
const MARGINS: [f64; 4] = [64.0, 24.0, 24.0, 56.0];

/// A plot with a logarithmic axis along and a linear one up, which begins at 0.
pub fn svg(plot: &Plot) -> String {
    let Plot { name, along, up, points } = plot;
    let [left, top, right, bottom] = MARGINS;
    let (least, most) =
        points.iter().fold((f64::INFINITY, 1.0f64), |(least, most), (x, _)| (least.min(*x), most.max(*x)));
    let highest = step_up(points.iter().map(|(_, cost)| cost.most).fold(0.0, f64::max));
    let span = (most.log10() - least.log10()).max(f64::EPSILON);
    let across = |x: f64| left + (x.log10() - least.log10()) / span * (WIDTH - left - right);
    let down = |y: f64| HEIGHT - bottom - y / highest * (HEIGHT - top - bottom);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>{up} by {along} ({name})</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for part in 0..=4 {
        let y = highest * f64::from(part) / 4.0;
        let (at, end, label) = (down(y), WIDTH - right, left - 8.0);
        let _ = writeln!(
            text,
            "<path d=\"M{left} {at:.1}H{end}\" stroke=\"#ddd\"/>\n<text x=\"{label}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            at + 4.0,
            short(y)
        );
    }
    for (x, _) in points {
        let (at, label) = (across(*x), HEIGHT - bottom + 20.0);
        let _ = writeln!(text, "<text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"middle\">{}</text>", short(*x));
    }
    let line: Vec<String> =
        points.iter().map(|(x, cost)| format!("{:.1},{:.1}", across(*x), down(cost.median))).collect();
    let _ =
        writeln!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\"/>", line.join(" "));
    for (x, Summary { median, least, most }) in points {
        let (x, low, high) = (across(*x), down(*least), down(*most));
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#1f6feb\"/>\n<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" \
             fill=\"#1f6feb\"/>",
            down(*median)
        );
    }
    let (middle, low) = (f64::midpoint(left, WIDTH - right), HEIGHT - 12.0);
    let _ = writeln!(
        text,
        "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{along}</text>\n<text x=\"{left}\" y=\"14\" \
         text-anchor=\"middle\">{up}</text>\n</svg>"
    );
    text
}

/// The next figure that four steps lead to in round numbers.
fn step_up(figure: f64) -> f64 {
    let scale = 10f64.powf(figure.max(1e-3).log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * scale).find(|high| *high >= figure).unwrap_or(figure)
}

fn short(figure: f64) -> String {
    match figure {
        millions if millions >= 1e6 => format!("{}M", millions / 1e6),
        thousands if thousands >= 1e3 => format!("{}k", thousands / 1e3),
        _ => format!("{}", (figure * 100.0).round() / 100.0),
    }
}
