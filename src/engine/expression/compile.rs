//! From the parser's syntax tree to [`Node`]s: what Kubernetes doesn't know, or Holdfast can't hold to it, is refused here.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, SelectExpr, operators};

use super::functions::{self, Function, Style};
use super::node::{Node, Operator};
use super::patterns;
use super::value::{Value, named_type};
use super::{comprehension, words};

/// How deeply an expression may nest: bounds the stack that parsing's result, evaluation and dropping need.
const MAX_DEPTH: usize = 100;

/// What is known on the way down.
#[derive(Default)]
pub(super) struct Compiler {
    /// The variables that enclosing macros declare, outermost first.
    pub(super) locals: Vec<String>,
    depth: usize,
}

/// Why an expression is refused.
pub(super) enum Refusal {
    Syntax(String),
    UnknownFunction { name: String, hint: String },
}

impl Refusal {
    pub(super) fn syntax<T>(message: impl Into<String>) -> Result<T, Self> {
        Err(Refusal::Syntax(message.into()))
    }
}

pub(super) type Compiled = Result<Node, Refusal>;

impl Compiler {
    pub(super) fn node(&mut self, expression: &IdedExpr) -> Compiled {
        if self.depth >= MAX_DEPTH {
            return Refusal::syntax(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        self.depth += 1;
        let node = match &expression.expr {
            Expr::Literal(literal) => Ok(Node::Literal(self.literal(literal))),
            Expr::Ident(name) => self.identifier(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Comprehension(loop_) => comprehension::from_macro(self, loop_),
            Expr::Struct(message) => Refusal::syntax(format!(
                "messages such as {}{{...}} can't be made; write a map, {{'field': value}}",
                message.type_name
            )),
            Expr::Unspecified => Refusal::syntax("an expression is missing"),
        };
        self.depth -= 1;
        node
    }

    pub(super) fn boxed(&mut self, expression: &IdedExpr) -> Result<Box<Node>, Refusal> {
        self.node(expression).map(Box::new)
    }

    fn literal(&self, literal: &LiteralValue) -> Value<'static> {
        match literal {
            LiteralValue::Null => Value::Null,
            LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
            LiteralValue::Int(i) => Value::Int(*i.inner()),
            LiteralValue::UInt(u) => Value::Uint(*u.inner()),
            LiteralValue::Double(d) => Value::Double(*d.inner()),
            LiteralValue::String(s) => Value::string(s.inner()),
            LiteralValue::Bytes(b) => Value::Bytes(b.inner().into()),
        }
    }

    fn identifier(&mut self, name: &str) -> Compiled {
        let (name, absolute) = match name.strip_prefix('.') {
            Some(name) => (name, true),
            None => (name, false),
        };
        if !absolute && let Some(local) = self.locals.iter().rposition(|local| local == name) {
            return Ok(Node::Local(local));
        }
        if words::is_cel_word(name) {
            return Refusal::syntax(format!("{name} is a reserved word of CEL"));
        }
        Ok(match named_type(name) {
            Some(name) => Node::Literal(Value::Type(name)),
            None => Node::Variable(name.to_owned()),
        })
    }

    fn select(&mut self, select: &SelectExpr) -> Compiled {
        if let Some(name) = self.qualified_type(select) {
            return Ok(Node::Literal(Value::Type(name)));
        }
        let operand = self.boxed(&select.operand)?;
        let field = select.field.clone();
        Ok(if select.test {
            Node::Has(operand, field)
        } else {
            Node::Select(operand, field)
        })
    }

    /// `google.protobuf.Duration` and the like.
    fn qualified_type(&self, select: &SelectExpr) -> Option<&'static str> {
        let mut name = select.field.clone();
        let mut operand = &select.operand.expr;
        while let Expr::Select(select) = operand {
            name = format!("{}.{name}", select.field);
            operand = &select.operand.expr;
        }
        match operand {
            Expr::Ident(root) if !self.locals.contains(root) => named_type(&format!("{root}.{name}")),
            _ => None,
        }
    }

    fn list(&mut self, list: &ListExpr) -> Compiled {
        let elements = list.elements.iter().enumerate();
        Ok(Node::List(
            elements
                .map(|(index, element)| Ok((self.node(element)?, list.optional_indices.contains(&index))))
                .collect::<Result<_, _>>()?,
        ))
    }

    fn map(&mut self, map: &MapExpr) -> Compiled {
        let mut entries = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                return Refusal::syntax("a map's keys are expressions: {'key': value}");
            };
            entries.push((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional));
        }
        Ok(Node::Map(entries))
    }

    fn call(&mut self, call: &CallExpr) -> Compiled {
        if let Some(node) = self.operator(call)? {
            return Ok(node);
        }
        if let Some(node) = comprehension::from_call(self, call)? {
            return Ok(node);
        }
        let Some(target) = &call.target else {
            return self.function(&call.func_name, Style::Global, call.args.iter());
        };
        if let Expr::Ident(namespace) = &target.expr
            && !self.locals.contains(namespace)
        {
            let name = format!("{namespace}.{}", call.func_name);
            if functions::exists(&name, Style::Global) {
                return self.function(&name, Style::Global, call.args.iter());
            }
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("or" | "orValue", [right]) => Ok(Node::OrElse {
                left: self.boxed(target)?,
                right: self.boxed(right)?,
                value: call.func_name == "orValue",
            }),
            (name, arguments) => self.function(name, Style::Method, std::iter::once(&**target).chain(arguments.iter())),
        }
    }

    fn function<'e>(&mut self, name: &str, style: Style, arguments: impl Iterator<Item = &'e IdedExpr>) -> Compiled {
        let arguments = arguments.collect::<Vec<_>>();
        let function: &'static Function =
            functions::find(name, style, arguments.len()).map_err(|hint| Refusal::UnknownFunction {
                name: name.to_owned(),
                hint,
            })?;
        let arguments = arguments
            .into_iter()
            .map(|a| self.node(a))
            .collect::<Result<Vec<_>, _>>()?;
        if function.takes_pattern()
            && let Some(Node::Literal(Value::String(pattern))) = arguments.get(1)
        {
            // Reported now rather than when the expression is first evaluated.
            patterns::Pattern::new(pattern).map_err(Refusal::Syntax)?;
        }
        Ok(Node::Call(function, arguments))
    }

    fn operator(&mut self, call: &CallExpr) -> Result<Option<Node>, Refusal> {
        if call.target.is_some() {
            return Ok(None);
        }
        let node = match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, then, otherwise]) => Node::Conditional(Box::new([
                self.node(condition)?,
                self.node(then)?,
                self.node(otherwise)?,
            ])),
            (operators::LOGICAL_NOT, [operand]) => Node::Not(self.boxed(operand)?),
            (operators::NEGATE, [operand]) => Node::Negate(self.boxed(operand)?),
            (operators::LOGICAL_AND, [left, right]) => Node::And(self.boxed(left)?, self.boxed(right)?),
            (operators::LOGICAL_OR, [left, right]) => Node::Or(self.boxed(left)?, self.boxed(right)?),
            (operators::INDEX, [operand, index]) => Node::Index(self.boxed(operand)?, self.boxed(index)?),
            (operators::OPT_INDEX, [operand, index]) => Node::OptionalIndex(self.boxed(operand)?, self.boxed(index)?),
            (operators::OPT_SELECT, [operand, field]) => match &field.expr {
                Expr::Literal(LiteralValue::String(field)) => {
                    Node::OptionalSelect(self.boxed(operand)?, field.inner().to_owned())
                }
                _ => return Refusal::syntax("a field's name must follow `.?`"),
            },
            (name, [left, right]) => match binary(name) {
                Some(operator) => Node::Binary(operator, self.boxed(left)?, self.boxed(right)?),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(node))
    }
}

fn binary(name: &str) -> Option<Operator> {
    Some(match name {
        operators::ADD => Operator::Add,
        operators::SUBSTRACT => Operator::Subtract,
        operators::MULTIPLY => Operator::Multiply,
        operators::DIVIDE => Operator::Divide,
        operators::MODULO => Operator::Modulo,
        operators::EQUALS => Operator::Equal,
        operators::NOT_EQUALS => Operator::NotEqual,
        operators::LESS => Operator::Less,
        operators::LESS_EQUALS => Operator::LessOrEqual,
        operators::GREATER => Operator::Greater,
        operators::GREATER_EQUALS => Operator::GreaterOrEqual,
        operators::IN => Operator::In,
        _ => return None,
    })
}
