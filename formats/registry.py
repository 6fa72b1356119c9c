"""Names: the rows of the tables fill them in, everybody's look-up reads them."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any, Never

from numerics.formats.arguments import MISSING, required, unknown_argument
from numerics.formats.dtype import TABLES, Dtype, declared, named
from numerics.formats.errors import NumericsError, nearest, plain, said
from numerics.formats.p3109_names import call_of

_WIDER = "formats here have 16 bits at most: they are what is stored, float32 is what it is computed from;"
_GGML = "with scheme 'per_group(32)' and scale_type 'float16'; files of it are read by `numerics convert`;"
_POWERS = "'e8m0', the scale of MX blocks; of a scheme's scales it is scale_type='pof2';"
_TWO = "there are two: did you mean"
_UE5M3 = f"{_TWO} 'ue5m3fn' (AMD Quark's, up to 114688), or 'ue5m3ieee' (with Inf, up to 61440)?"
_TAKUM = (
    " takums reach 2**239, which float32 cannot hold, in which values are computed: 'posit8' is tapered, too;"
)
_WIDTHS = "nx.integer_format makes integers of 2 to 16 bits, unsigned ones of 1 to 16;"
_DECLARED = (
    " you declared one of that name, and texts name those of the tables alone: give the format itself, as in "
    "d = nx.float_format(...), then d in place of the name;"
)
_ADVICE = {  # what others' names mean, in lower case, where they name no format of the tables
    "float8_e4m3": "it is IEEE-like, with Inf and a largest value of 240: nx.float_format(4, 3) makes it, "
    "'fp8_e4m3' is float8_e4m3fn;",
    "e4m3b11fnuz": 'nx.float_format(4, 3, bias=11, specials="fnuz") makes it;',
    "int1": f"its values are 0 and -1; {_WIDTHS}",
    "fp8": f"{_TWO} 'fp8_e4m3', which most people mean, or 'fp8_e5m2'?",
    "float8": f"{_TWO} 'fp8_e4m3' (float8_e4m3fn), which most people mean, or 'fp8_e5m2'?",
    "fp": "its bits are missing: 'fp8_e4m3', 'fp8_e5m2', 'fp6_e2m3', 'fp6_e3m2' or 'fp4';",
    "hybrid": "it is two formats: 'fp8_e4m3' of weights and activations, 'fp8_e5m2' of gradients;",
    "mxfp8": f"{_TWO} 'mxfp8_e4m3', which most people mean, or 'mxfp8_e5m2'?",
    "fp6": f"{_TWO} 'fp6_e3m2' or 'fp6_e2m3'?",
    "float6": f"{_TWO} 'fp6_e3m2' or 'fp6_e2m3'?",
    "mxfp6": f"{_TWO} 'mxfp6_e3m2' or 'mxfp6_e2m3'?",
    "ue5m3": _UE5M3,
    "e5m3": f"without a sign, in 8 bits, {_UE5M3} with one, in 9, nx.float_format(5, 3) makes it, on the "
    'command line \'{"exponent": 5, "mantissa": 3}\';',
    "f8e5m3": f"8 bits of 5 and 3 have no sign: {_UE5M3}",
    "ue4m3": "as the scale of NVFP4 it is 'fp8_e4m3', whose sign a scale leaves 0; alone, up to 448, "
    'nx.float_format(4, 3, signed=False, specials="fn") makes it, on the command line '
    '\'{"exponent": 4, "mantissa": 3, "signed": false, "specials": "fn"}\';',
    "bf8": "did you mean 'fp8_e5m2'?",
    "hf8": "did you mean 'fp8_e4m3'?",
    "mx": "it is a family of formats: mxfp8_e4m3, mxfp8_e5m2, mxfp6_e3m2, mxfp6_e2m3, mxfp4, mxint8; "
    "nx.mx(element, block=32) makes others;",
    "ue8m0": "did you mean 'e8m0'?",
    "s1e4m3": "did you mean 'fp8_e4m3'?",
    "pof2": f"powers of two alone are {_POWERS}",
    "po2": f"powers of two alone are {_POWERS}",
    "poweroftwo": f"powers of two alone are {_POWERS}",
    "powerof2": f"powers of two alone are {_POWERS}",
    "ternary": "nx.codebook_format([-1, 0, 1]) makes it, in 2 bits;",
    "q8_0": f"it is 'int8' {_GGML}",
    "q4_0": f"it is 'int4' {_GGML}",
}
_ADVICE |= dict.fromkeys(
    ("p3109", "binary8", "binary8p3", "ieee_p3109"),
    "nx.p3109(8, 3) makes one of IEEE P3109; on the command line it is 'binary8p3se';",
)
_ADVICE |= dict.fromkeys(
    ("int32", "int64", "uint32", "uint64", "float32", "float64", "float", "int", "fp32", "fp64", "f32", "f64",
     "single", "double", "tf32"), _WIDER,
)  # fmt: skip
_ADVICE |= dict.fromkeys(
    ("per_tensor", "per_channel", "per_group", "per_token", "per_block", "per_row"),
    "it says which elements share a scale: a scheme, to give beside a format such as int4;",
)
_WHOSE = re.compile(r"^(?:torch|bnb|ggml|numpy|np|jnp|tf|onnx)[._]")
_FLOATS = re.compile(r"^(mx|nv|)(?:float|fp)(?=[0-9])")
_FAMILY = re.compile(r"(?<!hi)(?:fp|(?<!^h)float)[468](?![0-9])(?!.*e[0-9]m)")  # bfloat8, fp8_dynamic
_HYBRID = re.compile(r"hybrid|^hfp8")
_BEHIND = re.compile(r"(.+?)[\s:]+(?:per_|asymmetric|\w+=).*")  # int4 per_group(32)
_NUMBERED = re.compile(r"([a-z]+(?:_[a-z]+)*)_?([0-9]{1,9}).*")  # fp9, mxfp5: a family, and how many bits
_MOST = 16  # bits of a code
_BITS = re.compile(r"^f[0-9]+(?=u?e[0-9])")  # which exponent and mantissa say once more
_BOTH = re.compile(r"w([0-9]+)a([0-9]+)")  # w4a16
_NARROW = ', "narrow": true'
_UNSIGNED = ', "signed": false'
_KINDS = ("integer", "float", "codebook", "block")  # the order in which formats are listed
_NAMES: dict[str, Dtype] = {}  # as the rows write them
_SPACES = re.compile(r"[-_ ](?!(?<=\d.)\d)")  # between words; of 1_6 the line keeps two numbers apart
_FLOAT = re.compile(r"(?:f(?:p|loat)([0-9]{1,2})_)?(u?)e([1-8])m([0-9]{1,2})")  # fp7_e4m2, e5m1, ue4m4
_WIDTH = re.compile(r"(?:(u?)i(?:nt)?|([us]))([1-9][0-9]{0,3})(_narrow)?")  # int6, I6, S6, U3, int4_narrow
_AS_OPTION = re.compile(r"\b(u?int[1-9][0-9]{0,3})\s+narrow(?:\s*=\s*true)?$")  # int8 narrow=True


def row(kind: Any, name: str, source: str, *, names: tuple[str, ...] = (), **facts: Any) -> Any:
    """One row of a table: a format, known from here on by its name and by every other library's for it.

    Raises NumericsError for a name that stands for another format already.
    """
    made = kind(name=name, source=source, aliases=names, **facts)
    for known in (name, *names):
        if TABLES.setdefault(known.lower(), made) is not made or known in _NAMES:
            raise NumericsError(f"the name {known!r} stands for both {TABLES[known.lower()]} and {made}")
        _NAMES[known] = made
    return made


@required
def dtypes(*unnamed: Never, **unknown: Never) -> tuple[Dtype, ...]:
    """Returns every format of the tables, integers first, then floats, codebooks and blocks.

    >>> len(dtypes()) > 20
    True
    """
    if unknown or unnamed:
        raise unknown_argument(dtypes, unknown, (), unnamed)
    return tuple(sorted(dict.fromkeys(_NAMES.values()), key=lambda d: _KINDS.index(d.kind)))


@required
def dtype(name: Any, *unnamed: Never, **unknown: Never) -> Dtype:
    """Returns the format of that name, whoever's name it is, in capitals or not, with lines or without.

    name: a format, a string (ours, a standard's or another library's name), a torch dtype, or an ml_dtypes
    or NumPy dtype.  Raises NumericsError with the nearest name, or with what to declare for a type that
    has no row here.

    >>> dtype("float8_e4m3fn"), dtype("MXFP4"), dtype("e4m3"), dtype("FP8-E5M2")
    (fp8_e4m3, mxfp4, fp8_e4m3, fp8_e5m2)
    >>> dtype("fp8_e4m4")
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: unknown format 'fp8_e4m4'; did you mean 'fp8_e4m3'? \
`numerics formats` lists them all
    """
    if unknown or unnamed or name is MISSING:
        raise unknown_argument(dtype, unknown, (name,), unnamed)
    if isinstance(name, Dtype):
        return name
    spelled = name_of_type(name)
    found = _NAMES.get(spelled) or named(spelled) or _squeezed().get(_SPACES.sub("", spelled.lower()))
    if found is None:
        if name is None:
            raise NumericsError("a format is needed, such as 'fp8_e4m3'; `numerics formats` lists them all")
        if _has_format(name):
            raise NumericsError(f"{said(name)} is more than a format; give its format alone: its .dtype")
        if not isinstance(name, type) and (hasattr(type(name), "__array__") or callable(name)):
            raise NumericsError(
                f"{said(name)} is no format, such as 'fp8_e4m3': what is quantized, drawn or judged comes "
                "first, and the format behind it"
            )
        raise NumericsError(f"unknown format {said(name)};{_help(spelled)} `numerics formats` lists them all")
    return found


def attribute_help(name: str) -> str:
    """What is said of a name that a module of formats lacks; nothing where it looks like no format's.

    >>> attribute_help("e4m3"), attribute_help("quantise")
    ("; nx.dtype('e4m3') is nx.fp8_e4m3", '')
    """
    try:
        return f"; nx.dtype({name!r}) is nx.{dtype(name)}"
    except NumericsError:
        alike = name.lower() in _families() or any(letter.isdigit() for letter in name)
        told = _help(name).rstrip(";") if alike and not name.startswith("_") else ""
        return f";{told}" if told else ""


def _has_format(thing: Any) -> bool:
    """Is it something that has a format, in the place of the format?"""
    try:
        return isinstance(getattr(thing, "dtype", None), Dtype)
    except Exception:  # whatever what came raises: it has none
        return False


@cache
def _squeezed() -> dict[str, Dtype]:
    """The formats by their names in lower case without lines and blanks, where one alone has that name."""
    found: dict[str, Dtype | None] = {}
    for name, d in _NAMES.items():
        short = _SPACES.sub("", name.lower())
        found[short] = d if found.get(short, d) is d else None
    return {name: d for name, d in found.items() if d is not None}


def _help(spelled: str) -> str:
    """What is said of a name that is no format's: how to declare it, or which one may be meant."""
    given, spelled = spelled, _AS_OPTION.sub(r"\1_narrow", spelled.lower())
    for known in (spelled, _shortest(spelled)):
        if known in _ADVICE:
            return f" {_ADVICE[known]}"
    if "takum" in spelled:
        return _TAKUM
    if call := call_of(spelled):
        return f" {call} makes it, to give in place of a name; on the command line the name stands for it;"
    behind = _BEHIND.fullmatch(spelled)
    if behind is not None and (d := _squeezed().get(_SPACES.sub("", behind[1]))):
        return (
            f" its format is {d.name!r}; what stands behind it says how a tensor is quantized, as in "
            "'int4 per_group(32)';"
        )
    width, parts = _WIDTH.fullmatch(spelled), _FLOAT.fullmatch(spelled)
    if parts is not None and (own := _own_float(*parts.groups())):
        return own
    if width is None:
        return _DECLARED if declared(given) else _meant(spelled)
    unsigned, bits = "u" in (width[1], width[2]), int(width[3])
    if (known := f"{'u' * unsigned}int{bits}") in _NAMES and not width[4]:
        return f" did you mean {known!r}?"
    if not 2 - unsigned <= bits <= 16:
        return f" {_WIDTHS}"
    sign = ", signed=False" * unsigned + ", narrow=True" * bool(width[4])
    facts = f'{{"bits": {bits}{_UNSIGNED * unsigned}{_NARROW * bool(width[4])}}}'
    return _own(f"nx.integer_format({bits}{sign})", facts)


