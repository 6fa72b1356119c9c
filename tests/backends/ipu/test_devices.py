"""The table of devices, and which mode each requantizes with.

The judge shares no code with them, and nothing here runs on, or says anything about, silicon.
"""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")  # importing any module of the package imports its executor

from numerics.backends.ipu import devices
from numerics.formats import NumericsError

XCLBIN = "C:/Ryzen/xclbins/phoenix/4x4.xclbin"


@pytest.mark.parametrize("name", ["phx", "hpt"])
def test_the_legacy_devices(name):
    device = devices.device(name)
    assert (device.name, device.target, device.mode, device.blocks) == (name, "X1", "pos_inf", ())
    assert device.provider_options(XCLBIN, cache_dir="c") == {
        "target": "X1", "xlnx_enable_py3_round": "0", "xclbin": XCLBIN, "cache_dir": "c"
    }  # fmt: skip
    for missing in (None, ""):
        with pytest.raises(NumericsError, match=r"needs xclbin=.*phoenix/4x4\.xclbin"):
            device.provider_options(missing)


@pytest.mark.parametrize("name", ["stx", "krk"])
def test_the_present_devices(name):
    device = devices.device(name)
    assert (device.name, device.target, device.mode) == (name, "X2", "conv_even")
    assert device.blocks == ("bfp16ebs8",)
    assert device.provider_options() == {"target": "X2"}
    with pytest.raises(NumericsError, match="none may be set"):
        device.provider_options(XCLBIN)


def test_devices_are_four_frozen_rows():
    assert list(devices.DEVICES) == ["phx", "hpt", "stx", "krk"]
    assert len({hash(device) for device in devices.DEVICES.values()}) == 4
    with pytest.raises(AttributeError):
        devices.device("phx").mode = "floor"
    with pytest.raises(TypeError):
        devices.device("phx").options["target"] = "X2"


def test_bad_devices():
    with pytest.raises(NumericsError, match=r"unknown device 'phoenix'.*allowed: phx, hpt, stx, krk"):
        devices.device("phoenix")
    with pytest.raises(NumericsError, match=r"unknown SRS mode 'half_even'.*allowed: floor"):
        devices.Device("x", "", "", "X2", "half_even", {}, False)
    with pytest.raises(NumericsError, match="unknown target 'X3'"):
        devices.Device("x", "", "", "X3", "floor", {}, False)
    with pytest.raises(NumericsError, match="target: stx decides it"):
        devices.device("stx").provider_options(target="X1")
