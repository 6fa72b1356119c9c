"""fork while other threads compile: the child finds every lock free, and every kernel whole."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))

# Children end by os._exit: whether they hang is what is asked, and a hang is ended by an alarm.
FORKS = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
import numpy as np, numerics as nx
x = np.linspace(-3, 3, 96, dtype=np.float32).reshape(3, 32)
known = ("floor", "ceil", "toward_zero", "half_up", "half_down", "half_away", "to_odd")
ended = threading.Event()

def compile_much(kinds):
    for kind in kinds:
        for d in nx.dtypes():
            for rounding in known:
                if ended.is_set():
                    return
                d.round(x.astype(kind), rounding=rounding)

for kinds in (("float32", "float16"), ("float64", "float32")):
    threading.Thread(target=compile_much, args=(kinds,), daemon=True).start()
count, hung, wrong = int(sys.argv[1]), 0, 0
for k in range(count):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(100)
        d = nx.float_format(4, 2 + k % 3, name=f"forked{k}")
        came = d.round(x.astype(("float32", "float16")[k % 2]), rounding="floor")
        with nx.use("array"):
            due = d.round(x.astype(("float32", "float16")[k % 2]), rounding="floor")
        os._exit(0 if np.array_equal(came, due) else 3)
    status = os.waitpid(child, 0)[1]
    hung += os.WIFSIGNALED(status)
    wrong += not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 0
ended.set()
print(hung, wrong, flush=True)
os._exit(0)
"""


def run(code: str, *arguments: str, seconds: float, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=seconds,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_a_fork_while_another_thread_compiles_does_not_hang_the_child(tmp_path):
    """The launcher's lock and Numba's stayed held in the child."""
    count = 100 if LONG else 8
    assert run(FORKS, str(count), seconds=1500, NUMERICS_CACHE_DIR=str(tmp_path)) == "0 0"


@pytest.mark.parametrize("after", [0.05, 0.3, 0.6])
def test_a_fork_while_another_thread_imports_the_backend_does_not_hang_anybody(tmp_path, after):
    code = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
import numpy as np, numerics as nx
x = np.ones(32, np.float32)
threading.Thread(target=lambda: nx.fp4.encode(x), daemon=True).start()
time.sleep(float(sys.argv[1]))
began = time.monotonic()
child = os.fork()
forked = time.monotonic() - began
if child == 0:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(100)
    os._exit(0 if nx.fp4.encode(x)[0] == 2 else 3)
print(os.waitpid(child, 0)[1], forked < 18, flush=True)
os._exit(0)
"""
    assert run(code, str(after), seconds=300, NUMERICS_CACHE_DIR=str(tmp_path)) == "0 True"


# The import of one module takes a while, and the fork comes in the midst of it.
MIDST = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
import numpy as np, numerics as nx
x, begun, name = np.ones(32, np.float32), threading.Event(), sys.argv[1]
calls = {
    "backend": lambda: nx.fp4.encode(x)[0] == 2,
    "name": lambda: nx.quantize(x, nx.fp4).dequantize()[0] == 1,
    "module": lambda: nx.observe.MinMax is not None,
    "judge": lambda: nx.conform.check is not None,
}

class Slow:
    def find_spec(self, found, path, target=None):
        if found == name:
            begun.set()
            time.sleep(0.5)

sys.meta_path.insert(0, Slow())
threading.Thread(target=calls[sys.argv[2]], daemon=True).start()
begun.wait(100)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    os._exit(0 if calls[sys.argv[2]]() else 3)
print(os.waitpid(child, 0)[1], flush=True)
os._exit(0)
"""


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("numerics.backends.cpu", "backend"),
        ("numerics.backends.cpu.launch", "backend"),
        ("numba.core", "backend"),
        ("numerics.quantization", "name"),
        ("numerics.observe.histogram", "module"),
        ("numerics.conform.checking", "judge"),
    ],
)
def test_a_fork_in_the_midst_of_an_import_waits_for_it(tmp_path, module, call):
    """Children waited for ever where the first call of another thread was on its way (4 of 100 forks)."""
    assert run(MIDST, module, call, seconds=200, NUMERICS_CACHE_DIR=str(tmp_path)) == "0"
