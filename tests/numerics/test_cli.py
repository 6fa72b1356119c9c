"""The command line: what it prints, on which stream, with which exit code."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import numerics as nx
from numerics import cli
from numerics.cli.words import WANTED, format_of, in_options
from numerics.formats.block import ElementBlock
from tests.helpers.children import LIMIT, child
from tests.helpers.marks import either_sign
from tests.helpers.shards import contents, tensors_of, write_shards

RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    w = RNG.standard_normal((8, 256)).astype(np.float32)
    save_file({"layer.weight": w, "layer.gain": w[0]}, path)
    return path


def run(*arguments, code=0):
    """stdout of a command that ends with that code; stderr is one line when it fails."""
    result = CliRunner().invoke(cli.commands, [str(a) for a in arguments])
    if code == 0:
        assert result.exception is None, result.output
        return result.stdout
    assert isinstance(result.exception, nx.NumericsError)
    return str(result.exception)


def python(*arguments, **options):
    """A real process."""
    command = [sys.executable, "-W", "error", "-m", "numerics", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_quantize_and_back(model, tmp_path):
    out, back = tmp_path / "out.safetensors", tmp_path / "back.safetensors"
    printed = run("quantize", model, out, "--dtype", "int4", "--scheme", "per_group", "--group-size", 128)
    assert "layer.weight" in printed
    assert "4.25" in printed.split()
    assert "1 copied" in printed
    q, x = nx.load(out)["layer.weight"], nx.load(model)["layer.weight"]
    assert q.scheme == nx.per_group(128)
    said = run("dequantize", out, back)
    assert said == f"{back}: 1 tensors dequantized, 1 copied; 2,112 bytes became 9,216\n"
    assert run("dequantize", out, back, "--quiet") == ""
    due = nx.fake_quantize(x, "int4", scheme=nx.per_group(128))
    assert nx.load(back)["layer.weight"].tobytes() == due.tobytes()


def test_every_option_arrives(model, tmp_path):
    out, two = tmp_path / "out.safetensors", tmp_path / "two.safetensors"
    w = nx.load(model)["layer.weight"]
    nx.save({"layer.weight": w, "other.weight": w + 1}, two)
    run("quantize", two, out, "--dtype", "uint4", "--scheme", "per_channel", "--axis", 1, "--asymmetric",
        "--scale-type", "pof2", "--zero-point-type", "float32", "--rounding", "stochastic", "--seed", 3,
        "--exclude", "other*", "--quiet")  # fmt: skip
    options = {"scheme": nx.per_channel(1), "symmetric": False, "scale_type": "pof2",
               "zero_point_type": "float32", "rounding": "stochastic", "seed": 3}  # fmt: skip
    due = nx.quantize(w, "uint4", **options)
    q = nx.load(out)["layer.weight"]
    assert nx.load(out)["other.weight"].tobytes() == (w + 1).tobytes()
    assert (q.packed.tobytes(), q.scale.tobytes(), q.zero_point.tobytes()) == (
        due.packed.tobytes(), due.scale.tobytes(), due.zero_point.tobytes())  # fmt: skip
    run(
        "quantize",
        model,
        out,
        "--dtype",
        "mxfp4",
        "--axis",
        0,
        "--scale-rule",
        "even",
        "--include",
        "*.weight",
    )
    due = nx.quantize(nx.load(model)["layer.weight"], "mxfp4", axis=0, scale_rule="even")
    assert nx.load(out)["layer.weight"].packed.tobytes() == due.packed.tobytes()


def test_quantize_json(model, tmp_path):
    said = json.loads(run("quantize", model, tmp_path / "out", "--dtype", "mx6", "--json"))
    weight, bias = sorted(said["tensors"], key=lambda tensor: tensor["name"], reverse=True)
    assert weight["shape"] == [8, 256]
    assert (weight["bits"], weight["bytes_before"], weight["bytes_after"]) == (6.0, 8192, 1536)
    assert bias["dtype"] is bias["sqnr"] is None
    assert said["total"]["bytes_after"] == 1536 + 1024
    assert run("quantize", model, tmp_path / "out", "--dtype", "mx6", "--quiet") == ""


@pytest.mark.parametrize("command", ["quantize", "encode", "conform", "vectors generate"])
def test_the_lists_of_roundings_have_quark_s_word(command):
    assert "or round for half_away" in " ".join(run(*command.split(), "--help").split())


def test_formats():
    printed = run("formats")
    for d in nx.dtypes():
        assert d.name in printed
    said = json.loads(run("formats", "--json"))
    assert [one["name"] for one in said] == [d.name for d in nx.dtypes()]


def test_show():
    printed = run("show", "fp8_e4m3")
    for expected in ("448", "OCP OFP8 1.0", "0xf0", "nan", "float8_e4m3fn"):
        assert expected in printed
    said = json.loads(run("show", "E4M3", "--json"))
    assert (said["name"], said["max"], len(said["values"])) == ("fp8_e4m3", 448.0, 256)
    assert said["values"][-1] == "nan"
    assert "+0" not in run("show", "float16")
    assert "arXiv 2302.08007" in run("show", "mx6")


def test_encode():
    printed = run("encode", "fp8_e4m3", "0.3", "448", "inf", "-1.0625")
    assert "0 0101 010" in printed
    assert [line.split()[-1] for line in printed.splitlines()[1:]] == ["-", "-", "-", "tie"]
    said = json.loads(
        run("encode", "fp8_e4m3", "0.3", "-0", "nan", "0x1.8p3", "500", "--overflow", "nonsaturate", "--json")
    )
    assert [one["code"] for one in said] == [42, 0x80, 0x7F, 0x54, 0x7F]
    assert said[0] == {
        "x": 0.3,
        "code": 42,
        "bits": {"sign": "0", "exponent": "0101", "mantissa": "010"},
        "value": 0.3125,
        "error": 0.3125 - 0.3,
        "below": 0.28125,
        "above": 0.3125,
        "tie": False,
    }
    assert said[4]["above"] is None
    assert said[4]["value"] == "nan"
    rounded = json.loads(run("encode", "int4", "2.5", "-9", "--rounding", "half_up", "--json"))
    assert [(one["value"], one["tie"], one["below"]) for one in rounded] == [
        (3.0, True, 2.0),
        (-8.0, False, None),
    ]


def test_doctor():
    said = json.loads(run("doctor", "--json"))
    assert said["backends"]["array"] == "ready"
    assert said["versions"]["numpy"] == np.__version__
    assert said["cache"]["writable"] in (True, False)
    assert "backends" in run("doctor")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "fp8_e4m4"), "unknown format 'fp8_e4m4'; did you mean 'fp8_e4m3'"),
        (("encode", "mx6", "1", "--overflow", "nonsaturate"), "the elements of a block saturate"),
        (("encode", "mx6", "1", "--scale-rule", "even"), "is for MX formats"),
        (("encode", "fp4", "1", "--scale-rule", "even"), "--scale-rule is for MX formats"),
        (("encode", "fp4", "1", "--rounding", "stochastic"), "give --seed"),
        (("encode", "fp4", "1", "--seed", "1"), "--seed belongs to --rounding stochastic"),
        (("quantize", "MODEL", "OUT", "--dtype", "mx6", "--rounding", "stochastic"), "give --seed"),
        (
            ("quantize", "MODEL", "OUT", "--dtype", "int4", "--rounding", "stochastic", "--seed", "-1"),
            "seed -1 is",
        ),
        (("vectors", "generate", "fp4", "--seed", "-1"), "seed -1 is outside 0 .. 2**64 - 1"),
        (("vectors", "generate", "mxfp4", "--count", "3", "--seed", str(2**64)), "is outside 0 .. 2**64 - 1"),
        (("encode", "fp4", "one"), "'one' is not a number"),
        (("encode", "fp4", "1", "--overflow", "nonsaturate"), "has neither Inf nor NaN"),
        (("quantize", "MODEL", "MODEL", "--dtype", "mx6"), "is the input"),
        (("quantize", "MODEL", "OUT", "--dtype", "mx6", "--scheme", "per_tensor"), "mx6: --scheme cannot be"),
        (
            ("quantize", "MODEL", "OUT", "--dtype", "int4", "--scheme", "per_group"),
            "--scheme per_group needs --group-size",
        ),
        (("quantize", "MODEL", "OUT", "--dtype", "int4", "--group-size", "0"), "a group of 0 elements"),
        (("dequantize", "MODEL", "OUT"), "nothing to dequantize"),
    ],
)
def test_errors(model, tmp_path, arguments, said):
    places = {"MODEL": model, "OUT": tmp_path / "out"}
    assert said in run(*(places.get(a, a) for a in arguments), code=2)
    assert not (tmp_path / "out").exists()


def test_encode_takes_block_formats():
    printed = run("encode", "mxfp4", "1", ".3", "-.05", "5")
    assert printed.splitlines()[0] == "block 0: scale 0x7f = 1"
    assert [line.split()[0:1] + line.split()[-5:] for line in printed.splitlines()[2:]] == [
        ["1", "1", "0", "1", "1", "-"], ["0.3", "0.5", "0.2", "0", "0.5", "-"],
        ["-0.05", "-0", "0.05", "-0.5", "0", "-"], ["5", "4", "-1", "4", "6", "tie"]]  # fmt: skip
    scaled = json.loads(run("encode", "mxfp4", "9", "--scale-rule", "ceil", "--json"))
    blocks = nx.mxfp4.encode([9.0], scale_rule="ceil")
    assert (scaled["blocks"][0]["scale"], scaled["blocks"][0]["elements"][0]["code"]) == (
        blocks.scale[0],
        blocks.codes[0],
    )


def test_encode_takes_the_scale_of_the_tensor_and_a_rule():
    words = "encode nvfp4 4.9 4.0 2.1 0.9 --tensor-scale 0.5 --json --scale-rule"
    said = [json.loads(run(*words.split(), rule)) for rule in ("floor", "four_over_six")]
    assert [one["tensor_scale"] for one in said] == [0.5, 0.5]
    assert [one["blocks"][0]["scale"] for one in said] == [61, 66]
    for d in ("mxfp4", "fp4"):
        assert f"{d} has no tensor scale" in run("encode", d, "1", "--tensor-scale", "1", code=2)


def test_quantize_gives_every_tensor_the_scale_that_is_asked_for(tmp_path):
    x = {n: np.random.default_rng(k).normal(size=(4, 64)).astype(np.float32) for k, n in enumerate("ab")}
    source, target = tmp_path / "x.safetensors", tmp_path / "q.safetensors"
    save_file(x, source)
    words = ("quantize", source, target, "--dtype", "nvfp4", "--dtype", "b=mxfp4", "--quiet")
    run(*words, "--tensor-scale", "0.002")
    made = nx.load(target)
    assert made["a"].tensor_scale == np.float32(0.002)
    assert np.array_equal(made["a"].packed, nx.quantize(x["a"], "nvfp4", tensor_scale=0.002).packed)
    assert np.array_equal(made["b"].packed, nx.quantize(x["b"], "mxfp4").packed)
    assert "is not a positive finite" in run(*words, "--tensor-scale", "0", code=2)
    words = ("quantize", source, tmp_path / "m.safetensors", "--dtype", "mxfp4", "--tensor-scale", "1")
    assert "no tensor becomes blocks with float scales" in run(*words, code=2)


@pytest.mark.parametrize("d", [d for d in nx.dtypes() if d.kind == "block"], ids=str)
def test_encode_of_blocks_says_what_the_format_does(d):
    numbers = [float(x) for x in RNG.standard_normal(d.block + 3) * 10]
    said = json.loads(run("encode", d.name, *map(repr, numbers), "--json"))
    made = d.encode(numbers)
    elements = [one for block in said["blocks"] for one in block["elements"]]
    assert [one["code"] for one in elements] == list(made.codes)
    assert [one["value"] for one in elements] == list(d.decode(made))
    assert [block["scale"] for block in said["blocks"]] == list(made.scale)
    assert said["tensor_scale"] == made.tensor_scale
    assert all("".join(one["bits"].values()) == f"{one['code']:0{d.element_bits}b}" for one in elements)


def test_errors_speak_of_options_not_of_arguments(model, tmp_path):
    failed = python("quantize", model, tmp_path / "out", "--dtype", "mx6", "--scheme", "per_tensor")
    assert failed.stderr.startswith("numerics: mx6: --scheme cannot be, since")
    assert "scale_rule" not in failed.stderr
    failed = python("quantize", model, tmp_path / "out", "--dtype", "mx6", "--include", "nothing*")
    assert failed.stderr.startswith("numerics: --include 'nothing*' matches no tensor")
    failed = python("quantize", tmp_path / "seed=1.st", tmp_path / "out", "--dtype", "mx6")
    assert "seed=1.st: No such file" in failed.stderr, "a path is no argument"


def test_a_process_says_one_line_and_ends_with_2(tmp_path):
    failed = python("quantize", tmp_path / "nothing", tmp_path / "out", "--dtype", "mx6")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr == f"numerics: cannot read {tmp_path / 'nothing'}: No such file or directory\n"
    assert python("show", "fp4").returncode == 0


def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError(name='rich')", encoding="utf-8")
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(name='click')", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    failed = python("formats", env={**os.environ, "PYTHONPATH": path})
    assert failed.returncode == 1
    assert failed.stderr == "the command line needs click: pip install numerics-formats[cli]\n"


def test_help_imports_nothing_heavy():
    heavy = "{'numpy', 'numba', 'rich', 'torch'}"
    code = f"import sys; from numerics import cli; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "[]\n"


def test_a_terminated_process_leaves_the_old_output(tmp_path):
    model, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({f"w{i}": np.ones((512, 1024), np.float32) for i in range(40)}, model)
    out.write_bytes(b"old")
    command = [
        sys.executable,
        "-m",
        "numerics",
        "quantize",
        str(model),
        str(out),
        "--dtype",
        "int4",
        "--asymmetric",
    ]
    with child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + LIMIT
        while not list(tmp_path.glob(".*.partial")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 128 + signal.SIGTERM
    assert out.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.long
def test_warmup_compiles_into_the_cache(tmp_path):
    environment = {**os.environ, "NUMERICS_CACHE_DIR": str(tmp_path)}
    first = json.loads(python("warmup", "--json", env=environment).stdout)
    assert len(first["kernels"]) > 50
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.kernel")}
    assert len(written) == len(first["kernels"])
    again = json.loads(python("warmup", "--json", env=environment).stdout)
    assert again["kernels"] == first["kernels"]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.kernel")} == written


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scheme", "per_group(32)", "--group-size", "16"), "32 in its text, and 16 beside it"),
        (("--scheme", "per_channel(1)", "--axis", "0"), "1 in its text, and 0 beside it"),
        (("--scheme", "per_tensor", "--axis", "0"), "belongs to per_channel and per_group"),
        (("--zero-point-type", "float32"), "belongs to --asymmetric"),
    ],
)
def test_options_that_contradict_each_other_or_do_nothing_were_taken(tmp_path, options, said):
    nx.save({"w": np.ones((8, 64), np.float32)}, tmp_path / "w.st")
    out = tmp_path / "o"
    command = ["quantize", str(tmp_path / "w.st"), str(out), "--dtype", "int4", *options]
    assert said in run(*command, code=2)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("mxfp4 scale_rule=ceil", {"scale_rule": "ceil"}),
        ("int4 rounding=floor", {"rounding": "floor"}),
        ("int4:per_group(32) asymmetric zero_point_type=float32",
         {"scheme": "per_group(32)", "symmetric": False, "zero_point_type": "float32"}),
    ],
)  # fmt: skip
def test_words_beside_a_format_may_say_every_option(tmp_path, words, options):
    """What has a default of its own was taken for said twice."""
    x = np.linspace(-3, 2, 256, dtype=np.float32).reshape(4, 64)
    nx.save({"w": x}, tmp_path / "w.st")
    run("quantize", tmp_path / "w.st", tmp_path / "o.safetensors", "--dtype", words, "--quiet")
    found = nx.load(tmp_path / "o.safetensors")["w"]
    due = nx.quantize(x, words.partition(" ")[0].partition(":")[0], **options)
    assert found.spec == due.spec
    assert np.array_equal(found.codes, due.codes)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("mxfp4 axis=1", ("--axis", "0")),
        ("mxfp4 scale_rule=ceil", ("--scale-rule", "floor")),
        ("int4 rounding=floor", ("--rounding", "half_even")),
        ("int4 asymmetric", ("--asymmetric",)),
        ("int4:per_group(32)", ("--scheme", "per_tensor")),
    ],
)
def test_what_words_and_an_option_say_is_refused(tmp_path, words, option):
    nx.save({"w": np.ones((8, 64), np.float32)}, tmp_path / "w.st")
    command = "quantize", tmp_path / "w.st", tmp_path / "o.safetensors", "--dtype", words, *option
    assert f"{option[0]} says too" in run(*command, code=2)
    assert not (tmp_path / "o.safetensors").exists()


def test_words_that_draw_at_random_need_a_seed(tmp_path):
    nx.save({"w": np.ones((8, 64), np.float32)}, tmp_path / "w.st")
    command = "quantize", tmp_path / "w.st", tmp_path / "o.safetensors", "--dtype", "int4 rounding=stochastic"
    assert "give --seed N" in run(*command, code=2)
    run(*command, "--seed", "3", "--quiet")
    assert nx.load(tmp_path / "o.safetensors")["w"].spec.rounding == "stochastic"


@either_sign
@pytest.mark.parametrize("name", ["int4", "uint8", "fp4", "bfloat16", "mxfp4", "mx6", "nvfp4"])
@pytest.mark.parametrize(
    "options",
    [
        ("--scheme", "per_group"), ("--scheme", "per_group", "--group-size", "16"), ("--group-size", "16"),
        ("--scheme", "per_group(16, axis=-1)"), ("--scheme", "per_tensor"), ("--axis", "1"),
        ("--scheme", "per_channel", "--axis", "7"), ("--asymmetric",), ("--scale-rule", "even"),
        ("--scale-type", "pof2"), ("--asymmetric", "--zero-point-type", "float32"), ("--scale-type", "f"),
    ],
    ids="".join,
)  # fmt: skip
def test_no_message_names_arguments_of_python(model, tmp_path, monkeypatch, capsys, name, options):
    words = ["quantize", str(model), str(tmp_path / "out"), "--quiet", "--dtype", name, *options]
    monkeypatch.setattr(sys, "argv", ["numerics", *words])
    if cli.ended(lambda: cli.commands.main(words, standalone_mode=False)) == 0:
        return
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    unquoted = re.sub(r"\w+\([^()]*\)", "", said)
    assert not re.findall(r"(?<!-)\b\w+=|scale_|zero_point|symmetric=", unquoted), said
    assert "--" not in "".join(re.findall(r"\w\(([^()]*)\)", said)), said
    known = {option for parameter in cli.commands.commands["quantize"].params for option in parameter.opts}
    assert set(re.findall(r"--[\w-]+", said)) <= known


def test_blocks_have_a_size_of_their_own_is_said_in_one_sentence(model, tmp_path):
    words = ("quantize", model, tmp_path / "out", "--dtype", "mxfp4", "--scheme", "per_group")
    assert run(*words, code=2) == (
        "mxfp4: --scheme cannot be, since blocks have their own size (32): drop --scheme; "
        "--axis chooses the axis of the blocks"
    )


@pytest.mark.parametrize(
    ("said", "due"),
    [
        ("scheme=per_group(16, axis=-1) cannot be", "--scheme per_group(16, axis=-1) cannot be"),
        ("a tensor's axis= and axis 3", "a tensor's --axis and axis 3"),
        (
            "'axis=3' of my_axis=1, scale_rules, scale_rule",
            "'axis=3' of my_axis=1, scale_rules, --scale-rule",
        ),
        ("belongs to symmetric=False; scale=, seed=", "belongs to --asymmetric; scale=, --seed"),
        ("Made(int4, (2, 3), f(g(1), axis=1)) axis=2", "Made(int4, (2, 3), f(g(1), axis=1)) --axis 2"),
    ],
)
def test_only_whole_words_become_options(said, due):
    assert in_options(said, cli.commands, ["quantize", "m", "o"]) == due


@pytest.mark.parametrize(("words", "said"), [
    ("quantize m", "Missing argument 'OUT'. Usage: numerics quantize [OPTIONS] MODEL OUT; --help says more"),
    ("quantize m o --axis x", "'x' is not a valid integer. Usage: numerics quantize"),
    ("show fp4 --jsn", "No such option '--jsn'"), ("ipu nope", "Allowed: export, quantize, verify. Usage:"),
    ("encode fp4 1 --sed 3", "No such option '--sed'; did you mean '--seed'?"),
    ("vectors verify nowhere", "'nowhere': No such file or directory. Usage"),
    ("verify fp4 --resume .", "director"),
    ("verify fp4 --backend cuda --sample", "unknown backend 'cuda'; did you mean 'gpu'? allowed: cpu, array"),
    ("show :x", "is no module:name"), ("show ..:x", "is no module:name"), ("show sys:path", "it is ["),
    ("show mine:two", "mine has no format 'two'; it has one"),
    ("show mine:on", "did you mean 'one'? it has one"),
    ("show broken:one", "ValueError: I break"),
    ("show sys:nothing", "sys has no format 'nothing'; it has none"), ("formats x", "argument (x). Usage"),
    ("verify fp4 --overflow nonsaturate", "--overflow 'nonsaturate' cannot be"),
    ("vectors generate fp4 --count 3 --exhaustive", "--count 3 and --exhaustive; allowed: 1 or more, or --"),
    ("vectors generate mxfp4 --op quantize", "itself: judge it by --op 'encode' or 'round'"),
    ("vectors generate fp4 --op matmul", "`numerics conform --kind matmul` judges a product"),
    ("conform a:b --dtype fp4 --here --timeout 3", "--timeout 3 is not for --here"),
    ("explore nothing", "is no file that is there, and no format: unknown format 'nothing'"),
    ("explore fp4 --at 3", "--at 3 is of a checkpoint"), ("explore x --at 3,", "--at '3,' is no row"),
    ("explore fp4 --tensor x", "--tensor x is of a checkpoint"),
    ("explore fp4 --weights m", "--weights m belongs"),
    ("fingerprint a:b --shape 0,0,0", "m and n of 2 and more, k of 3 to 64"),
    ("ipu export int8 a.onnx --device stx", "--device belongs to --op 'requantize'"),
])  # fmt: skip
def test_wrong_usage_is_said_in_one_line(tmp_path, monkeypatch, capsys, words, said):
    """click says it in four, and what a module of formats lacked was None."""
    (tmp_path / "mine.py").write_text("import numerics as nx\none = nx.fp4\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise ValueError('I break')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "argv", ["numerics", *words.split()])
    code = cli.ended(lambda: cli.commands.main(words.split(), prog_name="numerics", standalone_mode=False))
    printed = capsys.readouterr()
    assert (code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert printed.err.startswith("numerics: ")
    assert said in printed.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("words", [
    "inspect x", "compare x x", "convert x o.safetensors", "dequantize x o.safetensors", "explore x",
    "explore x.npy", "explore x.json", "plot tensor x.npy o.png --dtype fp4", "plot model x.json o.png",
    "plot image x.png o.png --dtype fp4", "quantize model.safetensors o.safetensors --plan x.toml",
])  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_is_refused(model, tmp_path, monkeypatch, words):
    """Who opens one that nobody writes to waits for ever."""
    monkeypatch.chdir(tmp_path)
    for name in ("x", "x.npy", "x.json", "x.png", "x.toml"):
        os.mkfifo(name)
    assert "it is a pipe; a regular file is needed" in run(*words.split(), code=2)


@pytest.mark.parametrize(("rule", "due"), [
    ("layer.*=mine:one", "e4m2_mine"), ("layer.*=mine:one:per_channel(0)", "e4m2_mine per_channel(0)"),
    ("layer.*=int8:per_channel(0)", "int8 per_channel(0)"),
])  # fmt: skip
def test_a_rule_takes_a_format_of_ones_own(model, tmp_path, monkeypatch, rule, due):
    """--dtype alone took one, a rule of it did not."""
    made = "import numerics as nx\none = nx.float_format(4, 2, name='e4m2_mine')\n"
    (tmp_path / "mine.py").write_text(made, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    said = run("quantize", model, tmp_path / "o.safetensors", "--dtype", rule, "--dry-run")
    assert re.search(rf"layer.weight  +\S+  {re.escape(due)} +rule", said)
    for wrong in ("layer=", "=mxfp4", "layer=4"):
        assert "is no rule and no format" in run("quantize", model, "o", "--dtype", wrong, code=2)


def test_a_rule_takes_facts(model, tmp_path):
    """In a process of its own: the same facts are one format, by the name that came first."""
    rule = 'layer.*={"bits": 5}'
    done = python("quantize", model, tmp_path / "o.safetensors", "--dtype", rule, "--dry-run")
    assert re.search(r"layer.weight  +\S+  int5 +rule", done.stdout), done.stderr


def test_words_of_lists_are_taken_in_any_case(model, tmp_path):
    run("convert", model, tmp_path / "o.gguf", "--to", "GGUF", "--ggml", "q8_0")
    assert "int8 per_group" in run("inspect", tmp_path / "o.gguf")


def test_refusals_name_commands_and_options_not_pythons_functions(model, tmp_path):
    def said(*words):
        return in_options(run(*words, code=2), cli.commands, [str(word) for word in words])

    two, picture = tmp_path / "two.safetensors", tmp_path / "o.png"
    nx.save({"w": np.ones((4, 32), np.float32), "v": np.ones((4, 32), np.float32)}, two)
    asked = said("plot", "tensor", two, picture, "--dtype", "int4")
    assert "two.safetensors has 2 tensors: --tensor says which, such as" in asked
    assert "`numerics plot block` shows" in said("plot", "rounding", "mxfp4", picture)
    asked = said("plot", "block", two, picture, "--tensor", "w", "--dtype", "int4")
    assert "`numerics plot tensor` and `numerics plot rounding` show" in asked
    assert "give --to gguf" in said("convert", model, tmp_path / "o.gguf")
    asked = said("quantize", model, tmp_path / "o", "--dtype", "int4", "--rounding", "nearest")
    assert "to the nearest there are four" in asked


@pytest.mark.turns(6)
@pytest.mark.parametrize(("target", "words", "sample"), [
    ("numerics:fp4.encode", "--dtype fp4", True), ("numerics:fp4.decode", "--dtype fp4 --kind decode", False),
    ("numerics:mxfp4.encode", "--dtype mxfp4", False),
    ("numerics:fp4.encode", "--dtype fp4 --inputs bfloat16", False),
])  # fmt: skip
def test_a_kernel_that_is_right_on_a_sample_says_so(target, words, sample):
    """It was right on so many inputs, and nothing said that there are more."""
    ended = CliRunner().invoke(
        cli.commands, ["conform", target, *words.split(), "--here", "--effort", "quick"]
    )
    assert ended.exit_code == 0, ended.output
    assert "is right" in ended.stdout
    assert (
        "a sample of the 2^32 float32 inputs: exhaustive=True (--exhaustive) asks all" in ended.stdout
    ) is sample


# ---- examples, completion, formats of one's own -------------------------------------------------


def every_command(group=cli.commands, before=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, (*before, name))
        else:
            yield (*before, name), command


COMMANDS = dict(every_command())


def parsed(line):
    """Parses a line as the command line would, up to the command that is not run."""
    _, *rest = shlex.split(line.partition(" > ")[0])
    command = cli.commands
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    with command.make_context("numerics", rest) as context:
        return context.params


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_has_examples_that_the_command_takes(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("numerics.cli.words._of_module", lambda text: nx.fp4)  # whatever mypkg has
    (tmp_path / "answers.txt").touch()
    command, name = COMMANDS[words], " ".join(("numerics", *words))
    text = command.get_help(command.make_context("numerics", [], resilient_parsing=True))
    lines = re.findall(r"^ {4}(numerics .+)$", text.partition("Examples:")[2], re.M)
    assert lines
    for line in lines:
        assert f"{line} ".startswith(f"{name} ")
        parsed(line.split(" | ")[0])  # raises where the command would not take it
    told = text.partition("Options:")[0]
    assert not re.search(r"\S {3,}\S", told), "the help keeps the indents of its source"


@pytest.mark.parametrize("words", [("ipu", "export"), ("show",), ("encode",), ("formats",)], ids=" ".join)
def test_examples_that_need_no_file_of_the_reader_run(words, tmp_path, monkeypatch):
    """The example of `ipu export --op requantize` lacked --device: it was taken, and refused when it ran."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("numerics.cli.words._of_module", lambda text: nx.fp4)
    command = COMMANDS[words]
    text = command.get_help(command.make_context("numerics", [], resilient_parsing=True))
    for line in re.findall(r"^ {4}numerics (.+)$", text.partition("Examples:")[2], re.M):
        run(*shlex.split(line))


