"""The browser: what a run found, as pages one can click through.

A page is one file in pages/, found by itself; pages/__init__.py says what is in it. Around the pages: app.py the app, shell.py
the document and the masthead, security.py who may ask, failures.py what is said of callbacks that fail, bundles.py scripts that
only some pages need, data.py named queries to frames, urls.py how addresses are spelled, components.py what several pages draw,
graph/ what the page of a graph is made of, assets/ all looks and what runs in the browser. Figures and words are those of
notebooks: `cltdb.database.display`.
"""
