"""Explain: from a recording to a graph. Importing this package imports no torch."""
