"""The order of a sum as a tree: which terms are added to which, found from what hides them, and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tree = Any
"""A leaf's place, or a tuple of trees that are added: of two, or of all that are added at once."""


def built(under: NDArray[np.int64], leaves: list[int]) -> Tree:
    """The tree in which `under[i, j]` leaves are below the node where i and j meet.

    >>> built(np.array([[0, 2, 3], [2, 0, 3], [3, 3, 0]]), [0, 1, 2])
    ((0, 1), 2)
    """
    first, *others = leaves
    node: Tree = first
    for size in sorted({int(under[first, other]) for other in others}):
        members = [other for other in others if under[first, other] == size]
        part = built(under, members)
        at_once = len(members) > 1 and max(under[i, j] for i in members for j in members if i != j) == size
        node = (node, *part) if at_once else (node, part)
    return node


def in_sequence(tree: Tree) -> Tree:
    """The same tree with what was added first in front, where one term is added after the other.

    Which of the first two comes first is not seen: it is taken to be the one that goes on from there.

    >>> in_sequence((0, (1, (2, 3))))
    (((3, 2), 1), 0)
    """
    if not isinstance(tree, tuple) or len(tree) > 2:
        return tree
    first, second = map(in_sequence, tree)
    if isinstance(first, tuple) or not isinstance(second, tuple):
        return (first, second)
    if all(isinstance(part, int) for part in second) and len(second) == 2 and first < min(second):
        second = (max(second), min(second))
    return (second, first)


def described(tree: Tree) -> str:
    """A tree in words.

    >>> described(((0, 1), 2)), described(((0, 1), (2, 3))), described((0, 1, 2, 3))
    ('one after the other', 'a tree of depth 2', '4 terms at once')
    >>> described(((((0, 1), 2), ((3, 4), 5)), ((6, 7), 8)))
    '3 chains of 3, the first 0 1 2, then one after the other'
    """
    most, depth, count = widest(tree), _depth(tree), len(_leaves(tree))
    if most > 2:
        whole = depth == 1
        return f"{most} terms at once" + ("" if whole else f", the sum before among them, {depth} times")
    order = _leaves(tree)
    if depth == count - 1:
        return "one after the other" + ("" if order == sorted(order) else f", in the order {_shown(order)}")
    chains = _chains(tree)
    if len(chains) < count // 2:
        longest, last = max(map(len, chains)), _of_chains(tree)
        return f"{len(chains)} chains of {longest}, the first {_shown(chains[0])}, then {last}"
    return f"a tree of depth {depth}"


def _shown(order: list[int]) -> str:
    return " ".join(map(str, order[:6])) + (" ..." if len(order) > 6 else "")


def _leaves(tree: Tree) -> list[int]:
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, tuple) else [tree]


def _depth(tree: Tree) -> int:
    return 1 + max(map(_depth, tree)) if isinstance(tree, tuple) else 0


def widest(tree: Tree) -> int:
    """How many terms are added at once, at most."""
    return max(len(tree), *map(widest, tree)) if isinstance(tree, tuple) else 0


def _chains(tree: Tree) -> list[list[int]]:
    """The parts of a tree in which one term is added after the other."""
    leaves = _leaves(tree)
    if not isinstance(tree, tuple) or _depth(tree) == len(leaves) - 1:
        return [leaves]
    return [chain for part in tree for chain in _chains(part)]


def _of_chains(tree: Tree) -> str:
    """How the sums of chains are added, in words."""

    def whole(part: Tree) -> Tree:
        return 0 if len(_chains(part)) == 1 else tuple(map(whole, part))

    count = len(_chains(tree))
    if count == 2:
        return "both"
    return "one after the other" if _depth(whole(tree)) == count - 1 else "a tree"
