//! Nothing that a person can write or a server can answer takes long, takes much memory, or panics.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::engine::expression::{Expression, ExpressionError, Scope, Template, render};

/// What each of these may take, generously: a debug build on a busy machine.
const SHORT: Duration = Duration::from_secs(30);

/// Runs it on a thread with the stack that the runtime's workers have.
fn on_a_worker<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap()
}

fn list(length: usize) -> Scope {
    Scope::new()
        .with("l", Json::from((0..length).collect::<Vec<_>>()))
        .with("s", json!("s".repeat(1 << 20)))
}

fn too_expensive(source: &str) {
    let started = Instant::now();
    let result = Expression::parse(source).unwrap().evaluate(&list(10_000));
    assert!(
        matches!(result, Err(ExpressionError::TooExpensive { .. })),
        "{source}: {:?}",
        result.map(|_| ())
    );
    assert!(started.elapsed() < SHORT, "{source} took {:?}", started.elapsed());
}

#[test]
fn nested_loops_over_long_lists_end_early() {
    too_expensive("l.all(a, l.all(b, a + b >= 0))");
    too_expensive("l.map(a, l.exists(b, b < 0))");
    too_expensive("l.exists(a, l.exists(b, false) || true && false)");
    too_expensive("l.transformMap(i, v, l.map(x, x))");
    too_expensive("lists.range(40000).map(a, lists.range(40000))");
}

#[test]
fn a_failure_of_cost_is_not_absorbed() {
    too_expensive("l.all(a, l.all(b, a + b >= 0)) || true");
    too_expensive("[1, 2].exists(x, x == 2 || l.all(a, l.all(b, a + b >= 0)))");
}

#[test]
fn doubling_ends_early() {
    let mut bomb = "[s + s]".to_owned();
    for _ in 0..20 {
        bomb.push_str(".map(t, t + t)");
    }
    too_expensive(&bomb);
    too_expensive(&format!("[l]{}", ".map(t, t + t)".repeat(20)));
    too_expensive("s.replace('s', s)");
    too_expensive("s.split('').map(c, s).join(s)");
    too_expensive("l.map(x, s).join()");
    too_expensive("'%s%s'.format([s, s])");
    too_expensive("l.map(x, '%s%s%s'.format([l, l, l]))");
    too_expensive("l.map(x, s.upperAscii())");
    too_expensive("bytes(s) + bytes(s)");
    too_expensive("s.findAll('s')");
    too_expensive("[s, s]");
    too_expensive("lists.range(1000000000000)");
    // Sharing makes it small while it is evaluated, and large as JSON.
    too_expensive(&format!("[l]{}", ".map(t, [t, t, t, t])".repeat(8)));
    too_expensive("l.map(a, l) == l.map(b, l) && l.map(a, l) == l.map(b, l) && l.map(a, l) == l.map(b, l)");
}

#[test]
fn regular_expressions_are_bounded() {
    too_expensive("s.matches('(s*)*(s{0,30}){0,30}t')");
    too_expensive("l.all(x, !s.matches('a'))");
    for source in [
        "'x'.matches('((a{1000}){1000}){1000}')",
        "'x'.matches('\\\\pL{1000}')",
        "'x'.matches('(')",
    ] {
        assert!(
            matches!(Expression::parse(source), Err(ExpressionError::Syntax { .. })),
            "{source}"
        );
    }
}

#[test]
fn many_templates_share_one_budget() {
    let value = Json::Array(vec![json!("${l.map(x, x + 1).size()}"); 1000]);
    assert!(matches!(
        render(&value, &list(10_000)).unwrap_err().error,
        ExpressionError::TooExpensive { .. }
    ));
}

#[test]
fn the_source_is_at_most_4_kib() {
    assert!(Expression::parse(&format!("'{}'", "x".repeat(4094))).is_ok());
    assert!(
        Expression::parse(&format!("'{}'", "x".repeat(4095)))
            .unwrap_err()
            .to_string()
            .contains("4097 bytes")
    );
}

