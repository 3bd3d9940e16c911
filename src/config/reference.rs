//! The settings in docs/configuration.md are those of the table.

use super::Config;
use super::table::SETTINGS;

const DOCUMENT: &str = include_str!("../../docs/configuration.md");

/// The rows of the document's table.
fn rows() -> String {
    let defaults = Config::default();
    let row = |setting: &super::table::Setting| {
        let default = match setting.name {
            "workers" => "one for each core".to_string(),
            "peer-port" => "`port` + 10000".to_string(),
            _ => match (setting.read)(&defaults) {
                text if text.is_empty() => "unset".to_string(),
                text => format!("`{text}`"),
            },
        };
        let runtime = if setting.runtime { "yes" } else { "" };
        let value = setting.value_name.replace('|', "\\|");
        format!("| `{}` | {value} | {default} | {runtime} | {} |\n", setting.name, setting.help)
    };
    SETTINGS.iter().map(row).collect()
}

#[test]
fn the_document_has_the_table_of_settings() {
    let rows = rows();
    assert!(DOCUMENT.contains(&rows), "docs/configuration.md should have these rows:\n{rows}");
}
