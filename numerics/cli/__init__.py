"""The command line: click says what can be asked, view/ draws the answers; nothing is computed here."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click

from numerics._version import __version__
from numerics.cli.checkpoints import compare_command, convert_command, inspect_command
from numerics.cli.conform import conform_command, fingerprint_command
from numerics.cli.explore import explore_command
from numerics.cli.files import dequantize_command
from numerics.cli.formats import encode_command, formats_command, show_command
from numerics.cli.ipu import ipu_group
from numerics.cli.jobs import quantize_command
from numerics.cli.machine import doctor_command, warmup_command
from numerics.cli.plot import plot_group
from numerics.cli.scales import scales_command
from numerics.cli.vectors import vectors_group
from numerics.cli.verify import verify_command
from numerics.cli.words import OfText, examples, in_options, say_usage, with_help
from numerics.formats.errors import NumericsError
from numerics.view import screen

INTERRUPTED = 130  # as a shell says of what Ctrl-C ended
UNREAD = 141  # as it says of what wrote to a pipe that nobody reads
DEBUG = "NUMERICS_DEBUG"
EXIT_CODES = f"""Exit codes: 0; 1 where compare, conform, verify, vectors verify or ipu verify found
something, and after a fault of our own; 2 after one line on stderr about what was asked, or could not
be written; {INTERRUPTED} after Ctrl-C; {UNREAD} where nobody read the answer."""


@click.group(
    help="Low-precision number formats, bit-exact."
    + examples(
        "numerics quantize model.safetensors out.safetensors --dtype mxfp4",
        "numerics explore out.safetensors",
        "numerics show fp8_e4m3",
    ),
    epilog=EXIT_CODES,
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False,
              callback=lambda context, option, asked: _say_version(context) if asked else None,
              help="Show the version and exit.")  # fmt: skip
def commands() -> None: ...


def _say_version(context: click.Context) -> None:
    screen.deliver(f"numerics, version {__version__}\n")
    context.exit()


for _command in (
    quantize_command, dequantize_command, convert_command, inspect_command, compare_command,
    formats_command, show_command, encode_command, doctor_command, plot_group, explore_command,
    scales_command, warmup_command, ipu_group, conform_command, fingerprint_command,
    vectors_group, verify_command,
):  # fmt: skip
    commands.add_command(_command)
with_help(commands)


def run() -> None:
    """The command line; EXIT_CODES says how it ends."""
    screen.prepare()
    warnings.showwarning = _say_warning
    sys.exit(ended(lambda: commands.main(prog_name="numerics", standalone_mode=False)))


def ended(work: Callable[[], Any]) -> int:
    """The exit code of the work, after one line on stderr where it failed."""
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except click.ClickException as wrong:
        say_usage(wrong)
        return wrong.exit_code
    except (click.Abort, KeyboardInterrupt) as stopped:
        if isinstance(stopped.__cause__, EOFError):  # which click takes for Ctrl-D
            screen.say_error(f"a file ends too early: {stopped.__cause__}")
            return 2
        _say_notes(stopped.__cause__ or stopped)
        return INTERRUPTED
    except SystemExit as stopped:  # by a signal
        _say_notes(stopped)
        raise
    except NumericsError as wrong:
        text = str(wrong) if isinstance(wrong, OfText) else in_options(str(wrong), commands, sys.argv[1:])
        screen.say_error(text)
        _say_notes(wrong)
        return 2
    except screen.Undelivered as lost:
        return _lost(lost)
    except (OSError, MemoryError) as refused:
        screen.abandon(sys.stdout)
        screen.say_error(_refusal(refused))
        return 2
    except Exception as fault:
        if os.environ.get(DEBUG):
            raise
        screen.say_error(f"{type(fault).__name__}: {fault}; a fault of numerics: {DEBUG}=1 shows where")
        return 1


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """What Python and libraries warn of, in a line, without the places in our files that they name."""
    screen.say_error(f"warning: {message}")


def _say_notes(wrong: BaseException) -> None:
    """What was noted on an error: how far a job is that goes on."""
    for note in getattr(wrong, "__notes__", ()):
        screen.say_beside(note)


def _lost(lost: screen.Undelivered) -> int:
    if lost.done or not lost.broken_pipe:
        screen.say_error(str(lost))
    return UNREAD if lost.broken_pipe else 2


def _refusal(refused: OSError | MemoryError) -> str:
    """What the system refused."""
    if isinstance(refused, MemoryError):
        return f"not enough memory{f': {refused}' if str(refused) else ''}"
    place = f": {refused.filename}" if refused.filename else ""
    more = "; raise the limit (ulimit -n)" if refused.errno in (errno.EMFILE, errno.ENFILE) else ""
    return f"{refused.strerror or refused}{place}{more}"
