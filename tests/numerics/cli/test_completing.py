"""What shells complete: each kind of option, and bash's own way of cutting words."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import numerics as nx
from numerics import cli

BASH = shutil.which("bash")
Q, P = "numerics quantize m.safetensors o ", "numerics plot tensor m.safetensors w.png "
CASES = [
    (Q + "--dtype 'lm_head=mxfp4", ["lm_head=mxfp4"]), (Q + "--dtype lm_head=non", ["lm_head=none"]),
    (Q + "--dtype=nvf", ["--dtype=nvfp4", "--dtype=nvfp3"]),
    (Q + "--dtype e4m", ["E4M3"]),
    (Q + "--dtype int8:per_c", ["int8:per_channel"]), (Q + "--dtype lm=int8:per_to", ["lm=int8:per_token"]),
    (Q + "--observer m", ["min_max", "moving_average", "mse"]), (Q + "--scale-type p", ["pof2"]),
    (Q + "--zero-point-type f", ["float32"]), (Q + "--quiet --exclude l", ["lm_head.weight"]),
    (P + "--tensor l", ["lm_head.weight"]), (P + "--tensor=l", ["--tensor=lm_head.weight"]),
    ("numerics explore m.safetensors p.html --tensor ", ["lm_head.weight", "odd name"]),
    ("numerics ipu quantize a b --config x", ["xint8"]), ("numerics ipu verify --device s", ["stx"]),
    ("numerics ipu export int8 a.onnx --op req", ["requantize"]),
    ("numerics verify fp4 --backend a", ["array"]), ("numerics quantize kee", ["file"]),
    ("numerics conform a:b --kind ma", ["matmul"]), ("numerics explore mxfp8_e5", ["mxfp8_e5m2", "file"]),
    ("numerics conform a:b --a 'int4 per_g", ["int4 per_group"]),
    (Q + "--dtype lm_h", ["lm_head=", "lm_head.weight="]),
    (Q + "--dtype=lm_h", ["--dtype=lm_head=", "--dtype=lm_head.weight="]),
    ("numerics show binary4p4", ["binary4p4ue", "binary4p4uf"]),
    (Q + "--plan kee", ["file"]), (Q + "--plan=kee", ["--plan=keep.toml", "--plan=keeper/"]),
    ("numerics encode mxfp4 1 --scale-rule ", ["floor", "ceil", "even", "rceil", "tosa", "bump"]),
    ("numerics conform a:b --dtype nvfp4 --scale-rule m", ["mse"]),
    ("numerics fingerprint a:b --a f", ["float32", "float16"]), ("numerics conform ker", ["kernels:"]),
    ("numerics conform pack", ["packed."]),
    ("numerics conform kernels:e", ["kernels:encode", "kernels:encode_other"]),
    ("numerics fingerprint packed.of", ["packed.of_it:"]),
    ("numerics ipu quantize a b --data kee", ["file"]), ("numerics plot model kee", ["file"]),
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a checkpoint, and with files and folders that begin alike."""
    x = np.ones((2, 32), np.float32)
    nx.save({"lm_head.weight": x, "odd name": x}, tmp_path / "m.safetensors")
    (tmp_path / "keep.toml").touch()
    (tmp_path / "keeper").mkdir()
    (tmp_path / "kernels.py").write_text(
        "def encode(x): 1 / 0\nencode_other = encode\n_e = 1\n", encoding="utf-8"
    )
    (tmp_path / "packed").mkdir()
    for name in ("__init__", "of_it"):
        (tmp_path / "packed" / f"{name}.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "due"), CASES, ids=str)
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_every_option_completes_what_it_takes(place, monkeypatch, capsys, shell, line, due):
    """A value that names no list was completed by nothing, a file's name neither."""
    words = shlex.split(f"{line}'" if line.count("'") % 2 else line) + [""] * line.endswith(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv(
        "COMP_CWORD", (words[-1] and shlex.quote(words[-1])) if shell == "fish" else str(len(words) - 1)
    )
    monkeypatch.setenv("_NUMERICS_COMPLETE", f"{shell}_complete")
    with pytest.raises(SystemExit):
        cli.commands.main([], prog_name="numerics")
    printed = capsys.readouterr().out.strip("\n")
    if shell == "zsh":
        fields = printed.split("\n")
        found = ["file" if kind == "file" else text.replace("\\:", ":")
                 for kind, text in zip(fields[::3], fields[1::3], strict=True)]  # fmt: skip
    else:
        pairs = [text.partition("\t")[0].split(",", 1) for text in printed.split("\n")]
        found = ["file" if kind == "file" else text for kind, text in pairs]
    assert found == due


@pytest.mark.turns(6)
@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(("line", "cut", "due"), [
    (Q + "--dtype 'lm_head=mxfp4", "'lm_head=mxfp4", "lm_head=mxfp4"), (Q + "--dtype=mx4", "mx4", "mx4"),
    (Q + "--dtype lm_head=mxfp4", "mxfp4", "mxfp4"), (Q + "--dtype lm=int8:per_c", "per_c", "per_channel"),
    (Q + "--observer=", "=", "min_max\n.*\nmse\n.*"), (Q + "--plan=kee", "kee", "compopt -o default"),
    ("numerics explore kee", "kee", "compopt -o default"), (P + "--tensor 'o", "'o", "odd name"),
    ("numerics explore m", "m", r"compopt -o filenames\nmx.*\nm\.safetensors"),
    (P + "--tensor o", "o", r"odd\\ name"), ("numerics conform ker", "ker", "compopt -o nospace\nkernels:"),
    ("numerics conform kernels:e", "e", "encode\nencode_other"),
])  # fmt: skip
def test_bash_gets_what_stands_after_its_last_cut(place, line, cut, due):
    """A rule has `=` and `:`, at which bash cuts words; and files were never completed."""
    program = place / "numerics"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m numerics "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = f"""eval "$(_NUMERICS_COMPLETE=bash_source ./numerics)"
compopt() {{ echo compopt "$@"; }}
COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)} COMP_WORDS=({shlex.quote(cut)}) COMP_CWORD=0
_numerics_completion ./numerics
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    made = subprocess.run(
        [BASH, "--norc", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert made.stderr == ""
    assert re.fullmatch(due, made.stdout.strip(), re.S)
