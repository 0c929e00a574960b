//! The macros that declare variables: `all`, `map`, `transformMap`, `sortBy`, `optMap`, ... as [`Node`]s of their own.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, operators};

use super::compile::{Compiled, Compiler, Refusal};
use super::node::{Loop, LoopKind, Node};
use super::words;

/// A standard macro. The parser has expanded it to a fold already: its step says which it was.
pub(super) fn from_macro(compiler: &mut Compiler, fold: &ComprehensionExpr) -> Compiled {
    let accumulator = |e: &IdedExpr| matches!(&e.expr, Expr::Ident(name) if *name == fold.accu_var);
    let unexpected = || Refusal::syntax("a macro of an unknown kind");
    let Expr::Call(step) = &fold.loop_step.expr else {
        return unexpected();
    };
    let (kind, filter, body) = match (step.func_name.as_str(), step.args.as_slice()) {
        (operators::LOGICAL_AND, [_, body]) => (LoopKind::All, None, body),
        (operators::LOGICAL_OR, [_, body]) => (LoopKind::Exists, None, body),
        (operators::ADD, [_, item]) => match &item.expr {
            Expr::List(list) if list.elements.len() == 1 => (LoopKind::List, None, &list.elements[0]),
            _ => return unexpected(),
        },
        (operators::CONDITIONAL, [condition, then, otherwise]) if accumulator(otherwise) => match &then.expr {
            Expr::Call(add) => match add.args.as_slice() {
                [_, item] => match &item.expr {
                    Expr::List(list) if list.elements.len() == 1 => {
                        (LoopKind::List, Some(condition), &list.elements[0])
                    }
                    _ => (LoopKind::ExistsOne, None, condition),
                },
                _ => return unexpected(),
            },
            _ => return unexpected(),
        },
        _ => return unexpected(),
    };
    let variables = [Some(fold.iter_var.as_str()), fold.iter_var2.as_deref()]
        .into_iter()
        .flatten();
    build(
        compiler,
        kind,
        &fold.iter_range,
        &variables.collect::<Vec<_>>(),
        filter,
        body,
    )
}

/// A macro that the parser doesn't know, and so left as a call.
pub(super) fn from_call(compiler: &mut Compiler, call: &CallExpr) -> Result<Option<Node>, Refusal> {
    let Some(target) = &call.target else {
        if call.func_name == "has" {
            return Refusal::syntax("has() takes one field selection, as in has(input.size)");
        }
        return Ok(None);
    };
    let (kind, filter, body) = match (call.func_name.as_str(), call.args.as_slice()) {
        ("all", [_, _, body]) => (LoopKind::All, None, body),
        ("exists", [_, _, body]) => (LoopKind::Exists, None, body),
        ("existsOne" | "exists_one", [_, _, body]) => (LoopKind::ExistsOne, None, body),
        ("transformList", [_, _, body]) => (LoopKind::List, None, body),
        ("transformList", [_, _, filter, body]) => (LoopKind::List, Some(filter), body),
        ("transformMap", [_, _, body]) => (LoopKind::Map, None, body),
        ("transformMap", [_, _, filter, body]) => (LoopKind::Map, Some(filter), body),
        ("transformMapEntry", [_, _, body]) => (LoopKind::Entries, None, body),
        ("transformMapEntry", [_, _, filter, body]) => (LoopKind::Entries, Some(filter), body),
        ("sortBy", [_, body]) => (LoopKind::Sort, None, body),
        (name @ ("optMap" | "optFlatMap"), [variable, body]) => {
            return optional_map(compiler, target, variable, body, name == "optFlatMap").map(Some);
        }
        (
            name @ ("all" | "exists" | "exists_one" | "existsOne" | "map" | "filter" | "transformList" | "transformMap"
            | "transformMapEntry" | "sortBy" | "optMap" | "optFlatMap"),
            arguments,
        ) => {
            return Refusal::syntax(format!(
                "{name}() doesn't take {} arguments: it takes variables and an expression, as in list.{name}(x, ...)",
                arguments.len()
            ));
        }
        _ => return Ok(None),
    };
    let count = if kind == LoopKind::Sort { 1 } else { 2 };
    let variables = call.args[..count]
        .iter()
        .map(variable_name)
        .collect::<Result<Vec<_>, _>>()?;
    if count == 2 && variables[0] == variables[1] {
        return Refusal::syntax(format!("duplicate variable name: {}", variables[0]));
    }
    build(compiler, kind, target, &variables, filter, body).map(Some)
}

fn build(
    compiler: &mut Compiler,
    kind: LoopKind,
    range: &IdedExpr,
    variables: &[&str],
    filter: Option<&IdedExpr>,
    body: &IdedExpr,
) -> Compiled {
    if let Some(word) = variables.iter().find(|name| words::is_cel_word(name)) {
        return Refusal::syntax(format!("{word} is a reserved word of CEL"));
    }
    let range = compiler.node(range)?;
    let local = compiler.locals.len();
    compiler.locals.extend(variables.iter().map(|name| (*name).to_owned()));
    let filter = filter.map(|filter| compiler.node(filter)).transpose();
    let body = compiler.node(body);
    compiler.locals.truncate(local);
    Ok(Node::Loop(Box::new(Loop {
        kind,
        range,
        local,
        variables: variables.len(),
        filter: filter?,
        body: body?,
    })))
}

fn optional_map(
    compiler: &mut Compiler,
    operand: &IdedExpr,
    variable: &IdedExpr,
    body: &IdedExpr,
    flat: bool,
) -> Compiled {
    let name = variable_name(variable)?.to_owned();
    let operand = compiler.boxed(operand)?;
    let local = compiler.locals.len();
    compiler.locals.push(name);
    let body = compiler.boxed(body);
    compiler.locals.truncate(local);
    Ok(Node::OptionalMap {
        operand,
        local,
        body: body?,
        flat,
    })
}

fn variable_name(argument: &IdedExpr) -> Result<&str, Refusal> {
    match &argument.expr {
        Expr::Ident(name) if !name.starts_with('.') => Ok(name),
        _ => Refusal::syntax("the first arguments of a macro must be simple names"),
    }
}
