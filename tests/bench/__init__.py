"""Measurements of buoy against two baselines that do the same work; started by scripts/bench."""
