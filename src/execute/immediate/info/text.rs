//! The text of `INFO`: sections of `field:value` lines.

use std::fmt::{Display, Write};

/// An `INFO` text under construction.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        self.put(format_args!("# {title}\r\n"));
    }

    /// Adds a field to the section at hand.
    pub fn field(&mut self, name: impl Display, value: impl Display) {
        self.put(format_args!("{name}:{value}\r\n"));
    }

    /// Adds fields that are 0 because what they count does not exist here.
    pub fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.field(name, 0);
        }
    }

    /// Adds a size and, as `…_human`, the same for people.
    pub fn size(&mut self, name: &str, bytes: u64) {
        self.field(name, bytes);
        self.field(format_args!("{name}_human"), human(bytes));
    }

    /// The text so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _infallible = self.0.write_fmt(text);
    }
}

/// `bytes` as Redis shows sizes to people: `894.81K`.
pub fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size);
    unit.map_or(format!("{bytes}B"), |(unit, size)| format!("{}{unit}", hundredths(bytes, *size)))
}

/// `part / whole` with two decimals, rounded down; 0.00 of nothing.
pub fn hundredths(part: u64, whole: u64) -> String {
    let scaled = (u128::from(part) * 100).checked_div(whole.into()).unwrap_or(0);
    format!("{}.{:02}", scaled / 100, scaled % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_apart_by_an_empty_line() {
        let mut text = Text::default();
        text.section("Server");
        text.field("a", 1);
        text.section("Memory");
        text.size("used", 2048);
        assert_eq!(
            String::from_utf8(text.into_bytes()).unwrap(),
            "# Server\r\na:1\r\n\r\n# Memory\r\nused:2048\r\nused_human:2.00K\r\n"
        );
    }

    #[test]
    fn sizes_for_people_have_a_unit_and_two_decimals() {
        for (bytes, shown) in
            [(0, "0B"), (1023, "1023B"), (916_288, "894.81K"), (25_274_793_984, "23.53G"), (1 << 40, "1.00T")]
        {
            assert_eq!(human(bytes), shown);
        }
        assert_eq!((hundredths(1, 3).as_str(), hundredths(5, 0).as_str()), ("0.33", "0.00"));
    }
}
