"""A camera for measuring: JPEGs over HTTP at fixed times: `python -m bench.serve.camera PORT FPS SECONDS PICTURE...`.

It serves one viewer, and then prints when each frame was sent, as JSON: seconds since 1970.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path


def main(port: int, fps: float, seconds: float, pictures: list[str]) -> None:
    """Wait for the viewer, then send."""
    parts = []
    for path in pictures:
        jpeg = Path(path).read_bytes()
        parts.append(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
    with socket.create_server(("127.0.0.1", port)) as listener:
        print("ready", flush=True)
        link, _ = listener.accept()
    sent: list[float] = []
    with link, suppress(OSError):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.recv(4096)
        head = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
        link.sendall(head)
        began = time.monotonic()
        while (number := len(sent)) < fps * seconds:
            time.sleep(max(0.0, began + number / fps - time.monotonic()))
            sent.append(time.time())
            link.sendall(parts[number % len(parts)])
        time.sleep(2.0)  # the viewer would come again at once
    print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
