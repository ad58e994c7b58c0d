"""The recommender behind HTTP: `sasrec serve`, and `running_server` for notebooks and tests. Needs the extra `serve`.

messages    what is asked and answered, with limits and examples; OpenAPI is made from it
scoring     requests that arrive together are scored together
loaded      the model that is served, and the playlists that it was made from
guard       token, size of bodies, one line of log for each request, errors
app         the endpoints
running     a server in this process, or in one of its own
page.html   the page for people: search, add, see what comes next
"""

from __future__ import annotations

from sasrec_utils.serving.app import Served, create_app
from sasrec_utils.serving.running import Running, running_server, serve

__all__ = ["Running", "Served", "create_app", "running_server", "serve"]
