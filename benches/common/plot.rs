//! Curves on logarithmic axes, drawn as SVG: how something grows.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 216.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 56.0;
/// Between the lines of names.
const LINE: f64 = 18.0;
const INK: &str = "#24292f";
const PALE: &str = "#656d76";
/// Told apart also without colour, by the dashes.
const STROKES: [(&str, &str); 4] =
    [("#6e7781", "2 5"), ("#0a6ebd", "none"), ("#bc4c00", "9 4"), ("#6b4c9a", "10 3 2 3")];

/// What is drawn.
pub struct Plot {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub curves: Vec<Curve>,
}

/// Points from left to right, all above zero. The first curve of a plot is the floor.
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// One axis: what it begins and ends with, and where.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From the last of 1, 2, 5, 10, ... that is not above any value to the first that is not below any.
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
        let steps = || decades.clone().flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(decade)));
        let below = steps().rfind(|step| *step <= least).unwrap_or(least);
        let above = steps().find(|step| *step >= most && *step > below).unwrap_or(most);
        Self { least: below, most: above, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value / self.least).log10() / (self.most / self.least).log10();
        self.from + part * (self.to - self.from)
    }

    /// What is on the axis of these times the powers of ten.
    fn steps(&self, of: &[f64]) -> Vec<f64> {
        let decades = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
        let steps = decades.flat_map(|decade| of.iter().map(move |step| step * 10f64.powi(decade)));
        steps.filter(|step| (self.least * 0.999..=self.most * 1.001).contains(step)).collect()
    }

    /// Where numbers stand: not closer together than people can read.
    fn labels(&self) -> Vec<f64> {
        let all = self.steps(&[1.0, 2.0, 5.0]);
        if all.len() <= 9 { all } else { self.steps(&[1.0]) }
    }
}

/// A file as it comes into being.
struct Svg(String);

impl Svg {
    fn text(&mut self, (x, y): (f64, f64), colour: &str, more: &str, text: &str) {
        writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" {more}>{text}</text>").expect("text");
    }

    fn rule(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        let place = format!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
        writeln!(self.0, "<line {place} stroke=\"{colour}\"/>").expect("text takes text");
    }
}

impl Plot {
    /// The whole file.
    pub fn svg(&self) -> String {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::over(points.clone().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(points.map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = Svg(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, \
             'DejaVu Sans', sans-serif\" font-size=\"13\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" \
             fill=\"#ffffff\"/>\n",
            self.title
        ));
        svg.text((20.0, 32.0), INK, "font-size=\"17\" font-weight=\"600\"", self.title);
        svg.text((20.0, TOP - 20.0), PALE, "", self.y);
        self.grid(&x, &y, &mut svg);
        self.names(&y, &mut svg);
        for (curve, stroke) in self.curves.iter().zip(STROKES.iter().cycle()) {
            self.curve(curve, *stroke, (&x, &y), &mut svg);
        }
        svg.0 + "</svg>\n"
    }

    fn grid(&self, x: &Axis, y: &Axis, svg: &mut Svg) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (steps, colour) in [(&[2.0, 5.0][..], "#f0f1f3"), (&[1.0], "#d5d9de")] {
            x.steps(steps).iter().for_each(|at| svg.rule((x.place(*at), TOP), (x.place(*at), bottom), colour));
            y.steps(steps).iter().for_each(|at| svg.rule((LEFT, y.place(*at)), (right, y.place(*at)), colour));
        }
        svg.rule((LEFT, bottom), (right, bottom), PALE);
        for at in x.labels() {
            svg.text((x.place(at), bottom + 20.0), PALE, "text-anchor=\"middle\"", &number(at));
        }
        for at in y.labels() {
            svg.text((LEFT - 8.0, y.place(at) + 4.5), PALE, "text-anchor=\"end\"", &number(at));
        }
        svg.text((right, HEIGHT - 12.0), PALE, "text-anchor=\"end\"", self.x);
    }

    /// Each stands at the end of its curve with the last value, and apart from the others.
    fn names(&self, y: &Axis, svg: &mut Svg) {
        let named = |(curve, (colour, _)): (&Curve, &(&'static str, &str))| {
            let (_, last) = *curve.points.last()?;
            Some((y.place(last), *colour, format!("{}: {}", curve.name, number(last))))
        };
        let mut names: Vec<_> = self.curves.iter().zip(STROKES.iter().cycle()).filter_map(named).collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Those that stand together share the middle of where they end.
        let mut at = 0;
        while at < names.len() {
            let close = |pair: &[(f64, &str, String)]| pair[1].0 - pair[0].0 < LINE;
            let count = 1 + names[at..].windows(2).take_while(|pair| close(pair)).count();
            let together = &mut names[at..at + count];
            let middle = together.iter().map(|name| name.0).sum::<f64>() / count as f64;
            let top = middle - LINE * (count - 1) as f64 / 2.0;
            together.iter_mut().zip(0..).for_each(|(name, line)| name.0 = top + LINE * f64::from(line));
            at += count;
        }
        for (at, colour, name) in names {
            svg.text((WIDTH - RIGHT + 14.0, at + 4.5), colour, "font-weight=\"600\"", &name);
        }
    }

    fn curve(&self, curve: &Curve, (colour, dashes): (&str, &str), (x, y): (&Axis, &Axis), svg: &mut Svg) {
        let place = |point: &(f64, f64)| format!("{:.1},{:.1}", x.place(point.0), y.place(point.1));
        let places: Vec<String> = curve.points.iter().map(place).collect();
        let style = format!(
            "fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" stroke-linejoin=\"round\" stroke-dasharray=\"{dashes}\""
        );
        writeln!(svg.0, "<polyline points=\"{}\" {style}/>", places.join(" ")).expect("text takes text");
        for (at, value) in &curve.points {
            let what = format!("{}: {} {}, {value:.2} {}", curve.name, number(*at), self.x, self.y);
            let (cx, cy) = (x.place(*at), y.place(*value));
            let circle = format!("cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\" fill=\"{colour}\" stroke=\"#ffffff\"");
            writeln!(svg.0, "<circle {circle}><title>{what}</title></circle>").expect("text takes text");
        }
    }
}

/// As people write it: three digits that count, thousands apart.
fn number(value: f64) -> String {
    if value < 99.5 {
        let digits = if value < 0.995 { 2 } else { usize::from(value < 9.95) };
        let text = format!("{value:.digits$}");
        return if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() };
    }
    let digits = format!("{value:.0}");
    let apart = |(at, digit): (usize, char)| {
        let is_first_of_three = at > 0 && (digits.len() - at).is_multiple_of(3);
        is_first_of_three.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(apart).collect()
}
