"""What the library datasets opens: datasets of the Hub, and folders that its `save_to_disk` wrote; their rows, and its errors said as
ours."""

import contextlib
import glob
import json
from pathlib import Path

import numpy as np

from cltdb.activations.text_files import ROWS_PER_READ, Row, columns_of, no_column, table_values
from cltdb.engine import revisions
from cltdb.engine.workspace import explain_full_disk
from cltdb.errors import CltdbError, DataError


def is_saved(folder):
    """Whether `save_to_disk` of datasets wrote it."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def opened(folder, source):
    """What datasets opens: of a local folder or of the Hub."""
    options = {"split": source.split, "streaming": source.streaming}
    if folder.is_dir() and is_saved(folder):
        return _saved(folder, source)
    if folder.is_dir():
        return _load_dataset(str(folder), source, is_local=True, **options)
    if Path(source.dataset).is_absolute() or source.dataset.startswith(".") or source.dataset.count("/") > 1:
        raise DataError(
            f"activations.text {source.dataset}",
            found="no such folder",
            expected="a folder, relative to cltdb.yaml, or a dataset of the Hub",
            do="mend the path",
        )
    return _of_hub(source, options)


def _saved(folder, source):
    """A dataset that `save_to_disk` wrote, or the split of several."""
    import datasets

    with explained(source, is_local=True):
        if (folder / "state.json").is_file():
            dataset = datasets.load_from_disk(str(folder))
            name = str(dataset.split) if dataset.split is not None else None
            asked = source.split.split("[")[0]
            if "split" in source.model_fields_set and name is not None and "+" not in name and asked != name.split("[")[0]:
                raise DataError(
                    f"activations.text.split of {source.dataset}",
                    found=repr(source.split),
                    expected=f"{name}, the one split that was saved there",
                    do="leave split out, or name another folder",
                )
            return _sliced(source.split, {asked: dataset})
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        names = [part.split("[")[0].strip() for part in source.split.split("+")]
        check_splits(names, splits, source)
        return _sliced(source.split, {name: datasets.load_from_disk(str(folder / name)) for name in names})


def check_splits(names, splits, source):
    """DataError where one of the named splits is not among those that the data has."""
    if unknown := [name for name in names if name not in splits]:
        raise DataError(
            f"activations.text.split of {source.dataset}",
            found=repr(unknown[0]),
            expected="one of " + ", ".join(splits),
            do="name a split of the data",
        )


def _sliced(split, parts):
    """What a split such as `train[:10%]+test` names of datasets by split."""
    import datasets

    if split in parts:
        return parts[split]
    chosen = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(part) for name, part in parts.items()})
    return datasets.concatenate_datasets([parts[part.splitname].select(range(part.from_, part.to)) for part in chosen])


def dataset_rows(dataset, source, *, seed):
    """The `Row`s of what datasets opened, shuffled unless it is a stream."""
    columns, shown = columns_of(source), source.dataset
    names = dataset.column_names
    wanted = [name for name in columns if name is not None]
    tops = {name: name if names is None or name in names else name.split(".")[0] for name in wanted}
    for name in wanted:
        if names is not None and tops[name] not in names:
            raise no_column(shown, columns, name, names)
    with explained(source, is_local=False):
        if names is not None:
            dataset = dataset.select_columns(sorted(set(tops.values())))
        dataset = dataset.with_format("arrow")
        if source.streaming and not hasattr(dataset, "__len__"):
            number = 0
            for table in dataset.iter(batch_size=ROWS_PER_READ):
                for value, label in zip(*table_values(table, columns, shown), strict=True):
                    number += 1
                    yield Row(number, value, label)
            return
        order = np.arange(len(dataset)) if source.streaming else np.random.default_rng(seed).permutation(len(dataset))
        for start in range(0, len(order), ROWS_PER_READ):
            numbers = order[start : start + ROWS_PER_READ]
            values, labels = table_values(dataset[numbers.tolist()], columns, shown)
            yield from (Row(int(number) + 1, *pair) for number, *pair in zip(numbers, values, labels, strict=True))


def _of_hub(source, options):
    """A dataset of the Hub at its revision; where the Hub cannot be reached, the copy of that commit on this machine: datasets itself
    takes the last copy, whatever its commit."""
    import datasets

    offline, where = datasets.config.HF_HUB_OFFLINE, f"activations.text {source.dataset}"
    if not (offline or revisions.limits("dataset", source.dataset, source.revision, where=where)):
        return _load_dataset(source.dataset, source, revision=source.revision, **options)
    if revisions.COMMIT.fullmatch(source.revision or ""):
        return _cached_copy(source, where)
    try:
        datasets.config.HF_HUB_OFFLINE = True  # no tries that take half a minute
        return _load_dataset(source.dataset, source, **options)
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _cached_copy(source, where):
    """What datasets keeps on this machine of a commit of a Hub dataset."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    *owner, name = source.dataset.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    config = glob.escape(source.config) if source.config else "*"
    copies = sorted(path for path in folder.glob(f"{config}/*/{source.revision}") if path.is_dir())
    if len(copies) != 1:
        configs = ", ".join(sorted({path.parts[-3] for path in copies}))
        raise DataError(
            where,
            found=f"configurations {configs} of it" if copies else f"no copy of commit {source.revision[:12]} on this machine",
            expected="one of them" if copies else "a copy, as the Hub cannot be reached",
            do="name config" if copies else "run again with network",
        )
    config, version = copies[0].parts[-3:-1]
    with explained(source, is_local=False):
        copy = Cache(dataset_name=name, repo_id=source.dataset, config_name=config, version=version, hash=source.revision)
        read = copy.as_streaming_dataset if source.streaming else copy.as_dataset
        return read(split=source.split)


def _load_dataset(name, source, *, is_local=False, **options):
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what fails is said below, once
    with explained(source, is_local=is_local):
        with explain_full_disk(
            datasets.config.HF_DATASETS_CACHE, do="set HF_HOME, where datasets keeps its copies, to a folder on a larger disk"
        ):
            return datasets.load_dataset(name, source.config, **options)


@contextlib.contextmanager
def explained(source, *, is_local):
    """Says what datasets cannot read as one error: a folder that cannot be written, trouble with the network, or data that is not as it
    should be."""
    import datasets
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
    from pyarrow import ArrowException

    network = ConnectionError | TimeoutError | HTTPError | OfflineModeIsEnabled
    try:
        yield
    except CltdbError:
        raise
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError, ArrowException, HTTPError) as error:
        causes = _causes(error)
        found = str(error.__cause__ or error).split("\n")[0] or type(error).__name__
        where = f"activations.text {source.dataset}"
        if any(isinstance(cause, PermissionError) for cause in causes):
            expected, do = "folders that can be read, and one to write copies to", "set HF_HOME to a folder that you may write to"
        elif any(isinstance(cause, network) for cause in causes) and not is_local:
            expected = "a dataset on the Hub or in a local directory, and network for the Hub"
            do = "check its name and the network, and run again: what is finished is kept"
        elif is_local:
            expected, do = "a dataset in a local directory that can be read", "restore its files, or check config and split"
        else:
            expected, do = "a dataset on the Hub or in a local directory", "check its name, config and split"
        raise DataError(where, found=found, expected=expected, do=do) from error


def _causes(error):
    """An error and those that led to it."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
