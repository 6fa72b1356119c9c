"""What torch.compile must know: which of our functions are constants to it, and which belong in a graph.

And which do not: an observer's state is arrays on the host, which no graph can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

from numerics import observe
from numerics.backends.host import float_bits
from numerics.formats import block, codebooks, errors, text
from numerics.formats.dtype import Dtype, undrawn, undrawn_once
from numerics.pytorch import dispatch as faces  # no graph ends where they are looked for
from numerics.pytorch import qtensor
from numerics.pytorch.constants import constant
from numerics.pytorch.wrapper import Wrapper
from numerics.tensor import spec
from numerics.tensor.scheme import spelled


def _apart(member: Any) -> Any:
    """A function or a property before which a graph ends; after it another one begins."""
    if isinstance(member, property):
        return property(torch.compiler.disable(member.fget), doc=member.__doc__)
    return torch.compiler.disable(member)


def _is_door(name: str, member: Any) -> bool:
    """Does it make or use an observer's state?  `observe` does by `_watch`: it may be bound before this."""
    public = not name.startswith("_") and name != "observe"
    return name in ("__init__", "_watch") or (public and (callable(member) or isinstance(member, property)))


def _declared() -> Iterator[type[Dtype]]:
    """The classes of formats, which `float_format` and its kin make."""
    kinds = [Dtype]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "__init__" in vars(kind):
            yield kind


for _constant in (
    spec.spec_facts,
    spec.facts_beside,
    spec.checked,
    text.text_of,
    qtensor.text_of,
    float_bits.bits_of,
    errors.plain,
):
    torch.compiler.assume_constant_result(_constant)
torch.compiler.allow_in_graph(qtensor.wrapped)
faces._into = torch.compiler.disable(
    faces._into,
    reason="numerics: out= is checked in memory, which a graph does not have while it is traced: call "
    "without out= and copy, or leave out fullgraph=True",
)
_DECLARED = (
    "numerics: a format is declared in memory, which a graph does not have while it is traced: declare it "
    "before the compiled region, or leave out fullgraph=True"
)
for _class in _declared():
    _class.__init__ = torch.compiler.disable(_class.__init__, reason=_DECLARED)  # type: ignore[method-assign]
codebooks.name_of = torch.compiler.disable(codebooks.name_of, reason=_DECLARED)
for _class in {kind for made in observe.OBSERVERS.values() for kind in made.__mro__[:-1]}:
    for _name, _member in list(vars(_class).items()):
        if _is_door(_name, _member):
            setattr(_class, _name, _apart(_member))
for _door in ("__torch_dispatch__", "__torch_function__"):
    # What an operation comes to between two graphs is no graph of its own; `disable` costs each call time.
    _code = vars(Wrapper)[_door].__func__.__code__
    set_code_exec_strategy(_code, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))


class SpecFacts(NamedTuple):
    """What stands for a QuantSpec in a graph, whose constants are texts."""

    text: str
    rounding: str


@torch.compiler.substitute_in_graph(spec.spec_of, skip_signature_check=True)
def _spec_of(given: bool, dtype: Any, scheme: Any, *options: Any) -> Any:
    """A scheme or a spec that was made in the graph goes by its text, too."""
    asked = [constant(option) for option in (spelled(scheme), *options)]
    if isinstance(dtype, spec.QuantSpec):
        beside = given, dtype.text, *asked
        return SpecFacts(spec.facts_beside("text", *beside), spec.facts_beside("rounding", *beside))
    plain = given, constant(dtype), *asked
    return SpecFacts(spec.spec_facts("text", *plain), spec.spec_facts("rounding", *plain))


# torch warns where a function remembers, and looks inside it all the same.
torch.compiler.substitute_in_graph(undrawn_once)(undrawn)
torch.compiler.substitute_in_graph(block.undrawn_once)(block.undrawn)


@torch.compiler.substitute_in_graph(block.asked_scale, skip_signature_check=True)
def _asked_scale(tensor_scale: Any) -> float:
    """A float may be another in the next call: the operator checks it, and rounds it, whichever it is."""
    return tensor_scale if type(tensor_scale) is float else block.stored_scale(tensor_scale)
