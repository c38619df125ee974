"""The mock LLM server of the benchmarks (benchmarks/annotate), over real sockets."""

import http.client
import json
import math
import socket
import time
import urllib.request
from contextlib import ExitStack

import pytest
from mock_rules import duration
from mock_server import MockServer, label_probabilities, read_arguments, request_key

LABELS = ("negative", "neutral", "positive")


def chat(text="good", **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def schema(*labels):
    one = {"type": "object", "properties": {"label": {"enum": list(labels)}, "sure": {"type": "boolean"}}}
    return {"type": "json_schema", "json_schema": {"name": "vote", "schema": one}}


def connect(server):
    host, port = server.url.removeprefix("http://").split(":")
    return http.client.HTTPConnection(host, int(port), timeout=5)


def send(server, body=None, path="/v1/chat/completions", method="POST", **headers):
    """Return status, headers and parsed body (bytes where it is not JSON) of one request on its own connection."""
    link = connect(server)
    try:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body)
        link.request(method, path, raw, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = link.getresponse()
        content = reply.read()
    finally:
        link.close()
    try:
        return reply.status, reply.headers, json.loads(content)
    except ValueError:
        return reply.status, reply.headers, content


def get(server, path):
    return send(server, path=path, method="GET")


def said(reply):
    return reply[2]["choices"][0]["message"]["content"]


def raw_socket(server):
    link = connect(server)
    link.connect()
    sock, link.sock = link.sock, None
    return sock


def read_replies(sock, count):
    """Read whole replies off a raw socket."""
    data, bodies = b"", []
    while len(bodies) < count:
        head, found, rest = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if found else 0
        if found and len(rest) >= length:
            bodies.append(json.loads(rest[:length]))
            data = rest[length:]
        elif more := sock.recv(65536):
            data += more
        else:
            raise ConnectionError("closed early")
    return bodies


# -- answers --


def test_the_answer_to_a_text_is_its_likeliest_label_on_every_server():
    for _ in range(2):
        with MockServer(labels=LABELS) as server:
            for text in ("good", "bad", "so-so", "half of a pair: \ud800"):
                chances = label_probabilities(text, "m", LABELS)
                assert said(send(server, chat(text))) == max(chances, key=chances.get)


def test_the_probability_of_a_label_does_not_depend_on_the_order():
    assert label_probabilities("good", "m", LABELS) == pytest.approx(label_probabilities("good", "m", LABELS[::-1]))


def test_a_schema_gets_the_json_that_fits_it_unless_it_is_ignored():
    with MockServer(answer=lambda body, n: "b") as server:
        body = chat(response_format=schema("a", "b"))
        assert json.loads(said(send(server, body))) == {"label": "b", "sure": True}
        server.configure(ignore=["response_format"])
        assert said(send(server, body)) == "b"


def test_a_schema_of_numbers_behind_a_reference_is_followed():
    one = {
        "$defs": {"Vote": {"enum": [0, 1]}},
        "properties": {"votes": {"type": "array", "items": {"$ref": "#/$defs/Vote"}}},
    }
    with MockServer() as server:
        reply = send(server, chat(response_format={"type": "json_schema", "json_schema": {"schema": one}}))
    assert json.loads(said(reply))["votes"] in ([0], [1])


def path_masses(entries, replies):
    """Sum the probability of every path that leads to one reply only."""
    masses, so_far, chance = dict.fromkeys(replies, 0.0), "", 1.0
    for entry in entries:
        for other in entry["top_logprobs"]:
            led_to = [label for label, reply in replies.items() if reply.startswith(so_far + other["token"])]
            if other["token"] != entry["token"] and len(led_to) == 1:
                masses[led_to[0]] += chance * math.exp(other["logprob"])
        so_far += entry["token"]
        chance *= math.exp(entry["logprob"])
    return {label: mass + chance * (replies[label] == so_far) for label, mass in masses.items()}


@pytest.mark.parametrize("in_schema", [False, True])
def test_logprobs_over_all_paths_sum_to_the_label_probabilities(in_schema):
    labels = ("left-wing", "left-leaning", "right", 'the "centre"')
    asked = {"response_format": schema(*labels)} if in_schema else {}
    quoted = {label: json.dumps({"label": label, "sure": True}) if in_schema else label for label in labels}
    with MockServer(labels=labels, answer="fixed:left-wing") as server:
        choice = send(server, chat(logprobs=True, top_logprobs=5, **asked))[2]["choices"][0]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 5 and 1 <= len(entry["token"]) <= 4 for entry in entries)
    assert path_masses(entries, quoted) == pytest.approx(label_probabilities("good", "m", labels), abs=1e-6)


