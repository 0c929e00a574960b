use super::*;

/// What is wrong with each test of a file in tests/data/test.
async fn problems_of_file(file: &str) -> Vec<(String, Vec<String>)> {
    let verdicts = of_file(
        &Linter::new(std::iter::empty()).unwrap(),
        &format!("tests/data/test/{file}"),
    )
    .await
    .unwrap();
    let problems = |verdict: Verdict| (verdict.name, verdict.problems);
    verdicts.into_iter().map(problems).collect()
}

/// What is wrong with a test.
async fn problems(test: &str) -> Vec<String> {
    let test: Test = serde_yaml::from_str(test).unwrap();
    match run(
        &Linter::new(std::iter::empty()).unwrap(),
        &test,
        "tests/data/test/here.test.yaml",
    )
    .await
    {
        Ok((problems, _)) | Err(problems) => problems,
    }
}

#[tokio::test]
async fn the_sample_passes() {
    for (name, problems) in problems_of_file("resize.test.yaml").await {
        assert!(problems.is_empty(), "{name}: {problems:?}");
    }
}

#[tokio::test]
async fn what_is_not_as_expected_is_named_by_its_field() {
    let wrong = problems(
        "
        operation: resize.yaml
        mocks:
          describe: {result: {body: {size: 4}}}
          resize: {failure: {reason: HttpStatus, message: the group is frozen}}
        expect:
          state: Succeeded
          output: {was: 4}
          failure: {reason: Other, message: thawed}
          steps: {resize: {state: Succeeded, attempts: 2}, check: Succeeded, describe: {output: {size: 3}}}
          order: [check, describe]
          calls: {resize: [{body: {size: 6}}, {}], check: []}
        ",
    )
    .await;
    assert_eq!(
        wrong,
        [
            "state: expected Succeeded, is Failed: step resize: HttpStatus: the group is frozen",
            "output: expected {\"was\":4}, is null",
            "failure.reason: expected Other, is HttpStatus",
            "failure.message: \"thawed\" is not in \"the group is frozen\"",
            "steps.check: expected Succeeded, is NotStarted",
            "steps.describe.output.size: expected 3, is 4",
            "steps.resize: expected Succeeded, is Failed: HttpStatus: the group is frozen",
            "steps.resize.attempts: expected 2, made 1",
            "order: expected check, describe, is describe",
            "calls.resize: expected 2, made 1",
            "calls.resize[0].body.size: expected 6, is 5",
        ]
    );
}

#[tokio::test]
async fn what_has_no_answer_says_what_to_add() {
    let wrong = problems("{operation: resize.yaml, expect: {state: Succeeded}}").await;
    assert_eq!(
        wrong,
        [
            "step describe calls GET http://inventory.prod/groups/web, and nothing answers: add to mocks:\n  describe:\n  - result: {status: 200, body: {}}"
        ]
    );
    let wrong = problems("{operation: resize.yaml, mocks: {describ: {}}, expect: {steps: {chek: Succeeded}}}").await;
    assert!(
        wrong[0].starts_with("mocks: there is no step describ; there are describe, confirm"),
        "{wrong:?}"
    );
    assert!(wrong[1].starts_with("expect.steps: there is no step chek"), "{wrong:?}");
    let wrong = problems("{operation: {spec: {stps: []}}, expect: {}}").await;
    assert_eq!(
        wrong[0], "CloudOperation: spec.stps: unknown field; did you mean steps?",
        "{wrong:?}"
    );
}

#[tokio::test]
async fn jobs_children_lists_local_steps_and_what_never_ends() {
    let inline = "
        operation:
          spec:
            input: {names: [a, b, c]}
            steps:
            - {name: fast, local: true, http: {url: 'http://a/'}, output: {n: '${result.body}'}}
            - {name: each, forEach: input.names, maxParallel: 1, http: {url: 'http://a/${item}'}, output: {n: '${result.body}'}}
            - {name: migrate, job: {image: x}}
            - {name: child, operation: {spec: {steps: [{name: a, set: {v: 1}}]}}}
            - {name: ready, kubernetes: {wait: {resource: {apiVersion: apps/v1, kind: Deployment, name: web}, for: Current}}}
            - {name: go, signal: {}}
            output: {rows: '${steps.migrate.output.rows}', each: '${steps.each.output.items}', by: '${steps.go.output.by}'}
        mocks:
          fast: {result: {body: 1}}
          each: [{failure: {reason: NoAnswer, retryable: true, unknown: true}}, {result: {body: 7}}]
          'each[1]': {output: {n: 8}}
          migrate: [{failure: {reason: JobFailed, retryable: true}, delay: 1h}, {result: {rows: 5}, delay: 1h}]
          child: {output: {v: 1}}
          ready: {delay: 5m}
        ";
    let with = |rest: &str| format!("{inline}{rest}");
    let wrong = problems(&with(
        "
        events:
        - {after: 1m, signal: {name: go, payload: {by: me}}}
        - {after: 2m, approve: {step: go}, rejected: true}
        - {after: 30h, retry: {step: each}, rejected: true}
        expect:
          state: Succeeded
          output: {rows: 5, each: [{n: 7}, {n: 8}, {n: 7}]}
          steps:
            'each[0]': {state: Succeeded, attempts: 2, output: {n: 7}}
            'each[1]': {attempts: 1}
            migrate: {state: Succeeded, attempts: 2}
          order: [fast, each, 'each[0]', 'each[1]', 'each[2]', migrate, child, ready, go]
        ",
    ))
    .await;
    assert_eq!(wrong, Vec::<String>::new());
    // Without the signal it waits, and that can be expected.
    let wrong = problems(&with("expect: {state: Waiting, steps: {go: Waiting}}")).await;
    assert_eq!(wrong, Vec::<String>::new());
    let cancelled = with(
        "events: [{after: 90m, cancel: {}}]\n        expect: {state: Cancelled, steps: {migrate: Cancelled, child: NotStarted}}",
    );
    assert_eq!(problems(&cancelled).await, Vec::<String>::new());
    let held = with("events: [{after: 1m, suspend: true}]\n        expect: {state: Suspended}");
    assert_eq!(problems(&held).await, Vec::<String>::new());
    let wrong = problems(&with("events: [{after: 1s, aprove: {}}]\n        expect: {}")).await;
    assert!(wrong[0].starts_with("events[0]: unknown field aprove"), "{wrong:?}");
}

