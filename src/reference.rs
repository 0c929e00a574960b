//! `holdfast reference`: every field of the custom resources, in Markdown, from the schemas that the CRDs have.

use std::fmt::{self, Write};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

const INTRODUCTION: &str = "\
# Reference

Every field of Holdfast's custom resources. Generated from their schemas by `holdfast reference`: don't edit. \
`kubectl explain cloudoperation.spec --recursive` says the same of the version that is installed.

A field is optional unless it is marked as required, and its default is in its description. \
How to use them is in [the guide](cloudoperation.md).
";

/// Writes the reference.
///
/// # Errors
/// Those of the writer; a `String` has none.
pub fn write(out: &mut impl Write, crds: &[CustomResourceDefinition]) -> fmt::Result {
    out.write_str(INTRODUCTION)?;
    for crd in crds {
        for version in &crd.spec.versions {
            writeln!(
                out,
                "\n## {} ({}/{})",
                crd.spec.names.kind, crd.spec.group, version.name
            )?;
            let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
            let parts = ["spec", "status"].map(|part| (part, schema.and_then(|s| s.properties.as_ref()?.get(part))));
            for (part, schema) in parts {
                if let Some(schema) = schema {
                    object(out, part, schema)?;
                }
            }
        }
    }
    Ok(())
}

/// A section for an object, and after it one for each object in it.
fn object(out: &mut impl Write, path: &str, schema: &JSONSchemaProps) -> fmt::Result {
    writeln!(out, "\n### `{path}`\n")?;
    if let Some(description) = &schema.description {
        writeln!(out, "{description}\n")?;
    }
    let properties = schema.properties.iter().flatten();
    out.write_str("| Field | Type | Description |\n| --- | --- | --- |\n")?;
    for (name, field) in properties.clone() {
        let required = schema.required.iter().flatten().any(|required| required == name);
        let inner = inner(path, name, field).map(|(path, _)| path);
        writeln!(
            out,
            "| `{name}`{} | {} | {} |",
            if required { " (required)" } else { "" },
            type_of(field, inner.as_deref()),
            cell(field)
        )?;
    }
    let rules = schema.x_kubernetes_validations.iter().flatten();
    for (n, message) in rules.filter_map(|rule| rule.message.as_deref()).enumerate() {
        writeln!(
            out,
            "{}- {message}",
            if n == 0 { "\nRefused, with these words:\n" } else { "" }
        )?;
    }
    for (path, schema) in properties.filter_map(|(name, field)| inner(path, name, field)) {
        object(out, &path, schema)?;
    }
    Ok(())
}

/// The object that a field holds, or a list of them, with its path.
fn inner<'s>(path: &str, name: &str, field: &'s JSONSchemaProps) -> Option<(String, &'s JSONSchemaProps)> {
    let (schema, brackets) = match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => (&**items, "[]"),
        _ => (field, ""),
    };
    let free = schema.x_kubernetes_preserve_unknown_fields == Some(true);
    (schema.properties.is_some() && !free).then(|| (format!("{path}.{name}{brackets}"), schema))
}

/// What a field takes, with its limits. An object has a section of its own.
fn type_of(field: &JSONSchemaProps, section: Option<&str>) -> String {
    if let Some(section) = section {
        let anchor: String = section.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let list = if field.items.is_some() { "list of " } else { "" };
        let most = field.max_items.map(|n| format!(", at most {n}")).unwrap_or_default();
        return format!("{list}[`{section}`](#{}){most}", anchor.to_ascii_lowercase());
    }
    let mut text = match (field.type_.as_deref(), &field.items, &field.additional_properties) {
        (_, Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!("list of {}", type_of(items, None)),
        (_, _, Some(JSONSchemaPropsOrBool::Schema(values))) => format!("map of {}", type_of(values, None)),
        (_, _, _) if field.x_kubernetes_int_or_string == Some(true) => "integer or template".to_owned(),
        (Some("string"), _, _) if field.format.as_deref() == Some("date-time") => "time".to_owned(),
        (Some("object"), _, _) => "any object".to_owned(),
        (Some(name), _, _) => name.to_owned(),
        (None, _, _) => "any value".to_owned(),
    };
    if let Some(values) = &field.enum_ {
        let values: Vec<_> = values
            .iter()
            .map(|v| format!("`{}`", v.0.as_str().unwrap_or_default()))
            .collect();
        text = format!("one of {}", values.join(", "));
    }
    let number = |name: &str, limit: Option<f64>| limit.map(|limit| format!("{name} {limit}"));
    let count = |name: &str, limit: Option<i64>, of: &str| limit.map(|limit| format!("{name} {limit} {of}"));
    let limits = [
        number("at least", field.minimum),
        number("at most", field.maximum),
        count(
            "at most",
            field.max_length.filter(|_| field.enum_.is_none()),
            "characters",
        ),
        count("at most", field.max_items, "entries"),
        count("at most", field.max_properties, "entries"),
    ];
    for limit in limits.into_iter().flatten() {
        let _ = write!(text, ", {limit}"); // a String takes all
    }
    text
}

/// A field's description and rules, as a cell of a table.
fn cell(field: &JSONSchemaProps) -> String {
    let rules = field.x_kubernetes_validations.iter().flatten();
    let rules = rules
        .filter_map(|rule| rule.message.as_deref())
        .filter(|_| field.properties.is_none());
    let mut text = field.description.clone().unwrap_or_default();
    for rule in rules {
        let _ = write!(text, " It {}.", rule.trim_end_matches('.'));
    }
    text.replace('|', r"\|").replace("\n\n", "<br>").replace('\n', " ")
}
