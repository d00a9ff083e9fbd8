"""Measurements of `buoy serve` beside a plain loop, the limit without HTTP, and other ways to serve the same work."""
