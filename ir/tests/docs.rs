//! The committed reference page is what the declarations say.

#[test]
fn ops_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ops-ir.md");
    let page = silure_ir::docs::ops_page(&silure_ir::Context::new());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "docs/ops-ir.md is stale: run this test with BLESS=1");
}
