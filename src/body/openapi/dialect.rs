//! The schemas of OpenAPI as JSON Schema 2020-12.
//!
//! Translated are, of 3.0: `nullable` beside a `type`, `exclusiveMinimum` and `exclusiveMaximum` that are true or false,
//! and what stands beside a `$ref`, which says nothing there. Of both versions: what is `readOnly` is not `required`, for
//! only requests are checked.

use serde_json::{Map, Value};

/// Changes a document of OpenAPI 3.1.
pub(super) fn of_requests(document: &mut Value) {
    walk(document, &mut without_read_only);
}

/// Changes a document of OpenAPI 3.0.
pub(super) fn of_3_0(document: &mut Value) {
    walk(document, &mut |object| {
        without_read_only(object);
        translate(object);
    });
}

/// Goes over all objects but those that are data, the inner ones first.
fn walk(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match (key.as_str(), value) {
                    // Its keys are names, whatever they are.
                    ("properties" | "patternProperties" | "schemas" | "$defs", Value::Object(named)) => {
                        named.values_mut().for_each(|value| walk(value, change));
                    }
                    ("example" | "examples" | "default" | "enum" | "const", _) => {}
                    (key, _) if key.starts_with("x-") => {}
                    (_, value) => walk(value, change),
                }
            }
            change(object);
        }
        _ => {}
    }
}

fn without_read_only(schema: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    let is_read_only = |name: &str| properties.get(name).and_then(|p| p.get("readOnly")) == Some(&Value::Bool(true));
    let Some(Value::Array(required)) = schema.get("required") else { return };
    let kept = required.iter().filter(|name| !name.as_str().is_some_and(is_read_only)).cloned().collect();
    schema.insert("required".to_owned(), Value::Array(kept));
}

fn translate(schema: &mut Map<String, Value>) {
    if schema.get("$ref").is_some_and(Value::is_string) {
        schema.retain(|key, _| key == "$ref");
        return;
    }
    if let Some(Value::Bool(nullable)) = schema.get("nullable").cloned() {
        schema.remove("nullable");
        if let (true, Some(Value::String(one))) = (nullable, schema.get("type").cloned()) {
            schema.insert("type".to_owned(), serde_json::json!([one, "null"]));
        }
    }
    for (exclusive, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        let Some(Value::Bool(is_exclusive)) = schema.get(exclusive).cloned() else { continue };
        schema.remove(exclusive);
        if is_exclusive && let Some(limit) = schema.remove(limit) {
            schema.insert(exclusive.to_owned(), limit);
        }
    }
}
