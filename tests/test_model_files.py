"""Networks on disk: they come back as they were, and a wrong file is one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import PipelineError
from pipeline.model_files import read_model, read_network, write_model, write_network
from pipeline.models.ratio import PreEmbeddingNet, RatioNet
from pipeline.models.weights import draw_layers


def ratio_net(seed: int = 0) -> RatioNet:
    net = RatioNet(x_dim=4, task_dim=3, hidden=(6, 5), dropout=(0.2, 0.1))
    draw_layers(net, torch.Generator().manual_seed(seed))
    return net


@pytest.mark.parametrize(
    "net", [ratio_net(), PreEmbeddingNet(x_dim=4, heads=3, hidden=(6,), dropout=(0.25,))]
)
def test_a_network_read_back_is_the_same_in_eval_mode(net: nn.Module, tmp_path: Path) -> None:
    write_network(net, tmp_path / "net")
    again = read_network(type(net), tmp_path / "net")
    assert again.config == net.config
    assert not again.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_equal_networks_are_equal_bytes_and_others_are_not(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_network(ratio_net(seed), tmp_path / name)
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_tensors_come_back_by_name_with_the_config(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    write_model({"b": table.T, "a": table[:, 1]}, {"k": [1, "x"]}, tmp_path / "model")
    tensors, config = read_model(tmp_path / "model")
    assert config == {"k": [1, "x"]}
    assert torch.equal(tensors["b"], table.T)
    assert torch.equal(tensors["a"], table[:, 1])


def message(path: Path) -> str:
    with pytest.raises(PipelineError) as error:
        read_network(RatioNet, path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no such file" in message(tmp_path / "none")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    write_network(ratio_net(), whole)
    content = whole.read_bytes()
    for name, text in (("text", b"hello"), ("cut", content[:-8]), ("empty", b"")):
        (tmp_path / name).write_bytes(text)
        assert "is not a model file of this pipeline" in message(tmp_path / name)
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    assert "is not a model file of this pipeline" in message(tmp_path / "foreign")


def test_an_altered_number_or_setting_is_found(tmp_path: Path) -> None:
    """Neither safetensors nor the shapes would notice it."""
    whole = tmp_path / "whole"
    write_network(ratio_net(), whole)
    content = whole.read_bytes()
    (tmp_path / "bit").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "setting").write_bytes(content.replace(b"0.1", b"0.3"))
    for name in ("bit", "setting"):
        assert "is damaged (wrong checksum)" in message(tmp_path / name)


def test_a_file_of_another_network_is_named(tmp_path: Path) -> None:
    write_network(PreEmbeddingNet(x_dim=4, heads=3), tmp_path / "other")
    assert "holds no RatioNet" in message(tmp_path / "other")
    write_model(ratio_net().state_dict(), ratio_net().config | {"x_dim": 5}, tmp_path / "shape")
    assert "holds no RatioNet" in message(tmp_path / "shape")


def test_a_network_of_other_sizes_is_named(tmp_path: Path) -> None:
    file = tmp_path / "net"
    write_network(ratio_net(), file)
    read_network(RatioNet, file, x_dim=4, task_dim=3)
    with pytest.raises(PipelineError) as error:
        read_network(RatioNet, file, x_dim=4, task_dim=5)
    assert str(error.value) == (
        f"{file}: holds a RatioNet of task_dim 3, the other files ask for 5; "
        "they do not belong together: run `dvc repro`."
    )
