"""The figures of batch runs."""
