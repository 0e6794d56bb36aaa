"""Labels in circuit-tracer's files: of feature pages, `features/{scan}/{Cantor pair}.json`, also gzipped, or packed as `index.json.gz` with
`layer_{n}.bin` beside it; or of graphs, whose feature nodes have a `clerp`.

circuit-tracer's own pages have no label. A page has one where somebody added a text as one of the fields of LABELS; pages without one are
passed over. The file name, or the place in the packed file, says which feature a page is of; of a node its Cantor pair does.
"""

import gzip
from itertools import islice, pairwise
from pathlib import Path

import polars as pl

from cltdb.errors import DataError, shown
from cltdb.explain.labels.rows import RAW, files_at, in_order, json_value, opened, reading, storable
from cltdb.interchange.feature_numbers import cantor_pair, cantor_unpair

LABELS = ("label", "explanation", "description", "clerp")
PLACE, NAMES = "label", {"source": "layer", "feature": "feature", "text": " or ".join(LABELS)}
INDEX, GRAPHS = "index.json.gz", "graph-metadata.json"
FEATURE = "cross layer transcoder"
BATCH = 10_000


def files(path):
    """The index of packed pages and the .bin files beside it; where there is none, a file or all .json files."""
    found = files_at(path, ".json")
    for index in (file for file in found if file.name == INDEX):
        return [index, *in_order(index.parent.glob("*.bin"))]
    return [file for file in found if file.name != GRAPHS]


def frames(paths):
    """Frames of RAW."""
    labels = _labels(paths)
    while rows := list(islice(labels, BATCH)):
        file, number, layer, feature, text = zip(*rows, strict=True)
        columns = {"file": file, "number": number, "source": map(str, layer), "feature": map(str, feature), "text": text}
        frame = pl.DataFrame({name: list(values) for name, values in columns.items()})
        yield frame.select(
            (pl.col(name) if name in columns else pl.lit(None)).cast(kind).alias(name) for name, kind in RAW.items()
        )


def _labels(paths):
    """(index of the path, number in the file, layer, feature, text) of every label."""
    for index, path in enumerate(paths):
        if path.suffix == ".bin":
            continue
        value = _read(path)
        if path.name == INDEX:
            found = _packed(value, path)
        elif isinstance(value, dict) and isinstance(value.get("nodes"), list):
            found = _of_nodes(value["nodes"], path)
        else:
            found = _of_page(value, path)
        yield from ((index, number, *label) for number, label in enumerate(found, start=1))


def _json(content, where):
    return json_value(content, str(where), "a feature page or a graph as JSON")


def _read(path):
    with opened(path, "JSON") as file:
        return _json(file.read(), path)


def _of_page(page, path):
    """(layer, feature, text) of a page where it has a label; its file's name is its Cantor pair."""
    name = path.name.split(".")[0]
    if not (name.isascii() and name.isdecimal()) or not isinstance(page, dict):
        found = "no JSON object" if name.isdecimal() else "a name that is no number, and no graph"
        raise DataError(
            str(path),
            found=found,
            expected="a page in a file named after its feature's Cantor pair, or a graph",
            do="take the file out",
        )
    yield from _of_feature(page, *cantor_unpair(int(name)), path)


def _of_feature(page, layer, feature, where):
    own = (page.get("layer", layer), page.get("index", feature))
    if own not in ((layer, feature), (layer, cantor_pair(layer, feature))):
        raise DataError(
            str(where),
            found=f"a page of layer {shown(own[0])}, index {shown(own[1])}",
            expected=f"feature {feature} of layer {layer}, which its place says",
            do="download it again, or mend its name",
        )
    texts = (page.get(name) for name in LABELS)
    text = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if text is not None:
        yield layer, feature, storable(text)


def _packed(index, path):
    """(layer, feature, text) of the pages with a label in the .bin files that an index names. A page is the length of its gzipped JSON, four
    bytes, little-endian, and this; it stands between two offsets, equal where there is none."""
    for layer, (filename, offsets) in _places(index, path).items():
        where = path.parent / filename
        with reading(where, ".bin"), open(where, "rb") as file:
            for feature, (start, stop) in enumerate(pairwise(offsets)):
                if start == stop:
                    continue
                file.seek(start)
                piece, place = file.read(stop - start), f"{where}, feature {feature}"
                if len(piece) < stop - start or int.from_bytes(piece[:4], "little") != len(piece) - 4:
                    raise DataError(
                        place, found="a page of another length", expected="the one that the index says", do="download both again"
                    )
                page = _json(gzip.decompress(piece[4:]), place)
                yield from _of_feature(page if isinstance(page, dict) else {}, layer, feature, place)


def _places(index, path):
    """{layer: (name of a file beside the index, offsets)}."""
    try:
        places = {
            int(layer): (str(entry["filename"]), [int(offset) for offset in entry["offsets"]]) for layer, entry in index.items()
        }
        assert all(start <= stop for _, offsets in places.values() for start, stop in pairwise([0, *offsets]))
        assert all(Path(filename).name == filename for filename, _ in places.values())
    except (AttributeError, AssertionError, KeyError, TypeError, ValueError) as error:
        expected = "for each layer the name of a file beside it and offsets that never fall"
        raise DataError(
            str(path), found=f"another index ({type(error).__name__})", expected=expected, do="download it again"
        ) from error
    return places


def _of_nodes(nodes, path):
    """(layer, feature, text) of a graph's features with a label, each text once."""
    seen = set()
    for number, node in enumerate(nodes):
        if not isinstance(node, dict) or node.get("feature_type") != FEATURE or not str(node.get("clerp") or "").strip():
            continue
        pair = node.get("feature")
        layer, feature = cantor_unpair(pair) if type(pair) is int and pair >= 0 else (None, None)
        if str(layer) != str(node.get("layer")):
            raise DataError(
                f"{path} nodes[{number}]",
                found=f"feature {shown(pair)} in layer {shown(node.get('layer'))}",
                expected="the Cantor pair of the node's layer and feature, as in schema version 1",
                do="write the graph with a newer circuit-tracer",
            )
        label = (layer, feature, storable(str(node["clerp"])))
        if label not in seen:
            seen.add(label)
            yield label
