//! As much of JSON Schema as this project's schemas use, so that what is written is held against them.

use serde_json::Value;

/// What of a value is not as the schema says; empty if it is. `root` is the whole document, for references.
pub fn faults(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target
            .map_or_else(|| vec![format!("{reference} leads nowhere")], |target| faults(root, target, value, place));
    }
    let mut found = Vec::new();
    for (word, all) in [("anyOf", false), ("oneOf", true)] {
        if let Some(schemas) = schema[word].as_array() {
            let fits = schemas.iter().filter(|schema| faults(root, schema, value, place).is_empty()).count();
            if fits == 0 || (all && fits != 1) {
                found.push(format!("{place} fits {fits} of {word}"));
            }
        }
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{place} is {value}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !types.is_empty() && !types.iter().any(is) {
        found.push(format!("{place} is no {}", types.join(" or ")));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < least
    {
        found.push(format!("{place} is {number}"));
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        if schema["items"].is_object() {
            found.extend(faults(root, &schema["items"], item, &format!("{place}[{n}]")));
        }
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                found.push(format!("{place} lacks {name}"));
            }
        }
        for (name, inner) in object {
            let place = format!("{place}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (own @ Value::Object(_), _) => found.extend(faults(root, own, inner, &place)),
                (_, Value::Bool(false)) => found.push(format!("{place} is not named")),
                (_, other @ Value::Object(_)) => found.extend(faults(root, other, inner, &place)),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_from_a_schema_is_named() {
        let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": { "a": { "$ref": "#/$defs/n" }, "b": { "type": ["string", "null"] }, "c": { "enum": [1, 2] },
                            "d": { "items": { "type": "boolean" } }, "e": { "anyOf": [{ "type": "null" }, { "type": "string" }] } },
            "$defs": { "n": { "type": "integer", "minimum": 0 } } });
        let faults = |value: Value| faults(&schema, &schema, &value, "x");
        assert!(faults(json!({ "a": 1, "b": null, "c": 2, "d": [true], "e": "y" })).is_empty());
        for bad in [
            json!([]),
            json!({}),
            json!({ "a": -1 }),
            json!({ "a": "1" }),
            json!({ "a": 1, "b": 2 }),
            json!({ "a": 1, "c": 3 }),
            json!({ "a": 1, "d": [1] }),
            json!({ "a": 1, "e": 1 }),
            json!({ "a": 1, "f": 1 }),
        ] {
            assert_eq!(faults(bad.clone()).len(), 1, "{bad}");
        }
    }
}
