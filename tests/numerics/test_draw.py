"""Pictures: what is on them is what the kernels give, and they are the same wherever they are drawn."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
import sys
import warnings

import numpy as np
import pytest

import numerics as nx

pytest.importorskip("matplotlib")
from matplotlib.text import Text

from numerics import cli
from numerics.draw import grids
from numerics.draw.formats import MARKS
from numerics.draw.names import name_points
from numerics.draw.picture import STYLE, canvas, styled
from numerics.view.text import number

DRAW_TENSOR = importlib.import_module("numerics.draw.tensor")
X = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
LAYERS = {
    "output": 12.0,
    "layers": [
        {"name": "b", "formats": "mxfp4", "local": 20.0, "cumulative": 15.0},
        {"name": "a", "formats": "mxfp4", "local": "inf", "cumulative": 11.0},
        {"name": "c", "formats": "int4", "local": 9.5, "cumulative": 9.0},
    ],
}


def on_the_grid(found):
    """Is each value one of the grid's, times the element's unit, as float32?"""
    products = ((grids.grid(found.q.format) - found.zero[..., None]) * found.unit[..., None]).astype(
        np.float32
    )
    return (products == found.y[..., None]).any(axis=-1)


@pytest.mark.turns
@pytest.mark.parametrize("d", nx.dtypes(), ids=str)
def test_every_format_can_be_drawn_and_its_words_say_its_ends(d):
    said = nx.draw.format(d).alt
    assert str(d) in said
    found = grids.grid(d)
    ends = [float(text) for text in re.search(r"from (\S+) to ([^\s,]+)", said).groups()]
    assert ends == [found[0], found[-1]]


def test_the_words_of_a_format_say_which_specials_it_has_first():
    """posit8's ended "no Inf, NaN", which reads as neither."""
    ends = {"posit8": "; NaN, no Inf.", "nf4": "; no Inf, no NaN.", "hifloat8": "; Inf, NaN."}
    for name, end in ends.items():
        assert nx.draw.format(name).alt.endswith(end)


@pytest.mark.parametrize("d", [d for d in nx.dtypes() if d.kind == "block"], ids=str)
def test_the_grid_of_a_block_holds_every_value_that_its_elements_take(d):
    assert on_the_grid(grids.rounded(X, d)).all()


@pytest.mark.parametrize("options", [
    {"d": "int4"}, {"d": "int4", "scheme": nx.per_channel(0)}, {"d": "int4", "scheme": nx.per_channel(1)},
    {"d": "int4", "scheme": nx.per_group(24)}, {"d": "int4", "symmetric": False}, {"d": "fp8_e4m3"},
    {"d": "mxfp4", "axis": 0}, {"d": "nvfp4"}, {"d": "int8", "scheme": nx.per_group(1000, axis=0)},
], ids=str)  # fmt: skip
def test_the_unit_of_each_element_is_the_scale_that_it_was_rounded_with(options):
    assert on_the_grid(grids.rounded(X, **options)).all()


def test_what_is_clipped_is_what_lies_beyond_the_grid():
    x = np.float32([1.0, 7.9, 8.1, 6.9, -7.2])
    found = grids.rounded(x, "mxfp4")  # the scale is 2, or 1 by floor: 6 is the largest
    assert found.q.blocks.scale.tolist() == [128]
    assert found.cut.tolist() == [False] * 5
    wide = np.float32([1.0, 7.9, 7.1, 6.9, -7.2])
    assert grids.rounded(wide, "mxfp4").cut.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("d", [*(d for d in nx.dtypes() if d.kind == "block"), nx.fp8_e4m3, nx.nf4], ids=str)
def test_every_value_beyond_the_grid_is_clipped_and_no_other(d):
    """In a block of two readings, too, whose integers end before its floats."""
    x = np.exp2(np.random.default_rng(3).integers(-9, 9, (40, 96))).astype(np.float32) * X[0, 0]
    found, ends = grids.rounded(x, d), grids.grid(d)
    normal = x.astype(np.float64) / found.unit
    beyond = (normal > ends[-1] + (ends[-1] - ends[-2]) / 2) | (normal < ends[0] - (ends[1] - ends[0]) / 2)
    assert (found.cut == beyond).all()