def test_a_sample_is_repeated_by_its_seed_until_seeds_are_ignored():
    with MockServer(answer="sample", labels=[str(i) for i in range(50)]) as server:
        assert len({said(send(server, chat(seed=1))) for _ in range(5)}) == 1
        server.configure(ignore=["seed"])
        assert len({said(send(server, chat(seed=1))) for _ in range(5)}) > 1


def test_n_choices_come_with_one_usage():
    with MockServer(answer=lambda body, n: f"answer {n}") as server:
        reply = send(server, chat("x" * 400, n=3))[2]
        assert [choice["message"]["content"] for choice in reply["choices"]] == ["answer 0", "answer 1", "answer 2"]
        assert reply["usage"]["prompt_tokens"] == 100
        assert reply["usage"]["total_tokens"] == 100 + reply["usage"]["completion_tokens"]
        server.configure(ignore=["n"])
        assert len(send(server, chat(n=3))[2]["choices"]) == 1


def test_a_callable_that_raises_is_a_500_that_says_so():
    with MockServer(answer=lambda body, n: body["nowhere"]) as server:
        status, _, body = send(server, chat())
    assert status == 500
    assert "KeyError: 'nowhere'" in body["error"]["message"]


# -- faults --


def test_faults_come_in_the_order_given_and_then_all_is_well():
    with MockServer(faults=["429", "500", "ok", "503"], retry_after=7) as server:
        replies = [send(server, chat()) for _ in range(5)]
        assert [status for status, *_ in replies] == [429, 500, 200, 503, 200]
        assert replies[0][1]["retry-after"] == "7"
        assert replies[0][2]["error"]["code"] == "rate_limit_exceeded"
        assert server.asked == {request_key(chat()): 5}
        assert server.answered == {request_key(chat()): 2}


@pytest.mark.parametrize(("style", "header"), [("ms", "retry-after-ms"), ("date", "retry-after")])
def test_retry_after_has_other_styles(style, header):
    with MockServer(faults=["429"], retry_after=0.25, retry_after_style=style) as server:
        value = send(server, chat())[1][header]
    assert value == "250" if style == "ms" else value.endswith("GMT")


@pytest.mark.parametrize("fault", ["drop", "drop_mid"])
def test_a_dropped_request_was_asked_but_not_answered(fault):
    with MockServer(faults=[fault]) as server:
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            send(server, chat())
        assert server.asked.total() == 1
        assert not server.answered
        assert server.stats["by_status"] == {"dropped": 1}


def test_truncated_json_has_the_right_length_and_is_no_json():
    with MockServer(faults=["truncated_json"]) as server:
        status, headers, content = send(server, chat())
    assert status == 200
    assert int(headers["content-length"]) == len(content)
    assert content.startswith(b'{"id"')


def test_a_slow_body_arrives_whole_in_the_end():
    with MockServer(faults=["slow"], slow_s=0.05) as server:
        began = time.monotonic()
        assert said(send(server, chat())) in LABELS
        assert time.monotonic() - began >= 0.05
        assert server.answered.total() == 1


def test_a_request_that_hangs_is_in_flight_until_its_client_leaves():
    with MockServer(faults=["hang"], max_concurrent=1) as server:
        with raw_socket(server) as sock:
            raw = json.dumps(chat()).encode()
            sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw)
            wait_for_in_flight(server, 1)
        assert send(server, chat())[0] == 200
        assert server.stats["by_status"] == {"hung": 1, "200": 1}
        assert server.stats["in_flight"] == 0


@pytest.mark.parametrize(
    ("fault", "content", "finish"),
    [
        ("invalid", "maybe", "stop"),
        ("refusal", None, "stop"),
        ("length", "posi", "length"),
        ("filter", "", "content_filter"),
        ("empty", "", "stop"),
    ],
)
def test_an_answer_can_be_bad_in_itself(fault, content, finish):
    with MockServer(faults=[fault], answer="fixed:positive") as server:
        choice = send(server, chat())[2]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, finish)
    assert (choice["message"]["refusal"] is not None) == (fault == "refusal")


