#!/usr/bin/env bash
# smart_open 9.0.2 with requests 2.34.2 (PyPI), seen with CPython 3.11 on Linux.
#
# smart_open.open reads http:// and https:// with requests, and checks an answer by raise_for_status,
# which objects to 400 and above. The body of any other answer is the content of the file, also where
# the status says that the file is not in it.
#
# Seen:
#   200 OK: b'weights'
#   202 Accepted: b'queued'
#   204 No Content: b''
#   300 Multiple Choices: b'a, b'
#   404 Not Found: HTTPError
#
# So a program that stores what it reads has an empty file after a 204, and a server's remark after a 202,
# with no error. Fails if that changes.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check smart_open==9.0.2 requests==2.34.2

"$work/env/bin/python" > "$work/seen" <<'PYTHON'
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

import smart_open

BODIES = {200: b"weights", 202: b"queued", 204: b"", 300: b"a, b", 404: b"none"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status = int(self.path[1:])
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(BODIES[status])))
        self.end_headers()
        self.wfile.write(BODIES[status])

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for status in BODIES:
    try:
        with smart_open.open(f"http://127.0.0.1:{server.server_port}/{status}", "rb") as file:
            found = repr(file.read())
    except Exception as error:
        found = type(error).__name__
    print(f"{status} {HTTPStatus(status).phrase}: {found}")
server.shutdown()
PYTHON

sed -n '/^# Seen:/,/^#$/s/^#   //p' "$0" > "$work/expected"
if diff "$work/expected" "$work/seen"; then
  echo "as it was seen"
else
  echo "changed: smart_open no longer does what is written above" >&2
  exit 1
fi
