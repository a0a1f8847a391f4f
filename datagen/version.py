"""Version of the software, written into every file; a test compares it with pyproject.toml."""

VERSION = "0.1.0"
