//! `holdfast reference`: every field of the custom resources, in Markdown, from the schemas that the CRDs have.

use std::fmt::{self, Write};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

const INTRODUCTION: &str = "\
# Reference

Every field of Holdfast's custom resources. Generated from their schemas by `holdfast reference`: don't edit. \
`kubectl explain cloudoperation.spec --recursive` says the same of the version that is installed.

A field is optional unless it is marked as required, and its default, where it has one, is in its description. \
What comes in several places is described in the first. How to use them is in [Writing operations](cloudoperation.md).
";

/// Writes the reference.
///
/// # Errors
/// Those of the writer; a `String` has none.
pub fn write(out: &mut impl Write, crds: &[CustomResourceDefinition]) -> fmt::Result {
    out.write_str(INTRODUCTION)?;
    let mut reference = Reference { out, written: vec![] };
    for crd in crds {
        for version in &crd.spec.versions {
            let kind = &crd.spec.names.kind;
            writeln!(reference.out, "\n## {kind} ({}/{})", crd.spec.group, version.name)?;
            let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
            for part in ["spec", "status"] {
                if let Some(schema) = schema.and_then(|s| s.properties.as_ref()?.get(part)) {
                    reference.object(&format!("{kind}.{part}"), schema)?;
                }
            }
        }
    }
    Ok(())
}

/// A reference under way. What was written once is referred to where it comes again.
struct Reference<'a, W> {
    out: &'a mut W,
    /// The objects that have a section with all their fields.
    written: Vec<Section<'a>>,
}

/// A section: an object, by its path.
#[derive(Clone)]
struct Section<'a> {
    path: String,
    schema: &'a JSONSchemaProps,
}

impl<'a, W: Write> Reference<'a, W> {
    /// A section for an object, and after it one for each object in it that has none yet.
    fn object(&mut self, path: &str, schema: &'a JSONSchemaProps) -> fmt::Result {
        writeln!(self.out, "\n### `{path}`\n")?;
        if let Some(description) = &schema.description {
            writeln!(self.out, "{description}\n")?;
        }
        if let Some(other) = self.with_fields_of(schema) {
            writeln!(self.out, "{}", as_in(&other, schema))?;
            return self.rules(schema, Some(other.schema));
        }
        self.written.push(Section {
            path: path.to_owned(),
            schema,
        });
        let mut sections = vec![];
        self.out
            .write_str("| Field | Type | Description |\n| --- | --- | --- |\n")?;
        for (name, field) in schema.properties.iter().flatten() {
            let required = schema.required.iter().flatten().any(|required| required == name);
            let section = inner(path, name, field).map(|own| match self.same_as(&own) {
                Some(other) => other.path,
                None => {
                    let path = own.path.clone();
                    sections.push(own);
                    path
                }
            });
            writeln!(
                self.out,
                "| `{name}`{} | {} | {} |",
                if required { " (required)" } else { "" },
                type_of(field, section.as_deref()),
                cell(field)
            )?;
        }
        self.rules(schema, None)?;
        // What is told in fewer words comes after what it repeats.
        let repeats = |own: &Section<'_>| {
            let mut others = sections.iter().filter(|other| other.path != own.path);
            others.any(|other| is_brief(own.schema, other.schema))
        };
        let (repeats, first): (Vec<_>, Vec<_>) = sections.iter().cloned().partition(repeats);
        for Section { path, schema } in first.into_iter().chain(repeats) {
            self.object(&path, schema)?;
        }
        Ok(())
    }

    /// With which words an object is refused, beyond those of another.
    fn rules(&mut self, schema: &JSONSchemaProps, other: Option<&JSONSchemaProps>) -> fmt::Result {
        let known: Vec<_> = other.into_iter().flat_map(messages).collect();
        let messages = messages(schema).filter(|message| !known.contains(message));
        for (n, message) in messages.enumerate() {
            let title = if n == 0 { "\nRefused, with these words:\n" } else { "" };
            writeln!(self.out, "{title}- {message}")?;
        }
        Ok(())
    }

    /// The section that says all of an object: of one that a field of the same name holds.
    fn same_as(&self, own: &Section<'_>) -> Option<Section<'a>> {
        let name = |path: &str| path.rsplit('.').next().map(str::to_owned);
        let same = |other: &&Section<'_>| {
            name(&other.path) == name(&own.path)
                && covers(other.schema, own.schema)
                && shape(other.schema) == shape(own.schema)
                && messages(own.schema).all(|message| messages(other.schema).any(|known| known == message))
        };
        self.written.iter().find(same).cloned()
    }

    /// The section that says more of the fields of an object, and maybe has others.
    fn with_fields_of(&self, schema: &JSONSchemaProps) -> Option<Section<'a>> {
        let mut written = self.written.iter();
        written.find(|other| is_brief(schema, other.schema)).cloned()
    }
}