def test_rates_repeat_with_the_seed():
    def statuses():
        return [send(server, chat(str(i)))[0] for i in range(40)]

    with MockServer(rate_500=0.3, rate_429=0.2, seed=3) as server:
        first = statuses()
        assert set(first) == {200, 429, 500}
        server.reset()
        assert statuses() == first


# -- refusals and limits --


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"auth_key": "secret"}, 401, "invalid_api_key"),
        ({"models": ["other"]}, 404, "model_not_found"),
        ({"unsupported": ["temperature"]}, 400, "unsupported_parameter"),
        ({"context": 5}, 400, "context_length_exceeded"),
        ({"quota": 0}, 429, "insufficient_quota"),
    ],
)
def test_refusals_have_openai_s_codes(options, status, code):
    with MockServer(**options) as server:
        found, _, body = send(server, chat("x" * 100, temperature=1), Authorization="Bearer wrong")
    assert (found, body["error"]["code"]) == (status, code)


def test_the_right_key_is_let_in():
    with MockServer(auth_key="secret") as server:
        assert send(server, chat(), Authorization="Bearer secret")[0] == 200


def test_silent_truncation_only_shows_in_the_count():
    with MockServer(context=5, silent_truncation=True) as server:
        assert send(server, chat("x" * 100))[2]["usage"]["prompt_tokens"] == 5


def test_durations_are_written_as_openai_does():
    assert [duration(seconds) for seconds in (0, 0.12, 0.99999, 1, 8.64, 360)] == [
        "0ms",
        "120ms",
        "1s",
        "1s",
        "8.64s",
        "6m0s",
    ]


def test_requests_and_tokens_per_minute_are_enforced():
    with MockServer(rpm=60, tpm=600, burst_s=2) as server:
        first, second, third = (send(server, chat("x" * 20)) for _ in range(3))
        assert (first[0], second[0], third[0]) == (200, 200, 429)
        assert first[1]["x-ratelimit-limit-requests"] == "60"
        assert first[1]["x-ratelimit-remaining-requests"] == "1"
        assert first[1]["x-ratelimit-reset-requests"].endswith("s")
        assert int(third[1]["x-ratelimit-remaining-tokens"]) >= 10
        assert 0 < float(third[1]["retry-after"]) <= 1
        server.reset()
        assert send(server, chat(max_tokens=16))[0] == 200
        assert send(server, chat(max_tokens=16))[2]["error"]["type"] == "tokens"


def post_without_reading(server, stack):
    link = connect(server)
    stack.callback(link.close)
    link.request("POST", "/v1/chat/completions", json.dumps(chat()))
    return link


def wait_for_in_flight(server, count):
    while server.stats["in_flight"] != count:
        time.sleep(0.001)


def test_above_max_concurrent_requests_queue():
    with MockServer(max_concurrent=1, faults=["hang"], latency=0.02) as server, ExitStack() as stack:
        first = post_without_reading(server, stack)
        wait_for_in_flight(server, 1)
        others = [post_without_reading(server, stack) for _ in range(2)]
        wait_for_in_flight(server, 3)
        first.close()
        began = time.monotonic()
        assert [link.getresponse().status for link in others] == [200, 200]
        assert time.monotonic() - began >= 0.038
        assert server.in_flight_peak == 3


def test_above_max_concurrent_requests_can_be_turned_away():
    with MockServer(max_concurrent=1, overload="429", faults=["hang"]) as server, ExitStack() as stack:
        post_without_reading(server, stack)
        wait_for_in_flight(server, 1)
        assert send(server, chat())[0] == 429


# -- the wire --


def test_pipelined_requests_are_answered_in_order():
    raws = [json.dumps(chat(f"text {i}")).encode() for i in range(5)]
    data = b"".join(
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw for raw in raws
    )
    with (
        MockServer(latency=0.001, answer=lambda body, n: body["messages"][0]["content"]) as server,
        raw_socket(server) as sock,
    ):
        sock.sendall(data[:-7])
        sock.sendall(data[-7:])
        bodies = read_replies(sock, 5)
    assert [body["choices"][0]["message"]["content"] for body in bodies] == [f"text {i}" for i in range(5)]


