"""A Hub on this machine, strict where the real one is: for tests of the push with the unmodified client.

Two listeners on 127.0.0.1: the Hub, and the store of large files, which must never see a token. It keeps only content
that hashes to its oid, refuses a commit whose large files are missing, and tells errors apart by their headers, as
the client does. Protocol: LFS, so the client runs with HF_HUB_DISABLE_XET=1.

From top to bottom: what is kept (`Blob`, `Repository`), the Hub that tests hold (`Hub`), the store, the endpoints of
the Hub (`serve_commit` answers `/api/models/OWNER/NAME/commit/main`), and the rules for a card's metadata.
"""

import base64
import hashlib
import http.server
import json
import re
import sys
import threading
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import yaml


LFS = re.compile(r"\.(safetensors|onnx|png|model)$|^tokenizer\.json$")
LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "other"}
SDKS = {"docker", "gradio", "static"}
ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Blob:
    """Content of a file, and how the Hub keeps it."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """SHA-256 of a large file, git's name of a small one."""
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """Commits are trees; a branch or tag is the name of one."""

    is_private: bool
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def add(self, tree: dict[str, Blob], message: str) -> str:
        """Keeps a tree as a commit, and returns its name."""
        names = "".join(f"{name}{blob.oid}" for name, blob in sorted(tree.items()))
        sha = hashlib.sha1(f"{len(self.messages)}{message}{names}".encode()).hexdigest()
        self.trees[sha] = tree
        self.messages.append(message)
        return sha

    def find(self, revision: str) -> str | None:
        """The commit that a branch, tag, pull request or commit names."""
        if revision in self.trees:
            return revision
        return (self.branches | self.tags | self.requests).get(revision)