#[tokio::test]
async fn a_call_that_is_answered_later_takes_longer_than_a_request_may() {
    let with = |step: &str, rest: &str| {
        format!(
            "operation: {{spec: {{steps: [{{name: build, retry: {{maximumAttempts: 1}}, {step}, http: {{url: 'http://a/', async: true}}, output: {{n: '${{result.body}}'}}}}]}}}}\n{rest}"
        )
    };
    let long = "mocks: {build: {delay: 10m, result: {body: 7}}}\n";
    let done = "expect: {state: Succeeded, steps: {build: {attempts: 1, output: {n: 7}}}}";
    let none = Vec::<String>::new();
    assert_eq!(
        problems(&with("timeouts: {startToClose: 60s}", &format!("{long}{done}"))).await,
        none
    );
    let silent = "expect: {state: Failed, failure: {reason: HeartbeatTimeout}}";
    assert_eq!(
        problems(&with("timeouts: {heartbeat: 10s}", &format!("{long}{silent}"))).await,
        none
    );
    // A person may say meanwhile that it is done.
    let said = "events: [{after: 1m, complete: {step: build, output: {n: 8}}}]\nexpect: {state: Succeeded, steps: {build: {output: {n: 8}}}}";
    assert_eq!(
        problems(&with("timeouts: {startToClose: 60s}", &format!("{long}{said}"))).await,
        none
    );
}

#[tokio::test]
async fn a_mock_that_is_no_answer_is_refused() {
    for (result, wrong) in [
        ("{status: '503'}", "invalid type: string \"503\""),
        ("{statuss: 400}", "unknown field `statuss`"),
        ("{status: 99}", "99 is no status of an answer"),
        ("503", "invalid type: integer `503`"),
    ] {
        let test = format!("{{operation: resize.yaml, mocks: {{describe: {{result: {result}}}}}, expect: {{}}}}");
        let problems = problems(&test).await;
        assert!(
            problems[0].starts_with("mocks.describe: the result of an http step is {status, headers, body}: ")
                && problems[0].contains(wrong),
            "{problems:?}"
        );
    }
}

#[tokio::test]
async fn steps_of_groups_are_named_by_their_paths() {
    let wrong = problems(
        "
        operation:
          spec:
            steps:
            - name: zone
              steps:
              - {name: make, http: {url: 'http://a/'}, output: {id: '${result.body}'}}
              - {name: check, http: {url: 'http://a/${steps.make.output.id}'}}
              output: {id: '${steps.make.output.id}'}
            - name: each
              forEach: '[1, 2]'
              steps:
              - {name: call, http: {url: 'http://a/${string(item)}'}, output: {n: '${result.body}'}}
              output: {n: '${steps.call.output.n}'}
        mocks:
          zone/make: {result: {body: x}}
          zone/check: {}
          each/call: {result: {body: 1}}
          'each[1]/call': [{result: {status: 500}}, {result: {body: 2}}]
        expect:
          state: Succeeded
          steps:
            zone: {state: Succeeded, output: {id: x}}
            zone/check: Succeeded
            each: {output: {items: [{n: 1}, {n: 2}]}}
            'each[1]/call': {state: Succeeded, attempts: 2}
          calls: {zone/check: [{url: 'http://a/x'}]}
          order: [zone/make, zone/check, 'each[1]/call']
        ",
    )
    .await;
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn junit_says_what_failed() {
    let verdict = |ok: bool| Verdict {
        file: "a.test.yaml".into(),
        line: 1,
        name: "<one>".into(),
        ok,
        problems: if ok { vec![] } else { vec!["a: expected \"1\"".into()] },
        history: vec![],
        simulated_seconds: 1.0,
    };
    assert_eq!(
        junit(&[verdict(true), verdict(false)]),
        r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="holdfast" tests="2" failures="1">
  <testcase classname="a.test.yaml" name="&lt;one&gt;"/>
  <testcase classname="a.test.yaml" name="&lt;one&gt;">
    <failure message="a: expected &quot;1&quot;">a: expected &quot;1&quot;</failure>
  </testcase>
</testsuite>
"#
    );
}