HOW = {
    "scales": ("scales", "x.npy"), "plot scales": ("plot", "scales", "x.npy", "a.png"),
    "plot tensor": ("plot", "tensor", "x.npy", "b.png"),
    "plot formats": ("plot", "formats", "x.npy", "c.png"),
    "plot image": ("plot", "image", "x.png", "d.png"), "explore": ("explore", "x.npy", "e.html"),
}  # fmt: skip
"""Commands that look at a tensor in a format, on a file of ours."""


@pytest.mark.turns(6)
@pytest.mark.parametrize("words", HOW)
def test_a_scheme_may_stand_behind_the_format_wherever_tensors_are_quantized(words, tmp_path, monkeypatch):
    """`numerics quantize` took `int4 per_group(32)`, `numerics scales` and all pictures did not."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    x = RNG.standard_normal((8, 64)).astype(np.float32)
    np.save("x.npy", x)
    pyplot.imsave("x.png", x)
    said = run(*HOW[words], "--dtype", "int4 per_group(32)")
    if words == "explore":
        said = (tmp_path / "e.html").read_text(encoding="utf-8")
    assert "int4 per_group(32, axis=-1)" in said or words == "plot tensor"
    if words == "scales":
        assert (
            said.splitlines()[:3] == run(*HOW[words], "--dtype", "int4", "--group-size", 32).splitlines()[:3]
        )


@pytest.mark.parametrize(("text", "option", "said"), [
    ("int4 per_group(32)", ("--group-size", 16), "'int4 per_group(32, axis=-1)' says scheme, which --g"),
    ("int4 per_group(32)", ("--scheme", "per_token"), "says scheme, which --scheme says too"),
    ("int4 symmetric=False", ("--asymmetric",), "says symmetric, which --asymmetric says too"),
    ("mxfp4 axis=0", ("--axis", 1), "says axis, which --axis says too"),
])  # fmt: skip
def test_what_stands_behind_the_format_is_not_said_again_by_an_option(tmp_path, text, option, said):
    np.save(tmp_path / "x.npy", np.ones((8, 64), np.float32))
    assert said in run("scales", tmp_path / "x.npy", "--dtype", text, *option, code=2)


@pytest.mark.parametrize(("line", "due"), [
    ("numerics show fp8_e", {"fp8_e4m3", "fp8_e5m2"}), ("numerics encode mxf", {"mxfp4", "mxfp6_e2m3"}),
    ("numerics quantize a b --dtype nv", {"nvfp4"}), ("numerics quantize a b --scale-rule r", {"rceil"}),
    ("numerics quantize a b --scheme per_c", {"per_channel"}), ("numerics verify fp8_e5", {"fp8_e5m2fnuz"}),
    ("numerics conform a:b --dtype x --rounding half_", {"half_up"}), ("numerics plot im", {"image"}),
])  # fmt: skip
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_formats_schemes_and_options(monkeypatch, capsys, line, due, shell):
    words = line.split()
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
    monkeypatch.setenv("_NUMERICS_COMPLETE", f"{shell}_complete")
    with pytest.raises(SystemExit):
        cli.commands.main([], prog_name="numerics")
    assert due <= set(re.findall(r"[\w-]+", capsys.readouterr().out))


FACTS = '{"exponent": 5, "mantissa": 3, "signed": false}'


@pytest.mark.parametrize(("text", "due"), [
    (FACTS, nx.float_format(5, 3, signed=False)), ('{"bits": 5}', nx.integer_format(5)),
    ('{"block": 64, "element": "int4"}', nx.block_format(block=64, element="int4")),
    ('{"block": 16, "element": {"exponent": 2, "mantissa": 2, "specials": "none"}}',
     nx.block_format(block=16, element=nx.float_format(2, 2, specials="none"))),
    ('{"block": 16, "mantissa": 3, "sub_block": 4}', nx.block_format(block=16, mantissa=3, sub_block=4)),
    ("mine:e5m3", nx.float_format(5, 3, signed=False, name="mine_e5m3")), ("E4M3", nx.fp8_e4m3),
])  # fmt: skip
def test_a_format_of_ones_own_is_given_by_its_module_or_its_facts(tmp_path, monkeypatch, text, due):
    made = "nx.float_format(5, 3, signed=False, name='mine_e5m3')"
    (tmp_path / "mine.py").write_text(f"import numerics as nx\ne5m3 = {made}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert format_of(text) is due


@pytest.mark.parametrize(("text", "said"), [
    ("numpy:pi", "numpy has no format 'pi'"), ("not_there_at_all:x", "No module named"),
    ('{"colour": 3}', "a float has exponent and mantissa"), ('{"bits": 99}', "2 to 16 bits"),
    ('{"bits": 5, "colour": 1}', "describes no format.*allowed: bits, signed"), ("{", "does not describe"),
    ('{"exponent_bits": 4, "mantissa_bits": 2}', "did you mean 'exponent'. did you mean 'mantissa'"),
    ("not_there_at_all.py:x", "a module is named without .py: not_there_at_all:x"),
])  # fmt: skip
def test_what_is_no_format_is_refused_with_the_facts_that_make_one(text, said):
    with pytest.raises(nx.NumericsError, match=said):
        format_of(text)


def test_quantize_takes_a_format_by_its_facts_and_dequantize_needs_no_declaration(tmp_path):
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    nx.save({"w": x}, tmp_path / "m.safetensors")
    files = [f"{tmp_path}/m.safetensors", f"{tmp_path}/q.safetensors"]
    cli.commands.main(["quantize", *files, "--dtype", '{"bits": 5}', "--quiet"], standalone_mode=False)
    found = nx.load(tmp_path / "q.safetensors")["w"]
    assert found.format is nx.integer_format(5)
    assert np.array_equal(found.dequantize(), nx.quantize(x, nx.integer_format(5)).dequantize())


def test_exit_codes_are_told_where_help_is_asked_for():
    text = cli.commands.get_help(cli.commands.make_context("numerics", [], resilient_parsing=True))
    for code in ("0;", "1 where", "2 after", "130", "141"):
        assert code in " ".join(text.split())


# ---- folders of shards ----------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path / "shards", tensors_of(1), 3)


def test_a_folder_is_said_before_it_is_done_and_after(shards, tmp_path):
    rules = ("--dtype", "nvfp4", "--dtype", "lm_head=none", "--dtype", "*down_proj=int4:per_group(32)")
    told = run("quantize", shards, tmp_path / "out", *rules)
    assert "rule '*down_proj'" in told
    assert "shares its tensor scale with k_proj, v_proj" in told
    assert "copied, rule 'lm_head': lm_head.weight" in told
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        [*(p.name for p in shards.iterdir()), "numerics_job.json"]
    )
    again = json.loads(run("quantize", shards, tmp_path / "out", *rules, "--json"))
    assert (again["total"]["shards"], again["total"]["resumed"]) == (3, 3)


def test_a_dry_run_writes_nothing_but_the_plan_that_does_the_same(shards, tmp_path):
    plan = tmp_path / "plan.toml"
    out = tmp_path / "out"
    said = run("quantize", shards, out, "--dtype", "mx6", "--dtype", "lm_head=int8", "--dry-run",
               "--save-plan", plan)  # fmt: skip
    assert "rule 'lm_head'" in said
    assert not out.exists()
    rows = json.loads(run("quantize", shards, out, "--dtype", "mx6", "--dry-run", "--json"))["rows"]
    assert {row["name"] for row in rows} == set(tensors_of(1))
    run("quantize", shards, out, "--plan", plan, "--quiet")
    run("quantize", shards, tmp_path / "same", "--dtype", "mx6", "--dtype", "lm_head=int8", "--quiet")
    first, second = (contents(folder) for folder in (out, tmp_path / "same"))
    assert {k: v for k, v in first.items() if k.endswith(".safetensors")} == {
        k: v for k, v in second.items() if k.endswith(".safetensors")
    }


def test_what_is_not_measured_has_no_figures(shards, tmp_path):
    said = json.loads(
        run("quantize", shards, tmp_path / "out", "--dtype", "mx6", "--errors", "none", "--json")
    )
    assert {tensor["sqnr"] for tensor in said["tensors"]} == {None}


@pytest.mark.turns
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dtype", "mx6", "--max-memory", "much"), "--max-memory 'much' is no size"),
        (("--dtype", "mx6", "--max-memory", "9"), "9 bytes are too few"),
        (("--dtype", "lm_head=int4", "--scheme", "per_tensor"), "--scheme belongs to the format of all"),
        (("--dtype", "lm_head=int4", "--axis", "0"), "--axis belongs to the format of all"),
        (("--dtype", "lm_head=int4", "--rounding", "floor"), "--rounding belongs to the format of all"),
        (("--dtype", "lm_head=mxfp4", "--scale-rule", "rceil"), "--scale-rule belongs to the format of all"),
        (
            ("--dtype", "lm_head=int4", "--zero-point-type", "float32"),
            "--zero-point-type belongs to the format",
        ),
        ((), "Missing option '--dtype'"),
        (("--dtype", "mx6", "--dtype", "nothing=int4"), "'nothing' matches no name"),
        (("--dtype", "mx6", "--plan", "missing.toml"), "No such file"),
    ],
)
def test_what_a_folder_cannot_be_asked(shards, tmp_path, words, said):
    found = python("quantize", shards, tmp_path / "out", *words)
    assert found.returncode == 2
    assert said in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("explore model.safetensors model.safetensors", "model.safetensors"),
        ("explore x.npy x.npy", "x.npy"),
        ("explore x.npy x.html", "x.npy"),  # a link to the input, under the name of a page
        ("explore report.json report.json", "report.json"),
        ("explore report.json x.html --weights x.npy", "x.npy"),
        ("explore x.npy model.safetensors", "model.safetensors"),
        ("explore fp4 MODEL.GGUF", "MODEL.GGUF"),
        ("plot image in.png in.png --dtype fp4", "in.png"),
        ("plot tensor x.npy x.npy --dtype fp4", "x.npy"),
        ("plot model report.json report.json", "report.json"),
        ("ipu export mxfp4 model.safetensors", "model.safetensors"),
        ("ipu quantize net.onnx net.onnx", "net.onnx"),
        ("ipu quantize net.onnx MODEL.GGUF", "MODEL.GGUF"),
        ("quantize model.safetensors report.json --dtype mxfp4", "report.json"),
        ("quantize model.safetensors o.safetensors --dtype mxfp4 --save-plan report.json", "report.json"),
        ("quantize model.safetensors model.safetensors --dtype mxfp4 --dry-run", "model.safetensors"),
        ("convert model.safetensors x.npy", "x.npy"),
        ("dequantize model.safetensors report.json", "report.json"),
    ],
)  # fmt: skip
def test_no_command_writes_over_its_input_or_over_another_kind_of_file(
    model, tmp_path, monkeypatch, words, kept
):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((2, 32), np.float32))
    os.symlink("x.npy", "x.html")
    for name in ("report.json", "MODEL.GGUF", "in.png", "net.onnx"):
        (tmp_path / name).write_bytes(b'{"layers": []}')
    before = (tmp_path / kept).read_bytes()
    assert "the output " in run(*words.split(), code=2) or "which a plan would replace" in run(
        *words.split(), code=2
    )
    assert (tmp_path / kept).read_bytes() == before


def test_a_plan_is_written_over_a_plan(model, tmp_path):
    for dtype in ("mxfp4", "mxfp6_e2m3"):
        run(
            "quantize",
            model,
            tmp_path / "o.safetensors",
            "--dtype",
            dtype,
            "--save-plan",
            tmp_path / "p.json",
        )
        assert dtype in (tmp_path / "p.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("held", [b"", b"\x93NUM", b"PK\x03\x04", b"PK\x03\x04" + b"\0" * 60, b"numbers"])
@pytest.mark.parametrize(
    "words", ["explore", "plot tensor --dtype fp4", "plot block --dtype mxfp4", "plot formats"]
)
def test_a_file_that_is_no_array_is_refused_in_a_line(tmp_path, held, words):
    """An empty one ended as Ctrl-C does, without a word."""
    (tmp_path / "x.npy").write_bytes(held)
    command, *options = words.split(" --")
    files = tmp_path / "x.npy", tmp_path / f"o.{'html' if command == 'explore' else 'png'}"
    words = (word for option in options for word in f"--{option}".split())
    said = run(*command.split(), *files, *words, code=2)
    assert "pickle" not in said
    assert "x.npy is not a .npy file of numbers" in said


@pytest.mark.parametrize(
    ("words", "name"),
    [("E4M3", "fp8_e4m3"), ('{"bits": 5}', "int5"), ("mine:odd", "a_b_c"), ("mine:far", "format"),
     ("mine:long", "x_" * 15 + "_x" * 15)],
)  # fmt: skip
def test_a_page_of_a_format_is_named_by_the_format(tmp_path, monkeypatch, words, name):
    """It had the name of what was asked: `{"bits": 5}.html`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import numerics as nx\nodd, far, long = (nx.float_format(2, 2, name=n) "
        "for n in ('a/b \"c\"', '../..', 'x/' * 50))\n",
        encoding="utf-8",
    )
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    run("explore", words)
    (page,) = tmp_path.glob("*.html")
    assert page.stem == name


