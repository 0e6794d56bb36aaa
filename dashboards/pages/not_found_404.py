"""What an address shows that no page has."""

import dash

from dashboards.components import no_such_page

dash.register_page(__name__, name="Not found", title="cltdb")
QUERIES = ()


def layout(**_):
    return no_such_page()
