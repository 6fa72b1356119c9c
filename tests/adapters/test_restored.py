"""Hosts are as they were found, after each adapter, several at once, and a version that is not known."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import HOSTS, modelopt, quark
from numerics.formats.errors import NumericsError
from tests.adapters.hosts import asked

pytestmark = pytest.mark.filterwarnings("ignore")
PACKAGES = {"microxcaling": "mx"}  # which are imported by another name than the adapter's


def state(host):
    """Every name of every module of a host by the object it stands for, and what lies in registries."""
    package = PACKAGES.get(host, host)
    names = {
        (module, name): id(value)
        for module, found in list(sys.modules.items())
        if module == package or module.startswith(f"{package}.")
        for name, value in list(vars(found).items())
    }
    return names, [make() for make in BESIDE.get(host, ())]


def registry(module, *path):
    """A copy of a table of a module, one deep."""

    def copied():
        found = importlib.import_module(module)
        for name in path:
            found = getattr(found, name)
        return {key: list(one) if isinstance(one, list) else id(one) for key, one in found.items()}

    return copied


BESIDE = {
    "compressed_tensors": [
        registry("compressed_tensors.utils.impl_backend", "ImplBackend", table)
        for table in ("_backends", "_fn_registry")
    ],
    "modelopt": [
        registry("modelopt.torch.quantization.nn.modules.tensor_quantizer", "_QUANT_FUNCTIONAL_BACKENDS"),
        lambda: [torch._C._dispatch_dump(f"tensorrt::{modelopt.BLOCKS}{one}") for one in modelopt.OVERLOADS],
        lambda: {one for one in torch.library._impls if one.startswith("tensorrt/")},
    ],
    "quark": [lambda: [torch._C._dispatch_dump(f"quark::{name}") for name in quark.OPERATORS]],
    "transformers": [
        registry("transformers.quantizers.auto", table)
        for table in ("AUTO_QUANTIZER_MAPPING", "AUTO_QUANTIZATION_CONFIG_MAPPING")
    ],
}


def settled(adapter):
    """Imports what an adapter imports, which is not to be told from a change."""
    with adapter.substituted():
        pass


@pytest.mark.parametrize("host", HOSTS)
def test_uninstalling_leaves_every_name_operator_and_entry_as_it_was_found(host):
    adapter = asked(host)
    settled(adapter)
    before = state(host)
    with adapter.substituted():
        assert state(host) != before
    assert state(host) == before
    with pytest.raises(KeyError), adapter.substituted(correct=True):
        raise KeyError
    assert state(host) == before


def test_all_adapters_stand_at_once_and_leave_in_any_order():
    adapters = {host: asked(host) for host in HOSTS}
    for adapter in adapters.values():
        settled(adapter)
    before = {host: state(host) for host in HOSTS}
    for adapter in adapters.values():
        adapter.install()
    assert all(adapter.installed() for adapter in adapters.values())
    for host in ("torchao", "quark", "transformers", "compressed_tensors", "modelopt", "microxcaling"):
        adapters[host].uninstall()
    assert {host: state(host) for host in HOSTS} == before


@pytest.mark.parametrize("host", [host for host in HOSTS if host != "microxcaling"])
def test_a_host_of_another_version_is_one_error_and_stays_as_it_is(host, monkeypatch):
    adapter = asked(host)
    settled(adapter)
    before, real = state(host), importlib.metadata.version
    library = adapter.ADAPTER.distribution
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == library else real(name))
    told = f"'9.9' is not known to its adapter.*: install {library} {adapter.ADAPTER.versions[0]}"
    with pytest.raises(NumericsError, match=told):
        adapter.install()
    assert state(host) == before
    for function in [getattr(adapter, name) for name in ("to_host", "from_host") if hasattr(adapter, name)]:
        with pytest.raises(NumericsError, match=told):
            function(None)


@pytest.mark.parametrize("host", HOSTS)
def test_a_body_may_uninstall_itself_and_what_it_raises_is_raised(host):
    adapter = asked(host)
    with adapter.substituted():
        adapter.uninstall()

    @adapter.substituted()
    def body():
        adapter.uninstall()
        raise KeyError

    with pytest.raises(KeyError) as raised:
        body()
    assert not hasattr(raised.value, "__notes__")
    with adapter.substituted():
        adapter.uninstall()
        adapter.install()  # which is not this body's end
    assert adapter.installed()
    adapter.uninstall()


@pytest.mark.parametrize("host", HOSTS)
def test_what_substitutes_is_used_again_but_not_inside_itself(host):
    adapter = asked(host)
    again = adapter.substituted()
    for _ in range(2):
        with again as counted:
            assert adapter.installed()
            assert not counted.ours
            with pytest.raises(NumericsError, match="is installed already; uninstall it first"), again:
                pass
            assert adapter.installed()
        assert not adapter.installed()
    assert adapter.substituted()(adapter.installed)()
    assert not adapter.installed()


def backend_of(implementations, name):
    """compressed-tensors' implementations of a function by what they are called."""
    return [one.__name__ for one, *_ in implementations.get(name, [])]


