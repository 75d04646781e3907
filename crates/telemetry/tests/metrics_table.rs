//! The table of docs/metrics.md says what the catalogue says.

use std::path::Path;

const BEGIN: &str =
    "<!-- the table of metrics: written by `L5D_WRITE_DOCS=1 cargo test -p l5d-telemetry --test metrics_table` -->\n";
const END: &str = "<!-- the end of the table -->\n";

#[test]
fn the_table_of_the_documentation_is_that_of_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).expect("docs/metrics.md can be read");
    let (before, rest) = page.split_once(BEGIN).expect("the page has the mark where the table begins");
    let (table, after) = rest.split_once(END).expect("the page has the mark where the table ends");
    let written = format!("\n{}\n", l5d_telemetry::listing::markdown());
    if std::env::var_os("L5D_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{written}{END}{after}")).expect("docs/metrics.md can be written");
        return;
    }
    let differs = written.lines().zip(table.lines()).find(|(ours, theirs)| ours != theirs);
    assert!(
        table == written,
        "docs/metrics.md differs from the catalogue ({differs:?}): L5D_WRITE_DOCS=1 cargo test -p l5d-telemetry --test metrics_table"
    );
}