@pytest.mark.parametrize("d", ["nvfp4", "mxfp4", "mx6", "int4"])
def test_a_block_of_zeros_beside_others_is_drawn_and_explained_without_a_warning(d):
    x = np.zeros((4, 64), np.float32)
    x[1, :3] = 1.0, -2.0, 0.3
    found = grids.rounded(x, d)
    assert not found.cut[[0, 2, 3]].any()
    assert nx.draw.tensor(x, d).alt.startswith("A tensor of shape 4x64")
    assert nx.explore(x, [d]).title == "tensor"


def test_a_staircase_sends_each_tie_where_the_kernel_sends_it():
    said = nx.draw.rounding("fp4", "half_away").alt
    ties = [tie.split(" to ") for tie in said.partition("Ties go: half_away, ")[2].rstrip(".").split(", ")]
    assert len(ties) == 8
    for x, y in ties:
        assert nx.fp4.round(float(x), rounding="half_away") == float(y)


def test_a_layer_of_nan_was_anywhere_and_so_were_those_beside_it():
    order = [("a", 30.0), ("b", "nan"), ("c", 10.0), ("d", "-inf"), ("e", "inf"), ("f", "nan"), ("g", 20.0)]
    layers = [{"name": name, "formats": "int8", "local": db, "cumulative": db} for name, db in order]
    page = nx.explore({"layers": layers, "output": "nan"}).html
    assert re.findall(r'"name":"(\w)"', page) == [*"bdfcgae"]
    panel = nx.draw.model({"layers": layers, "output": "nan"}).figure.axes[0]
    assert [text.get_text()[0] for text in panel.get_yticklabels()] == [*"bdfcgae"]


def test_stochastic_rounding_was_drawn_as_a_mean_without_saying_so():
    picture = nx.draw.rounding("fp8_e4m3", ["stochastic", "half_even"])
    assert "stochastic (the mean of 64 draws), half_even" in picture.alt
    titles = [axes.get_title(loc="left") for axes in picture.figure.axes]
    assert titles == ["stochastic\nmean of 64 draws", "half_even"]
    alone = nx.draw.rounding("fp8_e4m3", "stochastic").figure.get_suptitle()
    assert "ties" not in alone  # none is drawn
    assert "ties" in picture.figure.get_suptitle()


def test_a_block_says_what_each_scale_rule_would_do():
    x = X[0, :32]
    said = nx.draw.block(x, "mxfp4").alt
    for rule in ("floor", "ceil", "even", "rceil", "tosa", "bump"):
        code = nx.mxfp4.encode(x, scale_rule=rule).scale[0]
        assert f"{rule} {nx.e8m0.decode(int(code)):g}, " in said


WIDE = np.concatenate([X[:1] / 7, X * np.float32(9)])  # the first blocks are small beside the others


@pytest.mark.parametrize("block", [0, 5])
@pytest.mark.parametrize("d", ["nvfp4", "nvint4", "mxfp4"])
def test_a_block_was_drawn_with_a_scale_of_its_own_and_not_with_that_of_its_tensor(d, block):
    d = nx.dtype(d)
    said = nx.draw.block(WIDE, d, block=block).alt
    a_row = 64 // d.block
    row, first = block // a_row, block % a_row * d.block
    x = WIDE[row, first : first + d.block]
    assert f", block {block} of 0 to {9 * a_row - 1}: " in said
    for rule in d.scale_rules:
        q = nx.quantize(WIDE, d, scale_rule=rule)
        scale = float(grids.scales(d, q.blocks)[row, block % a_row])
        y = q.dequantize()[row, first : first + d.block].astype(np.float64)
        sqnr = 10 * np.log10((x.astype(np.float64) ** 2).sum() / ((x - y) ** 2).sum())
        assert f"{rule} {number(scale)}, {sqnr:.1f} dB" in said


