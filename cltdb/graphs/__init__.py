"""Attribution graphs as tables of numbers: nodes, adjacency, influence, pruning, paths, supernodes, stored graphs. No torch."""
