"""The @connections API with AWS's own SDK for Python: contract/websocket.md section 5."""

import datetime
import re

import pytest
from botocore.exceptions import ClientError

from signing import BACKEND, KEY_ID, management
from wire import BINARY, CONTINUATION, PING, TEXT, frame, handshake
from world import ID

UNKNOWN = "zeYsWoCdtIv4VN8="


@pytest.fixture
def gateway(livegate):
    """Signed pushes only, as by default."""
    return livegate(connections_api={"authorization": "aws_iam"}, credentials=BACKEND)


@pytest.fixture
def api(gateway):
    return management(f"{gateway.http_url}/prod")


def code_and_status(failed):
    return failed.value.response["Error"]["Code"], failed.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_push_is_one_text_message(gateway, api):
    with gateway.connect() as client:
        answer = api.post_to_connection(ConnectionId=client.whoami(), Data="héllo".encode())
        assert client.hears() == "héllo"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert re.fullmatch(ID, answer["ResponseMetadata"]["RequestId"])


def test_a_connection_is_described(gateway, api):
    before = datetime.datetime.now(datetime.timezone.utc)
    with gateway.connect(user_agent_header="mine/1") as client:
        described = api.get_connection(ConnectionId=client.whoami())
    after = datetime.datetime.now(datetime.timezone.utc)
    slack = datetime.timedelta(seconds=2)
    assert described["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "mine/1"}
    assert before - slack <= described["ConnectedAt"] <= described["LastActiveAt"] <= after + slack


def test_the_description_as_it_is_on_the_wire(livegate):
    gateway = livegate()
    with gateway.open() as wire:
        wire.says(action="whoami")
        described = gateway.request("GET", f"/prod/@connections/{wire.message()}")
    assert described.header("Content-Type") == "application/json" and described.header("x-amzn-RequestId")
    assert set(described.json) == {"connectedAt", "identity", "lastActiveAt"}
    assert described.json["identity"] == {"sourceIp": "127.0.0.1"}
    for moment in (described.json["connectedAt"], described.json["lastActiveAt"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)


def test_a_connection_is_closed(gateway, api):
    with gateway.connect() as client:
        mine = client.whoami()
        assert api.delete_connection(ConnectionId=mine)["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert client.closed()[0] == 1000
        with pytest.raises(api.exceptions.GoneException):
            api.post_to_connection(ConnectionId=mine, Data=b"late")


@pytest.mark.parametrize("operation", ["post_to_connection", "get_connection", "delete_connection"])
def test_an_unknown_connection_is_gone(api, operation):
    more = {"Data": b"x"} if operation == "post_to_connection" else {}
    with pytest.raises(api.exceptions.GoneException) as failed:
        getattr(api, operation)(ConnectionId=UNKNOWN, **more)
    assert code_and_status(failed) == ("GoneException", 410)


def test_a_connection_that_left_is_gone(gateway, api):
    with gateway.connect() as client:
        mine = client.whoami()
    with pytest.raises(api.exceptions.GoneException):
        api.post_to_connection(ConnectionId=mine, Data=b"x")


def test_a_connection_of_another_stage_is_gone(livegate):
    gateway = livegate(stages={"blue": {}, "green": {}}, credentials=BACKEND, connections_api={"authorization": "aws_iam"})
    green = management(f"{gateway.http_url}/green")
    with gateway.connect("/blue") as client, pytest.raises(green.exceptions.GoneException):
        green.get_connection(ConnectionId=client.whoami())


@pytest.mark.parametrize("size", [131_073, 1_000_000])
def test_more_than_128_kib_is_too_large(gateway, api, size):
    with gateway.connect() as client:
        mine = client.whoami()
        with pytest.raises(api.exceptions.PayloadTooLargeException) as failed:
            api.post_to_connection(ConnectionId=mine, Data=b"x" * size)
        assert code_and_status(failed)[1] == 413
        api.post_to_connection(ConnectionId=mine, Data=b"still here")
        assert client.hears() == "still here"


def test_128_kib_arrive_in_frames_of_at_most_32(gateway, api):
    with gateway.open() as wire:
        wire.says(action="whoami")
        text = "".join(chr(97 + number % 26) for number in range(131_072))
        api.post_to_connection(ConnectionId=wire.message(), Data=text.encode())
        frames = [wire.frame()]
        while not frames[-1].fin:
            frames.append(wire.frame())
    assert "".join(one.payload.decode() for one in frames) == text
    assert [one.opcode for one in frames] == [TEXT] + [CONTINUATION] * (len(frames) - 1)
    assert len(frames) >= 4 and max(len(one.payload) for one in frames) <= 32_768


def test_100_kib_keep_their_characters_whole_once_put_together(gateway, api):
    text = "h\u00e9\U0001F600" * 14_000
    with gateway.connect() as client:
        api.post_to_connection(ConnectionId=client.whoami(), Data=text.encode())
        assert client.hears() == text


def test_max_frame_bounds_the_frames_of_a_push(livegate):
    gateway = livegate(stage={"max_frame": "1KiB"})
    with gateway.open() as wire:
        wire.says(action="whoami")
        gateway.push(wire.message(), "x" * 3000)
        frames = [wire.frame()]
        while not frames[-1].fin:
            frames.append(wire.frame())
    assert sum(len(one.payload) for one in frames) == 3000 and max(len(one.payload) for one in frames) <= 1024


def test_a_pong_may_stand_between_the_frames_of_a_push_but_nothing_else(livegate):
    gateway = livegate(stage={"max_frame": "1KiB"})
    with gateway.open() as wire:
        wire.says(action="whoami")
        mine = wire.message()
        for number in range(20):
            wire.send(frame(PING, b"p"))
            gateway.push(mine, str(number) * 2000)
        for number in range(20):
            assert set(wire.message()) == set(str(number))


def test_an_empty_push_is_an_empty_message(gateway, api):
    with gateway.connect() as client:
        api.post_to_connection(ConnectionId=client.whoami(), Data=b"")
        assert client.hears() == ""


def test_a_push_that_is_not_utf8_is_a_bad_request(livegate):
    gateway = livegate()
    with gateway.connect() as client:
        refused = gateway.push(client.whoami(), b"\xff\xfe")
        assert (refused.status, refused.header("x-amzn-ErrorType")) == (400, "BadRequestException")


def test_with_binary_a_push_that_is_not_utf8_is_a_binary_frame(livegate):
    gateway = livegate(stage={"binary": True})
    with gateway.open() as wire:
        wire.says(action="whoami")
        mine = wire.message()
        assert gateway.push(mine, b"\xff\xfe").status == gateway.push(mine, b"text").status == 200
        first, second = wire.frame(), wire.frame()
    assert (first.opcode, first.payload, second.opcode, second.payload) == (BINARY, b"\xff\xfe", TEXT, b"text")


def test_a_thousand_pushes_one_after_the_other_arrive_in_order(gateway, api):
    with gateway.connect() as client:
        mine = client.whoami()
        for number in range(1000):
            api.post_to_connection(ConnectionId=mine, Data=str(number).encode())
        assert [client.hears() for _ in range(1000)] == [str(number) for number in range(1000)]


def test_during_connect_there_is_nothing_to_push_to(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect")}, credentials=BACKEND, connections_api={"authorization": "aws_iam"})
    api = management(f"{gateway.http_url}/prod")
    with backend.holding("/connect") as hold, gateway.wire() as wire:
        wire.send(handshake("/prod", gateway.host))
        mine = backend.next("/connect").connection_id
        for call in (lambda: api.post_to_connection(ConnectionId=mine, Data=b"early"),
                     lambda: api.get_connection(ConnectionId=mine), lambda: api.delete_connection(ConnectionId=mine)):
            with pytest.raises(api.exceptions.GoneException):
                call()
        hold.release()
        assert wire.response().status == 101
        api.post_to_connection(ConnectionId=mine, Data=b"now")
        assert wire.message() == "now"


def test_a_push_right_after_the_connect_answer_is_not_lost(livegate, backend):
    gateway = livegate(routes={"$connect": backend.at("/connect")})
    for _ in range(30):
        with gateway.open() as wire:
            assert gateway.push(backend.next("/connect").connection_id, "first").status == 200
            assert wire.message() == "first"


def test_a_full_outbox_is_a_limit_exceeded(livegate):
    gateway = livegate(stage={"outbox": {"bytes": "64KiB", "messages": 1024}, "slow_consumer_timeout": "60s"},
                       credentials=BACKEND, connections_api={"authorization": "aws_iam"})
    api = management(f"{gateway.http_url}/prod")
    with gateway.open(receive_buffer=4096) as deaf, gateway.connect() as other:
        deaf.says(action="whoami")
        mine, accepted = deaf.message(), 0
        with pytest.raises(api.exceptions.LimitExceededException) as failed:
            for accepted in range(2000):
                api.post_to_connection(ConnectionId=mine, Data=b"%06d" % accepted + b"x" * 30_000)
        assert code_and_status(failed)[1] == 429
        # Whoever reads is served all the while, and what was accepted is still delivered.
        api.post_to_connection(ConnectionId=other.whoami(), Data=b"hello")
        assert other.hears() == "hello"
        assert [int(deaf.message()[:6]) for _ in range(accepted)] == list(range(accepted))


def test_the_outbox_is_bounded_in_messages_too(livegate):
    gateway = livegate(stage={"outbox": {"bytes": "64MiB", "messages": 10}, "slow_consumer_timeout": "60s"})
    with gateway.open(receive_buffer=4096) as deaf:
        deaf.says(action="whoami")
        mine = deaf.message()
        statuses = [gateway.push(mine, "x" * 100_000).status for _ in range(200)]
    assert 200 in statuses and 429 in statuses and set(statuses) == {200, 429}


# Who may


def test_a_wrong_secret_is_an_invalid_signature(gateway):
    api = management(f"{gateway.http_url}/prod", secret="another secret")
    with pytest.raises(ClientError) as failed:
        api.post_to_connection(ConnectionId=UNKNOWN, Data=b"x")
    assert code_and_status(failed) == ("InvalidSignatureException", 403)


def test_an_unknown_key_is_refused(gateway):
    api = management(f"{gateway.http_url}/prod", key_id="AKIDNOBODY")
    with pytest.raises(ClientError) as failed:
        api.post_to_connection(ConnectionId=UNKNOWN, Data=b"x")
    assert code_and_status(failed)[1] == 403


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "local"])
def test_any_region_will_do(gateway, region):
    api = management(f"{gateway.http_url}/prod", region=region)
    with gateway.connect() as client:
        api.post_to_connection(ConnectionId=client.whoami(), Data=b"hi")
        assert client.hears() == "hi"


@pytest.mark.parametrize("shown, status", [("tok", 200), ("another", 403), (None, 403)])
def test_a_session_token_must_match(livegate, shown, status):
    credentials = {"backend": {**BACKEND["backend"], "session_token": "tok"}}
    gateway = livegate(credentials=credentials, connections_api={"authorization": "aws_iam"})
    api = management(f"{gateway.http_url}/prod", token=shown)
    with gateway.connect() as client:
        mine = client.whoami()
        if status == 200:
            api.post_to_connection(ConnectionId=mine, Data=b"hi")
            assert client.hears() == "hi"
        else:
            with pytest.raises(ClientError) as failed:
                api.post_to_connection(ConnectionId=mine, Data=b"hi")
            assert code_and_status(failed)[1] == 403


@pytest.mark.parametrize("allow, may", [
    ("execute-api:ManageConnections chat/prod/*", {"POST", "GET", "DELETE"}),
    ("execute-api:ManageConnections chat/prod/POST/@connections/*", {"POST"}),
    ("execute-api:ManageConnections */*/GET/@connections/*", {"GET"}),
    ("execute-api:* chat/*/DELETE/*", {"DELETE"}),
    ("execute-api:ManageConnections chat/other/*", set()),
    ("execute-api:Invoke chat/prod/*", set()),
    (None, set()),
])
def test_allow_says_which_operations(livegate, allow, may):
    credentials = {"backend": {"access_key_id": KEY_ID, "secret_access_key": BACKEND["backend"]["secret_access_key"],
                               **({"allow": [allow]} if allow else {})}}
    gateway = livegate(credentials=credentials, connections_api={"authorization": "aws_iam"})
    api = management(f"{gateway.http_url}/prod")
    calls = {"POST": lambda mine: api.post_to_connection(ConnectionId=mine, Data=b"hi"),
             "GET": lambda mine: api.get_connection(ConnectionId=mine),
             "DELETE": lambda mine: api.delete_connection(ConnectionId=mine)}
    with gateway.connect() as client:
        mine = client.whoami()
        for method, call in calls.items():
            if method in may:
                call(mine)
            else:
                with pytest.raises(api.exceptions.ForbiddenException) as failed:
                    call(mine)
                assert code_and_status(failed)[1] == 403


def test_allow_may_name_one_connection(livegate):
    open_gateway = livegate()
    with open_gateway.connect() as client:
        mine = client.whoami()
    credentials = {"backend": {**BACKEND["backend"], "allow": [f"execute-api:ManageConnections chat/prod/*/@connections/{mine}"]}}
    gateway = livegate(credentials=credentials, connections_api={"authorization": "aws_iam"})
    api = management(f"{gateway.http_url}/prod")
    with pytest.raises(api.exceptions.GoneException):
        api.get_connection(ConnectionId=mine)
    with pytest.raises(api.exceptions.ForbiddenException):
        api.get_connection(ConnectionId=UNKNOWN)
