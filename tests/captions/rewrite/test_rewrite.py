"""The stage as a whole: labels, cache, resuming, a server that fails."""

import json
import re
import signal
import socket
import threading
import time
from collections import Counter
from itertools import chain

import pytest

from hnc_ds.captions import captions_file
from hnc_ds.captions.caption_stats import stats_path_of
from hnc_ds.captions.language.attribute_classes import CLASSES
from hnc_ds.captions.rewrite import endpoint, image
from hnc_ds.captions.rewrite.rewrite import answers_path_of, rewrite
from hnc_ds.config import RewriteConfig
from hnc_ds.errors import UserError
from tests.captions.rewrite.fake_server import MODEL, ORDERS, Response, chat
from tests.captions.rewrite.running import command, config, new_groups, read
from tests.captions.test_generate import scene_graphs

KEY = "sk-secret-4711"


COLOUR = "|".join(value for cls in CLASSES if cls.name == "colour" for value in chain(*cls.cells))
NOUN = re.compile(rf"(?:\b({COLOUR}) )?(star|ring|cross|moon)")


def is_true(caption: str, objects: dict[str, dict]) -> bool:
    """Of an image of which all is known: read by the words alone."""
    nouns = NOUN.findall(caption.lower())
    fitting = [
        [o for o in objects.values() if o["name"] == name and colour in ("", *o["attributes"])]
        for colour, name in nouns
    ]
    side = re.search(r"left|right", caption)
    if side is None:
        [(_, name)] = nouns
        colour = re.search(rf"\b({COLOUR})\b", caption)[0]
        return any(o["name"] == name and colour in o["attributes"] for o in objects.values())
    first, second = fitting[::-1] if re.match(r"(To|On) the", caption) else fitting
    return any(
        (a["x"] < b["x"]) == (side[0] == "left") for a in first for b in second if a is not b
    )


def test_what_is_kept_is_proven_and_tagged_and_the_rest_is_counted(made, server, tmp_path):
    out = tmp_path / "r.captions.jsonl.gz"
    rewrite(config(made, server, out, negatives=2, per_image=8))
    objects = {key: graph["objects"] for key, graph in json.loads(made[0].read_text()).items()}
    before, after = read(made[1]), read(out)
    types: Counter[str] = Counter()
    for old, new in zip(before, after, strict=True):
        assert new.image_id == old.image_id
        assert new.groups[: len(old.groups)] == old.groups
        assert all(group.source == "rewrite" for group in new.groups[len(old.groups) :])
        texts = [group.positive for group in new.groups]
        assert len({*texts}) == len(texts)
    for image_id, group in new_groups(out):
        assert is_true(group.positive, objects[image_id]), group
        assert group.negatives
        types.update(n.type for n in group.negatives)
        for negative in group.negatives:
            assert not is_true(negative.caption, objects[image_id]), negative
            assert not negative.open_world
            assert negative.about in ("to the left of", "to the right of", "colour")
            assert "lovely" not in negative.caption
            assert "gnore" not in negative.caption
    assert types["rewrite"] > 20
    assert types["relation_pred"] > 5
    assert types["attribute"] > 5
    counted = json.loads(stats_path_of(out).read_bytes())["irregular"]
    assert counted[image.PAIRS] == sum(types.values())
    for reason in (image.WORDS, image.MEANING, image.TWICE, image.CHANGE):
        assert counted[reason] > 10, reason


def test_true_and_false_captions_are_reworded_by_one_prompt_without_the_label(
    made, server, tmp_path
):
    rewrite(config(made, server, tmp_path / "r.captions.jsonl", negatives=0, per_image=8))
    prompts = [request["messages"][0]["content"] for request in server.requests]
    positives = {g.positive for i in read(made[1]) for g in i.groups}
    frames, labels = set(), Counter()
    for prompt in prompts:
        start, _, caption = prompt.rstrip().rpartition("Caption: ")
        frames.add(start)
        labels[caption in positives] += 1
    assert len(frames) == 1
    assert labels[True] > 12
    assert labels[False] > 12
    assert {len(request["messages"]) for request in server.requests} == {1}


def test_a_second_run_sends_no_requests_and_writes_the_same_bytes(made, server, tmp_path, capsys):
    out = tmp_path / "r.captions.jsonl.gz"
    rewrite(config(made, server, out))
    first, asked = out.read_bytes(), len(server.requests)
    prompts = [request["messages"][0]["content"] for request in server.requests]
    assert len({*prompts}) == len(prompts)  # the same caption of two images is one request
    rewrite(config(made, server, out))
    assert "nothing to do" in capsys.readouterr().out
    server.url = "http://127.0.0.1:9/v1"  # no server, and none is needed
    rewrite(config(made, server, out, overwrite=True, requests=3))
    assert out.read_bytes() == first
    assert len(server.requests) == asked
    assert f"0 answers of {MODEL}" in capsys.readouterr().out
    other = tmp_path / "other.captions.jsonl.gz"
    rewrite(config(made, server, other, cache=answers_path_of(out)))
    assert other.read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seed": 1}, {"temperature": 0.1}, {"rewordings": 3}])
