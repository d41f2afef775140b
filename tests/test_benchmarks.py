"""The contestants of the benchmarks learn the same thing, and the page says what was measured."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import distributed, gpu, modes, scale, share, traffic
from benchmarks.page import Section, render
from benchmarks.stages import Cost, main_stages
from benchmarks.textbook import PlainDeepFM, Textbook, by_dataloader, by_tensors, plain_deepfm_epoch
from benchmarks.timing import Race, Spread, race
from benchmarks.training import multiply_adds
from pipeline.models.deepfm import DeepFM
from pipeline.models.ratio import RatioNet, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.ranks import Ranks
from pipeline.steps.sampler import PairSampler
from pipeline.training.split import Split
from pipeline.training.step import make_step
from tests.together import together

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def test_contestants_take_turns_and_a_first_round_does_not_count() -> None:
    order: list[str] = []
    result = race({name: (lambda name=name: order.append(name), 2.0) for name in "ab"}, 3)
    assert "".join(order) == "abababab"
    assert [len(times) for times in result.seconds.values()] == [3, 3]


def test_a_ratio_is_taken_within_each_round() -> None:
    """Twice as fast in a fast and in a slow round."""
    result = Race({"slow": [2.0, 20.0, 4.0], "fast": [1.0, 10.0, 2.0]})
    assert result.ratio("slow", "fast") == Spread(3, 2.0, 2.0, 2.0)
    assert result.rate("fast", 10).median == 5
    assert Spread.of([1.0, 2.0, 3.0]).show() == "2 [1.5, 2.5]"


def test_the_slow_ways_learn_a_taste() -> None:
    """Users of either half know tasks of their own half: all contestants get under 2 ln 2."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=gen)
    user = torch.randint(40, (600,), generator=gen)
    task = (x[user, 0] > 0).long()
    pairs = PairSampler(user, task, user)
    e = torch.randn(2, 3, generator=gen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for way in (by_dataloader, lambda *a: by_tensors(*a, gen)):
            model = Textbook(6, e)
            for _ in range(6):
                way(model, x, pairs, 60, 0.02)
            model.eval()
            own, other = model(x[user], task), model(x[user], 1 - task)
            assert float((own > other).float().mean()) > 0.9
        plain = PlainDeepFM(40, torch.eye(2), 4, (8,))
        for _ in range(30):
            plain_deepfm_epoch(
                plain, *torch.stack([user, task]).unique(dim=1), 40, batch=20, lr=0.05
            )
        assert float((plain(user, task) > plain(user, 1 - task)).float().mean()) > 0.9


def test_the_floor_counts_every_multiplication_of_a_step() -> None:
    per_pair = 32 * 32 + 32 * 16 + 16
    assert multiply_adds(2000) - multiply_adds(1000) == 3 * 2 * 1000 * per_pair


def test_the_page_holds_its_sections() -> None:
    section = Section("Speed", "python -m x", "Words.", ("n = 1", "rate"), [["a", "3"]])
    page = render([str(section)])
    assert page.startswith("# Performance\n")
    assert (
        "## Speed\n\n`python -m x`\n\nWords.\n\n| n = 1 | rate |\n| --- | ---: |\n| a | 3 |" in page
    )


def test_every_stage_of_the_pipeline_is_measured_in_its_order() -> None:
    stages = main_stages()
    assert stages[0] == "prepare"
    assert stages[-1] == "report"
    assert stages.index("pretrain") < stages.index("project") < stages.index("train")


@pytest.mark.parametrize("make", [gpu.plain, gpu.ours])
def test_the_steps_that_a_gpu_would_run_learn_on_a_cpu_too(
    make: Callable[[Tensor, Tensor], gpu.Way],
) -> None:
    """By a training in batches of one shape, uncaptured: users of either half have their tasks."""
    gen = torch.Generator().manual_seed(0)
    x, e = torch.randn(40, 6, generator=gen), torch.randn(2, 3, generator=gen)
    user = torch.randint(40, (700,), generator=gen)
    pairs = PairSampler(user, (x[user, 0] > 0).long(), user)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        way = make(x, e)
        draw_layers(way.model, gen)
        step = gpu.step_of(way, CPU, capture=True)
        assert gpu.train(step, pairs, 60, epochs=25, gen=gen) == 25 * (700 // 60)
        way.model.eval()
        found = float(way.loss(*pairs.fixed(gen)).detach())
    assert found < 1.3


def test_the_whole_gpu_table_comes_out_on_a_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    page = gpu.measured(CPU, batches=(64, 128), exposures=1000, epochs=1)
    tables = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(tables) == 2 * (2 + 2)
    assert all(line.count("|") == len(gpu.COLUMNS) + 2 for line in tables)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_the_gpu_table_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "benchmarks.gpu: torch finds no CUDA device here; run it where there is one.\n"
    )


def test_sizes_are_kept_beside_each_other_and_measured_again_one_by_one(tmp_path: Path) -> None:
    """Twice the seconds for twice the size is linear; four times is not, and is marked."""
    path = tmp_path / "scale.csv"
    costs = {1: (1.0, 2.0), 2: (9.0, 9.0), 4: (4.0, 32.0)}
    for million in (1, 4, 2):
        fast, slow = costs[million]
        scale.keep(million, [Cost("a", fast, fast, 10), Cost("b", slow, slow, 7)], "one", path)
    scale.keep(2, [Cost("a", 2.0, 2.0, 11), Cost("b", 8.0, 8.0, 7)], "another", path)
    sizes, machines = scale.kept(path)
    assert machines == "one; another"
    found = scale.section(sizes, machines)
    assert found.header == ("n = 1", "1 M", "2 M", "4 M", "slope")
    assert found.rows == [
        ["a", "1.0 (1) [10]", "2.0 (2) [11]", "4.0 (4) [10]", "1.00"],
        ["b", "2.0 (2) [7]", "8.0 (8) [7]", "32.0 (32) [7]", "2.00 (!)"],
        ["all", "3.0 (3) [10]", "10.0 (10) [11]", "36.0 (36) [10]", "1.79 (!)"],
    ]


def test_a_stage_is_measured_again_beside_what_is_known_of_others(tmp_path: Path) -> None:
    path = tmp_path / "scale.csv"
    scale.keep(1, [Cost("a", 1.0, 1.0, 10), Cost("b", 2.0, 2.0, 10)], "one", path)
    scale.keep(1, [Cost("a", 3.0, 3.0, 10)], "one", path)
    costs = scale.kept(path)[0][1]
    assert [(cost.stage, cost.seconds) for cost in costs] == [("a", 3.0), ("b", 2.0)]


def test_the_batch_grows_with_the_users_once_they_are_many() -> None:
    assert [scale.batch_size(million) for million in (1, 10, 32)] == [16_384, 16_384, 50_000]


def test_a_stage_that_a_size_was_measured_without_leaves_its_place_empty() -> None:
    one, three = Cost("a", 1.0, 1.0, 10), Cost("a", 3.0, 3.0, 10)
    found = scale.section({1.0: [one], 3.0: [Cost("new", 2.0, 2.0, 5), three]}, "one")
    assert [row[:3] for row in found.rows] == [
        ["a", "1.0 (1) [10]", "3.0 (3) [10]"],
        ["all", "1.0 (1) [10]", "5.0 (5) [10]"],
        ["new", "", "2.0 (2) [5]"],
    ]
    assert found.rows[0][3] == "1.00"
    assert found.rows[2][3] == ""


def test_the_table_of_the_page_on_scale_is_what_was_measured() -> None:
    assert str(scale.section(*scale.kept(scale.KEPT))) in scale.PAGE.read_text()


def test_a_mode_s_seconds_count_until_its_loss_is_low_enough() -> None:
    rows = [{"epoch": n, "valid_loss": loss} for n, loss in ((1, 1.3), (2, 1.1), (3, 1.2))]
    run = modes.Trained([2.0, 4.0, 6.0], rows)
    assert run.best == 1
    assert [run.until(loss) for loss in (1.3, 1.25, 1.1)] == [2.0, 4.0, 4.0]


def test_what_several_processes_send_is_the_network_and_no_embedding() -> None:
    """The model against the tensors that a step adds up."""

    def work(ranks: Ranks) -> list[float]:
        torch.manual_seed(0)
        net = RatioNet(x_dim=7, task_dim=5, hidden=[6, 4], dropout=[0.0, 0.0])
        model = TaskRatios(net, x=torch.randn(9, 7), e=torch.randn(200, 5))
        with Split(model, TaskRatios.of_tasks, ranks) as split, distributed.counted(ranks) as sent:
            step = make_step(model.loss, torch.optim.Adam(model.parameters()), split)
            step(torch.zeros(2, 3, dtype=torch.int64), torch.arange(3))
        return sent

    numbers = traffic.shared_numbers(7, 5, [6, 4])
    assert numbers == (12 + 1) * 6 + (6 + 1) * 4 + (4 + 1) * 1
    for size in (2, 3):
        assert together(size, work) == [[traffic.bytes_sent(numbers, size)]] * size


def test_what_is_fetched_is_what_the_model_says() -> None:
    """Every process names 12 rows, which lie on 2, 3 or 4 processes alike; rows learned or not."""
    index = torch.cat([torch.arange(12), torch.arange(6)]).view(2, 9)

    def x(ranks: Ranks) -> float:
        torch.manual_seed(0)
        net = RatioNet(x_dim=7, task_dim=5, hidden=[6, 4], dropout=[0.0, 0.0])
        own = ranks.own(torch.randn(24, 7)).clone()
        model = TaskRatios(net, x=own, e=torch.randn(9, 5), ranks=ranks)
        with distributed.counted(ranks) as sent:
            model.loss(index, torch.arange(9)).backward()
        return sum(sent)

    def items(ranks: Ranks) -> float:
        net = DeepFM(sizes=[9], genres=torch.ones(24, 3), width=4, hidden=[8], dropout=0.0)
        with Split(net, ["item_id"], ranks), distributed.counted(ranks) as sent:
            net.loss(torch.arange(9)[:, None], torch.arange(9), index, ranks).backward()
            return sum(sent)

    for size in (2, 3, 4):
        for work, numbers, learned in ((x, 7, False), (items, 5, True)):
            told = traffic.bytes_fetched(12, numbers, size, learned=learned)
            found = together(size, lambda ranks, work=work: work(replace(ranks, deal_out=True)))
            assert found == [told] * size


def test_a_row_that_is_drawn_twice_is_fetched_once() -> None:
    chances = np.array([0.5, 0.3, 0.2, 0.0])
    gen = np.random.default_rng(0)
    drawn = [len(set(gen.choice(4, 3, p=chances))) for _ in range(4000)]
    assert traffic.distinct(chances, 3) == pytest.approx(np.mean(drawn), abs=0.05)


def test_dealing_x_out_takes_its_memory_and_gives_traffic() -> None:
    job, machines = traffic.Job(), traffic.Machines()
    dealt = replace(job, deal_out=True)
    assert dealt.memory(64)["x"] < job.memory(64)["x"] / 40
    assert job.memory(64)["x"] == job.memory(8)["x"]
    assert dealt.sent(8)["network"] == job.sent(8)["network"]
    assert dealt.epoch(8, machines) > job.epoch(8, machines)


def test_more_processes_hold_less_each_and_send_hardly_more() -> None:
    job, machines = traffic.Job(), traffic.Machines()
    for what in ("e", "pairs"):
        assert job.memory(64)[what] == pytest.approx(job.memory(8)[what] / 8)
    assert job.step(64, machines)["network"] < 1.1 * job.step(8, machines)["network"]
    assert job.epoch(64, machines) < job.epoch(8, machines)


def test_the_host_bounds_a_step_that_leaves_the_device_little_to_do() -> None:
    job, machines = traffic.Job(), traffic.Machines()
    assert job.step(8, machines)["host"] == 0
    of_64 = job.step(64, machines)
    assert sum(of_64.values()) - of_64["network"] == pytest.approx(machines.host)


def test_the_share_of_one_device_comes_out_on_a_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "EPOCHS", 2)
    job = traffic.Job(exposures=4000, tasks=80, users=50, x_dim=6, e_dim=3, batch=512)
    section = share.measured(CPU, job, processes=(2, 4))
    assert [row[0] for row in section.rows] == ["2", "4"]
    milliseconds = [float(row[n].split()[0]) for row in section.rows for n in (2, 3)]
    assert all(took > 0 for took in milliseconds)


@pytest.mark.parametrize("module", ["distributed", "share"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_a_benchmark_of_one_says_so(module: str) -> None:
    asked = ["--device", "cuda"] if module == "distributed" else []
    command = [sys.executable, "-m", f"benchmarks.{module}", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"benchmarks.{module}: torch finds no CUDA device here; ")


@pytest.mark.full
def test_the_interface_counts_what_the_model_says() -> None:
    if not distributed.apart():
        pytest.skip("no network name space can be made here, whose interface is ours alone")
    told = json.loads(distributed.run_worker(distributed.Job(2)))
    model = distributed.foretold(distributed.Job(2))
    assert told["tensors"] == model
    assert model < told["interface"] < 1.2 * model
    told = json.loads(distributed.run_worker(distributed.Job(2, deal_out=True)))
    model = distributed.foretold(distributed.Job(2, deal_out=True))
    assert told["tensors"] == pytest.approx(model, rel=0.02)
    assert model < told["interface"] < 1.2 * model
