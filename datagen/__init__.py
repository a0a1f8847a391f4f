"""Simulators: what exists in the sky, how a telescope sees it, and the files that hold it."""