#[test]
fn deep_nesting_is_an_error_not_a_stack_overflow() {
    let repeated = [
        "(",
        "[",
        "{",
        "!",
        "-",
        "a.",
        "a?",
        "a?b:",
        "f(",
        "{1:",
        "a[",
        "a.all(a,",
        "a.map(a,",
        "[?",
        "1+",
        "a&&",
        "a<",
        "a.f().",
        "!(",
        "-(",
        "a.?b.",
        "a.optMap(b,",
        "${",
        "'",
        "\"\"\"",
        "\\",
        "a.transformMap(a,b,",
        "size(",
        "a in ",
        "1-(",
        "(a?",
        "a==",
        "a%",
    ];
    for part in repeated {
        for end in ["", "1", "a", "x"] {
            let source = part.repeat((4096 - end.len()) / part.len()) + end;
            on_a_worker(move || {
                if let Ok(expression) = Expression::parse(&source) {
                    let _ = expression.evaluate(&list(3));
                    expression.references();
                }
                let _ = Template::parse(&source);
            });
        }
    }
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("{1:", "}"),
        ("size(", ")"),
        ("[1].map(a,", ")"),
        ("!(", ")"),
    ] {
        for depth in [10, 30, 39, 45, 100, 290] {
            let source = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            on_a_worker(move || {
                if let Ok(expression) = Expression::parse(&source) {
                    let _ = expression.evaluate(&list(3));
                }
            });
        }
    }
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    on_a_worker(|| {
        let mut deep = json!(1);
        for _ in 0..1000 {
            deep = json!([deep]);
        }
        let scope = Scope::new().with("d", deep.clone()).with("e", deep.clone());
        assert!(Expression::parse("d").unwrap().evaluate(&scope).is_err());
        assert!(Expression::parse("d == e").unwrap().evaluate(&scope).is_err());
        assert!(Expression::parse("'%s'.format([d])").unwrap().evaluate(&scope).is_err());
        assert!(
            Expression::parse("d.flatten(1000000)")
                .unwrap()
                .evaluate(&scope)
                .is_err()
        );
        assert!(render(&deep, &scope).is_err());
        // serde_json drops by recursion too, within what is left of the stack.
    });
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,12}".prop_map(Json::from),
        "[0-9.smhKMGien+-]{0,8}".prop_map(Json::from),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

/// Whole numbers beyond an int are doubles, as for Kubernetes.
fn with_doubles(value: Json) -> Json {
    match value {
        Json::Number(number) if number.as_i64().is_none() => json!(number.as_f64()),
        Json::Array(list) => list.into_iter().map(with_doubles).collect(),
        Json::Object(map) => map.into_iter().map(|(key, value)| (key, with_doubles(value))).collect(),
        other => other,
    }
}

/// Text made of what expressions are made of.
fn any_source() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "b",
        "c",
        ".",
        ".?",
        "[",
        "[?",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "?",
        " + ",
        " - ",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        ">=",
        " in ",
        "&&",
        "||",
        "!",
        "-",
        "0",
        "1",
        "-1",
        "1u",
        "2.5",
        "1e300",
        "9223372036854775807",
        "'x'",
        "'é日'",
        "b'\\xff'",
        "''",
        "r'\\d+'",
        "null",
        "true",
        "[1,2]",
        "{'a':1}",
        ".map(x,",
        ".all(x,",
        "x",
        ".filter(x,",
        ".transformMap(x,y,",
        "size(",
        "int(",
        "string(",
        "double(",
        "duration(",
        "timestamp(",
        "'1h'",
        "'2024-02-29T12:00:00Z'",
        ".getHours(",
        "'Asia/Tokyo'",
        "'-11:30'",
        ".substring(",
        ".indexOf(",
        ".lastIndexOf(",
        ".split(",
        ".replace(",
        ".join(",
        ".format(",
        "'%s %d %.3f %e %x %b'",
        ".matches(",
        ".find(",
        ".findAll(",
        ".charAt(",
        "quantity(",
        "'1.5Gi'",
        "'-2e3'",
        ".add(",
        ".sub(",
        ".sum()",
        ".min()",
        ".sort()",
        ".slice(",
        ".flatten()",
        ".distinct()",
        "optional.of(",
        ".orValue(",
        ".optMap(x,",
        "type(",
        "dyn(",
        "${",
        "\\",
        "\"",
        "//",
        "has(",
        ".value()",
        ".isSorted()",
        "sets.contains(",
        "lists.range(",
        ".asInteger()",
        ".compareTo(",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_panics(source in prop_oneof![".{0,200}", any_source()], a in any_json(), b in any_json()) {
        let scope = Scope::new().with("a", a).with("b", b).with("c", json!([1, 2, 3]));
        if let Ok(expression) = Expression::parse(&source) {
            expression.references();
            let once = expression.evaluate(&scope);
            prop_assert_eq!(once, expression.evaluate(&scope));
        }
        if let Ok(template) = Template::parse(&format!("{source}${{{source}}}")) {
            let _ = template.evaluate(&scope);
        }
    }

    #[test]
    fn no_value_panics(a in any_json(), b in any_json(), c in any_json(), index in 0..FUNCTIONS.len()) {
        let scope = Scope::new().with("a", a).with("b", b).with("c", c);
        let source = FUNCTIONS[index];
        Expression::parse(source).unwrap().evaluate(&scope).ok();
    }

    #[test]
    fn what_goes_in_comes_out(a in any_json().prop_map(with_doubles)) {
        let scope = Scope::new().with("a", a.clone());
        prop_assert_eq!(Expression::parse("a").unwrap().evaluate(&scope), Ok(a.clone()));
        prop_assert_eq!(Expression::parse("a == a").unwrap().evaluate(&scope), Ok(json!(true)));
        prop_assert_eq!(render(&json!({"x": ["${a}"]}), &scope), Ok(json!({"x": [a]})));
    }
}