@pytest.mark.parametrize("options", [{"d": "nvfp4"}, {"d": "mxfp4", "axis": 0}, {"d": "mx6"}], ids=str)
def test_a_tensor_that_is_quantized_was_quantized_once_more_to_draw_it(options):
    q = nx.quantize(WIDE, options.pop("d"), **options)
    picture = nx.draw.block(q, block=1)
    y = np.moveaxis(q.dequantize(), q.axis, -1)[*((0, slice(16, 32)) if q.axis == -1 else (1, slice(None)))]
    drawn = next(line for line in picture.figure.axes[0].lines if line.get_label() == "in the format")
    assert drawn.get_ydata().tolist() == y.tolist()
    assert "dB" not in picture.alt


def test_formats_are_told_with_their_bits_and_what_they_leave():
    said = nx.draw.formats(X, ["mx9", "int4", nx.float_format(5, 2, name="mine")]).alt
    for name in ("mx9", "int4"):
        q = nx.quantize(X, name)
        assert f"{name} {q.bits:.4g} bits, {q.error(X).sqnr:.1f} dB" in said
    assert "mine" in said


def test_every_format_beside_others_has_a_mark_and_a_name_that_covers_no_other():
    """Codebooks had none, and names lay below the axis."""
    assert {d.kind for d in nx.dtypes()} <= set(MARKS)
    figure = nx.draw.formats(X).figure
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [text for text in axes.texts if text.get_text() in map(str, nx.dtypes())]
    marks = sum(len(some.get_offsets()) for some in axes.collections)
    assert len(names) == marks > 30
    boxes = [Text.get_window_extent(text) for text in names]  # without the line
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)
    assert all(axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1 for box in boxes)
    for k, box in enumerate(boxes):
        letters = box.padded(0, -0.15 * box.height)  # without the room above and below
        assert not any(letters.overlaps(other) for other in boxes[:k]), names[k].get_text()


def test_names_of_some_points_cover_no_mark_of_others():
    """Names lay over points in docs/pictures/quality_sqnr.png."""
    rng = np.random.default_rng(0)
    points, others = rng.uniform(0, 1, (12, 2)), rng.uniform(0, 1, (60, 2))
    names = [f"uint{k} per_channel asymmetric" for k in range(12)]
    with styled():
        figure, axes = canvas(1, 1, (8, 6))
    panel = axes[0, 0]
    panel.scatter(*np.concatenate([points, others]).T, s=26)
    figure.draw_without_rendering()
    name_points(panel, points.tolist(), names, others.tolist(), every=False)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in panel.texts]
    marks = panel.transData.transform(np.concatenate([points, others]))
    assert len(boxes) > 5
    for k, box in enumerate(boxes):
        assert not any(box.contains(*mark) for mark in marks)
        assert not any(box.padded(0, -0.15 * box.height).overlaps(other) for other in boxes[:k])
        assert panel.bbox.x0 <= box.x0
        assert box.x1 <= panel.bbox.x1
    name_points(panel, [(0.5, 0.5)], ["w" * 200], every=False)  # there is no room for it
    assert len(panel.texts) == len(boxes)


def test_a_models_layers_are_worst_first_whatever_order_they_came_in():
    picture = nx.draw.model(LAYERS)
    assert re.findall(r"(\w) [\d.exact dB]+ by itself", picture.alt) == ["c", "b", "a"]
    assert [text.get_text().split()[0] for text in picture.figure.axes[0].get_yticklabels()] == [
        "c",
        "b",
        "a",
    ]


