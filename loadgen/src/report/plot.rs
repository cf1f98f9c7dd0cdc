//! Plots as inline SVG: no script, no network, colours from the page's light or dark style.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
const POINTS_MAX: usize = 1_500;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
}

/// One line of a plot. Colours are numbered in the page's style.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
}

/// One plot with its axes.
pub struct Plot {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub x_scale: Scale,
    pub y_scale: Scale,
    pub lines: Vec<Line>,
    /// Where the x axis is marked and how; drawn from the values when empty.
    pub x_marks: Vec<(f64, String)>,
    pub show_y: fn(f64) -> String,
    /// x up to which the background is shaded: the warm-up.
    pub shaded_until: Option<f64>,
}

struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let place = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + place.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => linear_marks(self.low, self.high),
            Scale::Log => log_marks(self.low, self.high),
        }
    }
}

impl Plot {
    /// The SVG, or a sentence if there is nothing to draw.
    pub fn draw(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        if points().next().is_none() {
            return format!("<figure><figcaption>{}</figcaption><p>no data</p></figure>", self.title);
        }
        let x = axis(points().map(|(x, _)| x), self.x_scale, LEFT, WIDTH - RIGHT);
        let y = axis(points().map(|(_, y)| y), self.y_scale, HEIGHT - BOTTOM, TOP);
        let mut svg = String::new();
        self.write(&mut svg, &x, &y).expect("writing to a string does not fail");
        svg
    }

    fn write(&self, svg: &mut String, x: &Axis, y: &Axis) -> std::fmt::Result {
        write!(
            svg,
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            self.title, self.title
        )?;
        if let Some(until) = self.shaded_until {
            let width = x.at(until) - LEFT;
            write!(
                svg,
                "<rect class=\"warm\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{}\"/>",
                HEIGHT - TOP - BOTTOM
            )?;
        }
        for value in y.marks() {
            let at = y.at(value);
            write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                (self.show_y)(value)
            )?;
        }
        let marks: Vec<(f64, String)> = if self.x_marks.is_empty() {
            x.marks().into_iter().map(|value| (value, format!("{value}"))).collect()
        } else {
            self.x_marks.clone()
        };
        for (value, text) in marks {
            let at = x.at(value);
            write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0
            )?;
        }
        for line in &self.lines {
            self.write_line(svg, line, x, y)?;
        }
        write!(
            svg,
            "<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text><text class=\"label\" x=\"14\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {})\">{}</text></svg>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 6.0,
            self.x_label,
            (TOP + HEIGHT - BOTTOM) / 2.0,
            (TOP + HEIGHT - BOTTOM) / 2.0,
            self.y_label
        )?;
        svg.push_str("<p class=\"legend\">");
        for line in &self.lines {
            write!(svg, "<span class=\"c{}\"><i></i>{}</span>", line.colour, line.name)?;
        }
        svg.push_str("</p></figure>");
        Ok(())
    }

    fn write_line(&self, svg: &mut String, line: &Line, x: &Axis, y: &Axis) -> std::fmt::Result {
        // Every n-th point would hide peaks: of each stretch the highest is kept.
        let stretch = line.points.len().div_ceil(POINTS_MAX).max(1);
        let highest = |points: &[(f64, f64)]| points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        let kept: Vec<(f64, f64)> = line.points.chunks(stretch).filter_map(highest).collect();
        if let [(px, py)] = kept.as_slice() {
            return write!(
                svg,
                "<circle class=\"c{} dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                line.colour,
                x.at(*px),
                y.at(*py)
            );
        }
        write!(svg, "<polyline class=\"c{}\" points=\"", line.colour)?;
        for (px, py) in kept {
            write!(svg, "{:.1},{:.1} ", x.at(px), y.at(py))?;
        }
        svg.push_str("\"/>");
        Ok(())
    }
}

fn axis(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Axis {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    let (low, high) = match scale {
        Scale::Linear => (low.min(0.0), if high <= 0.0 { 1.0 } else { high * 1.05 }),
        Scale::Log => {
            let low = low.max(1e-9) * 0.9;
            (low, (high * 1.1).max(low * 2.0))
        }
    };
    Axis { low, high, scale, from, to }
}

fn linear_marks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(power * 10.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    // Rounded to the step, so that 0.30000000000000004 is 0.3.
    (first..=last).map(|n| (n as f64 * step * 1e9).round() / 1e9).collect()
}

fn log_marks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let is_wide = high / low > 200.0;
    let factors: &[f64] = if is_wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)));
    let marks: Vec<f64> = all.filter(|value| (low..=high).contains(value)).collect();
    // Ratios near 1 lie between two such marks.
    if marks.len() < 3 && high / low < 10.0 { linear_marks(low, high) } else { marks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(linear_marks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(log_marks(0.5, 150.0), [1.0, 10.0, 100.0]);
        assert_eq!(log_marks(0.08, 1.5), [0.1, 0.2, 0.5, 1.0]);
        assert_eq!(log_marks(0.75, 1.6), [0.8, 1.0, 1.2, 1.4, 1.6]);
    }

    #[test]
    fn thinning_keeps_the_peak() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        points[7_777].1 = 99.0;
        let line = Line { name: "l".to_owned(), colour: 1, points };
        let plot = Plot {
            title: "t".to_owned(),
            x_label: String::new(),
            y_label: String::new(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            lines: vec![line],
            x_marks: Vec::new(),
            show_y: |y| format!("{y}"),
            shaded_until: None,
        };
        let svg = plot.draw();
        let top = axis([1.0, 99.0].into_iter(), Scale::Linear, HEIGHT - BOTTOM, TOP).at(99.0);
        assert!(svg.contains(&format!(",{top:.1} ")), "the peak is drawn");
    }
}
