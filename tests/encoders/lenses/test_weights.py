from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datagen.errors import CheckpointError, ConfigError, DataNotFoundError
from encoders.lenses.densenet import DenseBlock, DenseNet201
from encoders.lenses.e2cnn_network import EquivariantNetwork
from encoders.lenses.resnet import ResNet18
from encoders.lenses.weights import PretrainedWeights, load_pretrained

# Names and shapes in the files of torchvision, as published.
RESNET18_NAMES = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.running_mean": (64,),
    "layer1.0.conv1.weight": (64, 64, 3, 3),
    "layer2.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.1.running_var": (128,),
    "layer4.1.bn2.bias": (512,),
    "fc.bias": (1000,),
}
DENSENET201_NAMES = {
    "features.conv0.weight": (64, 3, 7, 7),
    "features.norm0.weight": (64,),
    "features.denseblock1.denselayer1.norm1.weight": (64,),
    "features.denseblock3.denselayer48.conv2.weight": (32, 128, 3, 3),
    "features.transition3.conv.weight": (896, 1792, 1, 1),
    "features.norm5.running_mean": (1920,),
    "classifier.weight": (1000, 1920),
}


class Small(nn.Module):
    """A network with a stem and a head, quick to build."""

    stem_name = "stem"
    head_name = "head"

    def __init__(self, in_channels: int, n_classes: int, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.stem(images)).mean(dim=(-2, -1)))
        return logits


