"""TransE of this pipeline beside PyKEEN's, on one knowledge graph: `pip install pykeen` first.

`python -m benchmarks.links triples.tsv` prints a table. Both learn from the same
triples and are tested on the same held-out ones.
"""

import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import torch
import typer

from benchmarks.command import command
from benchmarks.page import Section, machine
from benchmarks.stages import ROOT
from pipeline.graph import SPLIT_SEED
from pipeline.knowledge import KnowledgeGraph
from pipeline.link_prediction import by_relation, filtered_ranks
from pipeline.params import Graph, Params
from pipeline.params_file import load_sections
from pipeline.training.graph import Triples, train_translation
from pipeline.training.session import Session

SEEDS = (0, 1, 2)
CHANGED = {"model": "transe", "batch_size": 4096}  # the rest as in params.yaml
TEXT = """
{triples:,} distinct triples of {entities:,} entities and {relations} relations ({file}), {test:,}
of them to test on and as many to stop by. TransE of {dim} numbers by both, with L{norm} distances,
margin {margin:g}, one corrupted triple a true one (by the relation's Bernoulli chance), Adam with
lr {lr:g}, batch {batch:,}, at most {epochs} epochs. Kept is the epoch of the best MRR on the
triples to stop by; ours looks after each epoch, PyKEEN's `EarlyStopper` after every fifth.
Filtered, both ends, ties by their mean. CPU seconds on one thread, validations among them. Mean
and standard deviation over the seeds {seeds}. Measured on {machine}.
"""


@dataclass(frozen=True)
class Found:
    """What came of one training."""

    mrr: float
    hits10: float
    seconds: float


def main(
    file: Annotated[
        Path, typer.Argument(exists=True, help="A table of triples, .tsv: head, relation, tail.")
    ],
) -> Section:
    """Link prediction by this pipeline and by PyKEEN: a row a library."""
    import_module("pykeen.pipeline")  # before anything takes time
    torch.set_num_threads(1)
    params = load_sections(Params, ROOT / "params.yaml", "graph").graph.model_copy(update=CHANGED)
    parse = pa_csv.ParseOptions(delimiter="\t", quote_char=False)
    facts = pa_csv.read_csv(file, parse_options=parse).select(["head", "relation", "tail"])
    nobody = pa.chunked_array([], pa.string())
    graph = KnowledgeGraph.of_names(facts, nobody)
    parts = graph.hold_out(params.held_out_share, np.random.default_rng(SPLIT_SEED))
    rows = []
    for name, learn in {"this pipeline": ours, "PyKEEN": pykeen}.items():
        found = [learn(graph, [torch.from_numpy(p) for p in parts], params, s) for s in SEEDS]
        rows.append([name, *(_spread(found, key) for key in ("mrr", "hits10", "seconds"))])
    text = TEXT.format(
        triples=graph.triples.shape[1],
        entities=graph.entities,
        relations=len(graph.relations),
        file=file.name,
        test=parts[2].shape[1],
        dim=params.dim,
        norm=params.norm,
        margin=params.margin,
        lr=params.lr,
        batch=params.batch_size,
        epochs=params.max_epochs,
        seeds=", ".join(map(str, SEEDS)),
        machine=machine(),
    )
    header = (f"n = {len(SEEDS)}", "MRR", "Hits@10", "seconds")
    return Section("Link prediction", f"python -m benchmarks.links {file.name}", text, header, rows)


def ours(graph: KnowledgeGraph, parts: list[torch.Tensor], params: Graph, seed: int) -> Found:
    """The model of the `graph` stage."""
    learn, stop, test = parts
    everything = torch.from_numpy(graph.triples)
    triples = Triples(learn, stop, everything, graph.entities, len(graph.relations))
    started = time.process_time()
    model, _ = train_translation(triples, params, seed=seed, session=Session())
    seconds = time.process_time() - started
    row = by_relation(filtered_ranks(model, test, everything), test[1], graph.relations)[0]
    return Found(float(row["mrr"] or 0), float(row["hits10"] or 0), seconds)


def pykeen(graph: KnowledgeGraph, parts: list[torch.Tensor], params: Graph, seed: int) -> Found:
    """The same by PyKEEN's own pipeline."""
    from pykeen.pipeline import pipeline
    from pykeen.triples import CoreTriplesFactory

    learn, stop, test = (
        CoreTriplesFactory(part.T.contiguous(), graph.entities, len(graph.relations))
        for part in parts
    )
    started = time.process_time()
    made = pipeline(
        training=learn,
        validation=stop,
        testing=test,
        model="TransE",
        model_kwargs={"embedding_dim": params.dim, "scoring_fct_norm": params.norm},
        loss="marginranking",
        loss_kwargs={"margin": params.margin},
        optimizer="adam",
        optimizer_kwargs={"lr": params.lr},
        training_kwargs={
            "num_epochs": params.max_epochs,
            "batch_size": params.batch_size,
            "use_tqdm": False,
        },
        negative_sampler="bernoulli",
        stopper="early",
        stopper_kwargs={
            "frequency": 5,
            "patience": 2,
            "metric": "inverse_harmonic_mean_rank",
            "relative_delta": 0.0,
        },
        evaluation_kwargs={"use_tqdm": False},
        random_seed=seed,
        device="cpu",
        evaluator_kwargs={"filtered": True},
    )
    seconds = time.process_time() - started  # with the test: as long as a validation
    found = made.metric_results
    return Found(
        found.get_metric("both.realistic.inverse_harmonic_mean_rank"),
        found.get_metric("both.realistic.hits_at_10"),
        seconds,
    )


def _spread(found: list[Found], key: str) -> str:
    values = [getattr(one, key) for one in found]
    shown = ".0f" if key == "seconds" else ".3f"
    return f"{np.mean(values):{shown}} ± {np.std(values, ddof=1):{shown}}"


if __name__ == "__main__":
    command(main)
