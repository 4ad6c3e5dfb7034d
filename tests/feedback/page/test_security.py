"""What the page refuses, and what its headers forbid the browser."""

import re
import socket
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from tests.feedback.page.questions import HOSTILE, MANY, field, sign_in
from typer.testing import CliRunner

from assent.cli import app as command_line
from assent.errors import ConfigError, DataError
from assent.feedback.page import lists
from assent.feedback.page import serve as serving
from assent.feedback.page.app import create_app
from assent.feedback.page.security import LONGEST_BODY, Pace, csrf_fits, csrf_token, is_loopback
from assent.feedback.questions import PairQuestion


def answers(store):
    return list(store.answers())


def entry(page, **more):
    return {"csrf": field(page, "csrf"), "claim": field(page, "claim"), "seconds": "3.5", **more}


def test_every_reply_carries_the_policy(client, pairs):
    sign_in(client, "Ann")
    for path in ("/", "/mine", "/admin", "/static/label.js", "/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"


def test_no_page_has_inline_scripts_styles_or_outside_addresses(client, each_kind):
    page = sign_in(client, "Ann")
    seen = []
    for _ in each_kind:
        seen.append(page)
        page = client.post("/skip", data=entry(page)).text
    for html in [*seen, page, client.get("/mine").text]:
        assert not re.search(r"<script(?![^>]*\bsrc=\"/static/)|<style|\sstyle=|\son\w+=", html)
        assert not re.search(r"(?:src|href|action)=\"(?!/|#)", html)
    for name in ("label.js", "page.css", "htmx.min.js"):
        assert "//" not in re.findall(r"url\(([^)]*)\)|@import", client.get(f"/static/{name}").text)


def test_hostile_output_stays_text_in_the_page(client, store):
    store.add([PairQuestion("hostile", HOSTILE, (HOSTILE, f"x {HOSTILE}"))])
    page = sign_in(client, "Ann")
    assert "<script>window" not in page and "<img" not in page and "<b>bold" not in page
    assert page.count("</textarea>") == 1, "the one of the page's own comment field"


def test_a_form_without_its_token_or_with_anothers_is_refused(client, app, store, pairs):
    page = sign_in(client, "Ann")
    good = entry(page, **{"choice-0": "tie"})
    for token in ("", "0" * 64, csrf_token("another session")):
        assert client.post("/answer", data=good | {"csrf": token}).status_code == 403
    with TestClient(app) as stranger:
        assert stranger.post("/answer", data=good | {"csrf": csrf_token("")}).status_code == 403
        assert stranger.post("/answer", data=good).status_code == 403
    assert not answers(store)
    assert client.post("/answer", data=good).status_code == 200
    assert len(answers(store)) == 1
    assert not csrf_fits("", csrf_token(""))


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}, {"origin": "null"}]
)
def test_a_form_sent_from_another_site_is_refused(client, store, pairs, headers):
    page = sign_in(client, "Ann")
    reply = client.post("/answer", data=entry(page, **{"choice-0": "tie"}), headers=headers)
    assert reply.status_code == 403 and not answers(store)


def test_cookies_are_out_of_reach(client):
    page = client.get("/")
    cookie = client.post(
        "/sign-in", data={"csrf": field(page.text, "csrf"), "name": "Ann"}, follow_redirects=False
    ).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie


def test_only_the_names_served_are_answered(store):
    app = create_app(store, hosts=frozenset({"localhost"}))
    with TestClient(app, base_url="http://localhost:1") as here:
        assert here.get("/").status_code == 200
        assert here.get("/", headers={"host": "rebound.example"}).status_code == 421


def test_floods_are_slowed_and_let_go_on_later():
    clock = iter([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]).__next__
    pace = Pace(burst=2, per_second=1, clock=clock)
    assert [pace.allows("a"), pace.allows("a"), pace.allows("a")] == [True, True, False]
    assert pace.allows("b"), "each visitor has a bucket"
    assert [pace.allows("a"), pace.allows("a")] == [True, False]