def test_other_settings_are_other_questions(made, server, tmp_path, change):
    cache = tmp_path / "cache.sqlite"
    rewrite(config(made, server, tmp_path / "a.jsonl", cache=cache))
    asked = len(server.requests)
    rewrite(config(made, server, tmp_path / "b.jsonl", cache=cache, **change))
    assert len(server.requests) > asked * 1.5
    last = server.requests[-1]
    assert last["temperature"] == change.get("temperature", 0.7)
    assert last["seed"] == change.get("seed", 0)
    assert last["model"] == MODEL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_run_that_was_stopped_continues_to_the_bytes_of_a_whole_one(
    made, server, tmp_path, number, status
):
    whole, stopped = tmp_path / "whole.captions.jsonl.gz", tmp_path / "stopped.captions.jsonl.gz"
    rewrite(config(made, server, whole))
    asked = len(server.requests)
    server.delay = 0.05
    process = command(made, server, stopped)
    until = time.monotonic() + 60
    while len(server.requests) < asked + 20 and time.monotonic() < until:
        time.sleep(0.01)
    begun = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status, errors
    assert time.monotonic() - begun < 10
    if number != signal.SIGKILL:
        assert errors.strip().endswith("run the same command again, it continues where it stopped")
    assert not stopped.exists()
    server.delay = 0
    before = len(server.requests)
    again = command(made, server, stopped)
    assert again.wait(60) == 0, again.communicate()
    assert stopped.read_bytes() == whole.read_bytes()
    # Repeated requests are at most those under way.
    assert len(server.requests) - before <= asked - 20 + 4
    assert stats_path_of(stopped).read_bytes() == stats_path_of(whole).read_bytes()