def test_a_page_says_which_tensors_are_not_on_it(model, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(load_file(model) | {f"ids{k}": np.arange(4) for k in range(7)}, path)
    said = run("explore", path, tmp_path / "o.html").splitlines()
    assert said[1:] == ["not on it, no floats: ids0, ids1, ids2, ids3, ids4 and 2 more"]


def test_what_is_quantized_is_plotted_as_it_is_stored(model, tmp_path):
    pytest.importorskip("matplotlib")
    run("quantize", model, tmp_path / "q.safetensors", "--dtype", "mxfp4")
    arguments = "plot", "tensor", tmp_path / "q.safetensors", tmp_path / "o.png", "--tensor", "layer.weight"
    assert "stored in mxfp4: " in run(*arguments)
    assert "a tensor of floats is drawn in a format" in run(*arguments[:2], model, *arguments[3:], code=2)


def test_a_warning_is_a_line_without_the_places_of_our_files(capsys, monkeypatch):
    monkeypatch.setattr(cli.commands, "main", lambda **_: warnings.warn("two\nlines", stacklevel=2))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            cli.run()
    assert capsys.readouterr().err == "numerics: warning: two lines\n"


def test_an_end_of_a_file_is_no_ctrl_c(capsys):
    def work():
        raise cli.click.Abort from EOFError("no data left in file")

    assert cli.ended(work) == 2
    assert "no data left in file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("decode fp4", "`numerics show FORMAT` has the value of every code"),
        ("help", "`numerics --help` and `numerics COMMAND --help`"),
        ("plot help", "`numerics plot --help`"),
        ("list", "`numerics formats`"),
    ],
)
def test_a_command_that_there_is_not_names_the_one_that_does_it(asked, told):
    done = python(*asked.split())
    assert done.returncode == 2
    assert told in done.stderr
    assert "Did you mean" not in done.stderr