def test_a_flood_gets_429(store):
    with TestClient(create_app(store, pace=Pace(burst=3, per_second=0))) as client:
        codes = [client.get("/").status_code for _ in range(5)]
    assert codes == [200, 200, 200, 429, 429]


def test_long_bodies_are_refused_with_and_without_a_length(client, pairs):
    page = sign_in(client, "Ann")
    data = entry(page, comment="x" * (LONGEST_BODY + 1), **{"choice-0": "tie"})
    assert client.post("/answer", data=data).status_code == 413
    pieces = (b"x" * 65_536 for _ in range(LONGEST_BODY // 65_536 + 1))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/answer", content=pieces, headers=headers).status_code == 413


def test_an_annotator_sees_their_own_answers_only(app, store, pairs):
    with TestClient(app) as ann, TestClient(app) as bob:
        page = sign_in(ann, "Ann")
        ann.post("/answer", data=entry(page, comment="ann's words", **{"choice-0": "tie"}))
        (given,) = answers(store)
        sign_in(bob, "Bob")
        assert given.question.prompt in ann.get("/mine").text
        assert given.question.prompt not in bob.get("/mine").text
        for who in (ann, bob):
            assert who.get("/admin").status_code == 403
            assert who.get("/admin?token=guess").status_code == 403
        admin = bob.get("/admin?token=key-of-the-admin")
        assert admin.url.query in (b"", ""), "the key does not stay in the address"
        assert "Ann" in admin.text and given.question.prompt in bob.get("/admin?annotator=Ann").text


def test_a_claim_is_of_use_to_nobody_else(app, store, pairs):
    with TestClient(app) as ann, TestClient(app) as bob:
        claim = field(sign_in(ann, "Ann"), "claim")
        page = sign_in(bob, "Bob")
        bob.post("/answer", data=entry(page, **{"choice-0": "tie"}) | {"claim": claim})
        for path in ("/skip", "/flag"):
            bob.post(path, data=entry(page, flag="other") | {"claim": claim})
    assert not answers(store)
    assert {e.what for e in store.events()} == {"asked", "shown"}


@pytest.fixture
def invited(store):
    store.add(MANY)
    return create_app(store, passwordless=False, admin_token="key-of-the-admin", pace=Pace(1e6, 1e6))


def test_with_tokens_only_a_link_signs_in(invited, store):
    token = store.invite("Ann")
    with TestClient(invited) as client:
        page = client.get("/")
        assert 'id="answer"' not in page.text
        assert client.post("/sign-in", data={"csrf": field(page.text, "csrf"), "name": "Ann"}).status_code == 403
        client.cookies.set("assent_session", "secret:Ann")
        assert 'id="answer"' not in client.get("/").text, "the cookie of a typed name is no token"
        client.cookies.clear()
        assert client.get("/join/guess").status_code == 403
        page = client.get(f"/join/{token}")
        assert 'id="answer"' in page.text and token not in page.text
        client.post("/answer", data=entry(page.text, **{"choice-0": "tie"}))
        assert [a.annotator for a in answers(store)] == ["Ann"]
        store.revoke(token)
        assert 'id="answer"' not in client.get("/").text
        assert client.post("/skip", data=entry(page.text)).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_interfaces_need_tokens(host):
    with pytest.raises(ConfigError, match="without sign-in"):
        serving.check_address(host, tokens=False)
    serving.check_address(host, tokens=True)


def behind(store, *proxies, client="127.0.0.1", burst=3):
    """Somebody who connects from `client` to the page as it is served."""
    app = create_app(store, pace=Pace(burst=burst, per_second=0), admin_token="key-of-the-admin")
    settings = serving.server_settings(app, proxies)
    settings.load()
    return TestClient(settings.loaded_app, client=(client, 50_000))


def codes(client, count, said):
    return [client.get("/", headers={"x-forwarded-for": said(i)}).status_code for i in range(count)]


@pytest.mark.parametrize("proxy", ["127.0.0.1", "127.0.0.0/24"])
def test_people_behind_a_trusted_proxy_have_a_pace_each(store, proxy):
    client = behind(store, proxy)
    for address in ("198.51.100.7", "198.51.100.8", "2001:db8::9"):
        assert codes(client, 5, lambda _, address=address: address) == [200, 200, 200, 429, 429]


def test_what_somebody_says_before_the_proxy_is_not_believed(store):
    """The proxy puts the address that it saw behind what it was told."""
    assert codes(behind(store, "127.0.0.1"), 5, lambda i: f"203.0.113.{i}, 198.51.100.7") == [200, 200, 200, 429, 429]


@pytest.mark.parametrize("proxies", [(), ("10.0.0.1",)])
@pytest.mark.parametrize("client", ["127.0.0.1", "192.0.2.66", "::1"])
def test_nobody_but_a_trusted_proxy_can_take_another_address(store, monkeypatch, proxies, client):
    """Neither this machine, which the server itself would believe, nor who its variable names."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert codes(behind(store, *proxies, client=client), 5, lambda i: f"198.51.100.{i}") == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(("client", "scheme", "secure"), [
    ("10.0.0.1", "https", True), ("10.0.0.1", "http", False), ("192.0.2.66", "https", False),
])  # fmt: skip
def test_cookies_are_secure_where_a_trusted_proxy_speaks_tls(store, client, scheme, secure):
    browser = behind(store, "10.0.0.1", client=client, burst=100)
    said = {"x-forwarded-proto": scheme, "x-forwarded-for": "198.51.100.7"}
    page = browser.get("/", headers=said)
    form = {"csrf": field(page.text, "csrf"), "name": "Ann"}
    cookies = {name: str(value) for name, value in browser.cookies.items()}
    reply = browser.post("/sign-in", data=form, headers=said | {"cookie": "; ".join(map("=".join, cookies.items()))},
                         follow_redirects=False)  # fmt: skip
    assert reply.status_code == 303 and "assent_session" in reply.headers["set-cookie"]
    assert ("Secure" in reply.headers["set-cookie"]) is secure


@pytest.mark.parametrize("proxy", ["*", "proxy.example.org", "0.0.0.0/0", "::/0", "10.0.0.1/24", ""])
def test_a_proxy_is_named_by_its_address(proxy):
    with pytest.raises(ConfigError, match="trusted by its address"):
        serving.check_proxies([proxy], tokens=True)


def test_behind_a_proxy_a_typed_name_is_not_enough_and_any_name_is_answered(tmp_path, store, monkeypatch):
    where, served = str(tmp_path / "feedback.db"), []
    refused = CliRunner().invoke(command_line, ["label", where, "--behind-proxy", "127.0.0.1"])
    assert refused.exit_code == 2 and "behind a proxy without sign-in" in refused.output
    monkeypatch.setattr(serving, "listen", lambda host, port: None)
    monkeypatch.setattr(serving.uvicorn, "Server", lambda config: served.append(config) or SimpleNamespace(run=dict))
    two = ["--behind-proxy", "127.0.0.1", "--behind-proxy", "10.0.0.0/24"]
    for more in ([], two):
        assert CliRunner().invoke(command_line, ["label", where, "--tokens", *more]).exit_code == 0
    alone, proxied = served
    assert (alone.proxy_headers, proxied.forwarded_allow_ips) == (False, ["127.0.0.1", "10.0.0.0/24"])
    asked = [TestClient(c.app).get("/", headers={"host": "label.example.org"}).status_code for c in served]
    assert asked == [421, 200]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_needs_none(host):
    assert is_loopback(host)
    serving.check_address(host, tokens=False)


def test_invitations_are_links(store):
    link = serving.invite(store, "Ann", "http://127.0.0.1:8321/")
    assert store.who(link.removeprefix("http://127.0.0.1:8321/join/")) == "Ann"
    with pytest.raises(DataError, match="cannot sign in"):
        serving.invite(store, "../x", "http://127.0.0.1:8321")


def test_a_store_that_is_not_there_is_not_made(tmp_path, store):
    with pytest.raises(DataError, match="no store"):
        serving.open_store(str(tmp_path / "slip.db"))
    with pytest.raises(DataError, match="no store"):
        serving.open_store(str(tmp_path / "folder"))
    assert serving.open_store(str(tmp_path)).who("x") is None, "the folder of a run holds its store"


def test_the_command_line_refuses_other_interfaces_and_invites(tmp_path, store):
    where = str(tmp_path / "feedback.db")
    refused = CliRunner().invoke(command_line, ["label", where, "--host", "0.0.0.0"])
    assert refused.exit_code == 2 and "without sign-in" in refused.output
    link = CliRunner().invoke(command_line, ["label", "invite", "Ann", where, "--address", "http://h:1"]).output.strip()
    assert store.who(link.removeprefix("http://h:1/join/")) == "Ann"


def test_an_invitation_signs_in_where_a_typed_name_would_do(client, store, pairs):
    token = store.invite("Ann")
    page = client.get(f"/join/{token}").text
    assert 'id="answer"' in page and token not in client.cookies["assent_session"]
    client.post("/answer", data=entry(page, **{"choice-0": "tie"}))
    assert [a.annotator for a in answers(store)] == ["Ann"]
    assert client.get("/join/guess").status_code == 403


@pytest.mark.parametrize("cut", [1, 40])
def test_half_a_form_is_no_answer(app, client, store, pairs, cut):
    """The connection breaks within the last field: what has come would be an answer, with half a comment."""
    page = sign_in(client, "Ann")
    whole = urlencode(entry(page, **{"choice-0": "tie"}, comment="x" * 80)).encode()
    sent = iter([{"type": "http.request", "body": whole[:-cut], "more_body": True}, {"type": "http.disconnect"}])
    cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    headers = {"host": "testserver", "cookie": cookie, "content-type": "application/x-www-form-urlencoded"}
    scope = {
        "type": "http", "method": "POST", "path": "/answer", "raw_path": b"/answer", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("testclient", 1), "server": ("testserver", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip

    async def receive():
        return next(sent)

    async def send(message):
        raise AssertionError("nobody is there to be told")

    client.portal.call(app, scope, receive, send)
    assert not answers(store)
    client.post("/answer", content=whole, headers={"content-type": headers["content-type"]})
    assert answers(store)[0].answer.remarks.comment == "x" * 80


def test_a_port_that_is_taken_is_said_before_any_address(tmp_path, store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = str(tmp_path / "feedback.db")
        refused = CliRunner().invoke(command_line, ["label", where, "--port", str(port)])
    assert refused.exit_code == 2 and f"--port {port + 1}" in refused.output and "http" not in refused.output


def test_gold_questions_come_as_often_as_the_command_line_says(tmp_path, store, monkeypatch):
    served = []
    monkeypatch.setattr(serving, "serve", lambda store, **settings: served.append(store.gold_every))
    where = str(tmp_path / "feedback.db")
    for more in ([], ["--gold-every", "4"]):
        assert CliRunner().invoke(command_line, ["label", where, *more]).exit_code == 0
    assert served == [20, 4]


def test_every_answer_is_reached_from_the_list(client, store, monkeypatch):
    monkeypatch.setattr(lists, "MOST_ROWS", 3)
    store.add(PairQuestion(f"q{i}", f"Prompt {i}.", ("a", "b")) for i in range(7))
    page = sign_in(client, "Ann")
    for _ in range(7):
        page = client.post("/answer", data=entry(page, **{"choice-0": "tie"})).text
    client.get("/admin?token=key-of-the-admin")
    for start in ("/mine", "/admin?annotator=Ann"):
        found, path = [], start
        while path:
            html = client.get(path).text
            found.append(re.findall(r"Prompt (\d)\.", html))
            older = re.search(r'href="(\?[^"]*before=\d+)"', html)
            path = older and f"{start.partition('?')[0]}{older[1].replace('&amp;', '&')}"
        assert [len(part) for part in found] == [3, 3, 1] and len({n for part in found for n in part}) == 7, start
