//! The module from outside: expressions, templates, references, errors.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::engine::expression::{
    Expression, ExpressionError, References, Scope, Template, is_cel_word, references_in, render,
};

fn scope() -> Scope {
    Scope::new()
        .with(
            "input",
            json!({"group": "web", "size": 12, "ratio": 3.0, "tags": ["a", "b"], "none": null}),
        )
        .with("steps", json!({"describe": {"output": {"size": 4}}}))
}

fn evaluate(source: &str) -> Result<Json, ExpressionError> {
    Expression::parse(source)?.evaluate(&scope())
}

fn template(source: &str) -> Result<Json, ExpressionError> {
    Template::parse(source)?.evaluate(&scope())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_condition_compares_input_and_output() {
    assert_eq!(evaluate("steps.describe.output.size != input.size"), Ok(json!(true)));
    assert_eq!(evaluate("input.size + 1"), Ok(json!(13)));
    assert_eq!(
        evaluate("type(input.ratio) == double && type(input.size) == int"),
        Ok(json!(true))
    );
}

#[test]
fn a_condition_that_is_no_bool_says_what_it_is() {
    let error = Expression::parse("input.group")
        .unwrap()
        .evaluate_bool(&scope())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the result must be true or false, not a string (in: input.group)"
    );
}

#[test]
fn a_missing_key_names_what_there_is() {
    assert_eq!(
        evaluate("steps.describe.output.sise").unwrap_err().to_string(),
        "no such key: sise (steps.describe.output has size) (in: steps.describe.output.sise)"
    );
    assert_eq!(
        evaluate("inputs.size").unwrap_err().to_string(),
        "unknown variable inputs (there are: input, steps) (in: inputs.size)"
    );
    assert_eq!(
        evaluate("input.tags[2]").unwrap_err().to_string(),
        "index out of bounds: 2 (input.tags has 2 elements) (in: input.tags[2])"
    );
}

#[test]
fn an_unknown_function_is_found_when_parsed() {
    let error = |source: &str| Expression::parse(source).unwrap_err().to_string();
    assert_eq!(
        error("input.group.startWith('w')"),
        "unknown function startWith: did you mean startsWith? (in: input.group.startWith('w'))"
    );
    assert_eq!(
        error("size()"),
        "unknown function size: it is called as size() with 1 arguments (in: size())"
    );
    assert_eq!(
        error("isURL('x')"),
        "unknown function isURL: the URL library of Kubernetes' CEL is not part of Holdfast's (in: isURL('x'))"
    );
}

#[test]
fn a_syntax_error_says_where() {
    let error = Expression::parse("input.size +\n  * 2").unwrap_err();
    assert!(
        matches!(
            error,
            ExpressionError::Syntax {
                position: Some((2, 3)),
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("invalid expression at line 2, column 3: "),
        "{error}"
    );
}

#[test]
fn a_template_of_one_expression_keeps_the_type() {
    assert_eq!(template("${input.size}"), Ok(json!(12)));
    assert_eq!(template("${input.ratio}"), Ok(json!(3.0)));
    assert_eq!(template("${input.tags}"), Ok(json!(["a", "b"])));
    assert_eq!(template("${input.none}"), Ok(json!(null)));
}

#[test]
fn a_template_with_text_writes_values_into_it() {
    assert_eq!(
        template("http://inventory/${input.group}?n=${input.size}&r=${1.5}&b=${true}"),
        Ok(json!("http://inventory/web?n=12&r=1.5&b=true"))
    );
    assert_eq!(template(" ${input.size}"), Ok(json!(" 12")));
    assert_eq!(template(""), Ok(json!("")));
    assert_eq!(template("no ${ '' }parts$"), Ok(json!("no parts$")));
}

#[test]
fn a_list_map_or_null_can_not_be_part_of_a_text() {
    for (source, name) in [
        ("input.tags", "a list"),
        ("input", "a map"),
        ("input.none", "a null_type"),
    ] {
        let error = template(&format!("x${{{source}}}")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name} can't be part of a text")), "{error}");
    }
}

#[test]
fn braces_and_quotes_inside_a_template_are_the_expressions() {
    assert_eq!(template("${ {'a': '}'}.a }"), Ok(json!("}")));
    assert_eq!(template("<${ {'a': {'b': 1}}.a.b }>"), Ok(json!("<1>")));
    assert_eq!(template("<${ \"}\\\"}\" }>"), Ok(json!("<}\"}>")));
    assert_eq!(template("<${ r'}\\' }>"), Ok(json!("<}\\>")));
    assert_eq!(template("<${ '''}'}''' }>"), Ok(json!("<}'}>")));
    assert_eq!(template("<${ 1 // }\n }>"), Ok(json!("<1>")));
    assert_eq!(
        template("$${input.size} is ${input.size}"),
        Ok(json!("${input.size} is 12"))
    );
    assert_eq!(template("$$${'x'}"), Ok(json!("$${'x'}")));
    assert!(template("${'}").unwrap_err().to_string().contains("no matching `}`"));
}

#[test]
fn rendering_names_the_field_that_is_wrong() {
    let value = json!({"body": {"items": [{"size": "${input.size}"}, {"size": "${input.sise}"}]}, "n": 1});
    let error = render(&value, &scope()).unwrap_err();
    assert_eq!(error.field, "body.items[1].size");
    assert!(
        error.to_string().starts_with("body.items[1].size: no such key: sise"),
        "{error}"
    );
    assert_eq!(
        render(&json!({"a.b": ["${1 +}"]}), &scope()).unwrap_err().field,
        "[\"a.b\"][0]"
    );
    assert_eq!(
        render(&json!({"a": ["${input.size}", "x${1}"], "${1}": null}), &scope()).unwrap(),
        json!({"a": [12, "x1"], "${1}": null})
    );
}

#[test]
fn references_are_the_free_variables_and_the_steps_that_are_named() {
    let references = |source: &str| Expression::parse(source).unwrap().references();
    assert_eq!(
        references("steps.a.output.x + steps['b'].y + steps.?c.z.orValue(1) + steps[?'d'].value()"),
        References {
            roots: set(&["steps"]),
            steps: set(&["a", "b", "c", "d"]),
            dynamic_steps: false
        }
    );
    assert_eq!(
        references("input.list.all(i, i > item && has(steps.e))"),
        References {
            roots: set(&["input", "item", "steps"]),
            steps: set(&["e"]),
            dynamic_steps: false
        }
    );
    assert!(references("steps[input.name]").dynamic_steps);
    assert!(references("size(steps)").dynamic_steps);
    assert!(references("steps").dynamic_steps);
    // A variable of a macro hides the one of the scope.
    assert_eq!(references("[1].all(steps, steps.x > 0)"), References::default());
    let all = references_in(&json!({"a": "${steps.x}", "b": ["y${steps.y.z}"]})).unwrap();
    assert_eq!(all.steps, set(&["x", "y"]));
    assert_eq!(references_in(&json!({"a": {"b": "${"}})).unwrap_err().field, "a.b");
}

#[test]
fn reserved_words_can_not_be_names() {
    assert!(
        ["true", "in", "as", "const", "namespace"]
            .iter()
            .all(|word| is_cel_word(word))
    );
    assert!(!is_cel_word("describe"));
    assert!(Expression::parse("namespace + 1").is_err());
    assert!(Expression::parse("[1].all(in, true)").is_err());
}
