//! Which colours a page has: the brand's where they can be read, ours where they cannot.
//!
//! A brand says its colours once, and a page is seen in light and in dark. Its background belongs to one of the two; the
//! other has ours. Every colour that is written in or drawn with is measured against what is behind it (WCAG 2.2, 1.4.3 and
//! 1.4.11), so that no configuration makes a page that cannot be read.

use contract::client_config::{Brand, Colour, Colours};

/// What is written, against what is behind it.
const TEXT_CONTRAST: f64 = 4.5;
/// What is drawn, against what is behind it.
const SHAPE_CONTRAST: f64 = 3.0;

const BLACK: Colour = grey(0);
const WHITE: Colour = grey(255);

const fn grey(value: u8) -> Colour {
    rgb(value, value, value)
}

const fn rgb(red: u8, green: u8, blue: u8) -> Colour {
    Colour { red, green, blue }
}

/// The colours of a page in one scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Palette {
    ground: Colour,
    text: Colour,
    quiet: Colour,
    line: Colour,
    accent: Colour,
    on_accent: Colour,
}

/// Whether it is seen in light or in dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Light,
    Dark,
}

impl Scheme {
    fn ground(self) -> Colour {
        match self {
            Self::Light => rgb(0xfa, 0xfa, 0xf8),
            Self::Dark => rgb(0x17, 0x19, 0x1c),
        }
    }

    fn text(self) -> Colour {
        match self {
            Self::Light => rgb(0x1c, 0x1f, 0x23),
            Self::Dark => rgb(0xec, 0xef, 0xf2),
        }
    }

    fn accent(self) -> Colour {
        match self {
            Self::Light => rgb(0x1f, 0x5f, 0xbf),
            Self::Dark => rgb(0x8a, 0xb8, 0xff),
        }
    }

    /// To which scheme a background belongs: where black is read better on it than white, it is a light one.
    fn of(ground: Colour) -> Self {
        if contrast(BLACK, ground) >= contrast(WHITE, ground) {
            Self::Light
        } else {
            Self::Dark
        }
    }
}

impl Palette {
    fn new(colours: &Colours, scheme: Scheme) -> Self {
        let ground = colours
            .background
            .filter(|background| Scheme::of(*background) == scheme)
            .unwrap_or(scheme.ground());
        let text = [colours.text, Some(scheme.text())]
            .into_iter()
            .flatten()
            .find(|text| contrast(*text, ground) >= TEXT_CONTRAST)
            .unwrap_or(readable_on(ground));
        let accent = [colours.accent, Some(scheme.accent())]
            .into_iter()
            .flatten()
            .find(|accent| contrast(*accent, ground) >= SHAPE_CONTRAST)
            .unwrap_or(text);
        let quiet = mix(text, ground, 72);
        Self {
            ground,
            text,
            quiet: if contrast(quiet, ground) >= TEXT_CONTRAST {
                quiet
            } else {
                text
            },
            line: mix(text, ground, 16),
            accent,
            on_accent: readable_on(accent),
        }
    }

    fn to_css(self) -> String {
        let Self {
            ground,
            text,
            quiet,
            line,
            accent,
            on_accent,
        } = self;
        format!(
            ":root{{--ground:{ground};--text:{text};--quiet:{quiet};--line:{line};--accent:{accent};--on-accent:{on_accent}}}"
        )
    }
}

/// The colours of a page as a style sheet.
pub(super) fn style(brand: Option<&Brand>) -> String {
    let ours = Colours::default();
    let colours = brand
        .and_then(|brand| brand.colours.as_ref())
        .unwrap_or(&ours);
    format!(
        "{}@media(prefers-color-scheme:dark){{{}}}",
        Palette::new(colours, Scheme::Light).to_css(),
        Palette::new(colours, Scheme::Dark).to_css()
    )
}

/// Black or white, whichever can be read better. One of them always can: no colour is nearer than 4.58 to both.
fn readable_on(ground: Colour) -> Colour {
    match Scheme::of(ground) {
        Scheme::Light => BLACK,
        Scheme::Dark => WHITE,
    }
}

/// `percent` of one colour and the rest of the other.
fn mix(colour: Colour, other: Colour, percent: u16) -> Colour {
    let channel = |one: u8, two: u8| {
        let mixed = (u16::from(one) * percent + u16::from(two) * (100 - percent)) / 100;
        u8::try_from(mixed).expect("between the two")
    };
    rgb(
        channel(colour.red, other.red),
        channel(colour.green, other.green),
        channel(colour.blue, other.blue),
    )
}

/// The contrast ratio of WCAG: 1 to 21.
fn contrast(one: Colour, two: Colour) -> f64 {
    let (one, two) = (luminance(one), luminance(two));
    (one.max(two) + 0.05) / (one.min(two) + 0.05)
}

/// The relative luminance of WCAG: 0 to 1.
fn luminance(colour: Colour) -> f64 {
    let linear = |channel: u8| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    };
    0.2126 * linear(colour.red) + 0.7152 * linear(colour.green) + 0.0722 * linear(colour.blue)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_colour() -> impl Strategy<Value = Option<Colour>> {
        proptest::option::of(any::<[u8; 3]>().prop_map(|[red, green, blue]| rgb(red, green, blue)))
    }

    proptest! {
        #[test]
        fn whatever_a_brand_says_the_page_can_be_read(
            accent in any_colour(), background in any_colour(), text in any_colour(),
        ) {
            let colours = Colours { accent, background, text, ..Colours::default() };
            for scheme in [Scheme::Light, Scheme::Dark] {
                let palette = Palette::new(&colours, scheme);
                for (front, behind, least) in [
                    (palette.text, palette.ground, TEXT_CONTRAST),
                    (palette.quiet, palette.ground, TEXT_CONTRAST),
                    (palette.on_accent, palette.accent, TEXT_CONTRAST),
                    (palette.accent, palette.ground, SHAPE_CONTRAST),
                ] {
                    prop_assert!(contrast(front, behind) >= least, "{scheme:?} {front} on {behind}");
                }
                prop_assert_eq!(Scheme::of(palette.ground), scheme);
            }
        }
    }

    #[test]
    fn a_brand_that_can_be_read_is_kept_in_the_scheme_that_it_is_for() {
        let colour = |text: &str| Some(text.parse::<Colour>().expect("a colour"));
        let colours = Colours {
            accent: colour("#8a1c2b"),
            background: colour("#fffaf2"),
            text: colour("#20160f"),
            ..Colours::default()
        };
        let light = Palette::new(&colours, Scheme::Light);
        assert_eq!(
            (Some(light.accent), Some(light.ground), Some(light.text)),
            (colours.accent, colours.background, colours.text)
        );
        // The same red, and the same brown, on what is nearly black: neither can be seen.
        let dark = Palette::new(&colours, Scheme::Dark);
        assert_eq!(dark, Palette::new(&Colours::default(), Scheme::Dark));
    }

    #[test]
    fn contrast_is_the_one_of_the_standard() {
        assert!((contrast(BLACK, WHITE) - 21.0).abs() < 0.001);
        assert!((contrast(grey(0x77), WHITE) - 4.48).abs() < 0.01);
        assert!((contrast(rgb(255, 0, 0), WHITE) - 4.0).abs() < 0.01);
    }
}
