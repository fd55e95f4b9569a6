//! `OpenMetrics` 1.0 text.
//!
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::fmt::Write;

use super::{Exposition, prometheus};

/// Of an answer in this format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The exposition as text. A family's name has no `_total` here, those of its samples have.
pub fn encode(exposition: &Exposition) -> Vec<u8> {
    let mut out = String::new();
    for family in exposition.families() {
        let name = family.stem();
        let _ = writeln!(out, "# TYPE {name} {}", prometheus::kind_word(family.kind));
        if let Some(unit) = family.unit {
            let _ = writeln!(out, "# UNIT {name} {}", unit.word());
        }
        let _ = write!(out, "# HELP {name} ");
        prometheus::escape(&mut out, family.help);
        out.push('\n');
        prometheus::samples(&mut out, family);
    }
    out.push_str("# EOF\n");
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    /// Read back once by `prometheus_client` 0.26 (`openmetrics.parser`) and scraped by Prometheus 2.42.
    const EXPECTED: &str = include_str!("golden/example.openmetrics");

    #[test]
    fn the_text_is_what_the_reference_parser_has_read() {
        assert_eq!(String::from_utf8(encode(&example())).unwrap(), EXPECTED);
    }
}
