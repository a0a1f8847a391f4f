"""The bands of stamps and the version of the files that hold them."""

# What images of galaxies and groups may show; those of clusters show X-rays.
BANDS = ("g", "r", "i", "z")
XRAY = "xray"
# Of all files that `data_gen=galaxies` writes; part of the settings' hash.
FORMAT_VERSION = 1