/// Each function and operator on whatever there is.
const FUNCTIONS: &[&str] = &[
    "a + b",
    "a - b",
    "a * b",
    "a / b",
    "a % b",
    "-a",
    "!a",
    "a < b",
    "a >= b",
    "a == b",
    "a in b",
    "a[b]",
    "a[?b]",
    "a.a",
    "a.?b.c",
    "has(a.b)",
    "a ? b : c",
    "a && b",
    "a || b",
    "[a, b, c]",
    "{a: b}",
    "size(a)",
    "int(a)",
    "uint(a)",
    "double(a)",
    "string(a)",
    "bytes(a)",
    "bool(a)",
    "duration(a)",
    "timestamp(a)",
    "type(a)",
    "duration(a) + duration(b)",
    "timestamp(a) + duration(b)",
    "timestamp(a) - timestamp(b)",
    "timestamp(a).getHours(b)",
    "timestamp(a).getDayOfYear()",
    "duration(a).getSeconds()",
    "string(timestamp(a))",
    "string(duration(a))",
    "a.charAt(b)",
    "a.indexOf(b)",
    "a.indexOf(b, c)",
    "a.lastIndexOf(b)",
    "a.lastIndexOf(b, c)",
    "a.lowerAscii()",
    "a.replace(b, c)",
    "a.replace(b, c, 2)",
    "a.split(b)",
    "a.split(b, c)",
    "a.substring(b)",
    "a.substring(b, c)",
    "a.trim()",
    "strings.quote(a)",
    "a.join(b)",
    "a.format(b)",
    "'%s %d %f %e %x %o %b'.format([a, b, c, a, b, c, a])",
    "'%s'.format([a])",
    "'%.2f'.format([a])",
    "'%.3e'.format([a])",
    "a.matches(b)",
    "a.find(b)",
    "a.findAll(b)",
    "a.findAll(b, c)",
    "a.isSorted()",
    "a.sum()",
    "a.min()",
    "a.max()",
    "a.sort()",
    "a.sortBy(x, x)",
    "a.slice(b, c)",
    "a.flatten(b)",
    "a.distinct()",
    "a.reverse()",
    "lists.range(a)",
    "sets.contains(a, b)",
    "sets.equivalent(a, b)",
    "quantity(a)",
    "isQuantity(a)",
    "quantity(a).add(quantity(b))",
    "quantity(a).sub(b)",
    "quantity(a).asInteger()",
    "quantity(a).asApproximateFloat()",
    "quantity(a).compareTo(quantity(b))",
    "quantity(a) == quantity(b)",
    "a.all(x, x)",
    "a.map(x, x)",
    "a.filter(x, x)",
    "a.exists_one(x, x == b)",
    "a.transformMap(k, v, v)",
    "a.transformMapEntry(k, v, {v: k})",
    "a.first().orValue(b)",
    "a.last()",
    "optional.ofNonZeroValue(a).optMap(x, x + b).orValue(c)",
    "[?a.?b]",
    "{?'a': a[?b]}",
];
