//! What is written about the API is what its rows say. `DACAPO_WRITE_DOCS=1` writes it again.

use std::path::{Path, PathBuf};
use std::{env, fs};

use dacapo_api::openapi;

const BEGINS: &str = "<!-- begin: operations -->\n";
const ENDS: &str = "<!-- end: operations -->\n";

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// The file has this text; or gets it, if that is asked for.
fn is_written(name: &str, expected: &str) {
    if env::var_os("DACAPO_WRITE_DOCS").is_some() {
        fs::write(docs(name), expected).unwrap();
    }
    let found = fs::read_to_string(docs(name)).unwrap_or_default();
    let again = "DACAPO_WRITE_DOCS=1 cargo test -p dacapo-api --all-features --test reference";
    assert!(found == expected, "docs/{name} is not what the operations of the API are. Write it anew: {again}");
}

#[test]
fn the_openapi_document_is_that_of_the_operations() {
    let text = serde_json::to_string_pretty(&openapi::document()).unwrap() + "\n";
    is_written("openapi.json", &text);
}

#[test]
fn the_reference_lists_the_operations() {
    let found = fs::read_to_string(docs("http-api.md")).unwrap();
    let (before, rest) = found.split_once(BEGINS).expect("where the table begins");
    let (_, after) = rest.split_once(ENDS).expect("where the table ends");
    is_written("http-api.md", &format!("{before}{BEGINS}{}{ENDS}{after}", openapi::table()));
}
