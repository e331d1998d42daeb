"""The page as an application: what it answers, refuses and never asks for."""

import contextlib
import dataclasses
import io
import itertools
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from html import unescape
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from solution.__main__ import main
from solution.contracts import InputError
from solution.evaluate.classify import probabilities
from solution.export import files
from solution.export.runtimes import form_for
from solution.serve import view, web
from solution.serve.view import Panel, open_nets

LIMIT_BYTES = 300_000


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(view, "_SECONDS", 0.01)


def post(app, data, name="photo.jpg"):
    return app.test_client().post("/", data={"photo": (io.BytesIO(data), name)})


def text(response):
    return unescape(re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<script.*?</script>|<[^>]+>", " ", response.text,
                                               flags=re.DOTALL)))  # fmt: skip


def test_both_nets_answer_as_the_evaluation_does(app, pair, photo, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo)
    said = text(post(app, photo))
    for file in pair:
        exported = files.open_file(file)
        metadata = exported.metadata
        ((_, shares),) = probabilities(exported, [path], metadata)
        for index in np.argsort(-shares)[:5]:
            assert f"{metadata.classes[index]} {100 * shares[index]:.1f} %" in said
    assert re.search(r"Both predict \w+\.|They differ: Before predicts \w+, After predicts \w+\.", said)
    for figure in ("1,688,940", "667,404", f"{pair[0].stat().st_size:,}", f"{pair[1].stat().st_size:,}"):
        assert figure in said
    assert len(re.findall(r"milliseconds \d", said)) == 2
    assert "2.5 times fewer MACs, 7.3 times fewer bytes" in said


def test_the_page_loads_nothing_and_says_so(app, photo):
    response = post(app, photo)
    sources = re.findall(r'(?:src|href|action)="([^"]*)"', response.text)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "url(" not in response.text
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; img-src data:;")
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("data", "name", "status", "message"),
    [
        (b"no picture", "notes.txt", 415, "notes.txt: not an image by its content; JPEG, PNG"),
        (b"", "empty.png", 415, "empty.png: the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "cut.png", 415, "cut.png: "),
        (b"x" * (LIMIT_BYTES + 1), "large.jpg", 413, "This file is larger than 0.3 MB, the most that is taken."),
        (b"x" * (4 * LIMIT_BYTES), "huge.jpg", 413, "This file is larger than 0.3 MB, the most that is taken."),
        (b"x", "", 400, "No photo was sent"),
    ],
)
def test_what_is_no_photo_is_refused_on_the_page(app, data, name, status, message):
    response = post(app, data, name)
    assert response.status_code == status
    assert message in text(response)
    assert "Drop a photo here" in text(response)


@pytest.mark.parametrize(("side", "most"), [(11_000, "25,000,000"), (5_100, "25,000,000")])
def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(app, side, most, monkeypatch):
    target = io.BytesIO()
    Image.new("1", (side, side)).save(target, "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    response = post(app, target.getvalue(), "bomb.png")
    assert response.status_code == 415
    assert f"{side} x {side} pixels are more than {most}: refused" in text(response)


def test_a_large_jpeg_is_taken_which_is_decoded_at_a_fraction_of_its_size(app):
    target = io.BytesIO()
    Image.new("L", (5_200, 5_200), 128).save(target, "JPEG", optimize=True)
    assert len(target.getvalue()) < LIMIT_BYTES
    assert post(app, target.getvalue(), "large.jpg").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "192.0.2.7"}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Host": "localhost.evil.example:8000"}, 400),
        ({"Host": ""}, 400),
        ({"Host": "127.0.0.1:8000@evil.example"}, 400),
    ],
)
def test_only_its_own_addresses_are_answered(app, headers, status):
    response = app.test_client().get("/", headers=headers)
    assert response.status_code == status
    assert status == 200 or "answers to its own address alone" in response.text


def test_a_name_that_it_serves_on_is_its_own():
    assert web.is_own("photos.home:80", "photos.home")
    assert not web.is_own("photos.home:80", "0.0.0.0")
    assert not web.is_own("127.0.0.1:80, photos.evil", "127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_photos_are_taken_from_the_page_itself_alone(app, photo, headers, status):
    sent = {"photo": (io.BytesIO(photo), "photo.jpg")}
    response = app.test_client().post("/", data=sent, headers=headers)
    assert response.status_code == status
    assert status == 200 or "takes photos from itself alone" in response.text


def test_an_error_inside_is_a_line_on_the_page(pair, photo, tmp_path, capsys):
    (net,) = open_nets(pair[:1], None, tmp_path)

    def run(images):
        raise RuntimeError("no such kernel")

    panel = Panel(nets=(dataclasses.replace(net, exported=dataclasses.replace(net.exported, run=run)),))
    app = web.application(panel, LIMIT_BYTES)
    for _ in range(3):  # no lock is left behind
        response = post(app, photo)
        assert response.status_code == 500
        assert "This photo could not be classified (RuntimeError): try another one." in text(response)
    assert "no such kernel" in capsys.readouterr().err
    assert app.test_client().get("/nowhere").status_code == 404


def test_a_few_photos_at_once_are_computed_and_others_told_to_wait(pair, photo, tmp_path):
    (net,) = open_nets(pair[:1], None, tmp_path)
    going, go_on = threading.Event(), threading.Event()

    def run(images):
        going.set()
        assert go_on.wait(60)
        return np.zeros((1, 9), dtype=np.float32)

    panel = Panel(nets=(dataclasses.replace(net, exported=dataclasses.replace(net.exported, run=run)),))
    app = web.application(panel, LIMIT_BYTES)
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(post, app, photo) for _ in range(8)]
        assert going.wait(60)
        refused = [future.result() for future in itertools.islice(as_completed(sent), 6)]
        assert app.test_client().get("/").status_code == 200  # the page itself does not wait
        go_on.set()
        codes = sorted(future.result().status_code for future in sent)
    assert codes == [200] * 2 + [503] * 6
    assert all("send this one again" in text(response) and response.headers["Retry-After"] for response in refused)