def test_commands_that_there_are_not_name_those_that_there_are():
    assert not WANTED.keys() & cli.commands.commands.keys()
    named = {name for way in WANTED.values() for name in re.findall(r"`numerics (\w+)", way)}
    assert named <= cli.commands.commands.keys()


def test_show_of_a_block_says_where_the_values_of_its_codes_are():
    for d in (d for d in nx.dtypes() if isinstance(d, ElementBlock)):
        told = run("show", d.name).splitlines()[-1]
        assert f"`numerics show {d.element}`" in told
        assert all(format_of(name) for name in re.findall(r"`numerics show (\w+)`", told))
    assert "`numerics show" not in run("show", "mx6")


def test_show_of_a_block_lists_the_codes_of_an_element_that_no_name_finds():
    facts = {"element": {"exponent": 2, "mantissa": 2, "name": "e2m2own"}, "scale": "e8m0", "block": 16}
    told = run("show", json.dumps(facts))
    assert "the codes of its e2m2own:" in told
    assert re.search(r"^0x08 +2 +2\.5 +3 +3\.5 ", told, re.MULTILINE)
    assert "`numerics show e8m0`" in told


def test_show_leaves_out_facts_that_say_nothing():
    for d in nx.dtypes():
        records = run("show", d.name).partition("\n\n")[0].splitlines()
        assert all(len(line.split(None, 1)) == 2 for line in records)


