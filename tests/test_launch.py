"""Stages in several processes, as a user meets them: the same files, or one line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from tests.projects import ROOT, contents, environment, run, set_params, started

STOPPED = (
    "and the others were stopped. Nothing was half-written; run it again: a training goes on from "
    "its checkpoint.\n"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_several = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
ENDLESS = {"max_epochs": 100_000, "patience": 100_000}
SHORT = {"max_epochs": 3}


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of the built project, each of whose stages asks for two processes."""
    folder = Path(shutil.copytree(built, tmp_path / "project"))
    set_params(folder, {"runtime": {"processes": 2}})
    return folder


def stage(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", f"stages.{name}"


def on_one_device(processes: int, name: str) -> tuple[str, ...]:
    """A stage in so many processes that share one CUDA device, and talk by NCCL."""
    several = ("--standalone", f"--nproc-per-node={processes}", str(ROOT / "tests/one_device.py"))
    return sys.executable, "-m", "torch.distributed.run", *several, f"stages.{name}"


def history(project: Path, name: str) -> list[float]:
    """All figures of all epochs of a stage's training."""
    folder = {"extract_features": "features", "train": "ratio"}.get(name, name)
    rows = (project / f"data/{folder}/history.csv").read_text().splitlines()
    return [float(figure) for row in rows[1:] for figure in row.split(",")]


def workers(launcher: subprocess.Popen[str]) -> dict[str, int]:
    """The processes that torchrun started, by rank."""
    found = {}
    for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        settings = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        found |= {one.removeprefix("RANK="): int(pid) for one in settings if one[:5] == "RANK="}
    return found


def wait_for_checkpoint(project: Path, process: subprocess.Popen[str]) -> None:
    while not list((project / ".checkpoints").glob("*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def listening(pids: Iterable[int]) -> set[str]:
    """The addresses at which these processes can be reached, as /proc/net writes them."""
    sockets = set()
    for file in (file for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(file.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *rest = row.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                found.add(address.partition(":")[0])
    return found


def test_processes_that_a_stage_starts_are_reached_from_this_machine_alone(project: Path) -> None:
    set_params(project, {"ratio": ENDLESS})
    with started(project, *stage("train")) as process:
        wait_for_checkpoint(project, process)
        found = listening([process.pid, *workers(process).values()])
    assert found == {"0100007F"}  # 127.0.0.1, and something there: gloo


def test_scores_of_two_processes_are_those_of_one_to_the_byte(built: Path, project: Path) -> None:
    (project / "data/evaluation/scores.parquet").unlink()
    told = run(project, *stage("score"))
    assert told == "33 tasks x 45 validation and test users scored\n"
    assert contents(project) == contents(built)
    assert '"device": "2 x CPU, 1 thread"' in (project / "data/run_info/score.json").read_text()


@pytest.mark.parametrize(("name", "deal_out"), [("train", False), ("extract_features", True)])
def test_a_killed_process_stops_the_others_in_one_line_and_another_number_goes_on(
    project: Path, name: str, deal_out: bool
) -> None:
    before = contents(project)
    set_params(project, {"ratio": ENDLESS, "features": ENDLESS, "runtime": {"deal_out": deal_out}})
    with started(project, *stage(name)) as process:
        wait_for_checkpoint(project, process)
        both = workers(process)
        os.kill(both["1"], signal.SIGKILL)
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (1, "")
    line = f"{name}: one of the 2 processes (rank 1) was killed by SIGKILL, {STOPPED}"
    assert errors.endswith(line)
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in both.values())
    assert contents(project) == before
    set_params(project, {"runtime": {"processes": 1, "deal_out": False}})
    with started(project, *stage(name)) as process:
        line = process.stderr.readline()
    assert line.startswith(f"{name}: goes on after epoch ")


@pytest.mark.parametrize("name", ["train", "score"])
def test_two_machines_that_differ_stop_in_one_line_each(
    project: Path, tmp_path: Path, name: str
) -> None:
    other = Path(shutil.copytree(project, tmp_path / "other"))
    set_params(project, {"runtime": {"processes": 1}})
    set_params(other, {"ratio": {"lr": 0.1}, "evaluate": {"users": 5}})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes=2")
    meeting = ("--master-addr=127.0.0.1", f"--master-port={port}")
    with (
        started(project, *torchrun, *meeting, "--node-rank=0", "-m", f"stages.{name}") as one,
        started(other, *torchrun, *meeting, "--node-rank=1", "-m", f"stages.{name}") as two,
    ):
        told = [process.communicate()[1] for process in (one, two)]
    assert (one.returncode, two.returncode) == (1, 1)
    assert all("process 1 differs from process 0 in its code, params, inputs" in t for t in told)


def test_a_stage_that_is_done_in_one_process_refuses_torchrun(project: Path) -> None:
    before = contents(project)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    with started(project, *torchrun, "-m", "stages.filter_tasks") as process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "this is done in one process, but torchrun started 2" in errors
    assert contents(project) == before


def test_a_network_that_is_not_there_is_said_to_be_that(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    with started(project, *stage("train")) as process:
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (1, "")
    assert errors.startswith("train: the processes cannot meet (")
    assert "look at the address and port that torchrun was given" in errors


def test_a_process_whose_launcher_is_gone_ends(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its processes had asked to end with it."""
    for name, value in {"CAD_LAUNCHER": "1", "TORCHELASTIC_RUN_ID": "x", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with started(project, *stage("train")) as process:
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 1


@pytest.mark.full
def test_a_stage_whose_launcher_is_told_to_end_ends_with_its_processes(project: Path) -> None:
    set_params(project, {"ratio": ENDLESS})
    for number, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        shutil.rmtree(project / ".checkpoints", ignore_errors=True)
        with started(project, *stage("train")) as process:
            wait_for_checkpoint(project, process)
            both = workers(process)
            process.send_signal(number)
            printed, errors = process.communicate()
        assert (process.returncode, printed) == (code, "")
        if number == signal.SIGTERM:
            assert errors.splitlines()[-1] == "train: interrupted; nothing was half-written."
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in both.values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.full
@pytest.mark.parametrize("name", ["extract_features", "pretrain", "train", "score"])
def test_what_a_process_has_to_complain_of_is_one_line(project: Path, name: str) -> None:
    (project / "data/prepared/splits.parquet").unlink()
    with started(project, *stage(name)) as process:
        printed, errors = process.communicate()
    missing = "data/prepared/splits.parquet: there is no such file. "
    advice = "Build it with `dvc repro`, or name another.\n"
    assert (process.returncode, printed, errors) == (1, "", f"{name}: {missing}{advice}")


@pytest.mark.full
@pytest.mark.parametrize("name", ["extract_features", "pretrain", "train"])
def test_two_and_four_processes_write_equal_files_but_for_rounding(
    project: Path, name: str
) -> None:
    set_params(project, {"features": SHORT, "pretrain": SHORT, "ratio": SHORT})
    histories = []
    for processes, deal_out in ((2, False), (4, False), (4, True)):
        set_params(project, {"runtime": {"processes": processes, "deal_out": deal_out}})
        run(project, *stage(name))
        histories.append(history(project, name))
    assert histories[1] == pytest.approx(histories[0], abs=1e-3)
    assert histories[2] == pytest.approx(histories[0], abs=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_several)])
def test_torchrun_by_hand_makes_the_same_steps_on_as_many_devices_as_there_are(
    project: Path, device: str
) -> None:
    """By gloo between CPUs, by NCCL between CUDA devices; vectors travel too, not sums alone."""
    most = 2 if device == "cpu" else torch.cuda.device_count()
    runtime = {"device": device, "processes": 1, "deal_out": True}
    set_params(project, {"ratio": SHORT, "runtime": runtime})
    histories = []
    for processes in range(1, most + 1):
        several = ("--standalone", f"--nproc-per-node={processes}", "-m", "stages.train")
        run(project, sys.executable, "-m", "torch.distributed.run", *several)
        histories.append(history(project, "train"))
        told = json.loads((project / "data/run_info/train.json").read_text())["device"]
        assert (f"{processes} x " in told, "CPU" in told) == (processes > 1, device == "cpu")
    assert all(other == pytest.approx(histories[0], abs=1e-3) for other in histories)


@pytest.mark.full
@needs_cuda
@pytest.mark.parametrize("name", ["extract_features", "pretrain", "train"])
def test_processes_that_talk_by_nccl_make_the_steps_of_one(project: Path, name: str) -> None:
    longer = {"max_epochs": 6}  # in three a sum that is left out hardly tells in `pretrain`
    set_params(project, {"features": longer, "pretrain": longer, "ratio": longer})
    histories = []
    for processes, deal_out in ((1, False), (2, False), (4, False), (4, True)):
        on_cuda = {"device": "cuda", "processes": 1, "deal_out": deal_out}
        set_params(project, {"runtime": on_cuda})
        run(project, *on_one_device(processes, name))
        histories.append(history(project, name))
        told = json.loads((project / f"data/run_info/{name}.json").read_text())["device"]
        assert told.startswith(f"{processes} x " if processes > 1 else torch.cuda.get_device_name())
    assert all(other == pytest.approx(histories[0], abs=1e-3) for other in histories)


@pytest.mark.full
@needs_cuda
def test_scores_on_cuda_are_the_same_whatever_the_number_of_processes(project: Path) -> None:
    set_params(project, {"runtime": {"device": "cuda", "processes": 1}})
    found = []
    for processes in (1, 2, 4):
        run(project, *on_one_device(processes, "score"))
        found.append((project / "data/evaluation/scores.parquet").read_bytes())
    assert found[1:] == found[:1] * 2


@pytest.mark.full
@needs_cuda
@pytest.mark.parametrize("deal_out", [False, True])
def test_a_process_killed_at_nccl_ends_the_others_and_another_number_goes_on(
    project: Path, deal_out: bool
) -> None:
    before = contents(project)
    on_cuda = {"device": "cuda", "processes": 1, "deal_out": deal_out}
    set_params(project, {"ratio": ENDLESS, "runtime": on_cuda})
    with started(project, *on_one_device(2, "train")) as process:
        wait_for_checkpoint(project, process)
        both = workers(process)
        os.kill(both["1"], signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in both.values())
    assert contents(project) == before
    for processes in (4, 1):
        with started(project, *on_one_device(processes, "train")) as process:
            line = next(line for line in process.stderr if line.startswith("train: "))
        assert line.startswith("train: goes on after epoch ")


@pytest.mark.full
@needs_cuda
def test_more_processes_than_cuda_devices_are_refused_in_one_line(project: Path) -> None:
    there = torch.cuda.device_count()
    set_params(project, {"runtime": {"device": "cuda", "processes": there + 1}})
    with started(project, *stage("train")) as process:
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (1, "")
    assert "Traceback" not in errors
    line = errors.splitlines()[-1]
    assert line.startswith(f"train: process {there} of this machine has no CUDA device of its own")


@contextmanager
def two_networks() -> Iterator[tuple[str, str]]:
    """Two network name spaces and a wire between them, 10.199.0.1 and .2; skips where none."""
    if shutil.which("ip") is None:
        pytest.skip("no network name spaces can be made here: there is no ip")
    names = tuple(f"cad{os.getpid()}{side}" for side in "ab")
    made = "; ".join(
        [
            *(f"ip netns add {name}" for name in names),
            f"ip link add wire netns {names[0]} type veth peer name wire netns {names[1]}",
            *(
                f"ip -n {name} addr add 10.199.0.{n}/24 dev wire; ip -n {name} link set wire up; "
                f"ip -n {name} link set lo up"
                for n, name in enumerate(names, 1)
            ),
        ]
    )
    try:
        done = subprocess.run(["sh", "-ec", made], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no network name spaces can be made here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.full
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_two_machines_train_as_one(project: Path, tmp_path: Path, device: str) -> None:
    """Two network name spaces, each with a folder and a process of its own."""
    set_params(project, {"ratio": SHORT, "runtime": {"device": device}})
    network = {"GLOO_SOCKET_IFNAME": "wire", "NCCL_SOCKET_IFNAME": "wire"}
    other = Path(shutil.copytree(project, tmp_path / "other"))
    before = contents(other)
    rendezvous = ("--nnodes=2", "--master-addr=10.199.0.1", "--master-port=29511")
    with two_networks() as names:
        processes = [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                    *(*rendezvous, f"--node-rank={rank}", "-m", "stages.train"),
                ],
                cwd=folder,
                env=environment(folder) | network | {"NCCL_HOSTID": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, (name, folder) in enumerate(zip(names, (project, other), strict=True))
        ]
        told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert told[0][0].startswith("33 tasks: validation loss ")
    assert told[1][0] == ""
    assert contents(other) == before
    if device == "cpu":
        run(other, *stage("train"))  # two processes of one machine
    else:
        run(other, *on_one_device(2, "train"))
    assert history(project, "train") == pytest.approx(history(other, "train"), abs=1e-3)
