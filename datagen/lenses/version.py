"""The classes of lenses and the version of the files that hold them."""

# A class is its place here.
CLASSES = ("no_sub", "cdm", "vortex")
# Of all files of the lens simulator; part of the settings' hash.
FORMAT_VERSION = 1