/// That an object has the fields that another section tells of, or some of them.
fn as_in(other: &Section<'_>, schema: &JSONSchemaProps) -> String {
    let has = |name: &String| schema.properties.iter().flatten().any(|(own, _)| own == name);
    let fields = other.schema.properties.iter().flatten().map(|(name, _)| name);
    let (with, without): (Vec<_>, Vec<_>) = fields.partition(|name| has(name));
    let list = |names: Vec<&String>| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let link = link(&other.path);
    if without.is_empty() {
        format!("Its fields are those of {link}.")
    } else if without.len() < with.len() {
        format!("Its fields are those of {link}, without {}.", list(without))
    } else {
        format!("Its fields are as in {link}: {}.", list(with))
    }
}

/// The words of an object's rules.
fn messages(schema: &JSONSchemaProps) -> impl Iterator<Item = &str> {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    rules.filter_map(|rule| rule.message.as_deref())
}

/// Whether another object has all of an object's fields, and its words for each begin with those of this one.
fn covers(other: &JSONSchemaProps, own: &JSONSchemaProps) -> bool {
    fields(own)
        .all(|(name, own)| field(other, name).is_some_and(|other| shape(other) == shape(own) && says(other, own)))
}

/// Whether another object has all of an object's fields, and says more of them.
fn is_brief(own: &JSONSchemaProps, other: &JSONSchemaProps) -> bool {
    let needs = |schema: &JSONSchemaProps, name: &String| schema.required.iter().flatten().any(|needed| needed == name);
    let mut fields = fields(own);
    fields.clone().all(|(name, _)| needs(own, name) == needs(other, name))
        && covers(other, own)
        && fields.any(|(name, own)| field(other, name).is_some_and(|other| !says(own, other)))
}

/// Whether another field's description begins with that of a field, and so on within.
fn says(other: &JSONSchemaProps, own: &JSONSchemaProps) -> bool {
    let words = |field: &JSONSchemaProps| field.description.clone().unwrap_or_default();
    words(other).starts_with(&words(own)) && parts(other).zip(parts(own)).all(|(other, own)| says(other, own))
}

fn fields(schema: &JSONSchemaProps) -> impl Iterator<Item = (&String, &JSONSchemaProps)> + Clone {
    schema.properties.iter().flatten()
}

fn field<'s>(schema: &'s JSONSchemaProps, name: &str) -> Option<&'s JSONSchemaProps> {
    schema.properties.as_ref()?.get(name)
}

/// What a schema is made of: fields, entries, values.
fn parts(schema: &JSONSchemaProps) -> impl Iterator<Item = &JSONSchemaProps> {
    let items = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&**items),
        _ => None,
    };
    let values = match &schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => Some(&**values),
        _ => None,
    };
    fields(schema).map(|(_, field)| field).chain(items).chain(values)
}

/// What can be compared of a schema: without rules and descriptions.
fn shape(schema: &JSONSchemaProps) -> JSONSchemaProps {
    let mut shape = JSONSchemaProps {
        description: None,
        x_kubernetes_validations: None,
        ..schema.clone()
    };
    let fields = shape.properties.iter_mut().flatten();
    fields.for_each(|(_, field)| *field = self::shape(field));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut shape.items {
        **items = self::shape(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut shape.additional_properties {
        **values = self::shape(values);
    }
    shape
}

/// The object that a field holds, or a list of them.
fn inner<'a>(path: &str, name: &str, field: &'a JSONSchemaProps) -> Option<Section<'a>> {
    let (schema, brackets) = match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => (&**items, "[]"),
        _ => (field, ""),
    };
    let free = schema.x_kubernetes_preserve_unknown_fields == Some(true);
    let path = format!("{path}.{name}{brackets}");
    (schema.properties.is_some() && !free).then_some(Section { path, schema })
}

/// A link to a section.
fn link(path: &str) -> String {
    let anchor: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("[`{path}`](#{})", anchor.to_ascii_lowercase())
}

/// What a field takes, with its limits. An object has a section of its own.
fn type_of(field: &JSONSchemaProps, section: Option<&str>) -> String {
    if let Some(section) = section {
        let list = if field.items.is_some() { "list of " } else { "" };
        let most = field.max_items.map(|n| format!(", at most {n}")).unwrap_or_default();
        return format!("{list}{}{most}", link(section));
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