@pytest.mark.parametrize("change", ["others", "none", "name", "key"])
def test_somebody_else_in_compressed_tensors_registry_stays_and_all_of_ours_leaves(change):
    adapter = asked("compressed_tensors")
    settled(adapter)
    found = importlib.import_module("compressed_tensors.utils.impl_backend").ImplBackend
    before, kept = state("compressed_tensors"), dict(found._backends)
    adapter.install()
    (ours,) = (one for one in found._backends["cast_to_fp4"] if one[0].__name__ == "numerics_cast_to_fp4")

    def of_others(x):
        return x

    theirs = (of_others, lambda x: False, 3)
    if change == "others":
        found._backends["cast_to_fp4"] = [
            one for one in found._backends["cast_to_fp4"] if one is not ours
        ] + [theirs]
    elif change == "none":
        found._backends["cast_to_fp4"].remove(ours)
    elif change == "name":
        found._fn_registry["numerics_cast_to_fp4"] = of_others
    else:
        del found._backends["cast_to_fp4"]
    with pytest.raises(NumericsError, match="implementations of cast_to_fp4 was changed by somebody else"):
        adapter.uninstall()
    try:
        assert not adapter.installed()
        assert "numerics_cast_to_fp4" not in backend_of(found._backends, "cast_to_fp4")
        assert (found._fn_registry.get("numerics_cast_to_fp4") is of_others) == (change == "name")
        if change == "name":
            with pytest.raises(NumericsError, match="has an implementation numerics_cast_to_fp4 already"):
                adapter.install()
            del found._fn_registry["numerics_cast_to_fp4"]
        if change == "others":
            assert found._backends["cast_to_fp4"][-1] is theirs
        settled(adapter)  # it can be installed again
    finally:
        if "cast_to_fp4" in kept:
            found._backends["cast_to_fp4"] = [
                one for one in kept["cast_to_fp4"] if not one[0].__name__.startswith("numerics_")
            ]
            if not found._backends["cast_to_fp4"]:
                del found._backends["cast_to_fp4"]
        else:
            found._backends.pop("cast_to_fp4", None)
    assert state("compressed_tensors") == before


def test_somebody_elses_backend_of_our_name_in_modelopt_stays():
    adapter = asked("modelopt")
    settled(adapter)
    nn = importlib.import_module("modelopt.torch.quantization.nn")
    before = state("modelopt")

    def theirs(inputs, quantizer):
        return inputs

    adapter.install()
    nn.unregister_quant_backend("numerics")
    nn.register_quant_backend("numerics", theirs)
    with pytest.raises(NumericsError, match="backend 'numerics' was changed by somebody else"):
        adapter.uninstall()
    assert nn.is_registered_quant_backend("numerics")
    with pytest.raises(NumericsError, match="has a backend 'numerics' already, which is not ours"):
        adapter.install()
    nn.unregister_quant_backend("numerics")
    assert state("modelopt") == before
