"""`kubectl localmodel ui`: a page on loopback with the matrix of nodes and models.

`command.py` is the command, and `running.py` puts its parts together: `watching.py` fills
`feed.py`, which has the messages that all browsers get, `server.py` answers the browsers, and
`explaining.py` says why a cell is as it is. `wire.py` makes the messages of snapshots, and
`facts.py` the text of the panel; both do no I/O. `page/` is the page.
"""