class Hub:
    """State, accounts and faults of the Hub; `with Hub() as hub` listens.

    Attributes:
        log: Method and path of each request, in order; requests to the store start with `store`.
        faults: Fault by where it strikes, each with the number of times that it still does.
        tokens_at_store: Authorization headers that reached the store.
    """

    tokens = {"hf_write": ("ada", "write"), "hf_read": ("ada", "read"), "hf_bob": ("bob", "write")}

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.log: list[str] = []
        self.faults: Counter[str] = Counter()
        self.tokens_at_store: list[str] = []
        self.in_put = threading.Event()
        self.lock = threading.RLock()
        self.servers = [_serve(_HubRequest, self), _serve(_StoreRequest, self)]
        self.endpoint, self.store = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def strikes(self, fault: str) -> bool:
        """Whether the fault is still to strike; counts it."""
        with self.lock:
            if self.faults[fault] <= 0:
                return False
            self.faults[fault] -= 1
            return True

    def create(self, name: str, is_private: bool = False) -> Repository:
        """A repository with the commit that every new one has."""
        repository = Repository(is_private)
        attributes = Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)
        repository.branches["main"] = repository.add({".gitattributes": attributes}, "initial commit")
        self.repositories[name] = repository
        return repository


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    disable_nagle_algorithm = True  # else every reply waits 40 ms
    hub: Hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no fault of the server."""


def _serve(handler: type, hub: Hub) -> _Server:
    server = _Server(("127.0.0.1", 0), handler)
    server.hub = hub
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


class _Refused(Exception):
    """An error reply: status, error code header, message header."""


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, *arguments: object) -> None:
        """The hub has a log of its own."""

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status: int, content: Any = b"", **headers: str) -> None:
        is_bytes = isinstance(content, bytes)
        content = content if is_bytes else json.dumps(content).encode()
        self.send_response(status)
        headers.setdefault("Content_Type", "application/octet-stream" if is_bytes else "application/json")
        headers.setdefault("Content_Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class _StoreRequest(_Request):
    """Where large files are: no account is known here, the address is the permission."""

    def do_PUT(self) -> None:
        hub = self.hub
        hub.log.append("store PUT")
        hub.tokens_at_store += filter(None, [self.headers.get("Authorization")])
        _, _, oid, name = urllib.parse.unquote(self.path).split("/", 3)
        if hub.strikes("503 at the store"):
            self.body()
            self.reply(503, Retry_After="0")
            return
        if hub.strikes("cut in the PUT"):
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            self.connection.shutdown(2)
            self.close_connection = True
            return
        if hub.strikes("stall in the PUT"):
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            hub.in_put.set()
            self.rfile.read()  # until the client is gone
            self.close_connection = True
            return
        content = self.body()
        if hashlib.sha256(content).hexdigest() != oid:
            self.reply(400, b"the content is not the object")
            return
        hub.repositories[name].objects[oid] = content
        self.reply(200)

    def do_GET(self) -> None:
        hub = self.hub
        hub.log.append("store GET")
        hub.tokens_at_store += filter(None, [self.headers.get("Authorization")])
        _, _, oid, name = urllib.parse.unquote(self.path).split("/", 3)
        self.reply(200, hub.repositories[name].objects[oid], ETag=f'"{oid}"')


class _HubRequest(_Request):
    """The Hub's own endpoints."""

    def handle_any(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path, self.query = urllib.parse.unquote(url.path), urllib.parse.parse_qs(url.query)
        self.hub.log.append(f"{self.command} {path}")
        content = self.body()
        try:
            with self.hub.lock:
                self.account = self.authenticate(path)
                self.route(path, content)
        except _Refused as refused:
            status, code, message = refused.args
            headers = {"X_Error_Code": code, "X_Error_Message": message}
            headers = {name: value for name, value in headers.items() if value}
            self.reply(status, {"error": message}, **headers)

    do_GET = do_HEAD = do_POST = do_DELETE = handle_any

    def authenticate(self, path: str) -> tuple[str, str] | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.tokens:  # also for what needs no token
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def route(self, path: str, content: bytes) -> None:
        if path == "/api/whoami-v2":
            self.whoami()
        elif path == "/api/repos/create":
            self.create(json.loads(content))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(content))
        elif match := re.fullmatch(r"/(?:api/(models|spaces)/)?([\w.-]+/[\w.-]+?)(?:\.git)?(?:/(.*))?", path):
            self.of_repository(match[2], match[3] or "", content, is_space=match[1] == "spaces")
        else:
            raise _Refused(404, "", "no such endpoint")

    def whoami(self) -> None:
        if self.account is None:
            raise _Refused(401, "", "Invalid username or password.")
        name, role = self.account
        organisations = [{"name": "lab", "roleInOrg": "write"}, {"name": "guild", "roleInOrg": "read"}]
        token = {"displayName": "test", "role": role}
        self.reply(200, {"name": name, "type": "user", "orgs": organisations, "auth": {"accessToken": token}})

    def create(self, asked: dict[str, Any]) -> None:
        owner = asked.get("organization") or (self.account or ("", ""))[0]
        name = f"{owner}/{asked['name']}"
        if self.account is None:
            raise _Refused(401, "", "Invalid username or password.")
        self.need_write(name)
        is_space = asked.get("type") == "space"
        if is_space and asked.get("sdk") not in SDKS:
            raise _Refused(400, "", f'"sdk" must be one of {sorted(SDKS)}')
        url = f"{self.hub.endpoint}/{_key(name, is_space)}"
        if _key(name, is_space) in self.hub.repositories:
            self.reply(409, {"error": "You already created this repo", "url": url})
            return
        self.hub.create(_key(name, is_space), asked.get("visibility") == "private")
        self.reply(200, {"url": url, "name": name})

    def need_write(self, name: str, is_request: bool = False) -> None:
        """Who may read may also open a pull request, with a token that may write."""
        account, role = self.account or ("", "")
        if role != "write" or not (is_request or name.split("/")[0] in {account, "lab"}):
            raise _Refused(403, "", "Forbidden: you don't have the required permissions (write)")

    def validate(self, asked: dict[str, Any]) -> None:
        errors = metadata_errors(asked["content"], asked.get("repoType") == "space")
        if "text/plain" in self.headers.get("Accept", ""):
            self.reply(400 if errors else 200, "\n".join(f"- Error: {error}" for error in errors).encode())
            return
        lines = [{"message": error} for error in errors]
        self.reply(400 if errors else 200, {"errors": lines, "warnings": []})

    def of_repository(self, name: str, rest: str, content: bytes, is_space: bool) -> None:
        repository = self.hub.repositories.get(_key(name, is_space))
        can_see = repository and (not repository.is_private or (self.account or ("",))[0] == name.split("/")[0])
        if not repository or not can_see:
            raise _Refused(404 if self.account else 401, "RepoNotFound", "Repository not found")
        self.name, self.repository, self.is_space = name, repository, is_space
        action, _, rest = rest.partition("/")
        if self.command == "POST" or action == "auth-check":
            self.need_write(name, action == "info" or self.query.get("create_pr") == ["1"])
        handler = getattr(self, "serve_" + action.replace("-", "_"), None) if action else self.info
        if handler is None:
            raise _Refused(404, "", "no such endpoint")
        handler(rest, content)

    def commit_of(self, revision: str) -> str:
        sha = self.repository.find(revision or "main")
        if sha is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def info(self, revision: str, content: bytes) -> None:
        sha = self.commit_of(revision)
        files = [{"rfilename": name} for name in sorted(self.repository.trees[sha])]
        facts = {"id": self.name, "modelId": self.name, "sha": sha, "private": self.repository.is_private}
        self.reply(200, {**facts, "tags": [], "siblings": files})

    serve_revision = info

    def serve_auth_check(self, rest: str, content: bytes) -> None:
        self.reply(200, {})

    def serve_refs(self, rest: str, content: bytes) -> None:
        kinds = {"branches": self.repository.branches, "tags": self.repository.tags}
        refs = {
            kind: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()]
            for kind, names in kinds.items()
        }
        self.reply(200, {**refs, "converts": []})

    def serve_branch(self, branch: str, content: bytes) -> None:
        if branch in self.repository.branches:
            raise _Refused(409, "", "Reference already exists")
        start = json.loads(content or b"{}").get("startingPoint", "main")
        self.repository.branches[branch] = self.commit_of(start)
        self.reply(200, {})

    def serve_tag(self, revision: str, content: bytes) -> None:
        tag = json.loads(content)["tag"]
        if tag in self.repository.tags:
            raise _Refused(409, "", "Tag reference exists already")
        self.repository.tags[tag] = self.commit_of(revision)
        self.reply(200, {})

    def serve_tree(self, rest: str, content: bytes) -> None:
        revision, _, folder = rest.partition("/")
        tree = self.repository.trees[self.commit_of(revision)]
        found = {name: blob for name, blob in tree.items() if not folder or name.startswith(f"{folder}/")}
        if folder and not found:
            raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
        self.reply(200, [_entry(name, blob) for name, blob in sorted(found.items())])

    def serve_preupload(self, revision: str, content: bytes) -> None:
        tree = self.repository.trees[self.commit_of(revision)]
        answers = []
        for file in json.loads(content)["files"]:
            path = file["path"]
            answer = {"path": path, "uploadMode": "lfs" if LFS.search(path) else "regular", "shouldIgnore": False}
            answers.append({**answer, **({"oid": tree[path].oid} if path in tree else {})})
        self.reply(200, {"files": answers})

    def serve_info(self, rest: str, content: bytes) -> None:
        if rest == "lfs/verify":
            asked = json.loads(content)
            self.reply(200 if asked["oid"] in self.repository.objects else 404, {})
            return
        assert rest == "lfs/objects/batch", rest
        objects = []
        for asked in json.loads(content)["objects"]:
            answer = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.repository.objects:
                upload = {"href": f"{self.hub.store}/lfs/{asked['oid']}/{self.name}"}
                verify = {"href": f"{self.hub.endpoint}/{self.name}.git/info/lfs/verify"}
                answer["actions"] = {"upload": upload, "verify": verify}
            objects.append(answer)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def serve_commit(self, branch: str, content: bytes) -> None:
        if self.hub.strikes("500 at the commit"):
            raise _Refused(500, "", "Internal error: try again")
        lines = [json.loads(line) for line in content.splitlines() if line.strip()]
        tree = dict(self.repository.trees[self.commit_of(branch)])
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", self.commit_of(branch)) != self.commit_of(branch):
                    raise _Refused(412, "", "A commit has happened since")
            elif line["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.repository.objects:
                    raise _Refused(400, "", f"LFS pointer points to a file that does not exist: {value['path']}")
                tree[value["path"]] = Blob(self.repository.objects[value["oid"]], True)
            elif line["key"] == "deletedFile":
                if tree.pop(value["path"], None) is None:
                    raise _Refused(404, "EntryNotFound", f"{value['path']} does not exist")
            else:
                raise _Refused(400, "", f"unknown operation {line['key']}")
        card = tree["README.md"].content.decode() if "README.md" in tree else None
        if errors := metadata_errors(card, self.is_space) if card is not None else []:
            raise _Refused(400, "", f"Invalid metadata: {errors}")
        sha = self.repository.add(tree, message)
        answer = {"success": True, "commitOid": sha, "hookOutput": ""}
        answer["commitUrl"] = f"{self.hub.endpoint}/{_key(self.name, self.is_space)}/commit/{sha}"
        if self.query.get("create_pr") == ["1"]:
            number = len(self.repository.requests) + 1
            self.repository.requests[f"refs/pr/{number}"] = sha
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{self.name}/discussions/{number}"
        elif branch in self.repository.branches:
            self.repository.branches[branch] = sha
        self.reply(200, answer)

    def serve_resolve(self, rest: str, content: bytes) -> None:
        names = sorted(self.repository.branches | self.repository.tags | self.repository.requests, key=len)
        revision = next((name for name in reversed(names) if rest.startswith(f"{name}/")), rest.split("/")[0])
        sha, path = self.commit_of(revision), rest.removeprefix(f"{revision}/")
        blob = self.repository.trees[sha].get(path)
        commit = {"X_Repo_Commit": sha}
        if blob is None:
            self.reply(404, {}, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", **commit)
        elif blob.is_lfs:
            linked = {"X_Linked_Etag": f'"{blob.oid}"', "X_Linked_Size": str(len(blob.content))}
            self.reply(302, Location=f"{self.hub.store}/lfs/{blob.oid}/{self.name}", **linked, **commit)
        else:
            self.reply(200, blob.content, ETag=f'"{blob.oid}"', **commit)


def _entry(name: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "oid": blob.oid, "size": len(blob.content)}
    return {
        **entry,
        **({"lfs": {"oid": blob.oid, "size": len(blob.content), "pointerSize": 130}} if blob.is_lfs else {}),
    }


def _key(name: str, is_space: bool) -> str:
    """A model and a Space may have the same name."""
    return f"spaces/{name}" if is_space else name


def metadata_errors(text: str, is_space: bool = False) -> list[str]:
    """What the Hub complains of in a card's metadata."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not match:
        return ["the card has no metadata"]
    metadata = yaml.safe_load(match[1])
    errors = []
    if is_space and metadata.get("sdk") not in SDKS:
        errors.append(f'"sdk" must be one of {sorted(SDKS)}')
    if is_space and len(metadata.get("short_description", "")) > 60:
        errors.append('"short_description" must be at most 60 characters')
    if "license" in metadata and metadata["license"] not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    bases = metadata.get("base_model", [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not ID.fullmatch(base):
            errors.append(f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.')
    for model in metadata.get("model-index", []):
        for result in model["results"]:
            if not result.get("task", {}).get("type"):
                errors.append('"model-index[0].results[0].task.type" is required')
            if not {"type", "name"} <= result.get("dataset", {}).keys():
                errors.append('"model-index[0].results[0].dataset.type" and ".name" are required')
            if any(not {"type", "value"} <= metric.keys() for metric in result.get("metrics", [{}])):
                errors.append('"model-index[0].results[0].metrics[0].type" and ".value" are required')
    return errors


if __name__ == "__main__":  # a Hub in a process of its own: says where it listens, and ends with whoever started it
    with Hub() as alone:
        sys.stdout.write(f"{alone.endpoint}\n")
        sys.stdout.flush()
        sys.stdin.read()
