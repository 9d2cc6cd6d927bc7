//! How a client's own pages look: the waiting page and its like say whose site it is.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::reader::Node;

/// Characters of a brand's name: it stands in one line above the page, on a telephone too.
pub const BRAND_NAME_MAX_CHARACTERS: usize = 80;

/// The name and the colours under which the owner knows the site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Brand {
    /// What the owner calls the site: 1 to 80 characters in one line. The domain of the public site if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = BRAND_NAME_MAX_CHARACTERS))]
    pub name: Option<String>,
    /// Its colours. One that could not be read on another is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colours: Option<Colours>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// The colours of a brand, each as `#rrggbb`; our own where one is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Colours {
    /// Of buttons and of what goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accent: Option<Colour>,
    /// Behind everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Colour>,
    /// Of what is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Colour>,
    /// Unknown fields.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Map<String, Value>,
}

/// A colour, written `#rrggbb`. Nothing else of CSS can be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Colour {
    /// How red.
    pub red: u8,
    /// How green.
    pub green: u8,
    /// How blue.
    pub blue: u8,
}

/// A text is no colour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a colour as #rrggbb, such as #1f5fbf")]
pub struct ColourError;

impl FromStr for Colour {
    type Err = ColourError;

    fn from_str(text: &str) -> Result<Self, ColourError> {
        let digits = text
            .strip_prefix('#')
            .filter(|digits| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        // A sign before the digits, which the standard library takes, is no hexadecimal digit.
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let [_, red, green, blue] = number.ok_or(ColourError)?.to_be_bytes();
        Ok(Self { red, green, blue })
    }
}

impl TryFrom<String> for Colour {
    type Error = ColourError;

    fn try_from(text: String) -> Result<Self, ColourError> {
        text.parse()
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

impl From<Colour> for String {
    fn from(colour: Colour) -> Self {
        colour.to_string()
    }
}

impl JsonSchema for Colour {
    fn schema_name() -> Cow<'static, str> {
        "Colour".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^#[0-9a-fA-F]{6}$",
            "description": "A colour, written `#rrggbb`.",
        })
    }
}

/// Reads a brand; nothing if something of it is wrong, which is a problem.
pub(super) fn read(node: &Node<'_>) -> Option<Brand> {
    let fields = node.open_fields(&["name", "colours"])?;
    let name = fields
        .optional("name")
        .and_then(|node| node.checked(check_name));
    let colours = fields
        .optional("colours")
        .and_then(|node| read_colours(&node));
    Some(Brand {
        name,
        colours,
        unknown: fields.unknown(),
    })
}

fn read_colours(node: &Node<'_>) -> Option<Colours> {
    let fields = node.open_fields(&["accent", "background", "text"])?;
    let colour = |name| fields.optional(name).and_then(|node| node.parse());
    Some(Colours {
        accent: colour("accent"),
        background: colour("background"),
        text: colour("text"),
        unknown: fields.unknown(),
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = !name.trim().is_empty()
        && name.chars().count() <= BRAND_NAME_MAX_CHARACTERS
        && !name.contains(|c: char| c.is_control() || is_direction(c));
    if fits {
        Ok(())
    } else {
        Err(format!(
            "must be one line of 1 to {BRAND_NAME_MAX_CHARACTERS} characters"
        ))
    }
}

/// Whether a character turns the direction of the text that follows it, the page's own words included.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_six_hexadecimal_digits_and_nothing_more() {
        let colour: Colour = "#1F5fbf".parse().expect("a colour");
        assert_eq!((colour.red, colour.green, colour.blue), (0x1f, 0x5f, 0xbf));
        assert_eq!(colour.to_string(), "#1f5fbf");
        for text in [
            "", "#", "1f5fbf", "#1f5fb", "#1f5fbff", "#+f5fbf", "#1f5fbg", "#12é45", "red",
            "#fff;}", " #1f5fbf",
        ] {
            assert_eq!(text.parse::<Colour>(), Err(ColourError), "{text}");
        }
    }

    #[test]
    fn a_name_is_one_short_line() {
        assert_eq!(check_name("Amélia’s <Stamps> & Coins"), Ok(()));
        assert_eq!(check_name(&"ü".repeat(80)), Ok(()));
        for name in ["", "  ", "a\nb", "a\u{202e}b", &"a".repeat(81)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
