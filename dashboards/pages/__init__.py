"""One page per file. A new page is a new file here (and a .sql file per new query): nothing is edited elsewhere.

    dash.register_page(__name__, path="/notes", name="Notes", title="Notes · cltdb", order=9)
    QUERIES = ("notes_by_graph",)                        # the named queries it reads, through data.query

    def layout(dict_id=None, **_):                       # what the address shows; the fields of its query string arrive as text
        return html.Main([html.H1("Notes"), table(data.query("notes_by_graph", dict_id=dict_id))])

    def table(frame): ...                                # frames to elements or figures: pure functions
    @callback(Output(TABLE, "children"), Input(CHOICE, "value"))
    def choose(dict_id): ...                             # thin: asks data.query, calls a pure function

A page with a `path` of its own is in the navigation. One that only has a `path_template` (`/feature/<layer>`) is reached by links: the
variables are arguments of its layout, `under` is the path of the page that the navigation marks instead. An error that a layout or a
callback raises is shown. The tab tells the page's first heading, or its `components.SUBJECT`, before the title.
"""