@pytest.mark.parametrize("d", [d for d in nx.dtypes() if d.kind == "block"], ids=str)
def test_encode_shows_what_lies_beside_the_elements_of_a_block(d):
    x = (RNG.standard_normal(40) * 4).astype(np.float32).tolist()
    for block in json.loads(run("encode", d, "--json", "--", *map(str, x)))["blocks"]:
        for one in block["elements"]:
            beside = [value for value in (one["below"], one["above"]) if value is not None]
            assert one["value"] in beside
            assert one["below"] is None or one["below"] <= one["x"]
            assert one["above"] is None or one["x"] <= one["above"]
            nearest = min(abs(Fraction(one["x"]) - Fraction(value)) for value in beside)
            assert abs(Fraction(one["x"]) - Fraction(one["value"])) == nearest
            assert not one["tie"] or 2 * Fraction(one["x"]) == sum(map(Fraction, beside))


@pytest.mark.parametrize("text", ["1e400", "-1e400", "0x1p5000"])
def test_a_number_beyond_float64_was_read_as_inf(text):
    assert "is beyond float64" in run("encode", "fp8_e4m3", "--", text, code=2)
    assert "inf" in run("encode", "fp8_e4m3", "inf")


def test_files_of_other_kinds_are_told_by_what_takes_them(tmp_path):
    picture, report, out = tmp_path / "a.png", tmp_path / "r.json", tmp_path / "o.gguf"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    report.write_text(json.dumps({"output": 1.0, "layers": []}), encoding="utf-8")
    assert "a picture; `numerics plot image`" in run("inspect", picture, code=2)
    assert "a model's report; `numerics explore`" in run("inspect", report, code=2)
    assert "but bytes that are no text" in run("plot", "model", picture, tmp_path / "p.png", code=2)
    nx.save({"w": np.ones((2, 32), np.float32)}, tmp_path / "m.safetensors")
    assert "give --to gguf, or another name" in run("convert", tmp_path / "m.safetensors", out, code=2)
    assert f"give {tmp_path / 'o'}.gguf" in run(
        "convert", tmp_path / "m.safetensors", tmp_path / "o", "--to", "gguf", code=2
    )


