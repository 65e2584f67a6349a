"""`kanana push`: what would be uploaded, and one sentence for each obstacle; the upload against a hub on loopback."""

import base64
import http.server
import json
import threading

import pytest

from kanana_jax import cli
from kanana_jax.errors import ConfigError, UserError
from kanana_jax.interop import hub

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "exported"
    (folder / ".cache").mkdir(parents=True)
    (folder / ".cache" / "x").write_text("hidden", "utf-8")
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "README.md").write_text("# 모델\n", "utf-8")
    (folder / "model.safetensors").write_bytes(bytes(1500))
    return folder


def test_a_dry_run_shows_files_and_sizes_without_token_or_network(folder, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", None)  # nothing is asked
    assert cli.main(["push", str(folder), "team/faq", "--dry-run"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["README.md 9 B", "config.json 2 B", "model.safetensors 1.5 kB"]
    assert lines[3] == "3 files, 1.51 kB, for team/faq" and lines[4].startswith("nothing was uploaded")


def test_what_is_no_exported_folder_is_refused(folder, tmp_path):
    for name in ("faq", "a/b/c", "../x", "team/", "team/fa q"):
        with pytest.raises(ConfigError, match="is not the name of a repository: give OWNER/NAME"):
            hub.files(folder, name)
    with pytest.raises(ConfigError, match="is not a folder"):
        hub.files(tmp_path / "none", "team/faq")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match="may hold a pickle"):
        hub.files(folder, "team/faq")
    (folder / "pytorch_model.bin").unlink()
    (tmp_path / "secret").write_text("x", "utf-8")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="is a link out of its folder"):
        hub.files(folder, "team/faq")
    (folder / "link").unlink()
    (folder / "model.json").write_text("{}", "utf-8")
    with pytest.raises(ConfigError, match="export it first, with 'kanana export"):
        hub.files(folder, "team/faq")
    (folder / "model.json").unlink()
    (folder / "README.md").unlink()
    with pytest.raises(ConfigError, match="has no README.md"):
        hub.files(folder, "team/faq")
    (folder / "README.md").write_text("# x", "utf-8")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/kim/base"}', "utf-8")
    with pytest.raises(ConfigError, match="by /home/kim/base, which others do not have: export it again with --base"):
        hub.files(folder, "team/faq")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "lab/base-1b"}', "utf-8")
    assert "adapter_config.json" in [one.name for one in hub.files(folder, "team/faq")]
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="holds no model"):
        hub.files(folder, "team/faq")


class _Hub(http.server.BaseHTTPRequestHandler):
    """The answers of a hub to somebody called kim, of the organisation lab; `server.status` refuses all."""

    def do_GET(self):
        self._answer({"type": "user", "name": "kim", "orgs": [{"name": "lab"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body))
        if self.path.endswith("/create"):
            self._answer({"url": f"http://{self.headers['Host']}/lab/faq", "name": "lab/faq"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        else:
            self._answer(
                {"commitUrl": f"http://{self.headers['Host']}/lab/faq/commit/1", "commitOid": "1", "success": True}
            )

    def _answer(self, value):
        refused = self.server.status
        self.send_response(refused or 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"error": "no"} if refused else value).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.asked, server.status = [], 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def _push(folder, repository, server):
    uploads = hub.files(folder, repository)
    return hub.push(uploads, repository, private=True, endpoint=f"http://127.0.0.1:{server.server_port}")


def test_the_files_that_were_shown_arrive_in_one_commit(folder, server):
    assert _push(folder, "lab/faq", server) == f"http://127.0.0.1:{server.server_port}/lab/faq/commit/1"
    (_, made), (commit, sent) = server.asked[0], server.asked[-1]
    assert json.loads(made)["name"] == "faq" and json.loads(made)["organization"] == "lab"
    assert commit.startswith("/api/models/lab/faq/commit/main")
    lines = [json.loads(line) for line in sent.splitlines()]
    arrived = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
    assert arrived == {name: (folder / name).read_bytes() for name in ("README.md", "config.json", "model.safetensors")}


def test_every_obstacle_has_its_sentence(folder, server, monkeypatch):
    with pytest.raises(UserError, match=r"team/faq belongs to team, and the token .* to kim: .* of kim or lab$"):
        _push(folder, "team/faq", server)
    assert not server.asked  # nothing was created
    for status, told in (
        (401, "does not accept the token"),
        (403, "may not write to lab/faq"),
        (400, r"refused lab/faq \(400"),
    ):
        server.status = status
        with pytest.raises(UserError, match=told) as error:
            _push(folder, "lab/faq", server)
        assert "\n" not in str(error.value)
    server.status = 0
    with pytest.raises(UserError, match="http://127.0.0.1:9 cannot be reached"):
        hub.push(hub.files(folder, "lab/faq"), "lab/faq", private=False, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="there is no Hugging Face token on this machine: run 'hf auth login'"):
        _push(folder, "lab/faq", server)
