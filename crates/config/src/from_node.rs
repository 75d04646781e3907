//! What a scalar means to the type that wants it, following what Jackson accepted for Linkerd: a quoted number is a number
//! where a number is wanted, and a number is a string where a string is wanted.
//!
//! Stricter than 1.7.5 on purpose: `consume: "yes"` and the like, which it only noticed when the value was first used, are
//! errors here.

use std::{fmt::Display, net::IpAddr};

use crate::{Cx, Node, Value};

/// A type that a node can be read as.
pub trait FromNode: Sized {
    /// Reads the node. `None` means that at least one error was recorded in `cx`.
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self>;
}

/// Reads a scalar with a parser of another crate, whose error text becomes the error of this place. For types that can't
/// have a [`FromNode`] here, such as paths and dtabs.
pub fn parsed<T, E: Display>(node: &Node, cx: &mut Cx, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
    let text = scalar(node, cx, "a string")?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(error) => {
            cx.error(node, error.to_string());
            None
        }
    }
}

impl FromNode for String {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        scalar(node, cx, "a string").map(str::to_owned)
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        match scalar(node, cx, "true or false")? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            other => {
                cx.error(node, format!("expected true or false, got \"{other}\""));
                None
            }
        }
    }
}

impl FromNode for f64 {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let text = scalar(node, cx, "a number")?;
        match text.parse::<Self>() {
            Ok(number) if number.is_finite() => Some(number),
            _ => {
                cx.error(node, format!("expected a number, got \"{text}\""));
                None
            }
        }
    }
}

/// Reads a whole number within `min` and `max`.
pub(crate) fn whole(node: &Node, cx: &mut Cx, min: i128, max: i128) -> Option<i128> {
    let number = any_whole(node, cx)?;
    if (min..=max).contains(&number) {
        return Some(number);
    }
    cx.error(node, format!("{number} does not fit, allowed: {min} to {max}"));
    None
}

/// Reads a whole number of any size that is worth printing. `1_000` is YAML's spelling, `5.0` what JSON writers may make
/// of 5.
pub(crate) fn any_whole(node: &Node, cx: &mut Cx) -> Option<i128> {
    let text = scalar(node, cx, "a whole number")?;
    let digits = text.replace('_', "");
    if !text.starts_with('_') && !text.ends_with('_') {
        if let Ok(number) = digits.parse::<i128>() {
            return Some(number);
        }
        if let Ok(number) = digits.parse::<f64>()
            && number.fract() == 0.0
            && number.abs() < 1e18
        {
            return Some(number as i128);
        }
    }
    cx.error(node, format!("expected a whole number, got \"{text}\""));
    None
}

macro_rules! whole_numbers {
    ($($ty:ty)*) => {$(
        impl FromNode for $ty {
            fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
                let number = whole(node, cx, i128::from(<$ty>::MIN), i128::from(<$ty>::MAX))?;
                Self::try_from(number).ok()
            }
        }
    )*};
}

whole_numbers! { u8 u16 u32 u64 i32 i64 }

impl FromNode for IpAddr {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, |text| text.parse::<Self>().map_err(|_| format!("'{text}' is not an IP string literal.")))
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let Value::Seq(items) = &node.value else {
            cx.error(node, format!("expected a list, got {}", node.describe()));
            return None;
        };
        // Every item is read, also after a bad one, so that all mistakes are told.
        let read: Vec<Option<T>> =
            items.iter().enumerate().map(|(i, item)| cx.at_index(i, |cx| T::from_node(item, cx))).collect();
        read.into_iter().collect()
    }
}

/// A section that somebody else reads later.
impl FromNode for Node {
    fn from_node(node: &Node, _: &mut Cx) -> Option<Self> {
        Some(node.clone())
    }
}

/// The text of a scalar; anything else is an error that says what was wanted.
fn scalar<'a>(node: &'a Node, cx: &mut Cx, wanted: &str) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => {
            cx.error(node, format!("expected {wanted}, got {}", node.describe()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<T: FromNode>(yaml: &str) -> Result<T, String> {
        let node = crate::read(&format!("v: {yaml}")).map_err(|e| e.to_string())?;
        let mut cx = Cx::new();
        let value = T::from_node(node.get("v").unwrap(), &mut cx);
        match cx.finish().first() {
            Some(error) => {
                assert!(value.is_none());
                Err(error.what.clone())
            }
            None => Ok(value.expect("no error, so a value")),
        }
    }

    #[test]
    fn a_quoted_number_is_a_number_where_one_is_wanted() {
        assert_eq!(value::<u64>("\"500\""), Ok(500));
        assert_eq!(value::<f64>("'0.5'"), Ok(0.5));
        assert_eq!(value::<f64>("1"), Ok(1.0));
    }

    #[test]
    fn a_number_is_a_string_where_one_is_wanted() {
        assert_eq!(value::<String>("8125"), Ok("8125".to_owned()));
        assert_eq!(value::<String>("1.10"), Ok("1.10".to_owned()));
        assert_eq!(value::<String>("true"), Ok("true".to_owned()));
    }

    #[test]
    fn numbers_that_do_not_fit_say_what_does() {
        assert_eq!(value::<u16>("81250000"), Err("81250000 does not fit, allowed: 0 to 65535".to_owned()));
        assert_eq!(value::<u32>("-1"), Err("-1 does not fit, allowed: 0 to 4294967295".to_owned()));
        assert_eq!(value::<i64>("-1"), Ok(-1));
    }

    #[test]
    fn only_whole_numbers_are_whole() {
        assert_eq!(value::<u32>("1_000"), Ok(1000));
        assert_eq!(value::<u32>("5.0"), Ok(5));
        for bad in ["5.5", "five", "''", "[1]", "{a: 1}", "1e999", "_1", ".nan"] {
            assert!(value::<u32>(bad).is_err(), "{bad}");
        }
        assert_eq!(value::<u32>("ten"), Err("expected a whole number, got \"ten\"".to_owned()));
    }

    #[test]
    fn a_boolean_is_true_or_false_and_not_yes() {
        assert_eq!(value::<bool>("true"), Ok(true));
        assert_eq!(value::<bool>("\"false\""), Ok(false));
        assert_eq!(value::<bool>("yes"), Err("expected true or false, got \"yes\"".to_owned()));
        assert_eq!(value::<bool>("[]"), Err("expected true or false, got a list".to_owned()));
    }

    #[test]
    fn floats_are_finite() {
        for bad in [".inf", "NaN", "inf", "x"] {
            assert!(value::<f64>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ip_is_a_strict_literal() {
        assert!(value::<IpAddr>("127.0.0.1").is_ok());
        assert!(value::<IpAddr>("'::1'").is_ok());
        assert_eq!(value::<IpAddr>("127.1"), Err("'127.1' is not an IP string literal.".to_owned()));
        assert_eq!(value::<IpAddr>("localhost"), Err("'localhost' is not an IP string literal.".to_owned()));
    }

    #[test]
    fn a_list_tells_of_every_bad_item() {
        let node = crate::read("v: [1, x, 3, y]").unwrap();
        let mut cx = Cx::new();
        let list = cx.at_key("v", |cx| Vec::<u32>::from_node(node.get("v").unwrap(), cx));
        assert_eq!(list, None);
        let paths: Vec<String> = cx.finish().into_iter().map(|e| e.path).collect();
        assert_eq!(paths, ["v[1]", "v[3]"]);
        assert_eq!(value::<Vec<u32>>("3"), Err("expected a list, got \"3\"".to_owned()));
    }
}
