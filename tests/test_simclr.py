"""SimCLR: laws of the views, the network's size, and a killed run that goes on bit for bit."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.images import views
from pipeline.images.params import Simclr
from pipeline.images.simclr import encode, probe_accuracy, train_simclr
from pipeline.images.views import random_views
from pipeline.models.simclr import Encoder
from pipeline.training.session import Session
from pipeline.training.snapshot import Snapshot
from tests.made_images import digits

CPU = torch.device("cpu")


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_keep_shape_and_range_and_follow_the_generator() -> None:
    images = torch.rand(16, 3, 32, 32, generator=gen())
    first = random_views(images, flips=True, gen=gen(1))
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, random_views(images, flips=True, gen=gen(1)))
    assert not torch.equal(first, random_views(images, flips=True, gen=gen(2)))
    assert random_views(images[:, :1], flips=False, gen=gen()).shape == (16, 1, 32, 32)


def test_only_where_flips_are_wanted_is_left_on_the_right() -> None:
    ramp = torch.linspace(0.2, 0.8, 32).expand(200, 1, 32, 32)  # brighter to the right

    def mirrored(flips: bool) -> float:
        out = random_views(ramp, flips=flips, gen=gen())
        inner = out[..., 8:24, 8:24]
        return float((inner[..., 0].mean((1, 2)) > inner[..., -1].mean((1, 2))).float().mean())

    assert mirrored(False) == 0
    assert mirrored(True) == pytest.approx(0.5, abs=0.1)


def test_a_crop_is_a_part_of_the_image_of_the_promised_area(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "JITTERED", 0)
    monkeypatch.setattr(views, "GREYED", 0)
    across = torch.linspace(0, 1, 32).expand(500, 32, 32)
    images = torch.stack([across, across.transpose(1, 2), across], 1)
    out = random_views(images, flips=False, gen=gen())
    width = out[:, 0].amax((1, 2)) - out[:, 0].amin((1, 2))
    height = out[:, 1].amax((1, 2)) - out[:, 1].amin((1, 2))
    area = width * height
    assert area.min() > 0.15
    assert area.max() <= 1
    assert area.std() > 0.15
    torch.testing.assert_close(out[:, 0], out[:, 2])


def test_a_grey_image_stays_grey_and_some_colours_go(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = torch.rand(50, 1, 32, 32, generator=gen()).expand(50, 3, 32, 32)
    out = random_views(grey, flips=True, gen=gen())
    torch.testing.assert_close(out[:, 0], out[:, 1], atol=0.02, rtol=0)
    colours = torch.rand(2_000, 3, 1, 1, generator=gen()).expand(2_000, 3, 32, 32)
    out = random_views(colours, flips=True, gen=gen())
    spread = (out.amax(1) - out.amin(1)).amax((1, 2))
    assert (spread < 1e-6).float().mean().item() == pytest.approx(views.GREYED, abs=0.03)


def test_the_hue_turns_about_grey_and_back() -> None:
    angle = torch.tensor([0.0, 0.7, -0.7])
    matrices = views._hue_turns(angle)
    torch.testing.assert_close(matrices[0], torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(matrices[1] @ matrices[2], torch.eye(3), atol=1e-4, rtol=0)
    white = matrices[1] @ torch.ones(3)
    torch.testing.assert_close(white, torch.ones(3), atol=2e-3, rtol=0)


def test_the_encoder_is_resnet_18_of_eleven_million_weights() -> None:
    net = Encoder(channels=3, width=64)
    count = sum(p.numel() for p in net.trunk.parameters()) - 128 * 513
    assert count == 11_168_832  # torchvision's ResNet-18 with the small stem, without its head
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 20


SETTINGS = Simclr(
    width=2, temperature=0.5, lr=0.003, decay="none", batch_size=40, max_epochs=3, patience=3
)


class Kept:
    """Keeps the snapshot of one epoch, and can kill the run after it."""

    def __init__(self, epoch: int, kill: bool = False) -> None:
        self.epoch, self.kill = epoch, kill
        self.snapshot: Snapshot | None = None

    def load(self) -> Snapshot | None:
        return self.snapshot

    def save(self, take: Callable[[], Snapshot]) -> None:
        snapshot = take()
        if snapshot.epoch == self.epoch:
            self.snapshot = copy.deepcopy(snapshot)
            if self.kill:
                self.kill = False
                raise KeyboardInterrupt


def simclr(kept: Kept | None = None) -> tuple[Encoder, list[dict[str, float]]]:
    images, _ = digits(160, 32, np.random.default_rng(0))
    return train_simclr(
        images[:, None],
        train=np.arange(120),
        valid=np.arange(120, 160),
        flips=False,
        params=SETTINGS,
        seed=0,
        session=Session(checkpoint=kept),
    )


@pytest.fixture(scope="module")
def unbroken() -> tuple[Encoder, list[dict[str, float]]]:
    return simclr()


def test_a_killed_and_resumed_run_equals_an_unbroken_one(
    unbroken: tuple[Encoder, list[dict[str, float]]],
) -> None:
    kept = Kept(1, kill=True)
    with pytest.raises(KeyboardInterrupt):
        simclr(kept)
    net, history = simclr(kept)
    assert history == unbroken[1]
    for name, value in net.state_dict().items():
        assert torch.equal(value, unbroken[0].state_dict()[name])


def test_the_loss_falls_below_chance_and_features_are_standardised(
    unbroken: tuple[Encoder, list[dict[str, float]]],
) -> None:
    net, history = unbroken
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    images, _ = digits(60, 32, np.random.default_rng(1))
    x = encode(net, images[:, None], np.arange(40), CPU)
    assert x.shape == (60, 16)  # as many as the trunk has channels
    np.testing.assert_allclose(x[:40].mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(x[:40].std(0, ddof=1), 1, atol=1e-3)


def test_the_probe_is_right_where_features_tell_and_at_chance_where_not() -> None:
    random = np.random.default_rng(0)
    category = np.arange(400) % 10
    told = np.eye(10, dtype=np.float32)[category]
    train, test = np.arange(300), np.arange(300, 400)
    assert probe_accuracy(told, category, train, test) == 1
    noise = random.standard_normal((400, 5)).astype(np.float32)
    assert probe_accuracy(noise, category, train, test) < 0.3
