"""The one error class of the house, its one warning, and what both say about what came."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Mapping
from itertools import islice
from numbers import Real
from operator import index
from types import FrameType
from typing import Any

SHOWN = 200  # characters of what came that a message repeats
LIKE = 0.6  # how much of two names is the same, at least, where one may be meant for the other
ITEMS = 16  # of a list that came
LONGEST = 4000  # characters of a message
_HOUSE = ("numerics.", "torch.", "contextlib")  # a warning points at whoever called these


class NumericsError(ValueError):
    """A request that cannot be met: what was wrong, what came, what is allowed.

    >>> raise NumericsError.unknown("rounding mode", "half_evn", ["half_even", "floor"])
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: unknown rounding mode 'half_evn'; \
did you mean 'half_even'? allowed: half_even, floor
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(shortened(word, LONGEST) if isinstance(word, str) else word for word in said))

    @classmethod
    def unknown(
        cls, what: str, came: object, allowed: Iterable[str], advice: Mapping[str, str] | None = None
    ) -> NumericsError:
        """An unknown name, with what `advice` has for it in lower case, else with the nearest allowed one."""
        names = list(allowed)
        text = text_in(came) or ""
        told = (advice or {}).get(text.lower())
        help = f" {told}" if told else hint(text, names)
        return cls(f"unknown {what} {said(came)};{help} allowed: {', '.join(names)}")


class NumericsWarning(UserWarning):
    """Something was done that is hardly what was meant; the message says what, and how much.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", NumericsWarning)  # for those who would rather stop
    """