def _meant(spelled: str) -> str:
    """Which format may be meant: the same in other letters, else the most like it of as many bits."""
    if of_both := _BOTH.fullmatch(spelled):
        weights, others = of_both.groups()
        kept = f"activations='int{others}'" if int(others) <= 8 else "activations left as they are"
        return f" it says the bits of weights and activations: format 'int{weights}' with {kept};"
    short = _shortest(spelled)
    same = next((d for name, d in _NAMES.items() if _shortest(name) == short), None)
    if len(names := [one for found in _families().get(_fp(spelled), {}).values() for one in found]) > 1:
        return f" it is a family of formats: {', '.join(dict.fromkeys(names))};"
    bits = re.search(r"[0-9]+", spelled)
    alike = {name: d for name, d in _NAMES.items() if bits is None or re.match(rf"\D*{bits[0]}(?!\d)", name)}
    begins = [name for name in alike if len(name) > 2 and spelled.startswith(name.lower())]
    near = max(begins, key=len, default=None) or (nearest(spelled, alike) if len(spelled) > 2 else None)
    found = same or (alike[near] if near else None)
    if not same and not begins and _FAMILY.search(squeezed := _SPACES.sub("", spelled)):
        return _of_family(squeezed)
    if not same and not begins and (others := _of_other_width(spelled)):
        return others
    if found is None and len(spelled) > 2:
        numbers = set(re.findall(r"[0-9]+", spelled))
        alike = {name: d for name, d in _NAMES.items() if not numbers.isdisjoint(re.findall(r"[0-9]+", name))}
        near = nearest(spelled, alike)
        found = alike[near] if near else None
    return f" did you mean {found.name!r}?" if found else ""


