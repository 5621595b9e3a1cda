//! Bar charts as SVG, by hand: small files that a browser and a diff can read.
use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 170.0;
const VALUES: f64 = 80.0;
const BAR: f64 = 16.0;
const GAP: f64 = 4.0;
const TITLE: f64 = 30.0;

/// Bars that are compared with one another.
pub(crate) struct Group {
    /// With the unit.
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) label: String,
    /// 0 or more.
    pub(crate) value: f64,
    /// Whether it is ours: shown in another color.
    pub(crate) ours: bool,
}

/// One chart, group below group; the longest bar of each fills its width.
pub(crate) fn chart(groups: &[Group]) -> String {
    let heights: f64 = groups.iter().map(height).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{heights}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut top = 0.0;
    for group in groups {
        draw(&mut svg, group, top);
        top += height(group);
    }
    svg + "</svg>\n"
}

fn height(group: &Group) -> f64 {
    TITLE + group.bars.len() as f64 * (BAR + GAP) + GAP
}

fn draw(svg: &mut String, group: &Group, top: f64) {
    let title = escaped(&group.title);
    let baseline = top + TITLE - 10.0;
    let _ = writeln!(
        svg,
        "<text x=\"8\" y=\"{baseline}\" font-weight=\"bold\">{title}</text>"
    );
    let greatest = group.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let room = WIDTH - LABELS - VALUES;
    for (index, bar) in group.bars.iter().enumerate() {
        let y = top + TITLE + index as f64 * (BAR + GAP);
        let text = y + BAR - 4.0;
        let width = if greatest > 0.0 {
            room * bar.value / greatest
        } else {
            0.0
        };
        let color = if bar.ours { "#0b6e4f" } else { "#9aa5b1" };
        let label = escaped(&bar.label);
        let (end, right) = (LABELS - 8.0, LABELS + width + 6.0);
        let _ = writeln!(
            svg,
            "<text x=\"{end}\" y=\"{text}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\
             <text x=\"{right:.1}\" y=\"{text}\">{:.3}</text>",
            bar.value
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_width_and_markup_is_escaped() {
        let bar = |label: &str, value| Bar {
            label: label.to_owned(),
            value,
            ours: false,
        };
        let svg = chart(&[Group {
            title: "a < b".to_owned(),
            bars: vec![bar("x", 1.0), bar("y", 2.0)],
        }]);
        assert!(svg.contains("a &lt; b"));
        assert!(svg.contains("width=\"610.0\"") && svg.contains("width=\"305.0\""));
    }
}