def warn(message: str) -> None:
    """One NumericsWarning at the line that called this package, whatever lies between."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_HOUSE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, NumericsWarning, stacklevel=level)


def said(came: object) -> str:
    """What came as a message repeats it: its repr in one line, the middle of a long one left out.

    Of arrays and tensors only the shape: others' repr reads memory, which may be freed, or far too much.

    >>> said("abc"), said([1.5, None]), len(said("a" * 10**6))
    ("'abc'", '[1.5, None]', 200)
    """
    try:
        text = _said(came, nested=3)
    except Exception:  # integers of 4,300 digits, and whatever others do in theirs
        text = a_kind_of(came)
    return shortened(text, SHOWN)


def _said(came: Any, nested: int) -> str:
    if type(came) in (set, frozenset, dict):
        return f"<{type(came).__name__} of {len(came)}>"
    if type(came) in (list, tuple):
        before, after = "[]" if type(came) is list else "()"
        parts = [_said(part, nested - 1) for part in islice(came, ITEMS if nested else 0)]
        parts += ["..."] * (len(came) > len(parts))
        return f"{before}{', '.join(parts)}{',' * (type(came) is tuple and len(came) == 1)}{after}"
    shape = getattr(came, "shape", None)
    if isinstance(shape, tuple) and hasattr(type(came), "__setitem__"):
        return f"<{type(came).__name__} of shape {tuple(shape)}>"
    text = repr(came)
    return text if isinstance(came, (str, bytes)) else " ".join(text.split())


def kind_of(came: object) -> str:
    """The name of its class; nothing that is written in the class, or in the class's own, is run.

    >>> kind_of(1.5)
    'float'
    """
    return str(type.__dict__["__name__"].__get__(type(came)))


def a_kind_of(came: object) -> str:
    """The name of its class as a sentence has it: an int, a list, a QTensor.

    >>> a_kind_of(3), a_kind_of([]), a_kind_of(None)
    ('an int', 'a list', 'None')
    """
    return "None" if came is None else with_article(kind_of(came))


def with_article(noun: str) -> str:
    """A noun with a or an, as it is spoken: an int, an LSTM, an MXBlock, a UserDict, a uint8.

    >>> [with_article(noun) for noun in ("int", "float", "LSTM", "ndarray", "UserDict", "uint8", "Embedding")]
    ['an int', 'a float', 'an LSTM', 'an ndarray', 'a UserDict', 'a uint8', 'an Embedding']
    """
    spelled = noun[:2].isupper() or noun[:2].lower() == "nd"  # letter by letter: an RNN, an ndarray
    first = noun[:1].lower()
    long_u = noun[:3].lower() in ("use", "uni", "uin", "uti") and not noun.lower().startswith("unin")
    vowel = first in ("aefhilmnorsx" if spelled else "aeiou") and not (long_u and not noun[:2].isupper())
    return f"{'an' if vowel else 'a'} {noun}"


def shortened(text: str, most: int) -> str:
    """A text of at most that many characters: where it has more, its middle is left out."""
    if len(text) <= most:
        return text
    left = f" ... {len(text):,} characters ... "
    first = (most - len(left)) * 2 // 3
    return text[:first] + left + text[len(text) - (most - len(left) - first) :]


def digits(number: Any) -> str:
    """A float, Python's or NumPy's, with all the digits that tell it from its neighbours in its type.

    >>> digits(300.0), digits(0.1 + 0.2), digits(2.0**-149)
    ('300', '0.30000000000000004', '1.401298464324817e-45')
    """
    return str(number).removesuffix(".0")


def hint(came: str, names: Iterable[str]) -> str:
    """Which name may be meant, whatever its case: one that begins with what came, else the most like it.

    >>> hint("FP8", ["mxfp4", "fp8_e4m3"]), hint("fload", ["int", "float"]), hint("x", ["int"])
    (" did you mean 'fp8_e4m3'?", " did you mean 'float'?", '')
    """
    near = nearest(came, names)
    return "" if near is None else f" did you mean {near!r}?"


def nearest(came: str, names: Iterable[str]) -> str | None:
    """The name that `hint` says, None where none is like it."""
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    came = plain(came)[:SHOWN].lower()
    begun = [name for name in lower if came and name.startswith(came)]
    alike = difflib.get_close_matches(came, lower, n=1, cutoff=LIKE)
    within = [name for name in lower if name in came.split("_")]  # size, of group_size
    near = begun or [name for name in (*alike, *within) if min(len(came), len(name)) > 1]
    return lower[near[0]] if near else None


def not_a_file(module: str, name: str) -> str:
    """What is said of a module that was named as its file is, with .py or a folder; else nothing.

    >>> not_a_file("mine" ".py", "encode"), not_a_file("./mine", "encode"), not_a_file("mine", "encode")
    ('; a module is named without .py: mine:encode', '; a module is named by dots: mine:encode', '')
    """
    stem = module.removesuffix(".py").removeprefix("./").replace("/", ".")
    if stem == module:
        return ""
    return f"; a module is named {'without .py' if module.endswith('.py') else 'by dots'}: {stem}:{name}"


def integer(what: str, came: object) -> int:
    """The integer that came, NumPy's too; raises NumericsError for another number, for a bool, for a text.

    >>> integer("axis", -1)
    -1
    """
    try:
        if not isinstance(came, bool):
            return index(came)  # type: ignore[arg-type]  # and a constant, to torch.compile
    except Exception:  # whatever what came raises: it is no integer
        pass
    raise NumericsError(f"{what} must be an integer, not {said(came)}")


def number_in(came: Any) -> float | None:
    """The real number that came, Python's or NumPy's, also as an array or a tensor that holds one; None for
    what is none (a bool, a text, a complex number), or hides it under a mask.

    >>> number_in(3), number_in("3"), number_in(True), number_in(3j)
    (3.0, None, None, None)
    """
    try:
        if getattr(came, "mask", False) is not False:
            return None
        if all(n == 1 for n in getattr(came, "shape", ())) and hasattr(came, "item"):
            came = came.item()
        if isinstance(came, (float, int, Real)) and not isinstance(came, bool):
            return float(came)
    except Exception:  # beyond float64, or without a value
        pass
    return None


def truth(what: str, came: object) -> bool:
    """The truth that came, NumPy's too; raises NumericsError for anything else, for 0 and 1 too.

    >>> truth("symmetric", False)
    False
    """
    if came is True or came is False:
        return came
    kind = type(came)
    if (kind.__module__, kind.__name__) in (("numpy", "bool"), ("numpy", "bool_")):
        return bool(came)
    raise NumericsError(f"{what}={said(came)} is not allowed: True or False")


def check_no_gradient(what: str, came: object, learned: str = "") -> None:
    """Raises NumericsError for a tensor that requires a gradient where none comes: who learns it would wait.

    what: its name.  learned: what learns such numbers, for the message.
    """
    if type(came) is float or type(came) is int:  # of which torch.compile cannot ask for attributes
        return
    try:
        requires = _is_followed(came)
    except Exception:  # whatever what came raises: it is no tensor
        requires = False
    if requires:
        beside = f"; {learned}" if learned else ""
        raise NumericsError(f"{what} requires a gradient, and has none here; give {what}.detach(){beside}")


def _is_followed(came: Any) -> bool:
    """Does torch follow what is computed of it: for a gradient, forward, at a level of torch.func?"""
    if getattr(came, "requires_grad", False) is True:
        return True
    forward = sys.modules.get("torch.autograd.forward_ad")
    if forward is not None and forward._current_level >= 0 and forward.unpack_dual(came).tangent is not None:
        return True
    levels = sys.modules.get("torch._C._functorch")
    if levels is None or levels.maybe_current_level() is None:
        return False
    return levels.is_functorch_wrapped_tensor(came) and _is_followed(levels.get_unwrapped(came))


def plain(text: str) -> str:
    """A text that is nothing else: of an enumeration's member or of NumPy's text its letters.

    >>> from numerics.vocabulary import Dtype
    >>> plain(Dtype.int8)
    'int8'
    """
    return text if type(text) is str else str.__str__(text)


def text_in(came: object) -> str | None:
    """The letters of a text that came; None of anything else.  Nothing that is written in its class is run.

    >>> text_in("int8"), text_in(8)
    ('int8', None)
    """
    return plain(came) if issubclass(type(came), str) else None  # type: ignore[arg-type]


def words_of(wrong: object) -> str:
    """What an error says, in one line; of a text past any message the middle is left out.

    >>> words_of(ValueError(" shapes   differ:  (2,) and (3,) "))
    'shapes differ: (2,) and (3,)'
    """
    return " ".join(shortened(str(wrong), LONGEST).split())


def items_of(what: str, came: Any) -> list[Any]:
    """The items of what came, one after the other; raises NumericsError where it has none that can be had.

    >>> items_of("rules", (1, 2))
    [1, 2]
    """
    try:
        return list(came)
    except Exception as wrong:  # whatever what came raises: it is no list of items
        kind = type(wrong).__name__
        raise NumericsError(
            f"{what}={said(came)} cannot be read item by item: {kind}: {wrong!s:.200}"
        ) from None


def one_of(what: str, came: object, allowed: Iterable[str], advice: Mapping[str, str] | None = None) -> str:
    """The name that came, as a plain text, when it is allowed; raises NumericsError otherwise."""
    names = tuple(allowed)
    name = text_in(came)
    if name is not None and name in names:
        return name
    raise NumericsError.unknown(what, came, names, advice)
