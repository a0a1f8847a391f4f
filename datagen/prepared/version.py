"""The version of prepared files; part of the settings' hash."""

FORMAT_VERSION = 1
