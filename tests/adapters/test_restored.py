"""Hosts are as they were found, after each adapter, several at once, and a version that is not known."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import HOSTS, quark
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
        registry("modelopt.torch.quantization.nn.modules.tensor_quantizer", "_QUANT_FUNCTIONAL_BACKENDS")
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
    told = f"'9.9' is not known to its adapter.*: install {adapter.ADAPTER.versions[0]}"
    with pytest.raises(NumericsError, match=told):
        adapter.install()
    assert state(host) == before
    for function in [getattr(adapter, name) for name in ("to_host", "from_host") if hasattr(adapter, name)]:
        with pytest.raises(NumericsError, match=told):
            function(None)
