"""The columns of stamps that are not labels, and the version of the files that hold them."""

# Of all files of stamps; part of the settings' hash.
FORMAT_VERSION = 1
# What every table of stamps begins with.
IDENTITY = ("SUITE", "SNAPSHOT", "OBJECT", "PROJECTION", "FILE")
# What is known of each stamp; a band's own value is in FWHM_<BAND> and SKYSIGMA_<BAND>. LIMITED is
# 1 where the image ended before the stamp.
MEASURED = ("SCALE", "LIMITED", "FWHM", "SKYSIGMA", "PETRO_R", "R50", "R90", "PETRO_MAG")
# What `read_labels` adds: where a stamp lies.
PLACE = ("FILE_NUMBER", "ROW")
# Magnitude of one unit of pixels that are fluxes: nanomaggies [AB mag].
ZERO_POINT = 22.5
