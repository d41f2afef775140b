"""The device that is asked for, and no other in silence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.device import describe, prepare_cpu, prepare_device
from pipeline.errors import PipelineError
from pipeline.sections import Runtime
from tests.projects import contents, run, set_params

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "unset")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(False)


def runtime(**values: object) -> Runtime:
    return Runtime.model_validate(
        {"device": "auto", "threads": 0, "checkpoint_seconds": 5} | values
    )


@pytest.mark.parametrize(
    ("asked", "there", "taken"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device_is_the_one_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: str, there: bool, taken: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert prepare_device(runtime(device=asked)).type == taken
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_runs_on_a_cpu_has_the_threads_asked_for_and_no_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert prepare_cpu(runtime(device="cuda", threads=1)).type == "cpu"
    assert torch.get_num_threads() == 1


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match="torch finds no CUDA device here; set it to auto or c"):
        prepare_device(runtime(device="cuda"))


def test_the_number_of_threads_is_set_and_told() -> None:
    device = prepare_device(runtime(device="cpu", threads=1))
    assert torch.get_num_threads() == 1
    assert describe(device) == "CPU, 1 thread"


def test_a_cuda_device_is_made_deterministic_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    torch.backends.cudnn.benchmark = True
    prepare_device(runtime(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_process_without_a_cuda_device_of_its_own_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prepare_device(runtime()).type == "cuda"
    assert taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(PipelineError, match="process 2 of this machine has no CUDA device"):
        prepare_device(runtime())


def test_numbers_too_small_to_be_normal_count_as_nothing_in_every_thread() -> None:
    """In a process of its own, as a stage is: threads take over what was set before them."""
    code = """
import torch
from pipeline.device import prepare_device
from pipeline.sections import Runtime
prepare_device(Runtime(device="cpu", threads=2, checkpoint_seconds=5))
print(int((torch.full((1 << 20,), 1e-30) * 1e-12).count_nonzero()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


@pytest.mark.full
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_deterministic_cuda_device_gives_the_same_bytes_each_time(
    built: Path, tmp_path: Path
) -> None:
    found = []
    for number in range(2):
        project = Path(shutil.copytree(built, tmp_path / str(number)))
        set_params(project, {"runtime": {"device": "cuda", "deterministic": True}})
        for stage in ("extract_features", "pretrain", "graph", "project", "train", "score"):
            run(project, sys.executable, "-m", f"stages.{stage}")
        found.append(contents(project))
    assert found[0] == found[1]
    assert found[0] != contents(built)
