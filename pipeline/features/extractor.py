"""All it takes to give a user a vector: a trained DeepFM, what it calls things, and a scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.arrays import Codes, Ints, Singles
from pipeline.errors import PipelineError
from pipeline.features.fold_in import Prior, fold_in
from pipeline.features.scale import Scale, with_activity
from pipeline.model_files import MISFITS, read_model, under, write_model
from pipeline.models.deepfm import DeepFM
from pipeline.pairs import find, ids_of, rows_of
from pipeline.vocabulary import as_tensor, from_tensor, raw_codes

AT_ONCE = 512  # newcomers folded in together, which bounds the memory
OWN_FIELD = "user_id"  # the field whose rows are fitted to newcomers


@dataclass(frozen=True)
class Extractor:
    """A trained DeepFM and what it takes to feed it.

    Attributes:
        net: the network, on any device.
        fields: for each user field, in the network's order, the codes it knows, sorted. The
            network may have one row more: of all the codes that were too rare.
        items: (I,) item_id of each of the network's items, sorted.
        scale: of x over the users it was trained on.
        activity: whether x ends with the user's log activity, which the embeddings do not hold:
            DeepFM contrasts as many negatives as a user has exposures.
    """

    net: DeepFM
    fields: Mapping[str, Codes]
    items: Ints
    scale: Scale
    activity: bool = False

    def vectors(self, users: pa.Table, exposures: pa.Table) -> Singles:
        """Standardised x (n, d) of users that it was trained on, and of their exposures."""
        with torch.no_grad():
            embedded = self.net.embed_users(self._codes(users))
        return self._standardised(embedded[..., 1:].flatten(1), users, exposures)

    def newcomers(self, users: pa.Table, exposures: pa.Table, gen: torch.Generator) -> Singles:
        """Standardised x (n, d) of users that it was not trained on; see `fold_in`.

        Args:
            users: user_id, sorted, and the other fields.
            exposures: what may be known of them, sorted by user, then item. Exposures to items
                that the network does not know say nothing.
            gen: draws negatives; lives on the network's device.

        Raises:
            PipelineError: an exposure of somebody who is not among `users`.
        """
        item = find(ids_of(exposures, "item_id"), self.items)
        known = item < len(self.items)
        item = item[known]
        ids = ids_of(exposures, "user_id")[known]
        user = rows_of(ids, ids_of(users, "user_id"), "user")
        codes = self._codes(users)
        own = list(self.fields).index(OWN_FIELD) if OWN_FIELD in self.fields else None
        x = torch.empty(len(codes), len(self.scale.mean) - self.activity)
        for start in range(0, len(codes), AT_ONCE):
            part = slice(*np.searchsorted(user, [start, start + AT_ONCE]))
            rows = torch.from_numpy(user[part] - start).to(codes.device)
            seen = torch.from_numpy(item[part]).to(codes.device)
            some = slice(start, start + AT_ONCE)
            made = fold_in(self.net, self._prior, codes[some], rows, seen, own=own, gen=gen)
            x[some] = made.cpu()
        return self._standardised(x, users, exposures)

    def newcomers_apart(self, users: pa.Table, exposures: pa.Table, *, seed: int) -> Singles:
        """As `newcomers`, one by one with draws of their own: x does not depend on who else comes.

        A user takes some milliseconds; hundreds together are faster.
        """
        ids, of = (ids_of(table, "user_id") for table in (users, exposures))
        start, end = (np.searchsorted(of, ids, side) for side in ("left", "right"))
        x = np.empty((len(ids), len(self.scale.mean)), np.float32)
        for n, user_id in enumerate(ids.tolist()):
            entropy = [seed, user_id % (1 << 64)]  # which is at least 0
            own = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            gen = torch.Generator(self.net.genres.device).manual_seed(own)
            met = exposures.slice(start[n], end[n] - start[n])
            x[n] = self.newcomers(users.slice(n, 1), met, gen)[0]
        return x

    def write(self, path: Path) -> None:
        """Write it as safetensors: network, vocabularies, items, mean and scale."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"codes.{name}": as_tensor(codes) for name, codes in self.fields.items()}
        tensors |= {"items": torch.from_numpy(self.items)}
        tensors |= {"mean": self.scale.mean, "scale": self.scale.scale}
        config = {
            "user_fields": list(self.fields),
            "network": self.net.config,
            "activity": self.activity,
        }
        write_model(tensors, config, path)

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Self:
        """Read what `write` wrote.

        Raises:
            PipelineError: no such file, or one without a DeepFM.
        """
        tensors, config = read_model(path)
        try:
            return cls._of(tensors, config, device)
        except MISFITS as error:
            raise PipelineError(
                f"{path}: holds no DeepFM; set features.model to deepfm and run `dvc repro`."
            ) from error

    @classmethod
    def _of(
        cls, tensors: Mapping[str, Tensor], config: Mapping[str, object], device: torch.device
    ) -> Self:
        fields = {
            name: from_tensor(tensors[f"codes.{name}"])
            for name in cast(list[str], config["user_fields"])
        }
        net = DeepFM(
            sizes=[len(tensors[f"net.user_fields.{n}"]) for n in range(len(fields))],
            genres=tensors["net.genres"],
            **cast(dict[str, Any], config["network"]),
        )
        net.load_state_dict(under("net.", tensors))
        scale = Scale(tensors["mean"], tensors["scale"])
        activity = bool(config["activity"])
        items = tensors["items"].numpy()
        return cls(net.to(device).eval(), fields, items, scale, activity)

    @cached_property
    def _prior(self) -> Prior:
        return Prior.of(self.net)

    def _standardised(self, x: Tensor, users: pa.Table, exposures: pa.Table) -> Singles:
        x = with_activity(x.cpu(), users, exposures) if self.activity else x.cpu()
        standardised: Singles = self.scale.apply(x).numpy()
        return standardised

    def _codes(self, users: pa.Table) -> Tensor:
        columns = [find(raw_codes(users, name), codes) for name, codes in self.fields.items()]
        return torch.from_numpy(np.stack(columns, 1)).to(self.net.genres.device)
