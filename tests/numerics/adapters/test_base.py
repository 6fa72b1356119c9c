"""Seams are ours between install and uninstall, and as they were found before and after."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("torch")
import torch

import numerics.adapters
from numerics.adapters.base import Adapter, Called, Entry, replaced
from numerics.formats.errors import NumericsError
from tests.helpers.children import LIMIT


def double(x):
    return 2 * x


@pytest.fixture
def host(monkeypatch):
    """A library of two modules, of which the second took a function of the first by `from`."""
    first, second = ModuleType("some_host"), ModuleType("some_host.users")
    first.double = second.twice = double
    for module in (first, second):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return first, second


def triple_floats(host, correct):
    return lambda x: 3 * x if isinstance(x, float) or correct else NotImplemented


def adapter(versions=("1.0",), found=lambda: "1.0", more=()):
    table = {"some_host": {"double": triple_floats}}
    return Adapter(
        "some host", "some-host", versions,
        lambda correct, calls: [*replaced("some_host", table, correct, calls), *more], found,
    )  # fmt: skip


def test_a_function_is_ours_under_every_name_and_the_hosts_afterwards(host):
    first, second = host
    ours = adapter()
    with ours.substituted() as calls:
        assert (first.double(1.5), second.twice(1.5), second.twice(2)) == (4.5, 4.5, 4)
        assert ours.installed()
        assert (dict(calls.ours), dict(calls.passed_on)) == ({"double": 2}, {"double": 1})
    assert first.double is second.twice is double
    assert not ours.installed()


def test_a_module_imported_meanwhile_gets_the_hosts_function_back(host, monkeypatch):
    first, _ = host
    late = ModuleType("some_host.late")
    with adapter().substituted():
        late.double = first.double
        monkeypatch.setitem(sys.modules, "some_host.late", late)
    assert late.double is double


def test_a_function_that_somebody_took_by_from_meanwhile_stayed_ours(host):
    ours = adapter()
    with ours.substituted():
        taken = host[0].double
        assert taken(1.5) == 4.5
    ours.calls.clear()
    assert taken(1.5) == 3.0
    assert not ours.calls.ours
    with ours.substituted(correct=True):
        assert taken(2) == 4  # of the first install, not of this
        assert host[0].double(2) == 6


def test_correct_is_told_to_the_makers(host):
    with adapter().substituted(correct=True):
        assert host[0].double(2) == 6


def test_a_call_that_records_a_gradient_is_the_hosts(host):
    x = torch.ones(2, requires_grad=True)
    with adapter().substituted(correct=True) as calls:
        host[0].double(x)
        assert calls.passed_on["double"] == 1
        with torch.no_grad():
            host[0].double(x)
        assert calls.ours["double"] == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda: "2.0", "some host '2.0' is not known to its adapter, which follows 1.0 bit for bit"),
        (
            lambda: (_ for _ in ()).throw(ImportError),
            "some host is not installed: its adapter needs some-host 1.0",
        ),
    ],
)
def test_another_version_and_a_missing_host_are_refused(host, found, said):
    with pytest.raises(NumericsError, match=said):
        adapter(found=found).install()
    assert host[0].double is double


def test_installing_twice_and_uninstalling_what_is_not_installed_are_refused(host):
    ours = adapter()
    with pytest.raises(NumericsError, match="not installed"):
        ours.uninstall()
    with ours.substituted(), pytest.raises(NumericsError, match="installed already"):
        ours.install()
    assert host[0].double is double


def test_a_seam_that_cannot_be_put_leaves_all_others_as_they_were(host):
    def fails():
        raise RuntimeError("no registry")

    with pytest.raises(RuntimeError, match="no registry"):
        adapter(more=[Called(fails, fails)]).install()
    assert host[0].double is host[1].twice is double


def test_what_somebody_else_changed_is_told_and_the_rest_restored(host):
    table = {"name": 1}
    ours = adapter(more=[Entry(lambda: table, "name", lambda was: 2, "the table"),
                         Entry(lambda: table, "new", lambda was: 3, "the table")])  # fmt: skip
    ours.install()
    table["name"] = 5
    with pytest.raises(NumericsError, match="the table was changed by somebody else"):
        ours.uninstall()
    assert (table, host[0].double) == ({"name": 5}, double)
    assert not ours.installed()


def test_two_adapters_stand_at_once(host, monkeypatch):
    other = ModuleType("other_host")
    other.double = double
    monkeypatch.setitem(sys.modules, "other_host", other)
    second = Adapter("other", "other-host", ("1",), lambda correct, calls: replaced(
        "other_host", {"other_host": {"double": triple_floats}}, correct, calls), lambda: "1")  # fmt: skip
    with adapter().substituted() as one, second.substituted() as two:
        assert host[0].double(1.0) == other.double(1.0) == 3.0
        assert one.ours["double"] == two.ours["double"] == 1
    assert host[0].double is other.double is double


def test_an_exception_inside_leaves_the_host_as_it_was(host):
    with pytest.raises(KeyError), adapter().substituted():
        raise KeyError
    assert host[0].double is double


def test_importing_an_adapter_imports_no_host():
    hosts = "torchao", "compressed_tensors", "mx", "modelopt", "quark", "transformers"
    code = "".join(
        f"import sys, numerics.adapters.{name}; print({name!r}, [h for h in {hosts} if h in sys.modules])\n"
        for name in numerics.adapters.HOSTS
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout.splitlines() == [f"{name} []" for name in numerics.adapters.HOSTS], done.stderr


HAD_AS = {
    "compressed_tensors": "compressed-tensors", "microxcaling": "github.com/microsoft/microxcaling",
    "modelopt": "nvidia-modelopt", "quark": "amd-quark", "torchao": "torchao", "transformers": "transformers",
}  # fmt: skip
"""Each host by what is to be installed."""


@pytest.mark.parametrize("name", numerics.adapters.HOSTS)
def test_a_host_that_is_missing_or_of_another_version_is_one_error_of_ours(name, monkeypatch, tmp_path):
    """Of every adapter and every door of it, whatever hosts are installed here."""
    adapter = importlib.import_module(f"numerics.adapters.{name}")
    doors = [adapter.install, adapter.ADAPTER.version]
    doors += [getattr(adapter, way) for way in ("to_host", "from_host") if hasattr(adapter, way)]

    def refused(told):
        for door in doors:
            with pytest.raises(NumericsError, match=told):
                door(*(None,) * (door not in doors[:2]))
        assert not adapter.installed()

    versions = " or ".join(adapter.ADAPTER.versions)
    wanted = f"{HAD_AS[name]} {versions}"
    package = tmp_path / "mx"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "formats.py").write_text("changed = 1\n", encoding="utf-8")
    spec = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    refused(f"is not known to its adapter, which follows {versions} bit for bit: install {wanted}")

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    refused(f"is not installed: its adapter needs {wanted}")


@pytest.mark.parametrize("name", numerics.adapters.HOSTS)
def test_help_of_an_adapter_shows_what_there_is_to_use(name):
    shown = {"install", "installed", "uninstall", "substituted", "calls"}
    both = set() if name in ("microxcaling", "transformers") else {"to_host", "from_host"}
    assert set(importlib.import_module(f"numerics.adapters.{name}").__all__) == shown | both


def passes_on(host, correct):
    return lambda x: NotImplemented


@pytest.fixture
def caller(monkeypatch):
    """A host whose function `twice` calls its function `double` once."""
    module = ModuleType("some_host")
    module.double = double
    module.twice = lambda x: module.double(x)
    monkeypatch.setitem(sys.modules, "some_host", module)
    return module


@pytest.mark.parametrize(("x", "ours"), [(1.5, True), (2, False)])
def test_a_call_within_another_counts_once_and_as_ours_where_any_of_it_is(caller, x, ours):
    table = {"some_host": {"double": triple_floats, "twice": passes_on}}
    found = Adapter("some host", "some-host", ("1",), lambda correct, calls: replaced(
        "some_host", table, correct, calls), lambda: "1")  # fmt: skip
    with found.substituted() as calls:
        caller.twice(x)
        assert (dict(calls.ours), dict(calls.passed_on)) == (
            ({"twice": 1}, {}) if ours else ({}, {"twice": 1})
        )
        caller.double(x)
        assert calls.ours["double"] == ours
        assert calls.passed_on["double"] == (not ours)


def test_a_call_that_the_host_refuses_counts_and_the_next_stands_alone(caller):
    table = {"some_host": {"double": passes_on, "twice": passes_on}}
    found = Adapter("some host", "some-host", ("1",), lambda correct, calls: replaced(
        "some_host", table, correct, calls), lambda: "1")  # fmt: skip
    with found.substituted() as calls:
        with pytest.raises(TypeError):
            caller.twice(None)
        caller.double(2)
    assert dict(calls.passed_on) == {"twice": 1, "double": 1}
