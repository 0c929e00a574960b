//! Files with manifests.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{CliError, NAME, run};

/// Stands for standard input.
pub const STDIN: &str = "-";

/// The text of a file, or of standard input.
///
/// # Errors
/// When it can't be read.
pub fn read(file: &str) -> Result<String, CliError> {
    let text = if file == STDIN {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| CliError::File {
        file: file.to_owned(),
        message: error.to_string(),
    })
}

/// The YAML files in a directory and below it, by name; a file is itself.
///
/// # Errors
/// When one can't be read.
pub fn find(path: &str) -> Result<Vec<String>, CliError> {
    if path == STDIN || !Path::new(path).is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = vec![];
    let mut directories = vec![PathBuf::from(path)];
    while let Some(directory) = directories.pop() {
        let wrong = |error: std::io::Error| CliError::File {
            file: directory.display().to_string(),
            message: error.to_string(),
        };
        for entry in std::fs::read_dir(&directory).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if entry.file_type().map_err(wrong)?.is_dir() && !hidden {
                directories.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
            {
                files.push(path.display().to_string());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The documents in a text, empty ones too, so that they can be counted.
///
/// # Errors
/// When one is no YAML.
pub fn documents(text: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    let mut documents = vec![];
    for document in serde_yaml::Deserializer::from_str(text) {
        // Not right into JSON, which would let a key stand twice.
        let mut document = serde_yaml::Value::deserialize(document)?;
        document.apply_merge()?;
        documents.push(serde_json::to_value(document).map_err(<serde_yaml::Error as serde::de::Error>::custom)?);
    }
    Ok(documents)
}

/// The kind of an object of Holdfast's, of any version.
pub fn kind(document: &Value) -> Option<&str> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    text("apiVersion").starts_with("holdfast.dev/").then(|| text("kind"))
}

/// True for a CloudOperation of any version.
pub fn is_operation(document: &Value) -> bool {
    kind(document) == Some("CloudOperation")
}

/// True for an OperationTemplate of any version.
pub fn is_template(document: &Value) -> bool {
    kind(document) == Some("OperationTemplate")
}

/// The one CloudOperation in a file, and the OperationTemplates beside it.
///
/// # Errors
/// When there is no operation, or more than one.
pub fn operation_and_templates(file: &str) -> Result<(Value, Vec<Value>), CliError> {
    let (operation, templates) = found(file)?;
    let missing = || {
        let mut message = String::from("there is no CloudOperation in it (apiVersion holdfast.dev/v1alpha1)");
        if !templates.is_empty() {
            message += &format!(", but a template: once that is applied, {NAME} run --template runs it");
        }
        wrong(file, message)
    };
    Ok((operation.ok_or_else(missing)?, templates))
}

/// As [`operation_and_templates`]; where there is a template alone, an operation of it.
///
/// # Errors
/// When there is neither, or more than one.
pub fn operation_or_template(file: &str) -> Result<(Value, Vec<Value>), CliError> {
    let (operation, templates) = found(file)?;
    let operation = match (operation, templates.as_slice()) {
        (Some(operation), _) => operation,
        (None, [template]) => {
            let metadata = &template["metadata"];
            let mut operation = run::of_template(metadata["name"].as_str().unwrap_or_default(), None);
            operation["metadata"]["namespace"] = metadata["namespace"].clone();
            operation
        }
        (None, []) => {
            let message =
                "there is no CloudOperation in it (apiVersion holdfast.dev/v1alpha1), and no OperationTemplate";
            return Err(wrong(file, message.into()));
        }
        (None, several) => {
            let several = several.len();
            let message = format!("there is no CloudOperation in it, and {several} OperationTemplates: this takes one");
            return Err(wrong(file, message));
        }
    };
    Ok((operation, templates))
}

/// The CloudOperation in a file, one at most, and the OperationTemplates.
fn found(file: &str) -> Result<(Option<Value>, Vec<Value>), CliError> {
    let mut documents = documents(&read(file)?).map_err(|error| wrong(file, error.to_string()))?;
    let mut operations: Vec<Value> = documents.extract_if(.., |document| is_operation(document)).collect();
    documents.retain(is_template);
    match operations.len() {
        0 | 1 => Ok((operations.pop(), documents)),
        several => Err(wrong(
            file,
            format!("there are {several} CloudOperations in it: this takes one"),
        )),
    }
}

fn wrong(file: &str, message: String) -> CliError {
    CliError::File {
        file: file.to_owned(),
        message,
    }
}
