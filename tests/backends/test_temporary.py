"""Folders that end with their process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.children import LIMIT

MADE = """
import os, sys
from pathlib import Path
from numerics.backends.temporary import temporary_folder, within
if sys.argv[1]:
    within(Path(sys.argv[1]))
print(temporary_folder("numerics-"), flush=True)
if sys.argv[1]:
    os._exit(1)
"""


@pytest.mark.parametrize("inside", [False, True])
def test_a_temporary_folder_outlived_its_process(inside, tmp_path):
    command = [sys.executable, "-c", MADE, str(tmp_path) if inside else ""]
    found = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False).stdout.strip()
    assert os.path.exists(found) == inside  # where it is killed, the folder around it goes
    assert inside == (os.path.dirname(found) == str(tmp_path))
