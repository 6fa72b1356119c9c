"""`numerics` and `python -m numerics`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line; says what to install where it is missing."""
    try:
        from numerics.cli import run
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        sys.exit(f"the command line needs {missing.name}: pip install numerics-formats[cli]")
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
