"""The streams as the service shows them: configured, kept, told to the models' processes, and fanned out to viewers.

`registry` holds the streams, `stream` what is known of one, `feed` what viewers read from, `viewing` how it is sent to
them, `routes` and `sockets` the addresses. What happens in a stream is told in these JSON objects, as server-sent
events (the name and the data) and as messages of the WebSocket:

    {"event": "frame", "stream", "counts", "lag_ms", "crossings", "record": {...}}    a frame was looked at
    {"event": "state", "stream", "state", "reason", "since", "counts"}    see `buoy.streams.host`; also at the beginning
    {"event": "gap", "stream", "begin", "end", "reason"}    an outage began (end: null), or is over
    {"event": "alert", "stream", ...}    a rule of a sink has been met
    {"event": "counts", "stream", "counts"}    when nothing else is said
    {"event": "missed", "count"}    this viewer was too slow for so many events
"""
