"""Version of all files of the field simulator; part of the settings' hash."""

FORMAT_VERSION = 3