def test_an_exact_layer_stood_at_160_db_and_one_without_sqnr_at_0():
    def drawn(*pairs):
        layers = [
            {"name": str(k), "formats": "int8", "local": a, "cumulative": b} for k, (a, b) in enumerate(pairs)
        ]
        panel = nx.draw.model({"layers": layers, "output": 20.0}).figure.axes[0]
        ticks = {
            text.get_text(): at for at, text in zip(panel.get_xticks(), panel.get_xticklabels(), strict=True)
        }
        return [[*line.get_xdata()] for line in panel.lines[:2]], ticks, panel.get_xlim()

    (local, gathered), ticks, (low, high) = drawn((40.0, 18.0), ("inf", 21.0), ("nan", "-inf"))
    assert ticks["exact"] == max(local)
    assert 40 < ticks["exact"] < high < 60  # the scale is that of the others
    assert local.count(ticks["none"]) == gathered.count(ticks["none"]) == 1
    assert low < ticks["none"] < 18
    assert {"20", "25", "30", "35", "40"} <= {*ticks}
    assert not {"exact", "none"} & {*drawn((40.0, 18.0))[1]}
    assert {*drawn(("inf", "inf"))[1]} == {"exact"}
    assert {*drawn(("inf", 30.0))[1]} == {"30", "exact"}


def test_pixels_of_bytes_are_drawn_as_those_of_their_file(tmp_path):
    """nx.draw.image refused the array that PIL and imread give, and `plot image` took its file."""
    torch = pytest.importorskip("torch")
    from matplotlib import image as files

    from numerics.draw.sources import image_in

    whole = np.arange(32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    files.imsave(tmp_path / "a.png", whole)
    due = nx.draw.image(image_in(tmp_path / "a.png"), ["int4", "fp4"])
    for came in (whole, torch.from_numpy(whole), whole / np.float32(255), whole.astype(np.uint16) * 257):
        assert nx.draw.image(came, ["int4", "fp4"]).alt == due.alt
    with pytest.raises(nx.NumericsError, match="int64"):
        nx.draw.image(whole.astype(np.int64), "int4")


def test_an_image_of_numbers_beyond_float32_is_drawn_and_nobody_is_warned():
    x = np.full((4, 32), 1e300)
    x[0] = -1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "no SQNR" not in nx.draw.image(x, ["int4"]).alt
        assert nx.draw.image(x * 0 + 1e308, ["int4"], original=False).alt
        with pytest.raises(nx.NumericsError, match="further apart than float64 can say"):
            nx.draw.image(x * 1e8, ["int4"])


@pytest.mark.parametrize("path", [5, None, b"a.png", ["a.png"], "a\0.png"])
def test_what_is_no_path_ended_in_pythons_words(path):
    for made in (nx.draw.format("fp4"), nx.explore("fp4")):
        with pytest.raises(nx.NumericsError, match="is not the path of a file"):
            made.save(path)


def test_an_image_keeps_its_shape_and_takes_titles_of_ones_own():
    pixels = np.linspace(0, 1, 32 * 48 * 3, dtype=np.float32).reshape(32, 48, 3)
    picture = nx.draw.image(pixels, {"mine": nx.QuantSpec("int4"), "block": "mxfp4"})
    assert picture.alt.startswith("An image of 48 x 32 pixels, and the same in mine (")
    assert [axes.images[0].get_array().shape for axes in picture.figure.axes] == [(32, 48, 3)] * 3


def test_the_same_picture_is_the_same_bytes_and_nothing_of_the_users_style_gets_in(tmp_path):
    import matplotlib

    for ending in ("png", "svg", "pdf"):
        nx.draw.tensor(X, "mxfp4").save(tmp_path / f"one.{ending}")
        with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
            nx.draw.tensor(X, "mxfp4").save(tmp_path / f"other.{ending}")
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"other.{ending}").read_bytes()
    assert matplotlib.rcParams["font.size"] != 30
    assert STYLE["font.size"] == 10


