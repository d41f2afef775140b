"""Masks cut from packed bits obey the law of dropout, and the layer is ReLU, mask and scale."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import Tensor, nn

from pipeline.steps.dropout import MaskSource, ReluDropout, representable, set_masks

CPU = torch.device("cpu")
RATES = [0.5, 0.3, 0.2]


def kept_by(source: MaskSource, shape: torch.Size, rate: float) -> Tensor:
    """1 where the source's next mask keeps an element, 0 where it drops one."""
    return (source.dropped(shape, rate) >= 0).float()


def keep(rate: float, *shape: int, seed: int = 0) -> Tensor:
    return kept_by(MaskSource(seed, CPU), torch.Size(shape), rate)


def layer(rate: float, seed: int = 0) -> ReluDropout:
    made = ReluDropout(rate)
    set_masks(made, MaskSource(seed, CPU))
    return made.train()


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rate", RATES)
def test_the_kept_share_is_that_of_the_rate(rate: float) -> None:
    kept = int(keep(rate, 1000, 1000).sum())
    assert binomtest(kept, 10**6, 1 - rate).pvalue > 0.001


@pytest.mark.parametrize("rate", RATES)
def test_every_place_of_a_word_is_kept_as_often_and_independently_of_the_others(
    rate: float,
) -> None:
    """64 or 4 elements share a random word: none of them is favoured, no two go together."""
    words = keep(rate, 20_000, 64).numpy()
    assert chisquare(words.sum(0)).pvalue > 0.001
    correlation = np.corrcoef(words.T)[np.triu_indices(64, 1)]
    assert abs(correlation).max() < 5 / np.sqrt(len(words))
    assert correlation.std() == pytest.approx(1 / np.sqrt(len(words)), rel=0.1)


@pytest.mark.parametrize("rate", RATES)
def test_a_mask_has_the_shape_asked_for_and_holds_zeros_and_ones(rate: float) -> None:
    mask = keep(rate, 3, 7, 5)  # 105 elements fill no whole number of words
    assert mask.shape == (3, 7, 5)
    assert mask.dtype == torch.float32
    assert set(mask.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("rate", RATES)
def test_equal_seeds_give_equal_masks_and_further_calls_or_other_seeds_give_others(
    rate: float,
) -> None:
    shape = torch.Size([50, 64])
    one, again = MaskSource(3, CPU), MaskSource(3, CPU)
    first = kept_by(one, shape, rate)
    assert torch.equal(first, kept_by(again, shape, rate))
    agreement = rate**2 + (1 - rate) ** 2  # of two independent masks
    for other in (kept_by(one, shape, rate), kept_by(MaskSource(4, CPU), shape, rate)):
        assert float((first == other).float().mean()) == pytest.approx(agreement, abs=0.05)


def test_rates_are_rounded_to_what_the_bits_can_say() -> None:
    assert representable(0.5) == 0.5
    assert representable(0.3) == pytest.approx(0.3000031, abs=1e-7)
    assert [representable(k / 2**16) for k in (1, 77)] == [1 / 2**16, 77 / 2**16]


@pytest.mark.parametrize("rate", RATES)
def test_what_passes_is_scaled_so_that_the_mean_stays(rate: float) -> None:
    z = normal(500, 1000)
    y = layer(rate)(z.clone())
    mask = keep(rate, 500, 1000)  # the first that the layer draws
    torch.testing.assert_close(y, z.relu() * mask / (1 - representable(rate)))
    assert float(y.mean()) == pytest.approx(float(z.relu().mean()), rel=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_the_gradient_is_that_of_the_masked_relu(rate: float) -> None:
    leaf, plain = (normal(20, 30).requires_grad_() for _ in range(2))
    weight = normal(20, 30).flip(0)
    (layer(rate)(leaf * 1) * weight).sum().backward()
    mask = keep(rate, 20, 30)
    (plain.relu() * mask / (1 - representable(rate)) * weight).sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)


def test_in_eval_mode_it_is_a_relu_that_leaves_its_input_alone() -> None:
    z = normal(4, 5)
    before = z.clone()
    assert torch.equal(layer(0.5).eval()(z), before.relu())
    assert torch.equal(z, before)


def test_at_rate_zero_it_is_a_relu_and_needs_no_masks() -> None:
    z = normal(4, 5)
    assert torch.equal(ReluDropout(0.0).train()(z), z.relu())


def test_training_without_a_source_of_masks_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="call set_masks"):
        ReluDropout(0.5).train()(torch.zeros(2))


def test_one_source_is_shared_by_all_layers_of_a_model() -> None:
    """Two layers of one model draw one after the other: they never drop in step."""
    model = nn.Sequential(ReluDropout(0.5), nn.Sequential(ReluDropout(0.5)))
    masks = MaskSource(0, CPU)
    set_masks(model, masks)
    y = model(torch.ones(1000)) / 4
    mask = keep(0.5, 1000) * keep(0.5, 2 * 1024)[1024:2024]  # 1,000 bits take 16 words
    assert torch.equal(y, mask)
