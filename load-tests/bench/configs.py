"""The `routes.toml` of each measured gateway; what a file does not say is at its default, as shipped."""

from dataclasses import dataclass
from pathlib import Path

API_KEY = "the-load-generator-shows-this"
ACCESS_KEY = "AKIDLOADTEST"
SECRET_KEY = "only-load-tests-sign-with-this"
# Signed with the secret of `jwt` below, and good until the year 2100:
# {"iss":"https://id.example.com","sub":"user-1","aud":"bench","exp":4102444800,"scope":"chat","tenant":"acme"}
TOKEN = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUuY29tIiwic3ViIjoidXNlci0xIiwiYXVkIjoiYmVu"
    "Y2giLCJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoiY2hhdCIsInRlbmFudCI6ImFjbWUifQ.m4sDjfzxU2DNXhx8RlCCErWbxatgXXnS3JBaaAf8XPI"
)


@dataclass(frozen=True)
class Place:
    """Where a gateway of this run stands: its port (0: any), its backend's, and files of its own."""

    work: Path
    backend: int
    port: int = 0
    tls: tuple[Path, Path] | None = None


def websocket(place: Place) -> str:
    """One API, `$default` two-way to the backend, `@connections` without authorization."""
    return _websocket(place, f"http://127.0.0.1:{place.backend}/", 'authorization = "none"')


def signed(place: Place) -> str:
    """The same with `@connections` at its default, which wants signed calls."""
    begin = _websocket(place, f"http://127.0.0.1:{place.backend}/", "")
    return f"""{begin}
[credentials.bench]
access_key_id     = "{ACCESS_KEY}"
secret_access_key = "{SECRET_KEY}"
allow             = ["execute-api:ManageConnections bench/prod/*"]
"""


def admitted_by_http(place: Place) -> str:
    """Clients are let in by the backend's `/authorize`, which is remembered for an hour."""
    begin = _admission(place)
    return f"""{begin}
type            = "http"
uri             = "http://127.0.0.1:{place.backend}/authorize"
identity_source = ["$request.querystring.user"]
ttl             = "1h"
"""


def admitted_by_jwt(place: Place) -> str:
    """Clients are let in by an HS256 token."""
    begin = _admission(place)
    return f"""{begin}
type     = "jwt"
secret   = "only load tests sign with this secret"
issuer   = "https://id.example.com"
audience = ["bench"]
"""


def watched(place: Place) -> str:
    """Everything is written down to stdout, save for a line of the gateway's own log for each call."""
    return _watched(place, "stdout")


def watched_file(place: Place) -> str:
    """The same, to a file."""
    return _watched(place, str(place.work / "access.log"))


def proxy(place: Place) -> str:
    """One HTTP API that passes everything on."""
    begin = _gateway(place)
    return f"""{begin}
[apis.web]
protocol = "http"

[apis.web.routes]
"ANY /{{proxy+}}" = {{ integration = "http://127.0.0.1:{place.backend}/{{proxy}}" }}
"""


def http_routes(number: int, place: Place) -> str:
    """So many HTTP routes of five kinds, a fifth of each."""
    routes = []
    for i in range(number // 5):
        kinds = [f"GET /list{i}", f"GET /items{i}/{{id}}", f"PUT /items{i}/{{id}}"]
        kinds += [f"ANY /files{i}/{{path+}}", f"GET /{{shop}}/orders{i}"]
        routes += [f'"{kind}" = {{ integration = "http://127.0.0.1:{place.backend}/" }}' for kind in kinds]
    return _gateway(place) + '[apis.web]\nprotocol = "http"\n[apis.web.routes]\n' + "\n".join(routes) + "\n"


def websocket_routes(number: int, place: Place) -> str:
    """So many routes `r0`, `r1`, … beside `$default`."""
    route = f'{{ integration = "http://127.0.0.1:{place.backend}/", route_response = true }}'
    return websocket(place) + "\n[apis.bench.routes]\n" + "".join(f"r{i} = {route}\n" for i in range(number))


def many_calls(place: Place) -> str:
    """The backend is a pool that may have 10,000 calls in progress, in place of the 1,024 by default."""
    begin = _websocket(place, "http://slow/", 'authorization = "none"')
    return f"""{begin}
[backends.slow]
servers         = "127.0.0.1:{place.backend}"
max_connections = 10_000
"""


def _gateway(place: Place) -> str:
    text = f'[gateway]\nlisten = "127.0.0.1:{place.port}"\nadmin_listen = "127.0.0.1:0"\n'
    if place.tls:
        cert, key = place.tls
        text += f'\n[[gateway.tls.certificates]]\ncert = "{cert}"\nkey = "{key}"\n'
    return text


def _websocket(place: Place, integration: str, connections_api: str) -> str:
    begin = _gateway(place)
    return f"""{begin}
[apis.bench]
protocol                   = "websocket"
route_selection_expression = "$request.body.action"

[apis.bench.routes."$default"]
integration    = "{integration}"
route_response = true

[apis.bench.stages.prod]

[apis.bench.connections_api]
{connections_api}
"""


def _admission(place: Place) -> str:
    """All that a message of an admitted client passes; none of it ever says no, and the authorizer's table is open."""
    begin = websocket(place)
    return f"""{begin}
[gateway.throttle]
rate  = 1_000_000
burst = 1_000_000

[apis.bench.routes."$connect"]
integration      = {{ type = "mock" }}
authorizer       = "caller"
api_key_required = true

[apis.bench.stages.prod.throttle]
rate  = 1_000_000
burst = 1_000_000

[apis.bench.stages.prod.limits]
messages_per_connection = {{ rate = 1_000_000, burst = 1_000_000 }}
bytes_per_connection    = {{ rate = 1_000_000_000, burst = 1_000_000_000 }}

[usage_plans.bench]
rate   = 1_000_000
burst  = 1_000_000
quota  = {{ limit = 1_000_000_000, period = "month" }}
stages = ["bench/prod"]

[api_keys.bench]
value      = "{API_KEY}"
usage_plan = "bench"

[authorizers.caller]
"""


def _watched(place: Place, destination: str) -> str:
    stage = "[apis.bench.stages.prod]\n"
    begin = websocket(place).replace(stage, stage + 'detailed_metrics = true\nlogging_level = "error"\n')
    return f"""{begin}
[apis.bench.stages.prod.access_log]
format      = "json"
destination = "{destination}"
keep        = 1

[gateway.tracing]
endpoint = "http://127.0.0.1:{place.backend}"
sample   = 0.01
"""
