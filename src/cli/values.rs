//! Values on the command line: `size=12`.

use serde_json::{Map, Value};

use super::CliError;
use super::files;

/// `k=v` pairs as an object. A value is JSON where it can be read as such (`12`, `true`, `[1, 2]`), else text.
///
/// # Errors
/// When one has no `=`, or a key is given twice.
pub fn object(flag: &str, pairs: &[String]) -> Result<Map<String, Value>, CliError> {
    let mut object = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(CliError::Usage(format!("{flag} {pair}: write it as {flag} NAME=VALUE")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if object.insert(key.to_owned(), value).is_some() {
            return Err(CliError::Usage(format!("{flag} {key} is given twice")));
        }
    }
    Ok(object)
}

/// The object that pairs or a file (JSON or YAML; `-` for standard input) give; `None` if neither is given.
///
/// # Errors
/// As [`object`], or when the file is no object.
pub fn object_or_file(
    flag: &str,
    pairs: &[String],
    file: Option<&str>,
) -> Result<Option<Map<String, Value>>, CliError> {
    let Some(file) = file else {
        return Ok(if pairs.is_empty() {
            None
        } else {
            Some(object(flag, pairs)?)
        });
    };
    let wrong = |message: String| CliError::File {
        file: file.to_owned(),
        message,
    };
    let text = files::read(file)?;
    let value: Value = serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match value {
        Value::Object(object) => Ok(Some(object)),
        other => Err(wrong(format!(
            "an object is needed, such as {{\"size\": 12}}, not {}",
            kind(&other)
        ))),
    }
}

/// Sets the fields of an operation's `spec.input` that `--input` gives.
///
/// # Errors
/// When one is no pair, or there is no spec to set it in.
pub fn set_input(operation: &mut Value, pairs: &[String]) -> Result<(), CliError> {
    let given = object("--input", pairs)?;
    if given.is_empty() {
        return Ok(());
    }
    let spec = operation.get_mut("spec").and_then(Value::as_object_mut);
    let input = spec.map(|spec| spec.entry("input").or_insert_with(|| Value::Object(Map::new())));
    match input {
        Some(Value::Object(input)) => {
            input.extend(given);
            Ok(())
        }
        _ => Err(CliError::Usage(
            "the operation has no spec whose input can be set: give it a spec with steps, or with a templateRef".into(),
        )),
    }
}

/// What a value is, in a word.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[&str]) -> Result<Value, String> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        object("--input", &pairs)
            .map(Value::Object)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        let value = read(&[
            "size=12",
            "name=web",
            "on=true",
            "list=[1, \"a\"]",
            "text=\"12\"",
            "empty=",
            "eq=a=b",
            "version=1.2.3",
        ]);
        assert_eq!(
            value.unwrap(),
            serde_json::json!({"size": 12, "name": "web", "on": true, "list": [1, "a"], "text": "12", "empty": "", "eq": "a=b", "version": "1.2.3"})
        );
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        assert_eq!(
            read(&["size"]),
            Err("--input size: write it as --input NAME=VALUE".into())
        );
        assert_eq!(read(&["=1"]), Err("--input =1: write it as --input NAME=VALUE".into()));
        assert_eq!(read(&["a=1", "a=2"]), Err("--input a is given twice".into()));
    }
}
