"""The README as package indexes show it, where no file of the repository lies beside it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def given_out(text: str, source: str | None) -> str:
    """The page with links to the repository's files made absolute; where it has no address, without them.

    source: the repository's address, `Source` of [project.urls] in pyproject.toml.
    """

    def absolute(found: re.Match[str]) -> str:
        picture, label, path = found.groups()
        if source is None:
            return "" if picture else label
        kind = "raw" if picture else "blob"
        return f"{picture}[{label}]({source.rstrip('/')}/{kind}/main/{path})"

    parts = FENCED.split(text)  # code stands at the odd places
    return "".join(part if k % 2 else LINK.sub(absolute, part) for k, part in enumerate(parts))


if __name__ == "__main__":
    facts = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(
        long_description=given_out(
            (HERE / "README.md").read_text(encoding="utf-8"), facts.get("urls", {}).get("Source")
        ),
        long_description_content_type="text/markdown",
    )