def test_a_picture_says_whose_tensor_it_is_and_how_it_was_quantized(model, tmp_path):
    pytest.importorskip("matplotlib")
    for command in ("tensor", "block", "scales", "formats"):
        how = () if command == "formats" else ("--dtype", "mxfp4")
        said = run("plot", command, model, tmp_path / "p.svg", "--tensor", "layer.weight", *how)
        assert said.startswith(f"{tmp_path / 'p.svg'}: layer.weight: ")
    said = run(
        "plot",
        "tensor",
        model,
        tmp_path / "p.svg",
        "--tensor",
        "layer.weight",
        "--dtype",
        "int4 per_group(32)",
    )
    assert "layer.weight: A tensor of shape 8x256 in int4 per_group(32): " in said


@pytest.mark.parametrize(
    "words",
    [
        "quantize LOST out.txt --dtype mxfp4",
        "dequantize LOST out.txt",
        "convert LOST out.txt",
        "convert LOST out.gguf",
        "convert LOST out.safetensors --to gguf",
        "convert LOST out.safetensors --ggml Q8_0",
        "inspect LOST",
        "compare LOST other.safetensors",
        "explore LOST out.txt --at 17",
        "explore LOST.json out.html --weights LOST",
        "scales LOST.npy --dtype int4",
        "scales LOST --dtype nvfp4",
        "plot tensor LOST out.txt --dtype mx6",
        "plot block LOST.npy out.txt --dtype nvfp4",
        "plot image LOST.png out.txt --dtype fp4",
        "plot formats LOST.npy out.txt",
        "plot scales LOST.npy out.txt --dtype nvfp4",
        "plot model LOST.json out.txt",
        "ipu quantize LOST.onnx out.txt",
    ],
)
def test_an_input_that_is_not_there_is_told_before_the_name_of_the_output(tmp_path, monkeypatch, words):
    """Whoever misspelled the input mended the output's name first, and was told of the input then."""
    monkeypatch.chdir(tmp_path)
    said = run(*words.replace("LOST", "lost.safetensors").split(), code=2)
    assert re.match(r"cannot read lost\.safetensors\S*: No such file or directory", said), said