def test_alt_text_is_in_the_files_and_in_the_notebook(tmp_path):
    picture = nx.draw.format("int2")
    picture.save(tmp_path / "a.svg")
    assert picture.alt in (tmp_path / "a.svg").read_text(encoding="utf-8")
    picture.save(tmp_path / "a.png")
    assert picture.alt.encode() in (tmp_path / "a.png").read_bytes()
    assert f'<img alt="{picture.alt}" src="data:image/png;base64,' in picture._repr_html_()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nx.draw.format("fp8_e4m4"), "did you mean 'fp8_e4m3'"),
        (lambda: nx.draw.rounding("mxfp4"), "nx.draw.block shows how it rounds"),
        (lambda: nx.draw.rounding("fp4", "half_evn"), "did you mean 'half_even'"),
        (lambda: nx.draw.rounding("fp4", []), "no rounding was given"),
        (lambda: nx.draw.block(X, "int4"), "int4 has no blocks"),
        (lambda: nx.draw.rounding("fp4", around=float("nan")), "around=nan is no value"),
        (lambda: nx.draw.block(X), "name one, such as 'mxfp4'"),
        (lambda: nx.draw.block(X, "mxfp4", block=16), "has 16 blocks; allowed: 0 to 15"),
        (lambda: nx.draw.block(X, "mxfp4", scale_rule="nvidia"), "allowed: floor, ceil, even"),
        (lambda: nx.draw.block(nx.quantize(X, "int4")), "int4 has no blocks"),
        (lambda: nx.draw.block(nx.quantize(X, "mx6"), "mx9"), "leave mx9 out, or dequantize"),
        (lambda: nx.draw.block(nx.quantize(X, "nvfp4"), scale_rule="mse"), "leave scale_rule='mse' out"),
        (lambda: nx.draw.image(X.ravel(), "int4"), r"\(height, width\)"),
        (lambda: nx.draw.image(X, []), "no format was given"),
        (lambda: nx.draw.formats(X, []), "no format was given"),
        (lambda: nx.draw.tensor([], "int4"), "no elements"),
        (lambda: nx.draw.model({"layers": []}), "no report|no layers"),
        (lambda: nx.draw.model(3), "nx.report"),
        (lambda: nx.draw.format("int4").save("a.gif"), "names that end in .png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_way_out(call, said):
    with pytest.raises(nx.NumericsError, match=said):
        call()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(nx.NumericsError, match=r"numerics-formats\[plot\]"):
        nx.draw.format("int4")


# ---- numerics plot ------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    nx.save({"w": X, "v": X + 1, "n": np.arange(3)}, tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", X)
    nx.save({"w": nx.quantize(X, "nvfp4")}, tmp_path / "q.safetensors")
    (tmp_path / "r.json").write_text(json.dumps(LAYERS), encoding="utf-8")
    nx.draw.format("int2").save(tmp_path / "in.png")
    return tmp_path


def plotted(monkeypatch, *words):
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    cli.commands.main(["plot", *map(str, words)], standalone_mode=False)
    return stream.getvalue()


@pytest.mark.turns
@pytest.mark.parametrize("words", [
    "format fp4 OUT", "rounding fp4 OUT --rounding floor --rounding half_up --around 2",
    "tensor m.safetensors OUT --tensor w --dtype int4 --scheme per_channel(0)",
    "tensor x.npy OUT --dtype mxfp4 --scale-rule even --axis 0", "block x.npy OUT --dtype mx6",
    "block x.npy OUT --dtype nvfp4 --scale-rule four_over_six --block 3", "block q.safetensors OUT",
    "image in.png OUT --dtype int2 --dtype mxfp4", "formats x.npy OUT --dtype int4 --dtype mx9",
    "model r.json OUT --most 2",
], ids=lambda words: words.split(" OUT")[0])  # fmt: skip
def test_plot_writes_a_picture_and_says_in_words_what_is_on_it(files, monkeypatch, words):
    monkeypatch.chdir(files)
    said = plotted(monkeypatch, *words.replace("OUT", "out.png").split())
    assert (files / "out.png").read_bytes().startswith(b"\x89PNG")
    alt = said.removeprefix("out.png: ").rstrip("\n")
    assert len(alt) > 30
    if words.startswith("formats"):  # whose figures are a table below it
        alt, *table = alt.splitlines()
        assert [line.split()[0] for line in table] == ["format", "mx9", "int4"]
    assert alt.split(",")[0].encode("latin1", "replace") in (files / "out.png").read_bytes()


@pytest.mark.turns(6)
@pytest.mark.parametrize(("words", "said"), [
    ("tensor m.safetensors o.png --dtype int4", "has 2 tensors: name= says which, such as"),
    ("tensor m.safetensors o.png --dtype int4 --tensor W", "did you mean 'w'. it has 2 tensors of floats"),
    ("model x.npy o.png", "is not JSON"), ("image x.npy o.png --dtype int4", "no picture that can be read"),
    ("format fp4 o.gif", "allowed: names that end in"),
])  # fmt: skip
def test_plot_refuses_with_the_way_out(files, monkeypatch, words, said):
    monkeypatch.chdir(files)
    with pytest.raises(nx.NumericsError, match=said):
        plotted(monkeypatch, *words.split())


@pytest.mark.turns(6)
@pytest.mark.parametrize(("words", "out", "inside"), [
    ("explore m.safetensors", "m.html", '"name":"v"'),
    ("explore x.npy page.html --dtype int4", "page.html", "int4"),
    ("explore m.safetensors --tensor w --dtype mx6", "m.html", '"name":"w"'),
    ("explore fp4", "fp4.html", '"codes"'),
    ("explore r.json --weights m.safetensors", "r.html", '"layers"'),
])  # fmt: skip
def test_explore_writes_one_page(files, monkeypatch, words, out, inside):
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    cli.commands.main(words.split(), standalone_mode=False)
    assert stream.getvalue().startswith(f"{out}: ")
    assert inside in (files / out).read_text(encoding="utf-8")


@pytest.mark.turns(50)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, 1e308, 3e38])
@pytest.mark.parametrize("d", [d for d in nx.dtypes() if d.kind == "block"], ids=str)
def test_a_block_with_numbers_that_have_no_place_on_an_axis_is_drawn(d, odd, tmp_path):
    x = np.linspace(-2, 2, d.block)
    x[3] = odd
    nx.draw.block(x, d).save(tmp_path / "a.svg")
    nx.draw.block(nx.quantize(x[None], d)).save(tmp_path / "a.svg")
    if d in (nx.mxfp4, nx.mx6):
        nx.draw.block(np.full(d.block, odd), d).save(tmp_path / "a.svg")


