//! The committed page of operators is what the tables say, and the tables fit each other.

#[test]
fn ops_page_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ops.md");
    let page = silure_onnx::ops_page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "docs/ops.md is stale: run this test with BLESS=1");
}

#[test]
fn every_converter_is_for_an_operator_of_onnx() {
    // ONNX Runtime writes one of its own in ONNX's domain.
    let onnx = |o: &(&'static str, &'static str)| {
        silure_onnx::newest(o.0) > 0 && o.1 != "SimplifiedLayerNormalization"
    };
    for (domain, name) in silure_onnx::operators().into_iter().filter(onnx) {
        let known = silure_onnx::OPERATORS.iter().any(|o| o.domain == domain && o.name == name);
        assert!(known, "{domain} {name} is not in the table of operators");
    }
    assert_eq!(silure_onnx::newest(""), 28);
    assert_eq!(silure_onnx::newest("com.example"), 0);
    for o in silure_onnx::OPERATORS {
        assert!(o.versions.is_sorted() && !o.versions.is_empty(), "{}", o.name);
    }
}