def _of_other_width(spelled: str) -> str:
    """Which formats of a family have about as many bits, of a name with another number: fp8_e4m3 of fp9."""
    came = _NUMBERED.fullmatch(spelled)
    if came is None or came[1] in ("e", "ue"):
        return ""
    families, bits = _families(), int(came[2])
    family = _fp(came[1]) if _fp(came[1]) in families else _fp(came[1]).rpartition("_")[2]
    found = families.get(family, {})
    near = min((abs(width - bits) for width in found), default=0)
    if near and bits > _MOST and not family.startswith("mx"):
        return f" {_WIDER}"
    names = dict[str, None]()
    for width in (bits - near, bits + near):
        told = re.findall(r"'(\w+)'", _ADVICE.get(f"{family}{width}", ""))
        names |= dict.fromkeys(told or found.get(width, []))
    if not (near and names):
        return ""
    *first, last = map(repr, names)
    also = f"{', '.join(first)} or {last}" if first else last
    return f" there is none of {bits} bits: did you mean {also}?"


@cache
def _families() -> dict[str, dict[int, list[str]]]:
    """Of each beginning of names, as mxfp, the formats by the number that follows it."""
    found: dict[str, dict[int, list[str]]] = {}
    for name, d in _NAMES.items():
        if known := _NUMBERED.fullmatch(name.lower()):
            names = found.setdefault(_fp(known[1]), {}).setdefault(int(known[2]), [])
            names += [d.name] * (d.name not in names)
    return found


