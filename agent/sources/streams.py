"""smart_open, with the transports that the sources use: HTTP, local files, Hadoop's program.

smart_open imports the SDK of each store that it knows and that is installed, which takes seconds
and most of the agent's memory, and leaves out a transport that cannot be imported. So those that
the sources do not use are hidden from its import. asyncio, which a library of it imports for
functions that smart_open does not call, has a stand-in. Import smart_open from here alone: Python
runs this module once, and other threads wait until it has run.
"""

from __future__ import annotations

from agent.structs.hidden_modules import hidden, stand_in

with (
    hidden(
        "smart_open.azure",
        "smart_open.ftp",
        "smart_open.gcs",
        "smart_open.s3",
        "smart_open.ssh",
        "smart_open.webhdfs",
    ),
    stand_in("asyncio"),
):
    import smart_open
    from smart_open import hdfs, http

open_file = smart_open.open

__all__ = ["hdfs", "http", "open_file"]