@pytest.mark.slow
def test_a_server_that_fails_in_the_middle_leaves_finished_parts(
    made, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(captions_file, "CHUNK_IMAGES", 2)
    monkeypatch.setattr(captions_file, "PART_CHUNKS", 2)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    rewrite(config(made, server, whole))
    asked = len(server.requests)
    server.trouble = lambda n: Response(503, b"busy") if n >= asked + asked * 3 // 4 else None
    with pytest.raises(UserError, match=r"HTTP 503, 2 times; check the server and run the same"):
        rewrite(config(made, server, out))
    assert [*tmp_path.glob("out.jsonl.parts/part-0000[01]")]
    assert not out.exists()
    server.trouble = lambda n: None
    rewrite(config(made, server, out))
    assert out.read_bytes() == whole.read_bytes()


REFUSALS = {
    "unknown key": (
        Response(401, b'{"error": {"message": "no key"}}'),
        "not allowed; set the environment variable OPENAI_API_KEY",
    ),
    "no such path": (Response(404, b"<html>"), r"HTTP 404\); does --endpoint end in /v1"),
    "refused": (
        Response(400, b'{"error": {"message": "no\\u001b[31m seed\\nhere"}}'),
        r"HTTP 400 \(no \[31m seed here\)",
    ),
    "fails": (Response(500, b'{"error": "boom"}'), r"HTTP 500 \(boom\), 2 times"),
    "redirects": (Response(302, b"", {"Location": "http://127.0.0.1:9/"}), "HTTP 302"),
    "no json": (Response(200, b"hello"), "no chat completion.*2 times"),
    "other json": (Response(200, b'{"choices": [{"text": "a"}]}'), "no chat completion.*2 times"),
    "deep json": (Response(200, b"[" * 100_000), "no chat completion.*2 times"),
    "half a character": (Response(200, chat("\ud800")), "no chat completion.*2 times"),
    "no utf-8": (Response(200, b'{"choices": "\xff"}'), "no chat completion.*2 times"),
    "huge": (Response(200, b" " * (endpoint.MOST_BYTES + 1)), "more than 1 MiB, 2 times"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_server_that_answers_wrongly_ends_it_in_one_line(made, server, tmp_path, name):
    response, message = REFUSALS[name]
    server.trouble = lambda _: response
    with pytest.raises(UserError, match=message) as error:
        rewrite(config(made, server, tmp_path / "out.jsonl"))
    assert server.url in str(error.value)
    assert str(error.value).isprintable()
    assert not (tmp_path / "out.jsonl").exists()


def test_a_server_that_is_not_there_or_too_slow_or_lacks_the_model(made, server, tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match=r"no model 'fake-8b'; did you mean 'fake-7b'\?; it has"):
        rewrite(config(made, server, out, model="fake-8b"))
    assert not server.requests
    server.delay = 1.0
    with pytest.raises(UserError, match=r"does not answer within 0\.2 s \(--timeout\), 1 times"):
        rewrite(config(made, server, out, timeout=0.2, retries=0))
    with socket.create_server(("127.0.0.1", 0)) as free:
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match=r"cannot be reached .*; start the server there"):
        rewrite(config(made, server, out))


@pytest.mark.parametrize("models", [Response(404, b"no"), Response(200, b"[]")])
def test_a_server_without_a_list_of_models_is_accepted(made, server, tmp_path, models):
    server.models = models
    rewrite(config(made, server, tmp_path / "out.jsonl", per_image=1))
    assert new_groups(tmp_path / "out.jsonl")
    assert server.asked_for_models == 1


@pytest.mark.slow
def test_what_fails_once_is_retried_after_the_time_the_server_gives(made, server, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    rewrite(config(made, server, whole))
    asked = len(server.requests)
    busy = Response(429, b"", {"Retry-After": "0"})
    server.trouble = lambda n: (
        busy if n == asked + 2 else Response(200, b"") if n % 5 == 0 else None
    )
    rewrite(config(made, server, out, retries=9))
    assert out.read_bytes() == whole.read_bytes()
    assert len(server.requests) > 2.2 * asked


def test_requests_run_at_once_up_to_the_limit_over_several_images(made, server, tmp_path):
    together = threading.Barrier(6, timeout=60)

    def first_six_wait_for_each_other(number):
        if number < 6:
            together.wait()

    server.trouble = first_six_wait_for_each_other
    rewrite(config(made, server, tmp_path / "out.jsonl", requests=6, per_image=1))
    assert server.most_at_once == 6


def test_the_key_goes_to_the_server_and_nowhere_else(made, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(endpoint.KEY_VARIABLE, KEY)
    rewrite(config(made, server, tmp_path / "out.jsonl", per_image=1))
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    server.trouble = lambda _: Response(400, json.dumps({"error": f"bad {KEY}"}).encode())
    with pytest.raises(UserError) as error:
        rewrite(config(made, server, tmp_path / "other.jsonl"))
    said = capsys.readouterr()
    assert not any(KEY in text for text in (str(error.value), said.out, said.err))
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


ODD_ANSWERS = {
    "nothing": None,
    "empty": "",
    "orders": f"{ORDERS}\n" * 50,
    "binary": "\x00\x1b[2J\u202e\x00",
    "endless": "The star is red and " * 50_000,
    "json": '{"caption": "The star is red.", "label": true}',
    "only thought": "<think>The star is red.",
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_answers_that_hold_no_captions_change_nothing(made, server, tmp_path, name):
    out = tmp_path / "out.jsonl"
    server.answer = lambda _: ODD_ANSWERS[name]
    rewrite(config(made, server, out, per_image=2))
    assert [i.groups for i in read(out)] == [i.groups for i in read(made[1])]
    assert answers_path_of(out).stat().st_size < 5 << 20


def test_errors_before_the_first_request(made, server, tmp_path):
    out = tmp_path / "out.jsonl"
    other = scene_graphs(tmp_path / "other.json", 3)
    with pytest.raises(UserError, match=r"image 'n3' is not in .*other\.json"):
        rewrite(config((other, made[1]), server, out))
    fewer = json.loads(made[0].read_bytes())
    for graph in fewer.values():
        graph["objects"] = {key: graph["objects"][key] | {"relations": []} for key in "01"}
    other.write_text(json.dumps(fewer))
    with pytest.raises(UserError, match=r"image 'n0' has captions about objects .*but 2 objects"):
        rewrite(config((other, made[1]), server, out))
    for wrong, message in (
        ({"endpoint": "localhost:8000"}, "give an address such as"),
        ({"endpoint": "http://me:pa55@host/v1"}, "contains a password"),
        ({"endpoint": "http://[/v1"}, "give an address such as"),
        ({"out": tmp_path / "out.json"}, "must end in"),
        ({"captions": tmp_path / "no.jsonl"}, "no such file"),
        ({"scene_graphs": tmp_path / "no.json"}, "no such file"),
        ({"out": made[1]}, "which is also an input"),
    ):
        good = {"captions": made[1], "scene_graphs": made[0], "out": out, "model": MODEL}
        with pytest.raises(UserError, match=message) as error:
            rewrite(RewriteConfig(**(good | {"endpoint": server.url} | wrong)))
        assert "pa55" not in str(error.value)
    for setting in ({"model": " "}, {"rewordings": 0}, {"timeout": 0.0}, {"requests": 0}):
        with pytest.raises(UserError):
            config(made, server, out, **setting)
    assert not server.requests
    rewrite(config(made, server, out, per_image=1))
    with pytest.raises(UserError, match="exists already; pass --overwrite"):
        rewrite(config(made, server, out, per_image=2))


def test_a_cache_that_is_none_is_named(made, server, tmp_path):
    cache = tmp_path / "cache.sqlite"
    cache.write_bytes(b"not a database " * 100)
    with pytest.raises(UserError, match=r"cache\.sqlite: the model's answers cannot be read"):
        rewrite(config(made, server, tmp_path / "out.jsonl", cache=cache))


@pytest.mark.slow
def test_the_audit_is_of_the_models_captions(made, server, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    rewrite(config(made, server, out, audit=True))
    stats = json.loads(stats_path_of(out).read_bytes())
    pairs = sum(len(group.negatives) for _, group in new_groups(out))
    assert stats["audit"]["overall"]["pairs"] == pairs > 30
    assert "Chance is 0.5." in capsys.readouterr().out
