"""The base type: when its validators are built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parent.parent.parent.parent


def test_a_type_is_built_when_it_is_used_or_all_are_asked_for() -> None:
    code = (
        "from crds.base import Condition, JsonObject, build_all\n"
        "from crds.node import LocalModel, LocalModelNode\n"
        "def built(one):\n"
        "    return one.__pydantic_complete__\n"
        "assert not built(Condition) and not built(LocalModelNode)\n"
        "try:\n"
        "    Condition.model_validate({'type': 1})\n"
        "except ValueError as error:\n"
        "    print(error.error_count(), 'errors')\n"
        "assert built(Condition) and not built(LocalModelNode)\n"
        "build_all()\n"
        "assert built(LocalModel) and built(LocalModelNode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "5 errors\n"
