"""Keeps a library from importing others that it can do without, and that are slow to import."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Inside, an import of these modules raises ImportError; afterwards it works.

    A module that is imported already stays visible. No other thread may import one of them
    meanwhile.
    """
    modules: dict[str, Any] = sys.modules
    absent = [name for name in names if name not in modules]
    # Python's own way to say that a module cannot be imported.
    modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del modules[name]