# ---- what has nothing to show, or very much ------------------------------------------------------

NOT_FINITE = {
    "nan": np.full((4, 64), np.nan, np.float32), "inf": np.full((4, 64), -np.inf, np.float32),
    "mixed": np.float32([[np.nan, np.inf, 1.0, -np.inf] * 16] * 4),
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("draw", [
    lambda x: nx.draw.tensor(x, "mxfp4"), lambda x: nx.draw.tensor(x, "int4"), nx.draw.formats,
    lambda x: nx.draw.block(x, "mxfp4"), lambda x: nx.draw.tensor(nx.quantize(x, "mxfp4")),
])  # fmt: skip
def test_what_is_not_finite_is_said_and_nobody_is_warned(draw, x):
    """A picture of NaN was an empty panel, "0.00 % clipped", and a warning with a path of ours."""
    picture = draw(x)
    assert picture._repr_png_()
    texts = [picture.alt, *(text.get_text() for text in picture.figure.findobj(Text))]
    assert not any("clipped" in text for text in texts) or np.isfinite(x).any()
    assert any(told in text for text in texts for told in ("no SQNR", "no finite value", "the scale nan"))


def test_how_many_are_not_finite_is_said_beside_the_sqnr():
    x = X.copy()
    x[0, :3] = np.nan, np.inf, -np.inf
    assert re.search(r"[\d.]+ dB, 3 NaN or Inf, ", nx.draw.tensor(x, "bfloat16").alt)


def test_finite_values_that_became_nan_were_left_out_without_a_word():
    x = np.ones((4, 64), np.float32)
    x[1, 7], x[2, 40] = np.nan, np.inf
    said = "no SQNR, 2 NaN or Inf, 62 finite values became NaN or Inf, "
    assert said in nx.draw.tensor(x, "mxfp4").alt
    assert said[:-2] in nx.draw.tensor(x, "mxfp4").figure.get_suptitle()
    both = nx.draw.formats(x, ["mxfp4", "int4"]).alt
    assert "mxfp4 4.25 bits, no SQNR, 62 finite values became NaN or Inf; int4 4.125 bits, no SQNR." in both


def test_an_image_that_is_not_finite_is_refused():
    with pytest.raises(nx.NumericsError, match="finite pixels"):
        nx.draw.image(NOT_FINITE["mixed"], "fp4")


def test_the_share_that_is_clipped_is_said_alike_above_the_picture_and_beside_it():
    """It was 1e+02 % above the picture."""
    picture = nx.draw.tensor(np.tile(np.float32([4.0, 7.9]), 32)[None], "mxfp4")
    assert "50.00 % of the elements clipped" in picture.alt
    assert "\n50.00 % clipped" in picture.figure.axes[0].get_title(loc="left")


def named(picture):
    """The texts of a picture but for the numbers of its axes, which may be formulas."""
    return [text for text in picture.figure.findobj(Text) if "mathdefault" not in text.get_text()]


@pytest.mark.parametrize("x", [X, np.zeros((4, 64), np.float32)])
def test_numbers_of_axes_are_no_formulas_spelled_out(x):
    picture = nx.draw.tensor(x, "mxfp4")
    assert picture._repr_png_()
    for text in picture.figure.findobj(Text):
        assert text.get_parse_math() or "$" not in text.get_text()


@pytest.mark.turns(8)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["重み" * 30, "x" * 200, "$a$b_$", "\U0001f389"])
def test_names_of_any_letters_and_length_are_drawn_without_a_warning(name):
    """The font has no CJK; names of 200 letters left the panels no room; $ began a formula."""
    d = nx.float_format(3, 1, name=name)
    layers = {"output": 1.0, "layers": [{**LAYERS["layers"][0], "name": f"{name}\u202e", "formats": name}]}
    q = nx.quantize(X, nx.mx(d))
    pictures = [nx.draw.format(d), nx.draw.rounding(d), nx.draw.tensor(X, d), nx.draw.formats(X, [d]),
                nx.draw.image(X, {name: d}), nx.draw.model(layers), nx.draw.block(X, nx.mx(d)),
                nx.draw.block(q), nx.draw.tensor(q)]  # fmt: skip
    for picture in pictures:
        assert picture._repr_png_()
        assert not any(text.get_text().count("$") > text.get_text().count(r"\$") for text in named(picture))
        assert all(text.get_text().replace("\n", "").isprintable() for text in picture.figure.findobj(Text))