def _fp(family: str) -> str:
    return family.replace("float", "fp") if family in ("float", "mxfloat", "nvfloat") else family


def _of_family(spelled: str) -> str:
    """Which floats of so many bits there are, of a name that says no more of them than that."""
    if _HYBRID.search(spelled):
        return f" {_ADVICE['hybrid']}"
    name = f"{'mx' * ('mx' in spelled)}fp{_FAMILY.findall(spelled)[0][-1]}"
    return f" {_ADVICE[name]}" if name in _ADVICE else f" did you mean {name!r}?"


def _shortest(name: str) -> str:
    """A name without whose it is, its lines and, where its fields say them, its bits.

    >>> _shortest("float8_e4m3fn"), _shortest("F8E4M3FN"), _shortest("bnb_nf4"), _shortest("mxfp8_e5m2")
    ('e4m3fn', 'e4m3fn', 'nf4', 'mxf8e5m2')
    """
    short = _SPACES.sub("", _WHOSE.sub("", name.lower()))
    return _BITS.sub("", _FLOATS.sub(r"\1f", short))


def _own(made: str, facts: str) -> str:
    return (
        f" did you mean a format of your own? in Python {made} makes it, to give in place of a name, on the "
        f"command line '{facts}';"
    )


def _own_float(bits: str | None, unsigned: str, exponent: str, mantissa: str) -> str:
    """How to declare a float of those widths; empty where they are none, or contradict its bits."""
    width = int(exponent) + int(mantissa) + (not unsigned)
    if not 2 <= width <= 16 or (bits is not None and int(bits) != width):
        return ""
    sign, fact = (", signed=False", _UNSIGNED) if unsigned else ("", "")
    made = f"nx.float_format({exponent}, {mantissa}{sign})"
    return _own(made, f'{{"exponent": {exponent}, "mantissa": {mantissa}{fact}}}') + (
        ' with specials="fn" it has no Inf;'
    )


@lru_cache(maxsize=1024)
def is_called(thing: Any, name: str) -> bool:
    """Is that a library's own dtype of the format with our name?

    >>> is_called("float8_e4m3fn", "fp8_e4m3"), is_called("float8_e5m2", "fp8_e4m3")
    (True, False)
    """
    found = _NAMES.get(name_of_type(thing))
    return found is not None and found.name == name


def name_of_type(thing: Any) -> str:
    """The name by which a library's own dtype object goes; none of a thing that has no name."""
    if isinstance(thing, str):
        return plain(thing).removeprefix("torch.")
    for attribute in ("name", "__name__"):
        try:
            found = getattr(thing, attribute, None)
        except Exception:  # whatever what came raises: it has no name
            continue
        if isinstance(found, str) and plain(found):
            return plain(found).removeprefix("torch.")
    of_torch = (type(thing).__module__, type(thing).__name__) == ("torch", "dtype")
    return str(thing).removeprefix("torch.") if of_torch else ""
