"""The exposed service: models stay in memory and answer single requests over HTTP.

The process that speaks HTTP holds no model. Each model runs in a process of its own (`buoy.serve.child`), to
which the encoded bytes of a picture travel and from which the encoded answer comes back, never pixels. So a
crash of an inference costs what was being looked at and nothing else.
"""
