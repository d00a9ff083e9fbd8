"""Cameras and videos: read, choose frames, look at them with the one engine, report.

Everything here runs in the process that holds the model, so that pixels stay where they are decoded.
"""
