"""Version of the software, written into every file; a test compares it with pyproject.toml."""

VERSION = "0.1.0"
# Of all files of the field simulator; part of the settings' hash.
FORMAT_VERSION = 3
