"""Keeps a library from importing others that it can do without, and that are slow to import.

`hidden` is for those that the library tries to import, `stand_in` for those that it imports always
and uses in functions that nobody here calls.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
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


class _StandIn(ModuleType):
    """Imports the module itself when one of its attributes is asked for."""

    def __getattr__(self, attribute: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), attribute)


@contextmanager
def stand_in(name: str) -> Iterator[None]:
    """Inside, an import of this module gives a stand-in, which imports it when it is first used.

    Afterwards an import gives the module itself. One that is imported already stays. No other
    thread may import it meanwhile.
    """
    if name in sys.modules:
        yield
        return
    placed = sys.modules[name] = _StandIn(name)
    try:
        yield
    finally:
        if sys.modules.get(name) is placed:
            del sys.modules[name]