@pytest.mark.parametrize("around", [float("nan"), float("inf"), "x", [1.0]])
def test_a_middle_that_is_no_number_is_refused(around):
    with pytest.raises(nx.NumericsError, match="is no value; allowed: a finite number"):
        nx.draw.rounding("fp4", around=around)


def nearest(found, values):
    """Which value of the grid each element has, in units of its scale."""
    return np.abs((found.y / found.unit + found.zero).reshape(-1, 1) - values).argmin(axis=1)


@pytest.mark.parametrize("d", ["mxfp4", "nvfp4", "int4", "mx6", "if4"])
def test_what_is_quantized_is_drawn_as_it_is_stored(d):
    q = nx.quantize(X, d)
    picture = nx.draw.tensor(q)
    used = np.unique(nearest(grids.Rounded(q.decoded(), q), grids.grid(q.format))).size
    assert picture.alt.startswith(f"A tensor of shape 8x64 stored in {d}: {used} of ")
    assert "clipped" not in picture.alt
    assert len(picture.figure.axes) == 2


def test_what_is_drawn_as_stored_takes_no_options_and_floats_need_a_format():
    with pytest.raises(nx.NumericsError, match="leave axis= out"):
        nx.draw.tensor(nx.quantize(X, "mxfp4"), axis=0)
    with pytest.raises(nx.NumericsError, match="give dtype="):
        nx.draw.tensor(X)


