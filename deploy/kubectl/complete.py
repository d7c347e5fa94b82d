"""The program `kubectl_complete-localmodel`: kubectl calls it to complete arguments.

kubectl passes the words after `kubectl localmodel`, the last of which is to be completed, and
expects one candidate in a line, with a description after a tab, and `:` and a directive at the end.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem, ShellComplete

from deploy.kubectl.main import NAME, plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

# Cobra's directive: the shell must not complete file names.
_NO_FILES = 4
_DEFAULT = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the candidates for the last of the words."""
    words = list(sys.argv[1:] if arguments is None else arguments) or [""]
    found = candidates(words[:-1], words[-1])
    files = any(one.type in {"file", "dir"} for one in found)
    for one in found:
        if one.type == "plain":
            sys.stdout.write(f"{one.value}\t{one.help}\n" if one.help else f"{one.value}\n")
    sys.stdout.write(f":{_DEFAULT if files else _NO_FILES}\n")


def candidates(before: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """What may follow the words before."""
    complete = ShellComplete(plugin, {}, NAME, "_KUBECTL_LOCALMODEL_COMPLETE")
    return complete.get_completions(list(before), incomplete)


if __name__ == "__main__":
    main()
