"""The explorer: its numbers are those of the exact judge, and everybody can get at them."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest

import numerics as nx
from numerics.backends.reference import executor
from numerics.checkpoints.gguf_file import GGUFWriter, nbytes_of
from numerics.draw import explorer, grids, pieces
from numerics.draw.explorer import LIMIT
from numerics.draw.layers import rows_of
from numerics.draw.sources import report_in, tensor_in, tensors_in
from numerics.formats.rounding import DETERMINISTIC
from tests.helpers.browser import opened

SPECS = {
    "mxfp4": "mxfp4", "nvfp4": "nvfp4", "mx6": "mx6", "bfp16": "bfp16", "fp8_e4m3": "fp8_e4m3",
    "bfloat16": "bfloat16",
    "int4, channels": nx.QuantSpec("int4", scheme=nx.per_channel(0)),
    "int4, groups across": nx.QuantSpec("int4", scheme=nx.per_group(5, axis=0)),
    "uint4, zero point": nx.QuantSpec("uint4", symmetric=False),
    "int8, float zero point": nx.QuantSpec("int8", symmetric=False, zero_point_type="float32"),
    "mxfp6, even": nx.QuantSpec("mxfp6_e2m3", scale_rule="even"),
}  # fmt: skip
RNG = np.random.default_rng(5)
X = (RNG.standard_normal((6, 3, 75)) * np.exp2(RNG.integers(-6, 6, (6, 3, 75)))).astype(np.float32)
X[0, 0, :4] = 0.0, -0.0, 2.0**-30, 60.0


def data_of(page):
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S)[1]
    return json.loads(text)


def place(piece, k):
    *outer, first = piece["at"]
    return (*outer, first + k)


@pytest.mark.turns
@pytest.mark.parametrize("name", SPECS)
def test_every_number_of_a_tensors_page_is_what_the_reference_gives(name):
    spec = SPECS[name] if isinstance(SPECS[name], nx.QuantSpec) else nx.QuantSpec(SPECS[name])
    tensor = data_of(nx.explore({"w": X}, [spec]))["tensors"][0]
    said = next(iter(tensor["in"].values()))
    with nx.use("reference"):
        q = nx.quantize(X, spec)
        due, codes = np.asarray(q.dequantize(), np.float64), np.asarray(q.codes)
        own = {} if spec.blocked or not spec.scaled else {"scale": q.scale}
        own |= {"zero_point": q.zero_point} if q.zero_point is not None else {}
        own |= {"tensor_scale": q.tensor_scale} if q.tensor_scale is not None else {}
        others = {
            m: np.asarray(nx.quantize(X, spec.replace(rounding=m), **own).dequantize()) for m in DETERMINISTIC
        }
    assert sum(len(piece["x"]) for piece in tensor["shown"]) >= 100
    for piece, found in zip(tensor["shown"], said["pieces"], strict=True):
        for k, x in enumerate(piece["x"]):
            at = place(piece, k)
            assert (x, found["c"][k], found["y"][k]) == (X[at], codes[at], due[at])
            for mode in DETERMINISTIC:
                assert found["r"][mode].get(str(k), found["y"][k]) == others[mode][at]


@pytest.mark.parametrize("d", ["mxfp4", "mxint8"])
def test_what_scale_rules_would_do_is_what_they_do(d):
    tensor = data_of(nx.explore({"w": X}, [d]))["tensors"][0]
    for piece, found in zip(tensor["shown"], tensor["in"][d]["pieces"], strict=True):
        for rule, other in found["rules"].items():
            due = nx.dtype(d).round(np.float32(piece["x"]), scale_rule=rule)
            came = [other["y"].get(str(k), y) for k, y in enumerate(found["y"])]
            assert came == due.astype(np.float64).tolist()


def test_other_scale_rules_were_explained_with_the_tensor_scale_of_the_first():
    x = np.concatenate([X[0] / 7, X[1] * 9])
    tensor = data_of(nx.explore({"w": x}, ["nvfp4"]))["tensors"][0]
    due = {rule: nx.quantize(x, "nvfp4", scale_rule=rule).dequantize() for rule in nx.nvfp4.scale_rules}
    for piece, found in zip(tensor["shown"], tensor["in"]["nvfp4"]["pieces"], strict=True):
        for rule, other in found["rules"].items():
            came = [other["y"].get(str(k), y) for k, y in enumerate(found["y"])]
            assert came == [due[rule][place(piece, k)] for k in range(len(came))]


def test_known_deviations_are_named_where_they_give_another_value():
    x = np.zeros((1, 32), np.float32)
    x[0, :3] = 4.0, 0.25, 2.5  # at the scale 1 both are ties
    piece = data_of(nx.explore(x, ["mxfp4"]))["tensors"][0]["in"]["mxfp4"]["pieces"][0]
    assert piece["y"][:3] == [4.0, 0.0, 2.0]
    away = next(found for name, found in piece["d"].items() if name.startswith("a tie goes away from zero"))
    assert away == {"1": 0.5, "2": 3.0}


def test_a_formats_page_holds_every_code_and_where_the_middle_goes():
    codes = data_of(nx.explore("fp8_e4m3"))["codes"]
    assert codes["y"][:126] == nx.fp8_e4m3.values()[:126]
    for code in (0, 7, 8, 125, 130):
        middle = codes["mid"][code]
        assert codes["midto"][code] == nx.fp8_e4m3.round(middle)
        for mode in DETERMINISTIC:
            due = nx.fp8_e4m3.round(middle, rounding=mode)
            assert codes["r"][mode].get(str(code), codes["midto"][code]) == due
    assert codes["above"][126] is None


def test_a_name_from_a_file_is_no_part_of_the_page():
    name = "</script><script>alert(1)</script><b>"
    page = nx.explore({name: np.ones((2, 32), np.float32)}, ["mxfp4"])
    assert page.html.count("<script") == 2
    assert data_of(page)["tensors"][0]["name"] == name


@pytest.mark.long
def test_a_page_stays_small_and_says_what_is_not_on_it():
    many = {f"w{k}": RNG.standard_normal((64, 64)).astype(np.float32) for k in range(230)}
    page = nx.explore(many | {"ids": np.arange(4)})
    assert len(page.html) < LIMIT + 50_000
    data = data_of(page)
    assert data["left_out"]["no floats"] == ["ids"]
    assert len(data["tensors"]) + sum(map(len, data["left_out"].values())) == 231


def test_a_page_reads_a_whole_tensor_once_a_format_however_many_pieces_are_left_away(monkeypatch):
    """Twenty million weights took twenty seconds: their scale was found for every rounding."""
    count = Counter()
    whole, scale = explorer.rounded, pieces.tensor_scale
    monkeypatch.setattr(explorer, "rounded", lambda *a: count.update(["whole"]) or whole(*a))
    monkeypatch.setattr(pieces, "tensor_scale", lambda *a: count.update([a[1].name]) or scale(*a))
    monkeypatch.setattr(explorer, "LIMIT", 300_000)
    data = data_of(nx.explore({"a": X, "b": X[0]}, ["mxfp4", "nvfp4"]))
    assert [len(one["shown"]) < one["pieces"] for one in data["tensors"]] == [True, False]
    assert count["whole"] == 2 * 2
    assert count["nvfp4"] == 2 * len(nx.nvfp4.scale_rules)


def test_pieces_of_all_tensors_are_encoded_together(monkeypatch):
    """A page of a hundred tensors took thousands of calls, a few pieces each: a fifth of its time."""
    count, encode, cast = Counter(), pieces._blocks, pieces.quantize
    monkeypatch.setattr(pieces, "_blocks", lambda *a: count.update([a[0].name]) or encode(*a))
    monkeypatch.setattr(pieces, "quantize", lambda *a, **k: count.update(["int4"]) or cast(*a, **k))
    asked = ["mxfp4", "mx6", "int4"]
    alone = [data_of(nx.explore({name: x}, asked))["tensors"][0] for name, x in (("a", X), ("b", X[0] * 3))]
    each = {name: calls // 2 for name, calls in count.items()}
    count.clear()
    assert data_of(nx.explore({"a": X, "b": X[0] * 3}, asked))["tensors"] == alone
    assert count == each


def test_the_judge_of_a_page_makes_no_table_of_sixteen_bits(monkeypatch):
    """The first page of a process took seconds: bfloat16, asked of few numbers, was tabled whole."""
    asked = []
    for name in ("_values", "steps"):
        whole = getattr(executor, name)
        monkeypatch.setattr(executor, name, lambda d, *a, whole=whole: asked.append(d.bits) or whole(d, *a))
    nx.explore({"w": X})
    assert max(asked) <= 8


def test_of_pieces_that_do_not_fit_those_stay_that_lose_most_and_some_that_are_spread(monkeypatch):
    x = np.ones((1, 640), np.float32)
    x[0, 320:352] = 1.2  # nothing else loses anything
    every = data_of(nx.explore(x, ["mxfp4"]))["tensors"][0]
    monkeypatch.setattr(explorer, "LIMIT", 30_000)
    few = data_of(nx.explore(x, ["mxfp4"]))["tensors"][0]
    assert len(every["shown"]) == 20
    assert 1 < len(few["shown"]) < 20
    assert few["shown"][0]["at"] == every["shown"][0]["at"] == [0, 320]
    firsts = [piece["at"][1] for piece in few["shown"]]
    assert len(set(firsts)) == len(firsts)
    assert max(firsts) == 608
    assert [few["in"]["mxfp4"]["pieces"][k]["y"] for k in (0, 1)] == [
        nx.mxfp4.round(np.float32(few["shown"][k]["x"])).tolist() for k in (0, 1)
    ]


@pytest.mark.parametrize(("call", "said"), [
    (lambda: nx.explore({}), "nothing to explore"),
    (lambda: nx.explore({"a": np.arange(3)}), "no tensor of floats"),
    (lambda: nx.explore(None), "no tensor of floats with elements came, but None;"),
    (lambda: nx.explore(X, []), "no format was given"), (lambda: nx.explore("fp8_e4m4"), "did you mean"),
    (lambda: nx.explore(X, [nx.mx("fp4", block=512)]), "at most 256"),
    (lambda: nx.explore(X, [nx.QuantSpec("mxfp4", axis=0)]), "explore the tensor transposed"),
    (lambda: nx.explore(X, [nx.QuantSpec("nvfp4", scheme="per_block((16, 16))")]), "cannot be explored"),
])  # fmt: skip
def test_what_cannot_be_explored_is_refused(call, said):
    with pytest.raises(nx.NumericsError, match=said):
        call()


@pytest.mark.parametrize(("x", "said"), [
    (np.zeros((0, 4), np.float32), r"\(0, 4\)> of float32 \(empty\)"),
    (np.arange(12), r"of int64 \(no floats\); allowed: float16, bfloat16, float32, float64 \(x.float"),
    ("float8_e4m3fn", r"of float8_e4m3fn \(codes without a scale\)"),
])  # fmt: skip
def test_what_holds_nothing_was_refused_with_a_false_reason(x, said, tmp_path):
    """Of an empty tensor of floats it was said that no tensor of floats had come."""
    torch = pytest.importorskip("torch")
    x = torch.zeros(4, 32).to(getattr(torch, x)) if isinstance(x, str) else x
    with pytest.raises(nx.NumericsError, match=said):
        nx.explore({"w": x})
    nx.save({"w": x}, tmp_path / "a.safetensors")
    said = said.partition("> ")[2] or said
    with pytest.raises(nx.NumericsError, match=f"among its 1: 'w' {said}"):
        tensor_in(tmp_path / "a.safetensors", None)
    with pytest.raises(nx.NumericsError, match=f"nothing to draw of 'w' {said}"):
        tensor_in(tmp_path / "a.safetensors", "w")
    left = nx.explore({"w": x, "v": np.ones(32, np.float32)}, ["int4"]).left_out
    assert left == {re.search(r"\((\w[^()]*)\)", said.replace("\\", ""))[1]: ["w"]}


def test_of_a_name_that_is_not_there_some_others_are_named(tmp_path):
    nx.save({f"w{k}": X for k in range(7)}, tmp_path / "a.safetensors")
    with pytest.raises(
        nx.NumericsError, match="no tensor 'nope'; it has 7 tensors of floats, such as w0, w1"
    ):
        tensor_in(tmp_path / "a.safetensors", "nope")
    nx.save({}, tmp_path / "b.safetensors")
    with pytest.raises(nx.NumericsError, match=r"has no tensors$"):
        tensor_in(tmp_path / "b.safetensors", None)


STORED = {
    "mxfp4": {"axis": 1}, "nvfp4": {}, "nvfp4, rows": {"d": "nvfp4", "scheme": "per_block((16, 16))"},
    "bfp16": {"axis": 0}, "mx512_fp4": {"d": nx.mx("fp4", block=512)}, "fp8_e4m3": {"scheme": "per_token"},
    "int4, groups": {"d": "int4", "scheme": nx.per_group(12, axis=1), "symmetric": False},
    "int8, channels": {"d": "int8", "scheme": nx.per_channel(2), "symmetric": False},
    "nf4, tiles": {"d": "nf4", "scheme": "per_block((2, 16))"}, "uint4": {"symmetric": False},
}  # fmt: skip


def of_each(shown, k):
    """What the k-th element of a piece shares, by the starts that the page says, or by whole blocks."""
    return shown["g"].index(max(g for g in shown["g"] if g <= k)) if "g" in shown else None


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("name", STORED)
def test_what_is_quantized_is_shown_as_it_is_stored_before_anything_else(name, kind):
    """The page of a quantized file showed its values in other formats, along another axis, without a word."""
    torch = pytest.importorskip("torch")
    d, options = STORED[name].get("d", name), {k: v for k, v in STORED[name].items() if k != "d"}
    q = nx.quantize(X if kind == "numpy" else torch.tensor(X), d, **options)
    tensor = data_of(nx.explore({"w": q}, ["mxfp4", "int4"]))["tensors"][0]
    first = tensor["formats"][0]
    said = tensor["in"][first]
    assert first == f"stored ({q.format})"
    assert said["bits"] == q.bits
    assert "sqnr" not in said
    values, codes = np.asarray(q.decoded()), np.asarray(q.codes)
    for piece, found in zip(tensor["shown"], said["pieces"], strict=True):
        assert piece["x"] == found["y"]
        for k, (y, code) in enumerate(zip(found["y"], found["c"], strict=True)):
            at = list(piece["at"])
            at[tensor["axis"]] += k
            assert (y, code) == (values[tuple(at)], codes[tuple(at)])
            mine = of_each(found, k)
            mine = k // (q.format.block if q.spec.blocked else 10**6) if mine is None else mine
            on = grids.values(q.format)[code] - (found["z"][mine] if "z" in found else 0)
            assert y == np.float32(on) * np.float32(found["s"][mine])


def test_what_a_file_holds_is_what_its_page_begins_with(tmp_path):
    x = RNG.standard_normal((8, 64, 3, 3)).astype(np.float32)
    nx.save({"conv.weight": nx.quantize(x, nx.QuantSpec("mxfp4", axis=1))}, tmp_path / "q.safetensors")
    tensor = data_of(nx.explore(tensors_in(tmp_path / "q.safetensors")))["tensors"][0]
    assert tensor["formats"] == ["stored (mxfp4)", "nvfp4", "mx6", "int4"]  # as mxfp4 it is stored
    assert (tensor["axis"], tensor["in"]["stored (mxfp4)"]["stored"]) == (1, "blocks of 32 along axis 1")


def test_what_is_stored_is_not_compared_with_its_own_format_unless_that_is_asked_for():
    """Tabs "stored (int4)" and "int4" stood side by side."""
    q = nx.quantize(X, "int4", scheme=nx.per_group(12, axis=-1), symmetric=False)
    tensors = data_of(nx.explore({"x": X, "q": q}))["tensors"]
    assert [one["formats"] for one in tensors] == [
        ["mxfp4", "nvfp4", "mx6", "int4"], ["stored (int4)", "mxfp4", "nvfp4", "mx6"],
    ]  # fmt: skip
    asked = data_of(nx.explore({"q": q}, ["int4"]))["tensors"]
    assert asked[0]["formats"] == ["stored (int4)", "int4"]


@pytest.mark.parametrize(("shape", "axis", "at", "due"), [
    ((40, 96), -1, 17, [[17, 0], [17, 32], [17, 64]]), ((40, 96), -1, (17, 70), [[17, 64]]),
    ((40, 96), -1, [(3, 0), 17], [[3, 0], [17, 0], [17, 32], [17, 64]]),
    ((40, 96), 0, (33, 5), [[32, 5]]), ((40, 96), 0, (2, 5), [[0, 5]]),
    ((4, 64, 5), 1, (3, 40, 2), [[3, 32, 2]]), ((70,), -1, 64, [[64]]),
])  # fmt: skip
def test_what_is_asked_for_comes_first_and_is_kept(shape, axis, at, due, monkeypatch):
    x = RNG.standard_normal(shape).astype(np.float32)
    q = nx.quantize(x, "mxfp4", axis=axis)
    for limit in (LIMIT, 30_000):
        monkeypatch.setattr(explorer, "LIMIT", limit)
        one = data_of(nx.explore({"w": q}, ["mx6"], at=at))["tensors"][0]
        assert [piece["at"] for piece in one["shown"][: len(due)]] == due
        assert one["asked"] == len(due)
        assert len({tuple(piece["at"]) for piece in one["shown"]}) == len(one["shown"])


@pytest.mark.parametrize(("what", "at", "said"), [
    (np.ones((2, 32)), 2, r"at=\(2,\): no tensor has that place; there are tensor \(2, 32\)"),
    (np.ones((2, 32)), (0, 0, 0), "no tensor has that place"), (np.ones((2, 32)), -1, "from 0 on, not -1"),
    (np.ones((2, 32)), "3", "must be an integer"), (np.ones((2, 32)), (), "at= takes a row"),
    ("fp4", 3, "at=3 is of tensors"), ({"layers": [], "output": 1.0}, 3, "is of tensors"),
])  # fmt: skip
def test_places_that_are_none_are_refused(what, at, said):
    with pytest.raises(nx.NumericsError, match=said):
        nx.explore(what, at=at)


def test_values_that_a_file_had_in_a_format_that_is_none_here_say_so(tmp_path):
    """Q4_K of a GGUF file came as float32, and what mxfp4 loses of it was said as of an original."""
    pytest.importorskip("gguf")
    tensors = {"k": ("Q4_K", (4, 256)), "f": ("F32", (4, 32)), "h": ("F16", (4, 32))}
    with GGUFWriter(tmp_path / "a.gguf", (0, b""), tensors) as writer:
        for name, (kind, shape) in tensors.items():
            writer.put(name, np.full(nbytes_of(kind, shape), 0x22, np.uint8))
    with pytest.warns(nx.NumericsWarning, match="Q4_K"):
        found = tensors_in(tmp_path / "a.gguf")
    was = {one["name"]: one["was"] for one in data_of(nx.explore(found, ["mxfp4"]))["tensors"]}
    assert was == {"k": "Q4_K", "f": None, "h": None}


def test_names_from_a_file_are_shown_and_not_obeyed():
    """U+202E turned what followed it around."""
    page = nx.explore({"a\u202eb\x1b[0m": np.ones((2, 32), np.float32), "i\u202e": np.arange(3)}, ["mxfp4"])
    assert "\u202e" not in page.html
    assert data_of(page)["tensors"][0]["name"] == r"a\u202eb\x1b[0m"
    assert page.left_out == {"no floats": [r"i\u202e"]}


# ---- in a browser -------------------------------------------------------------------------------


def layer(k):
    return {"name": f"layer.{k}", "formats": "mxfp4", "local": 10.0 + k, "cumulative": 8.0 + k}


LAYERS = {
    "output": 12.0,
    "layers": [layer(k) for k in range(30)],
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    nx.explore({"w": X, "layer.3.weight": X[0]}).save(folder / "tensors.html")
    nx.explore("fp8_e4m3").save(folder / "format.html")
    nx.explore("mxfp4").save(folder / "block.html")
    nx.explore(LAYERS, tensors={"layer.3.weight": X[0]}).save(folder / "model.html")
    nx.explore({"x": X[0], "q": nx.quantize(X, "int4", **GROUPS), "n": np.arange(3)}).save(
        folder / "stored.html"
    )
    large = RNG.standard_normal((64, 256)).astype(np.float32)
    nx.explore({"w": large}, ["mxfp4"], at=[(17, 64)]).save(folder / "asked.html")
    nx.explore({"w": nx.quantize(X[0], "int8", scheme=nx.per_token())}).save(folder / "whole.html")
    return folder


GROUPS = {"scheme": nx.per_group(12, axis=-1), "symmetric": False}
NAMES = ["tensors", "format", "block", "model", "stored", "whole"]


def told(page):
    """What the panel says: name -> text."""
    rows = "[...document.querySelectorAll('#detail tr')]"
    return dict(page.evaluate(f"{rows}.map((row) => [...row.children].map((cell) => cell.textContent))"))


def test_hovering_shows_what_the_reference_gives_at_a_hundred_places(chromium, pages):
    with nx.use("reference"):
        due = {name: nx.quantize(X, name) for name in ("mxfp4", "nvfp4", "mx6", "int4")}
        values = {name: np.asarray(q.dequantize(), np.float64) for name, q in due.items()}
        codes = {name: np.asarray(q.codes) for name, q in due.items()}
    rng, seen = np.random.default_rng(0), 0
    with opened(chromium, pages / "tensors.html") as page:
        for name in due:
            page.get_by_role("group", name="format").get_by_role("button", name=name, exact=True).click()
            for _ in range(5):
                buttons = page.get_by_role("group", name="piece").get_by_role("button")
                buttons.nth(int(rng.integers(buttons.count()))).click()
                cells = page.get_by_role("group", name="values").get_by_role("button")
                for _ in range(5):
                    cells.nth(int(rng.integers(cells.count()))).hover()
                    said = told(page)
                    heading = page.locator("#detail h2").first.inner_text()
                    at = tuple(map(int, re.search(r"\[(.*)\]", heading)[1].split(", ")))
                    assert float(said["value"]) == X[at]
                    assert int(said["code"], 16) == codes[name][at]
                    assert float(said["becomes"]) == values[name][at]
                    assert all(
                        float(said[f"in {other}"]) == values[other][at] for other in due if other != name
                    )
                    seen += 1
    assert seen == 100


@pytest.mark.parametrize("width", [1200, 375, 320])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_loads_without_errors_and_fits_its_window(chromium, pages, name, width):
    with opened(chromium, pages / f"{name}.html", width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text()


def test_everything_is_reached_with_keys_alone(chromium, pages):
    with opened(chromium, pages / "format.html") as page:
        page.keyboard.press("Tab")
        assert told(page)["code"] == "0x00"
        page.keyboard.press("ArrowRight")
        assert told(page)["code"] == "0x01"
        page.keyboard.press("End")
        assert told(page)["code"] == "0xff"
        page.keyboard.press("ArrowLeft")
        assert (told(page)["code"], told(page)["value"]) == ("0xfe", "-448")
    with opened(chromium, pages / "tensors.html") as page:
        for _ in range(4):  # the list of tensors, the row with its button, then the formats
            page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        pressed = page.get_by_role("group", name="format").locator('[aria-pressed="true"]').inner_text()
        assert pressed == "nvfp4"


def test_a_stored_number_shows_its_code_and_its_scale_and_keeps_to_the_format_looked_at(chromium, pages):
    q = nx.quantize(X, "int4", **GROUPS)
    with opened(chromium, pages / "stored.html") as page:
        group = page.get_by_role("group", name="format")
        group.get_by_role("button", name="mx6", exact=True).click()
        page.locator("#pick").select_option("1")
        assert group.locator('[aria-pressed="true"]').inner_text() == "mx6"
        group.get_by_role("button", name="stored (int4)", exact=True).click()
        page.get_by_role("group", name="values").get_by_role("button").nth(13).hover()
        said = told(page)
        at = tuple(map(int, re.search(r"\[(.*)\]", page.locator("#detail h2").inner_text())[1].split(", ")))
        assert int(said["code"], 16) == q.codes[at]
        assert float(said["value"]) == q.dequantize()[at]
        group = (*at[:-1], at[-1] // 12)
        assert (float(said["scale"]), float(said["zero point"])) == (q.scale[group], q.zero_point[group])
        assert "becomes" not in said
        assert "Not on this page, no floats: n" in page.content()
        aligned = "[...document.querySelectorAll('thead th')].map((cell) => getComputedStyle(cell).textAlign)"
        assert set(page.evaluate(f"{aligned}.slice(1, 4)")) == {"right"}


def test_a_row_is_gone_to_by_keys_and_by_the_address(chromium, pages):
    """One could not ask for a place: of hundreds of pieces each had to be tried."""
    text = re.search('id="data">(.*?)</script>', (pages / "tensors.html").read_text(encoding="utf-8"), re.S)[
        1
    ]
    at = [tuple(piece["at"]) for piece in json.loads(text)["tensors"][0]["shown"]]
    (r, s, c), (row, *_) = at[5], at[7]
    one, first = (r, s, c + 3), min(piece for piece in at if piece[0] == row)
    with opened(chromium, pages / "tensors.html") as page:
        heading = page.locator("#detail h2").first
        for text, due in ((f"{row}", f"w{[*first]}"), (f"{[*one]}", f"w{[*one]}")):
            page.locator("#at").fill(text)
            page.keyboard.press("Enter")
            assert heading.inner_text() == due
            index = ",".join(re.findall(r"\d+", text))
            assert page.evaluate("location.hash") == f"#tensor=w&at={index}"
            page.keyboard.press("ArrowRight")  # the focus is on the number
            assert heading.inner_text() != due
        for text, words in (("9", "[9] is no place of w, which is 6 x 3 x 75"), ("a", "A row is a number"),
                            ("1, 2, 3, 4", "no place")):  # fmt: skip
            page.locator("#at").fill(text)
            page.keyboard.press("Enter")
            assert words in page.locator("#told").inner_text()
        page.evaluate("location.hash = '#tensor=layer.3.weight&row=2'")
        assert heading.inner_text() == "layer.3.weight[2, 0]"
    with opened(chromium, f"{pages / 'asked.html'}#tensor=w&at=17,64") as page:
        assert page.locator("#detail h2").first.inner_text() == "w[17, 64]"
        page.locator("#at").fill("18,2")
        page.keyboard.press("Enter")
        assert (
            "--at 18,2 of `numerics explore`, or at=(18, 2) of nx.explore"
            in page.locator("#told").inner_text()
        )
    with opened(chromium, f"{pages / 'stored.html'}#tensor=q&row=2") as page:
        pressed = page.get_by_role("group", name="format").locator('[aria-pressed="true"]').inner_text()
        assert pressed == "stored (int4)"
    with opened(chromium, f"{pages / 'stored.html'}#tensor=none") as page:
        assert page.locator("#told").inner_text() == "No tensor none is on this page."


def test_codes_that_are_integers_are_shown_as_those(chromium, pages):
    """0xf alone was what stood for -1."""
    q = nx.quantize(X[0], "int8", scheme=nx.per_token())
    with opened(chromium, pages / "whole.html") as page:
        for k in (0, 4, 9):
            cell = page.get_by_role("group", name="values").get_by_role("button").nth(k)
            cell.hover()
            at = tuple(
                map(int, re.search(r"\[(.*)\]", page.locator("#detail h2").inner_text())[1].split(", "))
            )
            due = int(q.codes.view(np.int8)[at])
            assert told(page)["integer"] == str(due)
            assert cell.inner_text().split("\n")[-1] == f"0x{due & 255:02x} = {due}"


def test_values_that_were_rounded_before_are_said_to_be(chromium, pages):
    with opened(chromium, pages / "stored.html") as page:
        page.locator("#pick").select_option("1")
        page.get_by_role("group", name="format").get_by_role("button").first.click()
        caption = "This piece, which the stored format has rounded already, in each format"
        assert page.get_by_role("region", name=caption).count() == 1
        assert "stored value in mx6" in told(page)


def test_a_layers_button_leads_to_its_tensor(chromium, pages):
    with opened(chromium, pages / "model.html") as page:
        page.get_by_role("button", name="layer.3", exact=True).click()
        assert page.locator("#detail h2").first.inner_text().startswith("layer.3.weight[")
        rows = page.get_by_role("region", name="Layers").locator("tbody tr")
        assert rows.count() == 20
        page.get_by_role("button", name="all 30 layers").click()
        assert page.get_by_role("region", name="Layers").locator("tbody tr").count() == 30


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_that_keeps_people_out(chromium, pages, name):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
    )
    with opened(chromium, pages / f"{name}.html") as page:
        found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_tensors_come_out_of_checkpoints_of_every_kind(tmp_path):
    """A GGUF file and a folder of shards were refused, though `numerics inspect` reads them."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    x = RNG.standard_normal((4, 64)).astype(np.float32)
    writer.add_tensor("w", gguf.quants.quantize(x, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (found,) = tensors_in(tmp_path / "a.gguf").values()
    assert found.spec == nx.QuantSpec("int8", scheme=nx.per_group(32), scale_type="float16")
    (tmp_path / "folder").mkdir()
    nx.save({"w": x}, tmp_path / "folder" / "model.safetensors")
    assert tensors_in(tmp_path / "folder")["w"].tolist() == x.tolist()
    due = data_of(nx.explore({"w": found}, ["mxfp4"]))["tensors"][0]
    assert data_of(nx.explore(tensors_in(tmp_path / "a.gguf"), ["mxfp4"]))["tensors"] == [due]


def test_weights_of_another_model_are_refused_by_name_and_shape(tmp_path):
    """Names that were the same passed, whatever was under them."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 64))
    found = nx.report(nx.wrap(model, "mxfp4", example=torch.ones(2, 64)))
    weights = {name: x.numpy() for name, x in model.state_dict().items()}
    said = json.loads(json.dumps(found.as_dict()))
    for report in (found, found.as_dict(), said):
        page = nx.explore(report, ["mxfp4"], tensors=weights)
        assert len(data_of(page)["tensors"]) == 4
        assert nx.explore(report, ["mxfp4"], tensors={"0.bias": weights["0.bias"]})
        assert nx.explore(report, ["mxfp4"], tensors=model.state_dict())
        for name in ("0.weight", "2.weight"):
            turned = {**weights, name: weights[name].T}
            with pytest.raises(nx.NumericsError, match=rf"another model: {name} is \(.*\) there, \("):
                nx.explore(report, ["mxfp4"], tensors=turned)
        with pytest.raises(nx.NumericsError, match=r"it has [02].weight, and none of the 1 tensors"):
            nx.explore(report, ["mxfp4"], tensors={"fc1.weight": weights["0.weight"]})
    with pytest.raises(nx.NumericsError, match="no report"):
        nx.explore({**said, "layers": [{**said["layers"][0], "shapes": {"a": "b"}}]}, tensors=weights)


@pytest.mark.parametrize("text", ["", "[]", '{"layers": 3}', "[" * 10**5, '{"layers": ' + "[" * 10**5])
def test_a_report_of_rubbish_ends_in_pythons_words(text, tmp_path):
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    with pytest.raises(nx.NumericsError, match=r"JSON|no report"):
        rows_of(report_in(tmp_path / "report.json"))


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", SPECS)
def test_float64_is_rounded_once_and_shown_as_it_is(name):
    """It became float32 first: 1.25 + 1e-12 was a tie, and 1e200 Inf."""
    near = np.array([4.0, 1.25 + 1e-12, 1.75 - 1e-12, 0.25 + 1e-14, 1.75 + 1e-12, 0.25 - 1e-14, 2.5, 3.5])
    far = np.array([1e200, -1e200, 3e200, 1e-200, -1e-300, 5e-324, 1e39, 0.0])
    x = np.stack([np.tile(near, 12), np.tile(far, 12)])
    q = nx.quantize(x, SPECS[name])
    tensor = data_of(nx.explore({"w": x}, [SPECS[name]]))["tensors"][0]
    said = next(iter(tensor["in"].values()))
    assert sum(len(piece["x"]) for piece in tensor["shown"]) == x.size
    for piece, found in zip(tensor["shown"], said["pieces"], strict=True):
        row, first = piece["at"]
        part = row, slice(first, first + len(piece["x"]))
        assert piece["x"] == x[part].tolist()
        assert [*map(float, found["y"])] == np.asarray(q.decoded(), np.float64)[part].tolist()
        assert found["c"] == np.asarray(q.codes)[part].tolist()


def test_the_pieces_of_float64_that_lose_most_come_first_in_any_units():
    x = np.ones((40, 32))
    x[7:9] = 1e-200  # all is lost
    tensor = data_of(nx.explore({"w": x}, ["mxfp4"]))["tensors"][0]
    assert [piece["at"][0] for piece in tensor["shown"]][:2] == [7, 8]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_what_became_nan_was_ranked_as_if_it_had_lost_nothing(kind):
    """Of 512 pieces 24 were on the page, and the two that NaN and Inf had destroyed were not among them."""
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(kind)
    x[13, 70], x[40, 5] = np.nan, np.inf
    tensor = data_of(nx.explore({"w": x}, ["mxfp4"]))["tensors"][0]
    assert [piece["at"] for piece in tensor["shown"]][:2] == [[13, 64], [40, 0]]
    assert tensor["in"]["mxfp4"]["lost"] == 62
    alone = data_of(nx.explore({"w": x[13]}, ["mxfp4"]))["tensors"][0]
    assert alone["shown"][0]["at"] == [64]
    assert "lost" not in data_of(nx.explore({"w": x[:13]}, ["mxfp4"]))["tensors"][0]["in"]["mxfp4"]


@pytest.mark.parametrize(
    ("name", "shape", "axis"),
    [("c", (8, 64, 3, 3), 1), ("conv.weight", (8, 64, 40), 1), ("w", (8, 64, 40), 2), ("w", (64, 1), 0),
     ("w", (6, 5, 40, 2, 2), 1), ("w", (40,), 0)],
)  # fmt: skip
def test_pieces_lie_along_the_axis_that_a_job_takes(name, shape, axis, tmp_path):
    """The blocks of a convolution lay over its kernel: three values, a scale for each."""
    x = RNG.standard_normal(shape).astype(np.float32)
    tensor = data_of(nx.explore({name: x}, ["mxfp4", "int4"]))["tensors"][0]
    q = nx.quantize(x, nx.QuantSpec("mxfp4", axis=axis))
    assert (tensor["axis"], tensor["shape"]) == (axis, list(shape))
    assert tensor["piece"] == min(32, shape[axis])
    assert tensor["in"]["mxfp4"]["sqnr"] == pytest.approx(q.error(x).sqnr)
    assert tensor["in"]["mxfp4"]["bits"] == q.bits
    y = np.asarray(q.decoded())
    for piece, found in zip(tensor["shown"], tensor["in"]["mxfp4"]["pieces"], strict=True):
        for k, (own, made) in enumerate(zip(piece["x"], found["y"], strict=True)):
            at = list(piece["at"])
            at[axis] += k
            assert (x[tuple(at)], y[tuple(at)]) == (own, made)


def test_a_block_of_a_convolution_lies_along_its_inputs():
    x = RNG.standard_normal((4, 64, 3, 3)).astype(np.float32)
    said = nx.draw.block(x, "mxfp4", block=1).alt
    assert said.startswith("A block of 32 values in mxfp4, block 1 of 0 to 71, along axis 1: ")
    q = nx.quantize(x, nx.QuantSpec("mxfp4", axis=1))
    assert f"share the scale {nx.draw.block(q, block=1).alt.split('the scale ')[1][:-1]}," in said


def test_a_path_was_an_unknown_format_and_a_model_held_no_tensor(tmp_path):
    pages = {"w.npy": {"w": X}, "w.safetensors": {"w": X}}
    np.save(tmp_path / "w.npy", X)
    nx.save({"w": X}, tmp_path / "w.safetensors")
    report = {"output": 9.0, "layers": [{"name": "a", "formats": "int4", "local": 9.5, "cumulative": 9.0}]}
    (tmp_path / "r.json").write_text(json.dumps(report), encoding="utf-8")
    for name, tensors in pages.items():
        for path in (tmp_path / name, str(tmp_path / name)):
            assert nx.explore(path, ["mxfp4"]).html == nx.explore(tensors, ["mxfp4"]).html
    assert nx.explore(tmp_path / "r.json").html == nx.explore(report).html
    for wrong in (
        "nowhere",
        tmp_path / "nowhere.npy",
        tmp_path / "nowhere.json",
        tmp_path / "nowhere.safetensors",
    ):
        with pytest.raises(nx.NumericsError, match="nowhere"):
            nx.explore(wrong)

    class Model:
        def state_dict(self):
            return {"w": X}

    with pytest.raises(nx.NumericsError, match=r"explore\(model.state_dict\(\)\)"):
        nx.explore(Model())


def test_a_page_without_scripts_says_what_it_is_of_and_what_it_needs():
    page = nx.explore({"<w> @DATA@": X}, ["mxfp4"]).html
    before = page.partition("<script")[0]
    assert "&lt;w&gt; @DATA@</h1>" in before
    assert f'computed by <span id="made">numerics {nx.__version__}</span>' in before
    assert re.search(r"<noscript>.*JavaScript", before)