@pytest.mark.parametrize(
    "d", [*(d for d in nx.dtypes() if d.kind == "block"), nx.int4, nx.fp8_e4m3, nx.nf4], ids=str
)
def test_the_use_of_the_grid_is_counted_by_codes_as_it_is_by_values(d):
    found = grids.rounded(X, d)
    values, counts = DRAW_TENSOR._use(found)
    assert counts.tolist() == np.bincount(nearest(found, values), minlength=len(values)).tolist()


def test_of_very_many_values_the_worst_is_exact_and_the_median_says_of_how_many_it_is(monkeypatch):
    """36 million values took half a minute."""
    whole = nx.draw.tensor(X, "mxfp4").figure.axes[2]
    monkeypatch.setattr(DRAW_TENSOR, "MANY", 100)
    some = nx.draw.tensor(X, "mxfp4").figure.axes[2]
    lines = [{line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in (whole, some)]
    assert lines[0]["worst"] == lines[1]["worst"]
    assert lines[0]["median"] != lines[1]["median"]
    assert some.get_title(loc="left").endswith("\nmedian: of 100 of 512 values, drawn by lot")


def test_one_format_alone_is_drawn_and_none_is_taken_letter_by_letter():
    for one in ("mxfp4", nx.mxfp4, nx.QuantSpec("mxfp4")):
        assert nx.draw.formats(X, one).alt == nx.draw.formats(X, ["mxfp4"]).alt
    with pytest.raises(nx.NumericsError, match="formats= takes a list of formats, not 3"):
        nx.draw.formats(X, 3)


def test_pictures_call_a_format_dtype_as_every_call_does():
    drawn = {"tensor", "block", "image", "scales", "format", "rounding"}
    assert {
        name for name in drawn if "dtype" in inspect.signature(getattr(nx.draw, name)).parameters
    } == drawn
    assert all(getattr(nx.draw, name).__name__ == name for name in nx.draw.__all__)
    with pytest.raises(nx.NumericsError, match=r"scales needs dtype, as in nx\.draw\.scales"):
        nx.draw.scales(X)
    with pytest.raises(nx.NumericsError, match="block takes no d="):
        nx.draw.block(X, d="mxfp4")


@pytest.mark.parametrize("came", [X, [1.0], None, nx.draw.Page, {"layers": 3}, {"layers": []}])
def test_what_is_no_report_was_an_index_error(came):
    with pytest.raises(nx.NumericsError, match=r"no report of a model|has no layers"):
        nx.draw.model(came)


@pytest.mark.parametrize("d", [nx.int8, nx.int4, nx.fp8_e4m3, nx.nf4], ids=str)
def test_what_is_stored_has_a_bar_for_each_value_of_its_grid(d):
    """120 bins over 255 integers gave every ninth of them twice as many: a comb that no tensor has."""
    q = nx.quantize(X, d)
    found = grids.Rounded(q.decoded(), q)
    ends, counts = DRAW_TENSOR._use(found)
    bars = np.histogram(found.normal, DRAW_TENSOR._around(ends))[0]
    assert np.array_equal(bars, counts)


def test_names_of_all_formats_cross_no_line_and_run_into_no_name():
    figure = nx.draw.formats(X).figure
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text).expanded(0.98, 0.7) for text in figure.axes[0].texts]
    assert len(boxes) > 30
    assert not any(one.overlaps(other) for k, one in enumerate(boxes) for other in boxes[:k])


def test_what_is_called_red_is_called_as_it_looks():
    texts = [text.get_text() for text in nx.draw.tensor(X, "int8").figure.findobj(Text)]
    assert any("orange-red: its ends" in text for text in texts)
    assert not any(re.search(r"(?<!orange-)red:", text) for text in texts)
