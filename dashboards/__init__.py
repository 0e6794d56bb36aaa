"""The browser: what a run found, as pages one can click through.

A page is one file in pages/, found by itself; pages/__init__.py says what is in it. Around the pages: app.py the shell and its navigation,
data.py named queries to frames, urls.py how addresses are spelled, components.py what several pages draw, graph_elements.py and node_card.py the
drawing of a graph, assets/ all looks. Figures, words and places of nodes are those of notebooks: `cltdb.database.display`.
"""
