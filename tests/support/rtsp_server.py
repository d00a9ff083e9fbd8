"""An RTSP server for tests, run by the system's Python, which has Debian's GStreamer: `rtsp_server.py SETTINGS`.

SETTINGS is JSON: port, width, height, fps, key_every (frames), frames (a file of raw RGB pictures, shown again and
again, each with the stamp of `support.stamp` in its first rows), user, password, digest, certificate, key. It says
`ready` when it listens.
"""

from __future__ import annotations

import binascii
import json
import mmap
import sys
import time
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

BITS, ROWS = 96, 16


def stamp_row(width: int, number: int, clock_ms: int) -> bytes:
    """One row of pixels that says number and time; see `support.stamp`."""
    data = (number & 0xFFFFFFFF).to_bytes(4, "big") + clock_ms.to_bytes(6, "big")
    bits = int.from_bytes(data + binascii.crc_hqx(data, 0).to_bytes(2, "big"), "big")
    edges = [i * width // BITS for i in range(BITS + 1)]
    return b"".join(
        (b"\xf0\xf0\xf0" if bits >> (BITS - 1 - i) & 1 else b"\x10\x10\x10") * (edges[i + 1] - edges[i])
        for i in range(BITS)
    )


class Camera:
    """Feeds each pipeline that the server makes, at the pace of a camera."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.row_bytes = settings["width"] * 3
        self.size = self.row_bytes * settings["height"]
        with open(settings["frames"], "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.count = len(self.data) // self.size

    def configure(self, _factory: Any, media: Any) -> None:
        source = media.get_element().get_by_name("camera")
        ended: list[bool] = []
        media.connect("unprepared", lambda _media: ended.append(True))
        number, began = 0, time.monotonic()

        def push() -> bool:
            nonlocal number
            if ended:
                return False
            if time.monotonic() - began >= number / self.settings["fps"]:
                source.emit("push-buffer", Gst.Buffer.new_wrapped(self.picture(number)))
                number += 1
            return True

        GLib.timeout_add(max(1, 250 // self.settings["fps"]), push)

    def picture(self, number: int) -> bytes:
        start = number % self.count * self.size
        row = stamp_row(self.settings["width"], number, int(time.time() * 1000))
        return row * ROWS + self.data[start + ROWS * self.row_bytes : start + self.size]


def protect(server: Any, factory: Any, settings: dict[str, Any]) -> None:
    auth = GstRtspServer.RTSPAuth()
    if settings.get("certificate"):
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(settings["certificate"], settings["key"]))
    if settings.get("user"):
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        if settings.get("digest"):
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(settings["user"], settings["password"], token)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(settings["user"], settings["password"]), token)
        permissions = GstRtspServer.RTSPPermissions()
        for permission in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("viewer", permission, True)
        factory.set_permissions(permissions)
    else:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "anonymous")
        auth.set_default_token(token)
        permissions = GstRtspServer.RTSPPermissions()
        for permission in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("anonymous", permission, True)
        factory.set_permissions(permissions)
    server.set_auth(auth)


def main() -> None:
    settings = json.loads(sys.argv[1])
    Gst.init(None)
    camera = Camera(settings)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( appsrc name=camera is-live=true do-timestamp=true format=time "
        f"caps=video/x-raw,format=RGB,width={settings['width']},height={settings['height']},"
        f"framerate={settings['fps']}/1 ! videoconvert ! video/x-raw,format=I420 "
        f"! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 threads=1 key-int-max={settings['key_every']} "
        "! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)
    factory.connect("media-configure", camera.configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(settings["port"]))
    server.get_mount_points().add_factory("/camera", factory)
    protect(server, factory, settings)
    if not server.attach(None):
        sys.exit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
