"""The channels of cluster maps and the version of the files that hold them."""

# What a map may show; files hold some of them, in the order of their header.
CHANNELS = ("mass", "xray", "stars")
# Of all files of cluster maps; part of the settings' hash.
FORMAT_VERSION = 2
