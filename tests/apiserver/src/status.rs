//! The errors of the API, as `metav1.Status`, worded as the real server words them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::resources::Resource;

/// What a request comes to, or the error that its client is told.
pub type Result<T> = std::result::Result<T, Box<Status>>;

/// What is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    field: String,
    reason: &'static str,
    message: String,
}

impl FieldError {
    /// A value that is not allowed, as JSON, and why.
    pub fn invalid(field: impl Into<String>, value: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::new(field, "FieldValueInvalid", format!("Invalid value: {value}: {why}"))
    }

    /// A value of another type than the schema's.
    pub fn wrong_type(field: impl Into<String>, found: &str, expected: &str) -> Self {
        let field = field.into();
        let message = format!("Invalid value: \"{found}\": {field} in body must be of type {expected}: \"{found}\"");
        Self::new(field, "FieldValueTypeInvalid", message)
    }

    /// A field that must be there.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {detail}")
        };
        Self::new(field, "FieldValueRequired", message)
    }

    /// A change that is not allowed.
    pub fn forbidden(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::new(field, "FieldValueForbidden", format!("Forbidden: {why}"))
    }

    /// A value outside an enumeration.
    pub fn unsupported(field: impl Into<String>, value: &str, supported: &[String]) -> Self {
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self::new(field, "FieldValueNotSupported", message)
    }

    /// An entry that a list already has.
    pub fn duplicate(field: impl Into<String>, value: impl std::fmt::Display) -> Self {
        Self::new(field, "FieldValueDuplicate", format!("Duplicate value: {value}"))
    }

    /// A text of more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: u64) -> Self {
        Self::new(
            field,
            "FieldValueTooLong",
            format!("Too long: may not be more than {max} bytes"),
        )
    }

    /// A list or map of more than `max` entries.
    pub fn too_many(field: impl Into<String>, count: usize, max: u64) -> Self {
        Self::new(
            field,
            "FieldValueTooMany",
            format!("Too many: {count}: must have at most {max} items"),
        )
    }

    /// The same error of a part of an object: only its field is named in full, not its message.
    pub fn within(mut self, part: &str) -> Self {
        if self.field != "<nil>" {
            let dot = if self.field.is_empty() { "" } else { "." };
            self.field = format!("{part}{dot}{}", self.field);
        }
        self
    }

    fn new(field: impl Into<String>, reason: &'static str, message: String) -> Self {
        Self {
            field: field.into(),
            reason,
            message,
        }
    }
}

/// Any failure: the constructors below are this one with the details filled in.
pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Box<Status> {
    Box::new(Status {
        code: Some(i32::from(code)),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: Some(message.into()),
        status: Some("Failure".into()),
        ..Status::default()
    })
}

fn of_object(code: u16, reason: &str, resource: &Resource, name: &str, message: String) -> Box<Status> {
    let mut status = failure(code, reason, message);
    status.details = Some(details(resource, &resource.plural, name));
    status
}

fn details(resource: &Resource, kind: &str, name: &str) -> StatusDetails {
    StatusDetails {
        name: (!name.is_empty()).then(|| name.to_owned()),
        group: (!resource.group.is_empty()).then(|| resource.group.clone()),
        kind: Some(kind.to_owned()),
        ..StatusDetails::default()
    }
}

/// 404: there is no such object.
pub fn not_found(resource: &Resource, name: &str) -> Box<Status> {
    of_object(
        404,
        "NotFound",
        resource,
        name,
        format!("{} \"{name}\" not found", resource.qualified()),
    )
}

/// 404: the server serves no such resource.
pub fn no_such_resource() -> Box<Status> {
    failure(404, "NotFound", "the server could not find the requested resource")
}

