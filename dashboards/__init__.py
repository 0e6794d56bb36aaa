"""The browser: what a run found, as pages one can click through.

app.py holds the shell and routes a URL to its page; a page module (overview_page, frontier_page, search_page,
feature_page, graph_page) holds its ids, its layout and its callbacks. data.py asks the database, figures.py, graph_elements.py and
fragments.py turn frames into what Dash draws, urls.py spells addresses, assets/ holds all looks. Nothing here writes.
"""
