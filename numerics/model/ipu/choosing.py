"""Which nodes become integer, and which tensors get a scale."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import NodeProto

from numerics.formats.errors import NumericsError, hint, with_article
from numerics.model.ipu.configs import Config
from numerics.model.ipu.network import Network, label, named
from numerics.model.ipu.operators import AVERAGES, FUSED, operator_of, refusal, shares, values_of
from numerics.model.ipu.report import Report


@dataclass
class Group:
    """Nodes that the device computes as one, without rounding between them.

    first: the node that says what it is.  rest: what follows it on the accumulator.
    """

    first: NodeProto
    rest: list[NodeProto] = field(default_factory=list)

    @property
    def nodes(self) -> list[NodeProto]:
        """All of them, in order."""
        return [self.first, *self.rest]

    @property
    def output(self) -> str:
        """The tensor that is rounded."""
        return str(self.nodes[-1].output[0])

    @property
    def name(self) -> str:
        """As the report names it."""
        return label(self.first)

    @property
    def operator(self) -> str:
        """The operators of all of them."""
        return "+".join(node.op_type for node in self.nodes)


@dataclass
class Chosen:
    """groups: what becomes integer.  tensors: the computed tensors that get a scale, in order."""

    groups: list[Group]
    tensors: list[str]


def choose(network: Network, config: Config, report: Report) -> Chosen:
    """Decides for every node; the report lists what stays in float, with the reason.

    Raises NumericsError, with the reasons, where nothing can be quantized, and for a name in keep= that no
    node has.
    """
    _check_keep(network, report)
    why = {id(node): refusal(network, node, config) for node in network.nodes}
    taken: dict[int, Group] = {}
    quantized: dict[str, None] = {}
    groups = []
    for node in network.nodes:
        if id(node) in taken or why[id(node)] is not None:
            continue
        if shares(network, node, config) and values_of(network, node)[0] not in quantized:
            does = "averages integers of one scale" if node.op_type in AVERAGES else "moves numbers"
            why[id(node)] = f"it {does}, and nothing before it is quantized"
            continue
        group = _group(network, node, why)
        groups.append(group)
        taken |= {id(each): group for each in group.nodes}
        quantized |= dict.fromkeys([*_taken_values(network, group), group.output])
    _list_floats(network, taken, why, report)
    if not groups:
        reasons = "; ".join(f"{named(node)}: {why[id(node)]}" for node in network.nodes[:6])
        raise NumericsError(
            f"nothing in this model can be quantized to {config.name}: "
            f"{reasons or 'all that it computes is constant'}"
        )
    return Chosen(groups, list(quantized))


def _check_keep(network: Network, report: Report) -> None:
    """Raises NumericsError for what keep= names and no node is, with what became of it or was meant."""
    there = {label(node): node.op_type for node in network.nodes}
    for name in network.keep:
        if name in there or name in there.values():
            continue
        gone = [row for row in report if name in (row.node, row.operator) and row.node not in there]
        if gone:
            raise NumericsError(
                f"keep= names {name!r}, of which nothing is left to keep: {gone[0].operator} "
                f"{gone[0].node!r} {gone[0].what} ({gone[0].why}); name what it is part of now, or "
                "leave it out"
            )
        if name in network.came:
            raise NumericsError(
                f"keep= names {name!r}, {with_article(network.came[name])} without a name that was taken "
                "into another node; "
                f"the nodes are {', '.join([*there][:12])}{' ...' if len(there) > 12 else ''}"
            )
        operators = ", ".join(sorted({*there.values()}))
        meant = hint(name, [*there, *there.values(), *network.came, *network.came.values()])
        raise NumericsError(
            f"keep= names {name!r}, which is neither a node nor an operator of this model;{meant} its "
            f"operators are {operators}"
        )


def _taken_values(network: Network, group: Group) -> list[str]:
    """The computed tensors that a group takes from outside."""
    inside = {name for node in group.nodes for name in node.output}
    return [name for node in group.nodes for name in values_of(network, node) if name not in inside]


def _group(network: Network, first: NodeProto, why: dict[int, str | None]) -> Group:
    """A node with what follows it on the accumulator: one multiplier or function, each the only user."""
    group = Group(first)
    after = network.only_consumer(first.output[0])
    kind = operator_of(network, first).kind
    if after is None or why[id(after)] is not None:
        return group
    multiplied = first.op_type in (*AVERAGES, "HardSigmoid")
    if (multiplied and _is_multiplier(network, after)) or (
        kind in ("layer", "sum", "product") and after.op_type in FUSED
    ):
        group.rest.append(after)
    return group


def _is_multiplier(network: Network, node: NodeProto) -> bool:
    """Is it the device's multiplier after a mean or a HardSigmoid: one number near 1?"""
    constant = network.constant(node, 1)
    if node.op_type != "Mul" or constant is None or constant.ndim:
        return False
    return 0.9 < float(constant) < 1.1


def _list_floats(
    network: Network, taken: dict[int, Group], why: dict[int, str | None], report: Report
) -> None:
    for node in network.nodes:
        if id(node) not in taken:
            reason = why[id(node)] or "-"
            report.about(node, "keep", "stays in float", reason)
