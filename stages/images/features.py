"""Train SimCLR on the training images; give every image features and a pseudo-label."""

from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

app = stage_app()
SEED = 0  # all runs on features share the same ones


@app.command()
def main(dataset: DatasetOption, root: RootOption = ROOT, params: ParamsOption = PARAMS) -> None:
    """Train SimCLR on the training images; give every image features and a pseudo-label."""
    folder = Folder(root, dataset)
    out = folder.features
    name = stage_name("features", dataset)
    with image_stage(name, params, "simclr", outputs=out, root=root) as run:
        import pyarrow as pa

        from pipeline import schemas
        from pipeline.datasets.images import SOURCES
        from pipeline.images.simclr import clusters, encode, probe_accuracy, train_simclr
        from pipeline.model_files import read_model
        from pipeline.storage import vectors, write_table
        from pipeline.text_files import write_csv
        from pipeline.training.history import rounded
        from stages.session import open_session

        tensors, _ = read_model(folder.images)
        pixels, device = tensors["pixels"].numpy(), run.device()
        rows = {split: folder.split(split)[0] for split in ("train", "valid", "test")}
        with open_session(
            run, folder.images, folder.splits, max_epochs=run.params.simclr.max_epochs
        ) as session:
            net, history = train_simclr(
                pixels,
                train=rows["train"],
                valid=rows["valid"],
                flips=SOURCES[dataset].flips,
                params=run.params.simclr,
                seed=SEED,
                session=session,
            )
        x = encode(net, pixels, rows["train"], device)
        users, _ = folder.people()
        category = users.column("category").to_numpy()
        accuracy = probe_accuracy(x, category, rows["train"], rows["test"])
        table = pa.table({"user_id": users.column("user_id"), "x": vectors(x)})
        write_table(table, out.users, schemas.FEATURES)
        cluster = clusters(x, rows["train"], SEED)
        table = pa.table({"user_id": users.column("user_id"), "cluster": cluster})
        write_table(table, out.clusters, schemas.USERS)
        write_csv(rounded(history), out.history)
        write_csv([{"dataset": dataset, "accuracy": round(accuracy, 6)}], out.probe)
        run.say(f"{name}: a linear probe on x is right in {accuracy:.1%} of the test images")


if __name__ == "__main__":
    app()
