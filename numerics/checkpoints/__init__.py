"""Checkpoints of any size and kind: folders of shards, quantized by rules, resumed, and shared by ranks.

`quantize` writes one, `converting.convert` makes one of ours of another tool's, `loading.load` reads any.

>>> import numerics as nx, tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     nx.save({"w": nx.quantize([0.5, -1.0], "int8")}, f"{folder}/model.safetensors")
...     nx.checkpoints.loading.load(folder)
{'w': QTensor(int8, shape=(2,), per_tensor(), 24 bits a value)}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics.checkpoints.deciding import Decision, Request, decide
from numerics.checkpoints.job import JobReport, quantize
from numerics.files.shards import Source
from numerics.formats.arguments import answer_calls
from numerics.formats.forking import reached

if TYPE_CHECKING:  # what __getattr__ imports when it is first asked for
    from numerics.checkpoints import converting as converting
    from numerics.checkpoints import loading as loading

__all__ = ["Decision", "JobReport", "Request", "Source", "converting", "decide", "loading", "quantize"]

if not TYPE_CHECKING:
    __getattr__ = reached(__name__, ("converting", "loading"))

answer_calls(__name__)
