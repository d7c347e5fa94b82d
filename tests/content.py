"""Content of model files for tests."""

from __future__ import annotations

import os


def weights(size: int) -> bytes:
    """Random bytes, the first of which is that of no page and no message.

    An HTTP source requests more of a file that may be a page, so a test that counts requests would
    fail for one in thirty files of bytes that are random throughout.
    """
    return (b"w" + os.urandom(size))[:size]
