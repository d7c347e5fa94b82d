"""`make bench-control`: how long a change of the plan takes, and what it costs."""
