"""A lint for the dialect of the shared arithmetic (docs/dialect.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from numerics.formats.rounding import ROUNDINGS, SCALE_RULES

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.BitAnd, ast.BitOr, ast.LShift, ast.RShift)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq)
NODES = (
    ast.AnnAssign, ast.arg, ast.Assign, ast.Attribute, ast.BinOp, ast.Call, ast.cmpop, ast.Compare,
    ast.Constant, ast.Expr, ast.expr_context, ast.If, ast.Name, ast.operator, ast.Return, ast.Tuple,
    ast.UnaryOp, ast.USub,
)  # fmt: skip


def is_static(test: ast.expr) -> bool:
    """rounding == "...", rule == "...", or something is (not) None."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return False
    left, operator, right = test.left, test.ops[0], test.comparators[0]
    if not isinstance(right, ast.Constant):
        return False
    if isinstance(left, ast.Name) and left.id in ("rounding", "rule"):
        return isinstance(operator, ast.Eq) and isinstance(right.value, str)
    return (
        isinstance(left, ast.Name | ast.Attribute) and isinstance(operator, ast.IsNot) and right.value is None
    )


def is_table(node: ast.AnnAssign) -> bool:
    """steps: Table = f.steps, or h: Other = f.other."""
    return ast.unparse(node.annotation) in ("Table", "Other") and isinstance(node.value, ast.Attribute)


def faults(text: str) -> Iterator[str]:
    """Every place where a source leaves the dialect."""
    for function in (node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)):
        yield from (f"{function.name}: {fault}" for fault in _faults(function))


def _faults(function: ast.FunctionDef) -> Iterator[str]:
    arguments = function.args
    if (
        function.decorator_list
        or arguments.defaults
        or arguments.kwonlyargs
        or arguments.vararg
        or arguments.kwarg
    ):
        yield "plain positional parameters, no decorator"
    body = [s for s in function.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
    tests = {id(n) for i in ast.walk(function) if isinstance(i, ast.If) for n in ast.walk(i.test)}
    for node in (n for statement in body for n in ast.walk(statement)):
        if not isinstance(node, NODES):
            yield f"{type(node).__name__} is outside the dialect"
        elif isinstance(node, ast.If) and not is_static(node.test):
            yield f"if {ast.unparse(node.test)}: not static"
        elif isinstance(node, ast.AnnAssign) and not is_table(node):
            yield f"{ast.unparse(node)}: only a table is declared"
        elif isinstance(node, ast.Return) and node is not body[-1]:
            yield "a return that is not the end"
        elif id(node) not in tests:
            yield from _faults_of(node)


def _faults_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.BinOp) and not isinstance(node.op, OPERATORS):
        yield f"operator {type(node.op).__name__}"
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield "unary minus on a lane"
    elif isinstance(node, ast.Compare) and (len(node.ops) != 1 or not isinstance(node.ops[0], COMPARISONS)):
        yield f"comparison {ast.unparse(node)}"
    elif isinstance(node, ast.Call) and (node.keywords or not isinstance(node.func, ast.Name)):
        yield f"call {ast.unparse(node)}"
    elif isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name):
        yield f"attribute of {ast.unparse(node.value)}"
    elif isinstance(node, ast.Constant) and node.value is not None:
        if type(node.value) is int and -(2**31) <= node.value < 2**31:
            return
        if node.value not in (*ROUNDINGS, *SCALE_RULES):  # these may be passed on by name
            yield f"constant {node.value!r}"