def two_layers(path):
    w = RNG.standard_normal((8, 256)).astype(np.float32)
    save_file({"a.weight": w, "lm_head.weight": w}, path)
    return path


STOCHASTIC = "lm_head={'dtype':'mxfp4','rounding':'stochastic'}".replace("'", '"')


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        (("--dtype", "mxfp4", "--rounding", "stochastic", "--dtype", "lm_head=mxfp6_e2m3"), "a"),
        (("--dtype", "mxfp4", "--dtype", STOCHASTIC), "lm_head"),
        (("--dtype", "mxfp4", "--dtype", "lm_head=mxfp4 rounding=stochastic"), "lm_head"),
        (("--dtype", STOCHASTIC), "lm_head"),
    ],
)
def test_a_seed_and_rules_led_from_one_error_to_the_other(asked, drawn, tmp_path):
    """--seed belongs to whatever is rounded at random, be it by a rule or by a saved plan."""
    model, out, plan = two_layers(tmp_path / "m.safetensors"), tmp_path / "q.safetensors", tmp_path / "p.toml"
    run("quantize", model, out, *asked, "--seed", 3, "--save-plan", plan)
    found, x = nx.load(out), nx.load(model)["a.weight"]
    expected = nx.quantize(x, "mxfp4", rounding="stochastic", seed=3)
    assert found[f"{drawn}.weight"].codes.tobytes() == expected.codes.tobytes()
    assert "--rounding stochastic draws at random" in run("quantize", model, out, *asked, code=2)
    run("quantize", model, tmp_path / "again.safetensors", "--plan", plan, "--seed", 3)
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()
    told = run("quantize", model, out, "--dtype", "mxfp4", "--dtype", "lm_head=int4", "--seed", 3, code=2)
    assert told == "--seed belongs to --rounding stochastic, not to half_even"