def test_large_and_chunked_bodies_arrive_whole():
    body = chat("x" * 2_000_000)
    raw = json.dumps(body).encode()
    with MockServer() as server:
        assert send(server, body)[2]["usage"]["prompt_tokens"] == 500_000
        link = connect(server)
        parts = (raw[at : at + 10_000] for at in range(0, len(raw), 10_000))
        link.request("POST", "/v1/chat/completions", parts, encode_chunked=True)
        assert json.loads(link.getresponse().read())["usage"]["prompt_tokens"] == 500_000
        link.close()
        assert server.asked == {request_key(body): 2}


def test_a_client_that_waits_for_100_continue_gets_it():
    raw = json.dumps(chat()).encode()
    with MockServer() as server, raw_socket(server) as sock:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(raw)
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(raw)
        assert len(read_replies(sock, 1)) == 1


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"messages": ["text"]}'])
def test_a_body_that_is_no_request_gets_400(raw):
    with MockServer() as server:
        assert send(server, raw)[0] == 400


# -- files and batches --


def upload(server, *lines):
    content = "\n".join(json.dumps(line) for line in lines).encode()
    parts = (b'name="purpose"\r\n\r\nbatch', b'name="file"; filename="in.jsonl"\r\nContent-Type: x/y\r\n\r\n' + content)
    raw = b"".join(b"--B\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--B--\r\n"
    return send(server, raw, "/v1/files", Content_Type="multipart/form-data; boundary=B")[2]


def line(number):
    return {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": chat(f"text {number}")}


def start_batch(server, *lines):
    file = upload(server, *lines)
    asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return send(server, {**asked, "metadata": {"run": "7"}}, "/v1/batches")[2]


def lines_of(server, file_id):
    content = get(server, f"/v1/files/{file_id}/content")[2]
    return [json.loads(one) for one in content.splitlines()] if isinstance(content, bytes) else [content]


def test_a_batch_answers_its_lines_in_another_order():
    with MockServer(labels=LABELS) as server:
        begun = start_batch(server, *map(line, range(20)))
        assert (begun["status"], begun["metadata"]) == ("validating", {"run": "7"})
        ended = get(server, f"/v1/batches/{begun['id']}")[2]
        assert (ended["status"], ended["error_file_id"]) == ("completed", None)
        assert ended["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
        results = lines_of(server, ended["output_file_id"])
        assert {result["custom_id"] for result in results} == {str(i) for i in range(20)}
        assert [result["custom_id"] for result in results] != [str(i) for i in range(20)]
        for result in results:
            chances = label_probabilities(f"text {result['custom_id']}", "m", LABELS)
            assert said((0, 0, result["response"]["body"])) == max(chances, key=chances.get)
        assert server.answered.total() == 20


def test_failed_lines_are_in_the_error_file():
    with MockServer(batch_failed_share=0.5) as server:
        ended = get(server, f"/v1/batches/{start_batch(server, *map(line, range(20)))['id']}")[2]
        failed, good = (lines_of(server, ended[f"{name}_file_id"]) for name in ("error", "output"))
    assert len(failed) + len(good) == 20
    assert {result["response"]["status_code"] for result in failed} == {500}


def test_a_batch_takes_its_time_and_can_be_cancelled():
    with MockServer(batch_delay=0.1) as server:
        begun = start_batch(server, line(1), line(2))
        statuses = []
        while not statuses or statuses[-1] != "completed":
            status = get(server, f"/v1/batches/{begun['id']}")[2]["status"]
            statuses += [status] if status not in statuses else []
        assert "in_progress" in statuses
        server.configure(batch_delay=60)
        second = start_batch(server, line(3), line(4))
        assert send(server, path=f"/v1/batches/{second['id']}/cancel")[2]["status"] == "cancelling"
        page = get(server, "/v1/batches?limit=1")[2]
        assert ([one["id"] for one in page["data"]], page["has_more"]) == ([second["id"]], True)
        assert page["data"][0]["status"] == "cancelled"
        assert [one["id"] for one in get(server, f"/v1/batches?after={second['id']}")[2]["data"]] == [begun["id"]]


def test_an_expired_batch_answers_some_and_says_which_it_did_not():
    with MockServer(batch_end="expired") as server:
        ended = get(server, f"/v1/batches/{start_batch(server, line(1), line(2))['id']}")[2]
        assert ended["status"] == "expired"
        assert [result["error"]["code"] for result in lines_of(server, ended["error_file_id"])] == ["batch_expired"]


def test_a_line_without_messages_fails_alone():
    with MockServer() as server:
        ended = get(server, f"/v1/batches/{start_batch(server, line(1), line(2) | {'body': {}})['id']}")[2]
        assert ended["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        assert lines_of(server, ended["error_file_id"])[0]["response"]["status_code"] == 400


def test_a_custom_id_twice_fails_the_batch():
    with MockServer() as server:
        ended = get(server, f"/v1/batches/{start_batch(server, line(1), line(1))['id']}")[2]
    assert ended["status"] == "failed"
    assert ended["errors"]["data"][0]["code"] == "duplicate_custom_id"


# -- Ollama --


def test_ollama_s_chat_thinks_and_truncates_silently():
    asked = {
        "stream": False,
        "think": True,
        "format": {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}},
    }
    with MockServer() as server:
        body = chat("x" * 100, **asked, options={"num_ctx": 10}, logprobs=True, top_logprobs=2)
        reply = send(server, body, "/api/chat")[2]
        assert json.loads(reply["message"]["content"])["label"] in ("a", "b")
        assert reply["message"]["thinking"]
        assert (reply["done_reason"], reply["prompt_eval_count"]) == ("stop", 10)
        assert "".join(entry["token"] for entry in reply["logprobs"]) == reply["message"]["content"]
        assert get(server, "/api/ps")[2]["models"][0]["name"] == "m"


def test_ollama_s_errors_are_plain_texts():
    with MockServer(models=["m"], faults=["500"]) as server:
        assert send(server, chat(stream=False) | {"model": "x"}, "/api/chat")[2] == {"error": "model 'x' not found"}
        assert isinstance(send(server, chat(stream=False), "/api/chat")[2]["error"], str)


def test_a_model_s_digest_and_window_can_be_looked_up_and_change():
    with MockServer(models=["m"], context=4096) as server:
        before = get(server, "/api/tags")[2]["models"][0]
        assert before["details"]["quantization_level"] == "Q4_K_M"
        assert send(server, {"model": "m"}, "/api/show")[2]["model_info"]["mock.context_length"] == 4096
        server.configure(digest_salt="another build")
        assert get(server, "/api/tags")[2]["models"][0]["digest"] != before["digest"]
        assert get(server, "/v1/models")[2]["data"][0]["id"] == "m"


# -- running it --


def test_requests_are_kept_with_their_key():
    with MockServer() as server:
        send(server, chat(), X_Test="yes")
        get(server, "/v1/models")
    first, second = server.requests
    assert (first["path"], first["body"], first["key"]) == ("/v1/chat/completions", chat(), request_key(chat()))
    assert first["headers"]["x-test"] == "yes"
    assert (second["path"], second["key"]) == ("/v1/models", None)


def test_faults_elsewhere_are_asked_for():
    with MockServer(faults=["503"], fault_everywhere=True) as server:
        assert [get(server, "/v1/models")[0] for _ in range(2)] == [503, 200]


def test_an_unknown_option_names_the_known_ones():
    with MockServer() as server, pytest.raises(TypeError, match=r"unknown option\(s\) \['latencey'\].*latency"):
        server.configure(latencey=1)


def test_a_process_behaves_like_a_thread_and_can_be_read_afterwards():
    with MockServer(process=True, faults=["500"], labels=["a"]) as server:
        assert [send(server, chat())[0] for _ in range(2)] == [500, 200]
        server.configure(answer="fixed:hello")
        assert said(send(server, chat())) == "hello"
        with urllib.request.urlopen(server.url + "/_stats", timeout=5) as reply:
            assert json.load(reply)["asked_more_than_once"] == 1
    assert server.asked == {request_key(chat()): 3}
    assert server.answered == {request_key(chat()): 2}
    assert server.requests[0]["key"] == request_key(chat())


def test_a_process_refuses_a_callable():
    with pytest.raises(TypeError, match="leave out process=True"), MockServer(process=True, answer=lambda body, n: ""):
        pass


def test_options_are_flags():
    given = read_arguments(["--latency", "0.02", "--rpm", "5", "--labels", "a,b", "--faults", "429,ok", "--no-record"])
    assert (given.latency, given.rpm, given.labels, given.faults) == (0.02, 5, ("a", "b"), ("429", "ok"))
    assert given.record is False


def test_no_socket_is_left_behind():
    with MockServer() as server:
        sock = raw_socket(server)
    assert sock.recv(1) == b""
    sock.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(sock_address(server), timeout=1)


def sock_address(server):
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)
