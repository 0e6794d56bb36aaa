"""Rows of the strongest paths of a graph and of the routes of their steps."""

from itertools import pairwise

from cltdb.replacement.routes import Routes


def path_frames(graph, settings):
    """Frames of the tables paths and path_steps. settings: `attribute.paths` of the spec (`settings.Paths`)."""
    import polars as pl

    found = graph.signed_paths(settings.n, max_length=settings.max_length, sign=settings.sign)
    ranked = [(rank, path) for of_target in found.values() for rank, path in enumerate(of_target, start=1)]
    routes = routes_of(graph, {step for _, path in ranked for step in pairwise(path.nodes)})
    paths, steps = [], []
    for path_id, (rank, path) in enumerate(ranked):
        paths.append((path_id, rank, path.nodes[-1], path.weight, path.share))
        for step, ends in enumerate(pairwise(path.nodes)):
            steps += [(path_id, step, *ends, *route) for route in routes[ends]]
    of_paths = {"path_id": pl.Int32, "rank": pl.Int32, "target_id": pl.Int32, "weight": pl.Float64, "share": pl.Float64}
    of_steps = {
        **dict.fromkeys(("path_id", "step", "source_id", "target_id"), pl.Int32),
        **{"via": pl.String, "head": pl.String, "source_position": pl.Int32},
        **{"input_factor": pl.Float64, "weight_factor": pl.Float64},
    }
    return {
        name: pl.DataFrame(rows, schema=schema, orient="row").select(pl.lit(graph.graph_id).alias("graph_id"), pl.all())
        for name, rows, schema in (("paths", paths, of_paths), ("path_steps", steps, of_steps))
    }


def routes_of(graph, edges):
    """{(source, target): its `Route`s} of some edges of a graph."""
    adjacency, edges = graph.effects.adjacency, sorted(edges)
    weights = adjacency.weight[adjacency.places(edges)].tolist()
    return Routes(graph.replacement, graph.index, graph.targets).of(dict(zip(edges, weights, strict=True)))
