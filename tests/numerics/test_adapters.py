"""Adapters against what hosts answered when they were asked (tests/data/adapters.json), without the hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import microxcaling
from numerics.adapters.base import Adapter, Calls, Entry
from numerics.formats.errors import NumericsError
from numerics.model.extras import missing
from tests.helpers import adapter_slice
from tests.helpers.adapter_slice import digest, exact_exponents, refuses

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "adapters.json").read_text(encoding="utf-8"))


def test_every_recorded_answer_is_compared():
    assert set(adapter_slice.ours()) == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_our_kernels_give_what_the_host_gave(name, monkeypatch):
    monkeypatch.setattr(microxcaling, "_shared_exponents", exact_exponents)
    assert digest(adapter_slice.ours()[name]()) == RECORDED[name]


@pytest.mark.parametrize(("name", "rounding"), [("nearest", 0), ("even", 2)])
def test_blocks_of_microxcalings_take_one_pass_along_the_last_axis(name, rounding, monkeypatch):
    monkeypatch.setattr(microxcaling.Functions, "blocks", refuses)
    rows, d = adapter_slice.X.view(-1, 32), microxcaling._format(8, 0, 127 / 64, rounding)
    made = microxcaling.Functions(False, Calls()).rows(rows, d, (8, False, rounding))
    assert digest(made.view_as(adapter_slice.X)) == RECORDED[f"microxcaling mx int8 {name}"]


def test_what_microxcalings_logarithm_takes_for_2_to_the_128_is_asked_of_microxcaling(monkeypatch):
    """A block of bfloat16 whose largest lies just below a power of two: it gives NaN, we gave a number."""
    came = []

    def of_host(x, *_, **__):
        came.append(x.tolist())
        return x * torch.nan

    monkeypatch.setattr(microxcaling, "_of_host", of_host)
    x = torch.tensor([1.0, 2.0**127 * (2 - 2.0**-23), -(2.0**126), 0.5])
    bfloat16 = microxcaling._format(9, 8, 2.0**127 * (2 - 2.0**-7), 2)
    made = microxcaling._on_grid(x.clone(), bfloat16, 2, correct=False)
    assert came == [x[1:3].tolist()]
    assert made.isnan().tolist() == [False, True, True, False]


@pytest.mark.parametrize("exponent", [2, 4, 8])
def test_floats_without_mantissa_bits_whose_ties_go_elsewhere_are_microxcalings(exponent):
    """Of 1.5 it made 2, ours the power with the even code."""
    largest = 2.0 ** (2 ** (exponent - 1) - 1)
    taken = [microxcaling._format(2, exponent, largest, rmode) is not None for rmode in (0, 1, 2)]
    assert taken == [True, True, False]


def test_a_float_of_one_exponent_bit_is_microxcalings_and_no_integer():
    assert microxcaling._format(3, 1, 3.0, 0) is None
    assert microxcaling._format(4, 0, 7 / 4, 0) is not None


def rows_of_a_column():
    x, steps = torch.arange(1.0, 5).reshape(2, 2, 1), torch.ones(2, 1, 1)
    return microxcaling.Functions(False, Calls()), x, steps, microxcaling._format(5, 4, 448.0, 0)


@pytest.mark.parametrize("rounding", [0, 1, 2])
def test_blocks_along_an_axis_whose_later_ones_have_one_number_keep_their_scales(rounding, monkeypatch):
    """They were taken for rows of one number: kernels read scales past the end of the array."""
    monkeypatch.setattr(microxcaling, "_of_host", lambda came, *_, **__: came)  # which is asked of none
    functions, x, steps, d = rows_of_a_column()
    assert functions._at_steps(x, steps, d, rounding).flatten().tolist() == [1.0, 2.0, 3.0, 4.0]


# ---- what adapters share, with a host that is a table -------------------------------------------------


class Raises:
    """A place of a host that raises in one of its two steps."""

    def __init__(self, error, at="put"):
        self.error, self.at = error, at

    def put(self):
        if self.at == "put":
            raise self.error

    def restore(self):
        if self.at == "restore":
            raise self.error


def adapter_of(table, *places, version="1.0"):
    """An adapter of a host that is a table, and of these places after it."""
    entry = Entry(lambda: table, "round", lambda host: "ours", "the table")
    return Adapter("table", "table-host", ("1.0",), lambda correct, calls: [entry, *places], lambda: version)


@pytest.mark.parametrize(
    "wrong",
    [
        ModuleNotFoundError("No module named 'table'"),
        AttributeError("module 'table' has no attribute 'round'"),
        missing("a quantizer", ModuleNotFoundError(name="table")),
    ],
)
def test_a_host_that_is_installed_but_not_whole_is_one_error(wrong):
    table = {"round": "host"}
    adapter = adapter_of(table, Raises(wrong))
    told = "table 1.0 is installed, but is not as its adapter knows it: .*; install table-host 1.0 anew"
    with pytest.raises(NumericsError, match=told):
        adapter.install()
    assert table == {"round": "host"}
    assert not adapter.installed()


def test_tensors_of_a_host_that_cannot_be_imported_are_the_same_error():
    def imports(q):
        raise ModuleNotFoundError("No module named 'table'")

    with pytest.raises(NumericsError, match=r"table 1.0 is installed, but .* No module named 'table'"):
        adapter_of({}).known(imports)(None)


@pytest.mark.parametrize("build", ["+cpu", "+cu128", "+rocm6.4", "+xpu"])
def test_a_build_for_a_device_is_its_version(build):
    assert adapter_of({}, version="1.0" + build).version() == "1.0" + build


@pytest.mark.parametrize("version", ["1.0+mine", "1.0.1+cpu", "1.0+cpu.mine", "1.0.post1"])
def test_other_builds_are_other_versions(version):
    with pytest.raises(NumericsError, match=r"is not known to its adapter, which follows 1\.0"):
        adapter_of({}, version=version).version()


def test_metadata_that_are_not_whole_are_of_no_known_version():
    with pytest.raises(NumericsError, match="None is not known to its adapter"):
        adapter_of({}, version=None).version()


def test_counts_of_one_use_outlive_the_next():
    adapter = adapter_of({})
    with adapter.substituted() as first:
        adapter.calls.count(adapter.calls.ours, "round")
        assert first == adapter.calls
    with adapter.substituted() as second:
        adapter.calls.count(adapter.calls.passed_on, "round")
    assert (first.ours["round"], first.passed_on["round"]) == (1, 0)
    assert (second.ours["round"], second.passed_on["round"]) == (0, 1)
    assert second == adapter.calls


def body(adapter, act):
    """Acts while the adapter is installed, and raises."""
    with adapter.substituted():
        act()
        raise KeyError("body")


def test_what_a_body_raises_is_not_hidden_by_what_cannot_be_restored():
    table = {}
    adapter = adapter_of(table)
    with pytest.raises(KeyError, match="body") as caught:
        body(adapter, adapter.uninstall)
    assert not hasattr(caught.value, "__notes__")
    with pytest.raises(KeyError, match="body") as caught:
        body(adapter, lambda: table.update(round="somebody's"))
    assert "the table was changed by somebody else" in caught.value.__notes__[0]
    with adapter.substituted():
        adapter.uninstall()
    assert not adapter.installed()


def test_a_place_that_raises_leaves_all_others_as_they_were_found():
    table = {"round": "host"}
    adapter = adapter_of(table, Raises(ValueError("list.remove(x)"), "restore"))
    adapter.install()
    with pytest.raises(NumericsError, match=r"could not be left as it was found: ValueError\('list.remove"):
        adapter.uninstall()
    assert table == {"round": "host"}
    assert not adapter.installed()
    adapter.install()
    assert table == {"round": "ours"}
