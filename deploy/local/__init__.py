"""A whole cluster on loopback, for the demo, the tests, and for anybody who wants to try it."""