/// 405: the resource has no such verb.
pub fn method_not_allowed() -> Box<Status> {
    failure(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}

/// 409: an object to create exists.
pub fn already_exists(resource: &Resource, name: &str) -> Box<Status> {
    of_object(
        409,
        "AlreadyExists",
        resource,
        name,
        format!("{} \"{name}\" already exists", resource.qualified()),
    )
}

/// 409 with the reason that the operation can't be fulfilled.
pub fn conflict(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Box<Status> {
    let message = format!(
        "Operation cannot be fulfilled on {} \"{name}\": {why}",
        resource.qualified()
    );
    of_object(409, "Conflict", resource, name, message)
}

/// 409: the write was computed from another resourceVersion than the object's.
pub fn modified(resource: &Resource, name: &str) -> Box<Status> {
    conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// 409: a delete whose precondition doesn't hold; the real server names the kind here, not the resource.
pub fn precondition(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Box<Status> {
    let message = format!(
        "Operation cannot be fulfilled on {} \"{name}\": {why}",
        resource.qualified_kind()
    );
    let mut status = failure(409, "Conflict", message);
    status.details = Some(details(resource, &resource.kind, name));
    status
}

/// 409: a server-side apply of fields that other managers own: pairs of manager (as it is shown) and field.
pub fn apply_conflict(conflicts: &[(String, String)]) -> Box<Status> {
    let listed = match conflicts {
        [(manager, field)] => format!("1 conflict: conflict with {manager}: {field}"),
        _ => {
            let mut managers: Vec<&str> = conflicts.iter().map(|(manager, _)| manager.as_str()).collect();
            managers.dedup();
            let each = managers.iter().map(|manager| {
                let fields = conflicts
                    .iter()
                    .filter(|(m, _)| m == manager)
                    .map(|(_, field)| format!("\n- {field}"));
                format!("conflicts with {manager}:{}", fields.collect::<String>())
            });
            format!("{} conflicts: {}", conflicts.len(), each.collect::<Vec<_>>().join("\n"))
        }
    };
    let mut status = failure(409, "Conflict", format!("Apply failed with {listed}"));
    let causes = conflicts.iter().map(|(manager, field)| StatusCause {
        reason: Some("FieldManagerConflict".into()),
        message: Some(format!("conflict with {manager}")),
        field: Some(field.clone()),
    });
    status.details = Some(StatusDetails {
        causes: Some(causes.collect()),
        ..StatusDetails::default()
    });
    status
}

/// 422: fields of the object are wrong.
pub fn invalid(resource: &Resource, name: &str, errors: Vec<FieldError>) -> Box<Status> {
    invalid_named(resource, &resource.kind, name, errors)
}

/// 422 for an update that must carry a resourceVersion; the real server names the resource here, not the kind.
pub fn unconditional_update(resource: &Resource, name: &str) -> Box<Status> {
    let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
    invalid_named(resource, &resource.plural, name, vec![error])
}

fn invalid_named(resource: &Resource, kind: &str, name: &str, errors: Vec<FieldError>) -> Box<Status> {
    let mut texts: Vec<String> = errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
    texts.dedup();
    let listed = if texts.len() == 1 {
        texts.remove(0)
    } else {
        format!("[{}]", texts.join(", "))
    };
    let dot = if resource.group.is_empty() { "" } else { "." };
    let mut status = failure(
        422,
        "Invalid",
        format!("{kind}{dot}{} \"{name}\" is invalid: {listed}", resource.group),
    );
    let causes = errors.into_iter().map(|e| StatusCause {
        reason: Some(e.reason.into()),
        message: Some(e.message),
        field: Some(e.field),
    });
    status.details = Some(StatusDetails {
        causes: Some(causes.collect()),
        ..details(resource, kind, name)
    });
    status
}

/// 422: options of a request are wrong.
pub fn invalid_options(kind: &str, error: FieldError) -> Box<Status> {
    let mut status = failure(
        422,
        "Invalid",
        format!("{kind}.meta.k8s.io \"\" is invalid: {}: {}", error.field, error.message),
    );
    status.details = Some(StatusDetails {
        group: Some("meta.k8s.io".into()),
        kind: Some(kind.to_owned()),
        causes: Some(vec![StatusCause {
            reason: Some(error.reason.into()),
            message: Some(error.message),
            field: Some(error.field),
        }]),
        ..StatusDetails::default()
    });
    status
}

/// 422: a JSON patch that doesn't apply: a failed `test`, a path that isn't there.
pub fn patch_rejected() -> Box<Status> {
    let mut status = failure(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    );
    status.details = Some(StatusDetails::default());
    status
}

/// 400.
pub fn bad_request(message: impl Into<String>) -> Box<Status> {
    failure(400, "BadRequest", message)
}

/// 500 without a reason, as the real server answers some wrong requests.
pub fn internal(message: impl Into<String>) -> Box<Status> {
    failure(500, "", message)
}

/// 410: a resourceVersion or a list's token from before the last compaction.
pub fn expired(message: impl Into<String>) -> Box<Status> {
    failure(410, "Expired", message)
}

/// 504: a read of a resourceVersion that the server hasn't reached.
pub fn too_large_version(asked: u64, current: u64) -> Box<Status> {
    let mut status = failure(
        504,
        "Timeout",
        format!("Timeout: Too large resource version: {asked}, current: {current}"),
    );
    status.details = Some(StatusDetails {
        causes: Some(vec![StatusCause {
            reason: Some("ResourceVersionTooLarge".into()),
            message: Some("Too large resource version".into()),
            field: None,
        }]),
        retry_after_seconds: Some(1),
        ..StatusDetails::default()
    });
    status
}

/// 415: a patch of a type that the resource doesn't take.
pub fn unsupported_media_type(accepted: &str) -> Box<Status> {
    failure(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
    )
}

/// 403, with the reason after "is forbidden: ".
pub fn forbidden(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Box<Status> {
    let named = if name.is_empty() {
        String::new()
    } else {
        format!(" \"{name}\"")
    };
    of_object(
        403,
        "Forbidden",
        resource,
        name,
        format!("{}{named} is forbidden: {why}", resource.qualified()),
    )
}

/// 429: an eviction that a disruption budget doesn't allow, with the budget's words and when to try again.
pub fn too_many_disruptions(message: String, retry_after: Option<i32>) -> Box<Status> {
    let mut status = failure(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    status.details = Some(StatusDetails {
        causes: Some(vec![StatusCause {
            reason: Some("DisruptionBudget".into()),
            message: Some(message),
            field: None,
        }]),
        retry_after_seconds: retry_after,
        ..StatusDetails::default()
    });
    status
}