def test_connections_that_only_wait_do_not_starve_it(pair, tmp_path):
    app = web.application(Panel(nets=open_nets(pair[:1], None, tmp_path)), LIMIT_BYTES)
    made = web.server(app, "127.0.0.1", 0, LIMIT_BYTES)
    threading.Thread(target=made.run, daemon=True).start()
    port = made.effective_port
    waiting = []
    try:
        for _ in range(300):
            waiting.append(socket.create_connection(("127.0.0.1", port)))
            waiting[-1].sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n")
        with urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
            assert response.status == 200
    finally:
        for connection in waiting:
            connection.close()
        made.close()


@pytest.mark.slow
def test_a_request_that_is_sent_without_end_is_ended(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 1)
    app = web.application(Panel(nets=open_nets(pair[:1], None, tmp_path)), LIMIT_BYTES)
    made = web.server(app, "127.0.0.1", 0, LIMIT_BYTES)
    threading.Thread(target=made.run, daemon=True).start()
    with contextlib.closing(made), socket.create_connection(("127.0.0.1", made.effective_port)) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n")
        slow.settimeout(0.2)
        ended = False
        for _ in range(150):
            try:
                slow.sendall(b"X: x\r\n")
                ended = ended or slow.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
            if ended:
                break
    assert ended


def test_a_name_is_text_and_nothing_else(app, photo):
    response = post(app, photo, '<img src=x onerror="alert(1)">.jpg')
    assert "<img src=x" not in response.text
    assert "&lt;img src=x" in response.text


def test_all_kinds_of_files_answer_alike(pair, photo, tmp_path):
    made = form_for(pair[0], "onnxruntime", tmp_path)
    panel = Panel(nets=open_nets([pair[0], made, pair[1]], None, tmp_path))
    first, exported, _ = panel.predict(photo, "photo.jpg")
    assert [net.role for net in panel.nets] == ["before.safetensors", "before.onnx", "after.packed"]
    assert [net.macs for net in panel.nets] == [1_688_940, None, 667_404]
    assert [net.exported.runtime for net in panel.nets] == ["eager", "onnxruntime", "eager"]
    assert exported.classes == pytest.approx(first.classes, abs=1e-4)
    assert panel.nets[1].num_bytes == made.stat().st_size
    said = text(post(web.application(panel, LIMIT_BYTES), photo))
    assert re.search("All predict|They differ", said)
    assert "MACs not counted" in said


def test_times_are_of_the_quickest_call_and_never_get_worse(pair, photo, tmp_path):
    (net,) = open_nets(pair[:1], None, tmp_path)
    pauses = itertools.chain([0.3, 0.3, 0.1], itertools.repeat(0.3))  # the first call warms up

    def run(images):
        time.sleep(next(pauses))
        return np.zeros((1, 9), dtype=np.float32)

    panel = Panel(nets=(dataclasses.replace(net, exported=dataclasses.replace(net.exported, run=run)),))
    (first,), (second,) = panel.predict(photo, "photo.jpg"), panel.predict(photo, "photo.jpg")
    assert 100 <= second.ms == first.ms < 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.packed",), "there is no file nowhere.packed"),
        (("--limit-mb", "0"), "--limit-mb must be a number above 0, 1,000 at most, got 0"),
        (("--limit-mb", "1e9"), "--limit-mb must be a number above 0, 1,000 at most, got 1e+09"),
        (("--limit-mb", "inf"), "--limit-mb must be a number above 0, 1,000 at most, got inf"),
        (("--limit-mb", "nan"), "--limit-mb must be a number above 0, 1,000 at most, got nan"),
        (("--port", "70000"), "--port must be 0 to 65535, got 70000"),
        (("--runtime", "warp"), "runtime must be one of eager, compile, onnxruntime, openvino"),
        (("--host", "192.0.2.1"), "cannot serve on 192.0.2.1, port 8000"),
    ],
)
def test_bad_words_are_explained(words, message, capsys):
    assert main(["serve", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flask", None)
    with pytest.raises(InputError, match=r'the web page needs flask, which is not here: pip install -e "\.\[web\]"'):
        web.application(Panel(nets=()), LIMIT_BYTES)
