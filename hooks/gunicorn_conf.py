"""How gunicorn serves the hooks, in the image and in the local cluster alike."""

bind = "0.0.0.0:8080"
# Metrics and caches of one process; the work is short and in Python.
workers = 1
worker_class = "gthread"
threads = 8
# Metacontroller keeps idle connections for 90 s, and fails a sync on one that was closed.
keepalive = 120
# Metacontroller gives a hook 10 s unless told otherwise.
graceful_timeout = 10
# Neither needs a writable home or disk.
control_socket_disable = True
worker_tmp_dir = "/dev/shm"  # noqa: S108 - memory, where gunicorn keeps a heartbeat