def test_a_format_of_all_that_a_plan_leaves_nothing_for_had_no_effect(tmp_path):
    model, plan = two_layers(tmp_path / "m.safetensors"), tmp_path / "p.toml"
    run("quantize", model, tmp_path / "q.safetensors", "--dtype", "mxfp4", "--dry-run", "--save-plan", plan)
    told = run("quantize", model, tmp_path / "q.safetensors", "--plan", plan, "--dtype", "int8", code=2)
    assert "int8 is the format of all that nothing else speaks of" in told
    assert "since the plan speaks of every one" in told
    told = run("quantize", model, tmp_path / "q", "--plan", plan, "--scale-rule", "rceil", code=2)
    assert "--scale-rule belongs to the format of all" in told


def ended_line(capsys, monkeypatch, *arguments):
    """What is said on stderr of a command that ends with an error."""
    monkeypatch.setattr(sys, "argv", ["numerics", *map(str, arguments)])
    assert cli.ended(lambda: cli.commands.main(sys.argv[1:], standalone_mode=False)) == 2
    return capsys.readouterr().err


def test_the_names_of_a_specs_text_were_told_as_options(tmp_path, capsys, monkeypatch):
    model, out = two_layers(tmp_path / "m.safetensors"), tmp_path / "q.safetensors"
    for rule in ('lm_head={"dtype":"int4","shceme":"per_tensor"}', "lm_head=int4 scale_rule=rceil"):
        said = ended_line(capsys, monkeypatch, "quantize", model, out, "--dtype", rule)
        assert "scale_rule" in said
        assert "--" not in said
    said = ended_line(capsys, monkeypatch, "quantize", model, out, "--dtype", "int4", "--scale-rule", "rceil")
    assert "--observer has scales of the least error" in said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ('{dtyp = "mxfp4"}', "it says no dtype; did you mean 'dtype'?"),
        ('"{}"', "it says no dtype"),
        ("3", "spec=3; allowed: the text of a QuantSpec"),
        ('"mxfp"', "unknown format 'mxfp'"),
    ],
)
def test_a_plan_that_was_edited_said_what_python_says(spec, said, tmp_path):
    model, plan = two_layers(tmp_path / "m.safetensors"), tmp_path / "p.toml"
    words = ("quantize", model, tmp_path / "q.safetensors")
    run(*words, "--dtype", "lm_head=mxfp4", "--dry-run", "--save-plan", plan)
    text = plan.read_text(encoding="utf-8")
    plan.write_text(re.sub(r"spec = .*", f"spec = {spec}", text), encoding="utf-8")
    assert said in run(*words, "--plan", plan, code=2)
    plan.write_text(re.sub(r"spec = .*", 'spec = "int4 per_group(32)"', text), encoding="utf-8")
    run(*words, "--plan", plan)
    assert nx.load(tmp_path / "q.safetensors")["lm_head.weight"].spec == nx.QuantSpec(
        "int4", scheme="per_group(32)"
    )
