"""`kubectl localmodel ui`: a page on loopback with the matrix of nodes and models.

`command.py` is the command, `server.py` answers the browser, `feed.py` has the messages that all
browsers get, and `wire.py` makes these messages of snapshots, without I/O. `page/` is the page.
"""
