"""What the database holds, drawn: for notebooks, and for the pages of the browser, which import it. Nothing here asks the database.

words.py says numbers and tokens, figures.py makes Plotly figures, layered.py places the nodes of a graph; markup.py, feature.py and
graph.py make HTML and SVG.
"""