def saved(path: Path, network: nn.Module) -> Path:
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("network", "names"), [("resnet18", RESNET18_NAMES), ("densenet201", DENSENET201_NAMES)]
)
def test_names_are_those_of_torchvision(network: str, names: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        built = (
            ResNet18(3, 1000, 224)
            if network == "resnet18"
            else DenseNet201(3, 1000, 224, head="global", save_memory=False)
        )
    state = built.state_dict()
    assert {name: tuple(state[name].shape) for name in names} == names
    # 20 and 200 convolutions, as many normalisations and one linear layer.
    assert len(state) == {"resnet18": 122, "densenet201": 1207}[network]


def test_a_network_answers_like_the_one_whose_weights_it_got(tmp_path: Path) -> None:
    source, network = Small(2, 3), Small(2, 3)
    load_pretrained(network, saved(tmp_path / "a.pt", source))
    images = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(network.eval()(images), source.eval()(images))


@pytest.mark.parametrize("channels", [1, 5])
def test_equal_bands_give_what_equal_colours_gave(tmp_path: Path, channels: int) -> None:
    source, network = Small(3, 3), Small(channels, 3)
    load_pretrained(network, saved(tmp_path / "a.pt", source))
    grey = torch.randn(2, 1, 5, 5)
    expected = source.eval()(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(network.eval()(grey.expand(-1, channels, -1, -1)), expected)


def test_a_head_for_other_classes_stays_new(tmp_path: Path) -> None:
    source, network = Small(3, 1000), Small(3, 3)
    head = network.head.weight.clone()
    load_pretrained(network, saved(tmp_path / "a.pt", source))
    assert torch.equal(network.head.weight, head)
    assert torch.equal(network.stem.weight, source.stem.weight)


def test_old_files_of_resnet18_are_read(tmp_path: Path) -> None:
    """They lack counts of batches, and files before 2020 are no archives."""
    source, network = ResNet18(3, 10, 33), ResNet18(1, 3, 33)
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_pretrained(network, tmp_path / "old.pth")
    assert torch.equal(network.layer3[0].conv2.weight, source.layer3[0].conv2.weight)
    torch.testing.assert_close(
        network.conv1.weight, source.conv1.weight.sum(dim=1, keepdim=True), atol=1e-6, rtol=1e-5
    )


def test_names_with_dots_in_old_files_of_densenet_are_read(tmp_path: Path) -> None:
    source, network = (DenseBlock(4, 2, save_memory=False) for _ in range(2))
    pattern = r"(denselayer\d+\.(?:norm|conv))([12])"
    state = {re.sub(pattern, r"\1.\2", k): v for k, v in source.state_dict().items()}
    assert "denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "old.pth")
    load_pretrained(network, tmp_path / "old.pth")
    assert torch.equal(network["denselayer2"].conv1.weight, source["denselayer2"].conv1.weight)


def test_safetensors_are_read(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    source, network = Small(1, 3), Small(1, 3)
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    header, data = {}, b""
    for name, value in state.items():
        raw = value.numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    load_pretrained(network, path)
    assert torch.equal(network.stem.weight, source.stem.weight)
    path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pretrained(network, path)


def test_safetensors_without_the_library_say_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ConfigError, match=r"pip install safetensors, or give a \.pt"):
        load_pretrained(Small(1, 3), tmp_path / "a.safetensors")


class Learner(LightningModule):
    """Trains a small network and keeps the weights that it began with."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small(3, 3)
        self.start: Tensor | None = None

    def on_train_start(self) -> None:
        self.start = self.network.stem.weight.detach().clone()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.network(batch).square().sum()

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.ones(2, 3, 5, 5), batch_size=2)  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(callback: PretrainedWeights, folder: Path, ckpt_path: Path | None = None) -> Learner:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1 if ckpt_path is None else 2,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    learner = Learner()
    trainer.fit(learner, ckpt_path=ckpt_path, weights_only=True)
    return learner


def test_a_training_begins_with_them_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    source = Small(3, 1000)
    callback = PretrainedWeights(str(saved(tmp_path / "a.pt", source)))
    first = fitted(callback, tmp_path)
    assert first.start is not None
    assert torch.equal(first.start, source.stem.weight)
    second = fitted(callback, tmp_path / "b", next((tmp_path / "checkpoints").glob("*.ckpt")))
    assert second.start is not None
    assert torch.equal(second.start, first.network.stem.weight)
    assert not torch.equal(
        fitted(PretrainedWeights(None), tmp_path / "c").start, source.stem.weight
    )


def test_another_network_is_refused_by_the_first_name_that_differs(tmp_path: Path) -> None:
    network = Small(3, 3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    path = saved(tmp_path / "wide.pt", Small(3, 3, width=8))
    words = r"another network: expected stem.weight to be \(4, 3, 3, 3\), but it is \(8, 3, 3, 3\)"
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(network, path)
    path = saved(tmp_path / "linear.pt", nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"stem\.weight .* but it is absent in the file"):
        load_pretrained(network, path)
    state = before | {"tail.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "more.pt")
    with pytest.raises(
        CheckpointError, match=r"expected tail\.bias to be absent, but it is \(2,\)"
    ):
        load_pretrained(network, tmp_path / "more.pt")
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = Small(3, 3)
    nn.init.constant_(source.norm.bias, torch.nan)
    with pytest.raises(CheckpointError, match=r"not finite: norm\.bias"):
        load_pretrained(Small(3, 3), saved(tmp_path / "a.pt", source))


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def test_files_that_hold_more_than_tensors_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pt")
    with pytest.raises(CheckpointError, match="refused: the file holds objects other"):
        load_pretrained(Small(3, 3), Path("evil.pt"))
    assert not Path("evil").exists()
    torch.save({"state_dict": Small(3, 3).state_dict()}, "nested.pt")
    with pytest.raises(CheckpointError, match="are no state dict"):
        load_pretrained(Small(3, 3), Path("nested.pt"))
    Path("damaged.pt").write_bytes(b"\x00damaged")
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        load_pretrained(Small(3, 3), Path("damaged.pt"))


def test_missing_and_strange_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"none\.pt do not exist"):
        load_pretrained(Small(3, 3), tmp_path / "none.pt")
    with pytest.raises(ConfigError, match=r"\.pt, \.pth, \.safetensors, but got .*a\.h5"):
        load_pretrained(Small(3, 3), tmp_path / "a.h5")


def test_weights_of_another_group_change_nothing(tmp_path: Path) -> None:
    """Their shapes may fit; what they mean does not."""
    theirs, ours = (EquivariantNetwork(1, 3, 17, g, [8, 16], [0]) for g in ("C2", "D1"))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    path = saved(tmp_path / "c2.pt", theirs)
    with pytest.raises(CheckpointError, match=r"c2\.pt are of another network: .*another group\?"):
        load_pretrained(ours, path)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
