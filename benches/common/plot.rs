//! Curves on logarithmic axes, drawn as SVG: how something grows.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
const INK: &str = "#222222";
/// Told apart also without colour, by the dashes.
const STROKES: [(&str, &str); 4] =
    [("#1f4e79", "none"), ("#b5482a", "8 4"), ("#3a7d44", "2 4"), ("#6b4c9a", "10 3 2 3")];

/// What is drawn.
pub struct Plot {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub curves: Vec<Curve>,
}

/// Points from left to right, all above zero.
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// One axis: the decades that it shows, and where.
struct Axis {
    first: i32,
    last: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::MIN_POSITIVE, f64::max);
        let first = least.log10().floor() as i32;
        Self { first, last: (most.log10().ceil() as i32).max(first + 1), from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        self.from + part * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|decade| 10f64.powi(decade))
    }
}

impl Plot {
    /// The whole file.
    pub fn svg(&self) -> String {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let x = Axis::over(points.clone().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(points.map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            self.title
        );
        let mut text = |x: f64, y: f64, colour: &str, more: &str, text: &str| {
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" {more}>{text}</text>")
                .expect("text takes text");
        };
        let (middle, right) = ("text-anchor=\"middle\"", "text-anchor=\"end\"");
        text(LEFT, TOP - 26.0, INK, "font-size=\"16\"", self.title);
        text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14.0, INK, middle, self.x);
        text(8.0, TOP - 10.0, INK, "", self.y);
        x.decades().for_each(|decade| text(x.place(decade), HEIGHT - BOTTOM + 20.0, INK, middle, &decade.to_string()));
        y.decades().for_each(|decade| text(LEFT - 8.0, y.place(decade) + 4.0, INK, right, &decade.to_string()));
        // Names stand at the ends of their curves, apart from one another.
        let named = |(curve, (colour, _)): (&Curve, &(&'static str, &str))| {
            Some((y.place(curve.points.last()?.1), *colour, curve.name))
        };
        let mut names: Vec<_> = self.curves.iter().zip(STROKES.iter().cycle()).filter_map(named).collect();
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = f64::MIN;
        for (at, colour, name) in names {
            let at = at.max(free);
            text(WIDTH - RIGHT + 10.0, at + 4.0, colour, "", name);
            free = at + 16.0;
        }
        let mut rule = |x1: f64, y1: f64, x2: f64, y2: f64| {
            let place = format!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
            writeln!(svg, "<line {place} stroke=\"#d5d5d5\"/>").expect("text takes text");
        };
        x.decades().for_each(|decade| rule(x.place(decade), TOP, x.place(decade), HEIGHT - BOTTOM));
        y.decades().for_each(|decade| rule(LEFT, y.place(decade), WIDTH - RIGHT, y.place(decade)));
        for (curve, (colour, dashes)) in self.curves.iter().zip(STROKES.iter().cycle()) {
            let place = |point: &(f64, f64)| format!("{:.1},{:.1}", x.place(point.0), y.place(point.1));
            let places: Vec<String> = curve.points.iter().map(place).collect();
            let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"");
            writeln!(svg, "<polyline points=\"{}\" {style}/>", places.join(" ")).expect("text takes text");
            for (at, value) in &curve.points {
                let (cx, cy) = (x.place(*at), y.place(*value));
                let what = format!("{}: {at} {}, {value:.2} {}", curve.name, self.x, self.y);
                let circle = format!("cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{colour}\"");
                writeln!(svg, "<circle {circle}><title>{what}</title></circle>").expect("text takes text");
            }
        }
        svg + "</svg>\n"
    }
}
