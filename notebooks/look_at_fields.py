# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A look at simulated fields
#
# One simulated field as a picture, its cells with cluster members, and what an encoder says about
# them. Everything is made here, in a temporary folder, in about a minute: the notebook needs no
# data and leaves none behind.
#
# Install with `make install`; then open this file with Jupyter, or run it with
# `jupytext --to ipynb --execute notebooks/look_at_fields.py`.

# %%
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from astropy.visualization import make_lupton_rgb
from hydra import compose, initialize_config_dir
from matplotlib.patches import Rectangle

ROOT = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "conf/datagen.yaml").is_file())
sys.path.insert(0, str(ROOT))

from conf import schema  # noqa: E402
from conf.build import build_settings  # noqa: E402
from datagen import pipeline  # noqa: E402
from datagen.fields.format import (  # noqa: E402
    catalog_path,
    clusters_path,
    read_catalog,
    read_clusters,
    read_file_data,
)
from encoders.checkpoint import load_checkpoint  # noqa: E402
from encoders.data import split_names  # noqa: E402
from encoders.fields.normalize import estimate_background  # noqa: E402
from encoders.training import train  # noqa: E402

warnings.filterwarnings("ignore", category=FutureWarning)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
folder = tempfile.TemporaryDirectory()
work = Path(folder.name)


def composed(primary, *overrides):
    """Return what `python datagen/run.py ...` or `python train.py ...` would compose."""
    schema.register()
    paths = [f"paths.{name}_dir={work / name}" for name in ("data", "log", "output")]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(primary, overrides=[*paths, *overrides])


# %% [markdown]
# ## Simulate
#
# The same keys as on the command line. Small fields, and rich clusters at middle redshift so that
# there is something to see. The pipeline draws the catalogues, then the images band by band, then
# joins them to file data.

# %%
cfg = composed(
    "datagen",
    "data_gen=fields",
    "data_gen.nfiles=14",
    "data_gen.n_catalogs_per_file=1",
    "data_gen.image_size=512",
    "data_gen.tile_size=64",
    "data_gen.prior.centre_margin_px=0",
    "data_gen.prior.cluster_fraction=0.8",
    "data_gen.prior.richness_range=[60,150]",
    "data_gen.prior.redshift_range=[0.3,0.5]",
)
settings = build_settings(cfg.data_gen, "data_gen")
pipeline.run(settings)
data_dir = Path(settings.data_dir)

# %% [markdown]
# ## Train a tiny encoder
#
# A few dozen steps on a handful of fields teach little; `make demo` trains a proper one. The
# splits follow from the names of the files, so that we know which fields the encoder has not seen.

# %%
splits = ["data.splits.train=0.7", "data.splits.val=0.3", "data.splits.test=0"]
cfg = composed(
    "train",
    "model=membership",
    *splits,
    "trainer=cpu",
    "trainer.max_steps=40",
    "trainer.enable_progress_bar=false",
    "model.network.width=8",
    "logger=none",
    "test=false",
)
metrics = train(cfg)
encoder = load_checkpoint(work / "output/membership/best.ckpt", "membership")
print({name: round(value, 3) for name, value in metrics.items() if name.startswith("val/")})
encoder.card

# %% [markdown]
# ## One field that the encoder has not seen
#
# A file datum holds the images, the catalogue binned on cells, and `meta`. We take the held-out
# field with most member cells, and its lists of sources and systems.

# %%
names = sorted(path.name for path in (data_dir / "file_data").iterdir())
held_out = split_names(names, cfg.data.seed, dict(cfg.data.splits))["val"]
data = {name: read_file_data(data_dir / "file_data" / name)[0] for name in held_out}
name = max(data, key=lambda key: int(data[key]["tile_catalog"]["membership"].sum()))
datum = data[name]
meta, cells = datum["meta"], datum["tile_catalog"]
sources = read_catalog(catalog_path(data_dir, meta["index"]))
systems = read_clusters(clusters_path(data_dir, meta["index"]))
members = sources[sources["MEM"] == 1]
print(f"{name}: {len(sources)} sources, {len(members)} members in it and close by")
systems["CLUSTER_ID", "X", "Y", "Z", "RICHNESS", "N_MEMBERS", "LABELLED"]

# %% [markdown]
# ## Picture, truth, prediction
#
# Bands i, r, g become red, green, blue, each in units of its noise. Middle: cells with a member
# bright enough to be learned. Right: the probability that the encoder gives to each cell.

# %%
images, sigma = datum["images"].numpy(), np.array(meta["noise_sigma"])
red, green, blue = (images / sigma[:, None, None])[[2, 1, 0]]
picture = make_lupton_rgb(red, green, blue, stretch=8, Q=8)

levels = torch.tensor([estimate_background(image) for image in images])
with torch.inference_mode():
    logits = encoder(datum["images"][None], levels[None, :, 0], levels[None, :, 1])
scores = torch.sigmoid(logits[0]).numpy()
is_member = cells["membership"][..., 0, 0].numpy().astype(bool)
cell = meta["cell_px"]

figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
for axis in axes:
    axis.imshow(picture, origin="lower")
    axis.set(xticks=[], yticks=[])
axes[0].plot(systems["X"], systems["Y"], "+", color="white", ms=14, label="centres of systems")
axes[0].set(xlim=(0, len(picture)), ylim=(0, len(picture)), title="g, r, i")
axes[0].legend(loc="lower right")
for row, column in np.argwhere(is_member):
    corner = (column * cell - 0.5, row * cell - 0.5)
    axes[1].add_patch(Rectangle(corner, cell, cell, fill=False, color="lime", lw=1.5))
axes[1].plot(members["X"], members["Y"], "o", color="lime", mfc="none", ms=8)
axes[1].set(xlim=(0, len(picture)), ylim=(0, len(picture)), title="cells with members")
side = len(picture) - 0.5
shown = axes[2].imshow(
    scores, origin="lower", extent=(-0.5, side, -0.5, side), alpha=0.5, cmap="inferno", vmin=0
)
axes[2].set_title("probability of a member")
figure.colorbar(shown, ax=axes[2], shrink=0.8)
plt.show()

# %% [markdown]
# Cells with members should have the higher scores, if only a little after so short a training.

# %%
print(f"mean score: {scores[is_member].mean():.3f} with members, ", end="")
print(f"{scores[~is_member].mean():.3f} without")
folder.cleanup()
