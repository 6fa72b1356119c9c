"""Whoever leaves a call, by Ctrl-C or by what a signal handler raises, leaves no thread in a kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))

# Signals come at random moments of the calls; the handler raises only where the package is at work, so that
# this program itself is never interrupted.
STRESS = """
import random, signal, sys, time
import numpy as np, numerics as nx
KIND, COUNT = sys.argv[1], int(sys.argv[2])
x = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
out, due = np.empty_like(x), nx.mx6.round(x)
if KIND == "torch":
    import torch
    tensor, target = torch.from_numpy(x), torch.from_numpy(out)
    calls = [lambda: nx.mx6.round(tensor, out=target), lambda: nx.fake_quantize(tensor, "mx6"),
             lambda: nx.quantize(tensor, "int8", scheme="per_tensor").dequantize()]
else:
    calls = [lambda: nx.mx6.round(x, out=out), lambda: nx.fake_quantize(x, "mx6"),
             lambda: nx.quantize(x.reshape(4, -1), "int8").dequantize()]

for call in calls:
    call()  # imports what it needs

class CtrlC(KeyboardInterrupt):  # Python ends by SIGINT where the plain one once left an exec of a text
    pass

def handler(number, frame):
    while frame:
        if "numerics" in frame.f_globals.get("__name__", "").split("."):
            raise CtrlC
        frame = frame.f_back

signal.signal(signal.SIGALRM, handler)
rng, broken, late, tried = random.Random(int(sys.argv[3])), 0, 0, 0
longest = 0.05
while broken < COUNT and tried < 40 * COUNT:
    tried += 1
    call = calls[tried % len(calls)]
    out.fill(-1)
    kept = None
    again = rng.choice((0, 1e-4, 1e-3))
    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, longest), again)
    began = time.perf_counter()
    try:
        kept = call()
        longest = max(2 * (time.perf_counter() - began), 1e-3)
    except KeyboardInterrupt:
        broken += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        before = out.copy()
        time.sleep(0.002)
        late += not np.array_equal(before, out)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
right = np.array_equal(nx.mx6.round(x, out=out), due)
print(broken >= COUNT, late, right)
"""


def run(code: str, *arguments: str, seconds: float = 300, **environment: str) -> str:
    """What a fresh process prints; it must end well, and in time."""
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "NUMERICS_NUM_THREADS": "6", **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert found.returncode == 0, f"{found.returncode}: {found.stderr[-2000:]}"
    return found.stdout.strip()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_ctrl_c_in_a_threaded_kernel_waits_for_its_threads(kind):
    """It was a segmentation fault: the arrays were freed, the threads wrote on."""
    count = 200 if LONG else 20
    assert run(STRESS, kind, str(count), "1", seconds=1200) == "True 0 True"


def test_ctrl_c_while_kernels_are_compiled_leaves_a_compiler_that_works(tmp_path):
    """A compiler's lock stayed held, or a module half made."""
    code = """
import random, signal, threading
import numpy as np, numerics as nx
signal.signal(signal.SIGALRM, signal.default_int_handler)
rng, x, broken, k = random.Random(3), np.ones(96, np.float32), 0, 0
formats = [d for d in nx.dtypes() if d.kind != "block"]
while broken < 8 and k < len(formats):
    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-3, 0.06))
    try:
        formats[k].encode(x, rounding=("floor", "ceil", "half_up")[k % 3])
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        broken += 1
    k += 1
found = []
def elsewhere():
    found.append(all(np.array_equal(d.encode(x, rounding="floor"), due(d)) for d in formats))
def due(d):
    with nx.use("array"):
        return d.encode(x, rounding="floor")
thread = threading.Thread(target=elsewhere, daemon=True)
thread.start(); thread.join(200)
print(found)
"""
    assert run(code, NUMERICS_CACHE_DIR=str(tmp_path)) == "[True]"


def test_an_exception_of_a_signal_handler_waits_too():
    """Not Ctrl-C alone: whatever a handler raises, whatever class it is of."""
    code = STRESS.replace("raise CtrlC", "raise OSError('handled')").replace(
        "except KeyboardInterrupt", "except OSError"
    )
    assert run(code, "numpy", "8", "2") == "True 0 True"


NO_THREADS = """
import _thread, threading
import numpy as np, numerics as nx
def refuse(*_, **__):
    raise RuntimeError("can't start new thread")
_thread.start_new_thread = threading._start_new_thread = refuse
x = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
out = np.full_like(x, np.nan)
nx.mx6.round(x, out=out)
with nx.use("array"):
    print(np.array_equal(out, nx.mx6.round(x)))
"""


def test_without_a_thread_to_be_had_the_caller_does_all():
    """It was a RuntimeError, `out=` half written."""
    assert run(NO_THREADS) == "True"


def test_with_no_room_for_a_threads_stack_the_caller_does_all():
    resource = pytest.importorskip("resource")
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("asks /proc for what is used already")
    code = """
import os, resource
import numpy as np, numerics as nx
x = np.ones(1 << 22, np.float32); out = np.full_like(x, -1)
os.environ["NUMERICS_NUM_THREADS"] = "1"
nx.fp4.round(x, out=out)
os.environ["NUMERICS_NUM_THREADS"] = "64"
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (used, used))
out[:] = -1
for _ in range(3):
    nx.fp4.round(x, out=out)
print(bool((out == 1).all()))
"""
    assert resource
    assert run(code) == "True"


@pytest.mark.parametrize("before", [False, True], ids=["first", "used"])
def test_work_in_an_atexit_handler_is_done(before):
    """It was `cannot schedule new futures after shutdown`: what was saved there was lost."""
    code = f"""
import atexit
import numpy as np, numerics as nx
x = np.ones(1 << 22, np.float32)
atexit.register(lambda: print(int(nx.fp8_e4m3.encode(x).min()), flush=True))
if {before}:
    nx.fp8_e4m3.encode(x)
"""
    assert run(code) == str(0x38)


def test_daemon_threads_in_kernels_at_the_end_of_the_interpreter():
    code = """
import threading, time
import numpy as np, numerics as nx
x = np.ones(1 << 22, np.float32)
nx.mx6.round(x)
def work():
    while True:
        nx.mx6.round(x)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("ends")
"""
    for _ in range(10 if LONG else 2):
        assert run(code) == "ends"
