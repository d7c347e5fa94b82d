"""`kubectl localmodel ui`: a page on loopback with the matrix of nodes and models.

`command.py` is the command, `server.py` answers browsers, `feed.py` has the messages that all
browsers get, and `watching.py` fills it. `explaining.py` answers why a cell is as it is. `wire.py`
makes the messages of snapshots, and `facts.py` the text of the panel; both do no I/O. `page/` is
the page.
"""
