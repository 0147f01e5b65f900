"""What the proxy before a store does to the requests that it is told to harm."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from embedding_core.errors import LakeError
from embedding_core.lake.lock import locked
from embedding_core.lake.table import Lake, Table
from experiments.faults.s3.proxy import Proxy
from experiments.faults.s3.trouble import Harm, Trouble
from tests.s3 import S3Server

BODY, ANSWER = b"0123456789", b"answer"


@dataclass(frozen=True, slots=True)
class Store:
    """A server that notes what it gets, and the proxy before it."""

    proxy: Proxy
    received: list[tuple[str, int]] = field(default_factory=list)
    """Header ``If-None-Match`` and bytes of the body of each request."""
    hosts: set[str] = field(default_factory=set)

    def put(self, method: str = "PUT") -> int | str:
        """Send a request; the status of the answer, or the class of the error."""
        connection = http.client.HTTPConnection(self.proxy.host, timeout=60)
        try:
            headers = {"If-None-Match": "*"}
            connection.request(method, "/a/b", BODY if method == "PUT" else None, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (http.client.HTTPException, OSError) as error:
            return type(error).__name__
        finally:
            connection.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Store]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            store.received.append((self.headers.get("if-none-match", ""), len(body)))
            store.hosts.add(self.headers["host"])
            if len(body) in (0, len(BODY)):
                self.send_response(200)
                self.send_header("content-length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

        def do_GET(self) -> None:
            self.do_PUT()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            patch.setenv(name, "of-no-importance")
        store = Store(Proxy(server.server_port))
    yield store
    store.proxy.close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(running: Store) -> Store:
    running.proxy.give(Trouble())
    running.received.clear()
    return running


def test_proxy_without_trouble_keeps_the_host_and_counts(store: Store) -> None:
    assert [store.put(), store.put("GET"), store.put()] == [200, 200, 200]
    assert store.hosts == {store.proxy.host}, "a signature covers it"
    assert store.proxy.give(Trouble()).n_matching == 2, "a GET changes nothing"


LOST = "RemoteDisconnected"


@pytest.mark.parametrize(
    ("harm", "answer", "received"),
    [
        (Harm.LOSE_REPLY, LOST, 10),
        (Harm.DENY, 500, 10),
        (Harm.REFUSE_500, 500, None),
        (Harm.REFUSE_503, 503, None),
        (Harm.CUT, LOST, 5),
        (Harm.DELAY, 200, 10),
    ],
)
def test_proxy_harms_the_chosen_request_alone(
    store: Store, harm: Harm, answer: int | str, received: int | None
) -> None:
    store.proxy.give(Trouble(harm, number=2, seconds=0.01))
    assert [store.put(), store.put(), store.put()] == [200, answer, 200]
    assert store.proxy.give(Trouble()).n_harmed == 1
    sizes = [size for _, size in store.received]
    assert sorted(sizes) == sorted([10, 10] if received is None else [10, received, 10])


def test_proxy_cuts_an_answer_where_nothing_is_sent(store: Store) -> None:
    store.proxy.give(Trouble(Harm.CUT, matches="^GET", number=1))
    assert [store.put("GET"), store.put("GET")] == ["IncompleteRead", 200]


@pytest.mark.parametrize(("harm", "n_received"), [(Harm.OUTAGE, 1), (Harm.REPLY_AND_OUTAGE, 2)])
def test_proxy_plays_dead_until_the_outage_is_over(
    store: Store, harm: Harm, n_received: int
) -> None:
    store.proxy.give(Trouble(harm, number=2, seconds=60))
    assert [store.put(), store.put(), store.put()] == [200, LOST, LOST]
    assert len(store.received) == n_received
    store.proxy.give(Trouble())
    assert store.put() == 200


def test_proxy_harms_a_share_that_the_seed_draws(store: Store) -> None:
    def statuses(seed: int) -> list[int | str]:
        store.proxy.give(Trouble(Harm.REFUSE_503, share=0.5, seed=seed))
        return [store.put() for _ in range(12)]

    drawn = statuses(1)
    assert set(drawn) == {200, 503}
    assert drawn == statuses(1) != statuses(2)


def test_proxy_strips_a_header_and_signs_again(store: Store) -> None:
    store.proxy.give(Trouble(Harm.STRIP, share=1.0, header="If-None-Match"))
    assert store.put() == 200
    assert store.received == [("", len(BODY))]


@pytest.mark.parametrize(("harm", "n_received"), [(Harm.KILL_BEFORE, 0), (Harm.KILL_AFTER, 1)])
def test_proxy_kills_the_process_it_is_told(store: Store, harm: Harm, n_received: int) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        store.proxy.give(Trouble(harm, number=1, pid=victim.pid))
        assert store.put() == LOST
        assert victim.wait() == -signal.SIGKILL
    assert len(store.received) == n_received


def test_lock_in_a_store_that_began_to_ignore_conditions_is_refused(s3: S3Server) -> None:
    """The lake was made while the store still heeded them, or in another one."""
    proxy = Proxy(int(s3.endpoint_url.rpartition(":")[2]))
    try:
        through = s3.storage.model_copy(update={"endpoint_url": f"http://{proxy.host}"})
        table = Table(Lake.open(f"s3://{s3.new_bucket()}/lake", through), "docs")
        with locked(table, "before", 0):
            pass
        proxy.give(Trouble(Harm.STRIP, matches=".", share=1.0, header="If-None-Match"))
        with pytest.raises(LakeError, match="ignores If-None-Match"), locked(table, "after", 0):
            pass
        proxy.give(Trouble())
        with locked(table, "at a better store", 0) as lock:
            lock.check()
    finally:
        proxy.close()
