//! The OpenAPI document of the API and the table of its reference. Both are made of the rows of
//! [`operations`](crate::operations).

use std::borrow::Cow;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::events::RevisionDemand;
use crate::operations::{IDEMPOTENCY_KEY, NoRequest, OPERATIONS, Operation, Twice};
use crate::{Json, Problem};

/// The fields of every request that changes versions. The reference explains them once.
const ASKED: [&str; 3] = ["actor", "reason", "idempotency_key"];

/// The forms of one operation.
struct Forms {
    request: Schema,
    response: Schema,
}

/// The type of a request, or of no request.
macro_rules! request {
    () => {
        NoRequest
    };
    ($request:ident) => {
        crate::$request
    };
}

macro_rules! forms {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident: $method:ident $path:literal ($($part:ident),*) $($request:ident)? => $response:ident,
            $right:ident, $twice:ident;
    )*) => {
        /// Returns the forms of all operations, in the order of the rows.
        fn forms(takes: &mut SchemaGenerator, gives: &mut SchemaGenerator) -> Vec<Forms> {
            vec![$(Forms {
                request: <request!($($request)?)>::json_schema(takes),
                response: gives.subschema_for::<crate::$response>(),
            }),*]
        }
    };
}

crate::operations!(forms);

/// Returns the document, in OpenAPI 3.1.
pub fn document() -> Value {
    let settings = |settings: SchemaSettings| {
        let mut settings = settings;
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings
    };
    let mut takes = settings(SchemaSettings::draft2020_12().for_deserialize()).into_generator();
    let mut gives = settings(SchemaSettings::draft2020_12().for_serialize()).into_generator();
    let forms = forms(&mut takes, &mut gives);
    let problem = gives.subschema_for::<Problem>();
    let mut paths = Map::new();
    for (operation, forms) in OPERATIONS.iter().zip(forms) {
        let at = paths.entry(operation.path).or_insert_with(|| json!({}));
        at[operation.method.to_lowercase()] = described(operation, &forms, &problem);
    }
    let mut schemas = gives.take_definitions(true);
    for (name, schema) in takes.take_definitions(true) {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(other.is_none_or(|other| other == schema), "{name} is read and written in two forms: name them apart");
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dacapo",
            "version": "1",
            "summary": "Rebuilds read models while the system keeps serving.",
            "description": "Every node answers every operation. A request that is not understood as a whole is refused; \
                            a reader of an answer ignores fields that it does not know.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn described(operation: &Operation, forms: &Forms, problem: &Schema) -> Value {
    let text = json!({"type": "string"});
    let mut parameters: Vec<Value> = operation
        .parts
        .iter()
        .map(|part| json!({"name": part, "in": "path", "required": true, "schema": text}))
        .collect();
    if operation.method == "GET" {
        let required = forms.request.get("required").and_then(Value::as_array);
        for (name, schema) in fields(&forms.request) {
            let required = required.is_some_and(|required| required.iter().any(|found| found == name));
            parameters.push(json!({"name": name, "in": "query", "required": required, "schema": schema}));
        }
    }
    if operation.twice == Twice::ByKey {
        let description = "The same as the field `idempotency_key` of the body. Give only one of them.";
        let (name, schema) = (IDEMPOTENCY_KEY, text);
        parameters.push(json!({"name": name, "in": "header", "description": description, "schema": schema}));
    }
    let answer = |description: &str, schema: &Schema| json!({"description": description, "content": {"application/json": {"schema": schema}}});
    let right = operation.right.as_str();
    let forbidden = format!("The caller lacks the right `{right}`, or a page of another site made the request.");
    let mut described = json!({
        "operationId": operation.name,
        "summary": operation.summary(),
        "parameters": parameters,
        "responses": {
            "200": answer("Done.", &forms.response),
            "403": answer(&forbidden, problem),
            "default": answer("Declined.", problem),
        },
        "x-dacapo-right": right,
        "x-dacapo-twice": twice(operation.twice),
    });
    if operation.method != "GET" {
        let content = json!({"application/json": {"schema": forms.request}});
        described["requestBody"] = json!({"required": true, "content": content});
    }
    described
}

fn fields(request: &Schema) -> impl Iterator<Item = (&String, &Value)> {
    request.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn twice(twice: Twice) -> &'static str {
    match twice {
        Twice::Safe => "safe",
        Twice::ByEventIds => "by event ids",
        Twice::ByKey => "by key",
    }
}

/// Returns the table of `docs/http-api.md`: a row for each operation.
pub fn table() -> String {
    let mut takes = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut gives = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let forms = forms(&mut takes, &mut gives);
    let row = |(operation, forms): (&Operation, Forms)| {
        let named = fields(&forms.request).map(|(name, _)| name).filter(|name| !ASKED.contains(&name.as_str()));
        let named: Vec<_> = named.map(|name| format!("`{name}`")).collect();
        let (method, path) = (operation.method, operation.path);
        let (right, twice) = (operation.right.as_str(), twice(operation.twice));
        let (fields, does) = (named.join(", "), operation.summary());
        format!("| `{method} {path}` | {fields} | {right} | {twice} | {does} |\n")
    };
    let head = "| operation | fields | right | sent twice | what it does |\n|---|---|---|---|---|\n";
    OPERATIONS.iter().zip(forms).map(row).fold(head.to_owned(), |table, row| table + &row)
}

impl JsonSchema for Json {
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "Any JSON value; it is kept byte for byte."})
    }
}

impl JsonSchema for RevisionDemand {
    fn schema_name() -> Cow<'static, str> {
        "RevisionDemand".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The last revision that the stream must have, or another condition on the stream.",
            "oneOf": [
                {"enum": ["any", "no_stream", "exists"]},
                {"type": "integer", "format": "uint64", "minimum": 0},
            ],
        })
    }
}
