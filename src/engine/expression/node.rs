//! A parsed expression, ready to be evaluated: macros expanded to loops, functions found, variables of loops numbered.

use super::functions::Function;
use super::value::Value;

#[derive(Debug)]
pub(super) enum Node {
    Literal(Value<'static>),
    /// A variable that the expression itself declares, by its place among those that enclose it.
    Local(usize),
    /// A variable of the scope.
    Variable(String),
    /// `operand.field`
    Select(Box<Node>, String),
    /// `operand.?field`
    OptionalSelect(Box<Node>, String),
    /// `has(operand.field)`
    Has(Box<Node>, String),
    /// `operand[index]`
    Index(Box<Node>, Box<Node>),
    /// `operand[?index]`
    OptionalIndex(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    /// condition, then, otherwise
    Conditional(Box<[Node; 3]>),
    Binary(Operator, Box<Node>, Box<Node>),
    /// Elements; an optional one (`[?x]`) is left out when it has no value.
    List(Vec<(Node, Optional)>),
    Map(Vec<(Node, Node, Optional)>),
    /// The receiver of a method is the first argument.
    Call(&'static Function, Vec<Node>),
    Loop(Box<Loop>),
    /// `left.or(right)`, and `left.orValue(right)` with `value`: the right side is evaluated only when needed.
    OrElse {
        left: Box<Node>,
        right: Box<Node>,
        value: bool,
    },
    /// `operand.optMap(variable, body)` and `optFlatMap`, whose body is an optional itself.
    OptionalMap {
        operand: Box<Node>,
        local: usize,
        body: Box<Node>,
        flat: bool,
    },
}

/// Whether an element was marked with `?`.
pub(super) type Optional = bool;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

/// A macro that goes through a list, or the keys of a map.
#[derive(Debug)]
pub(super) struct Loop {
    pub kind: LoopKind,
    pub range: Node,
    /// The first variable's place; with two variables the second has the next. One variable is the element of a list
    /// or the key of a map; two are index and element, or key and value.
    pub local: usize,
    pub variables: usize,
    /// Elements for which it is false are left out.
    pub filter: Option<Node>,
    /// What is evaluated for each element.
    pub body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    /// `map`, `filter`, `transformList`
    List,
    /// `transformMap`: the body is the value for the key.
    Map,
    /// `transformMapEntry`: the body is a map of entries.
    Entries,
    /// `sortBy`: the body is the key to sort by.
    Sort,
}
