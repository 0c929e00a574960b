//! Files with manifests.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::CliError;

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
    let wrong = |message: String| CliError::File {
        file: file.to_owned(),
        message,
    };
    let mut documents = documents(&read(file)?).map_err(|error| wrong(error.to_string()))?;
    let mut operations: Vec<Value> = documents.extract_if(.., |document| is_operation(document)).collect();
    documents.retain(is_template);
    match (operations.pop(), operations.len()) {
        (Some(operation), 0) => Ok((operation, documents)),
        (None, _) => Err(wrong(
            "there is no CloudOperation in it (apiVersion holdfast.dev/v1alpha1)".into(),
        )),
        (Some(_), others) => Err(wrong(format!(
            "there are {} CloudOperations in it: this takes one",
            others + 1
        ))),
    }
}
