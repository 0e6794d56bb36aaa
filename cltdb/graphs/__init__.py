"""Attribution graphs as tables of numbers: nodes, adjacency, influence, pruning, supernodes, stored graphs."""
