"""The table of everything that can be asked: method, path, types, privilege. Nothing else knows a path.

Paths are below `/api/v1`; `{x}` is one segment, `{x*}` one or more (volume and image names hold a slash).
A VM may be named by id or by name. Query parameters common to all mutations: `dry_run=1` answers a `DryRun`
and changes nothing. `If-Match: "REV"` is honoured by the verbs that say `guarded`; creates take an
`Idempotency-Key` header: the same key and body within a day answer the same again.

Types of query parameters, path names and headers are what the API checks and what OpenAPI shows.
"""
# ruff: noqa: E501 — a table reads best with one row per line

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from thimble.contract import common, deploy, document_api, host, management, netboot, network, storage, vm
from thimble.contract.host import Role
from thimble.core.ids import NAME_MAX, NAME_PATTERN

PREFIX = "/api/v1"


class Shape(StrEnum):
    """How the answer comes."""

    VALUE = "value"  # 200 (201 for creates) and the output
    TASK = "task"  # 202 and a `Started`; the result is the task's
    UPLOAD = "upload"  # raw bytes in the body, then as VALUE
    DOWNLOAD = "download"  # 200 and raw bytes
    EVENTS = "events"  # text/event-stream
    SOCKET = "socket"  # WebSocket


class Cookie(StrEnum):
    """What a verb does with the browser's session cookie."""

    SET = "set"
    CLEAR = "clear"


#: `1` and `true` are yes.
Flag = Literal["0", "1", "false", "true"]
Sha256 = Annotated[str, Meta(pattern="^[0-9A-Fa-f]{64}$")]

#: Headers. One strong ETag, or `*` for any; and a client's own key for a create.
IF_MATCH = r'^("[0-9]{1,18}"|\*)$'
IDEMPOTENCY_KEY = "^[ -~]{1,200}$"

_IMAGE = "[A-Za-z0-9][A-Za-z0-9._+~-]*"
_STORE = "[a-z0-9][a-z0-9._-]*"
#: What the names in paths look like; nothing else is ever found.
PATHS: dict[str, tuple[str, int]] = {  # (pattern, longest)
    "datastore": (NAME_PATTERN, NAME_MAX),
    "image": (f"^({_STORE}/)?{_IMAGE}$", NAME_MAX + 1 + 4 * NAME_MAX - 16),
    "key": (NAME_PATTERN, NAME_MAX),
    "mac": ("^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$", 17),
    "switch": (NAME_PATTERN, NAME_MAX),
    "task": ("^task-[0-9a-z]+$", NAME_MAX),
    "token": (NAME_PATTERN, NAME_MAX),
    "user": (NAME_PATTERN, NAME_MAX),
    "vm": (NAME_PATTERN, NAME_MAX),
    "volume": (f"^({_STORE}/)?{_STORE}$", 2 * NAME_MAX + 1),
}


class Param(msgspec.Struct, frozen=True):
    """A query parameter: what it does, and its type, itself or where it is (see `Verb.gives`)."""

    name: str
    means: str
    kind: Any

    @property
    def type(self) -> Any:
        return _resolved(self.kind)


def _resolved(kind: Any) -> Any:
    if not isinstance(kind, str):
        return kind
    from importlib import import_module

    module, _, name = kind.partition(".")
    return getattr(import_module(f"thimble.contract.{module}"), name)


class Started(common.Out, frozen=True, kw_only=True):
    """The answer to a mutation that takes long: the task, and the id of its subject."""

    task: common.Task
    subject: str


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be asked. `name` is `noun.verb` and names the service method.

    `gives`: the type of the answer, or where it is, as `machine.Health`: then it is imported when somebody
    wants the type itself, which the agent does not before it is ready.
    """

    name: str
    method: str
    path: str
    gives: type | str
    summary: str
    input: type | None = None
    role: Role | None = Role.VIEWER  # None: without login
    shape: Shape = Shape.VALUE
    query: tuple[Param, ...] = ()
    guarded: bool = False  # honours `If-Match`
    creates: bool = False  # a value answers with 201
    keyed: bool = False  # takes an `Idempotency-Key`
    replay: bool = False  # the API itself keeps the answers of its keys
    cookie: Cookie | None = None
    resumes: str = ""  # of a stream: the query parameter that a reader's `Last-Event-ID` stands for

    @property
    def output(self) -> type:
        found: type = _resolved(self.gives)
        return found

    @property
    def mutates(self) -> bool:
        return self.method not in ("GET", "HEAD")


def _v(name: str, method: str, path: str, gives: type | str, summary: str, **more: object) -> Verb:
    return Verb(name=name, method=method, path=path, gives=gives, summary=summary, **more)  # type: ignore[arg-type]


_OP = Role.OPERATOR
_AD = Role.ADMIN
_TASK = Shape.TASK
_SHA256 = (Param("sha256", "refuse the upload unless its digest is this", Sha256),)
_LOG = (
    Param("lines", "how many of the last lines", Annotated[int, Meta(ge=0, le=10_000)]),
    Param("level", "this level or worse", "hardware.LogLevel"),
    Param("source", "only these, such as kernel,agent", Annotated[str, Meta(max_length=1000)]),
    Param("since", "not older than this, in seconds since the epoch", Annotated[float, Meta(ge=0, lt=1e12)]),
)

VERBS: tuple[Verb, ...] = (
    _v("session.create", "POST", "/session", host.Session, "Sign in", input=host.Login, role=None, creates=True, keyed=True, cookie=Cookie.SET),
    _v("session.get", "GET", "/session", host.Session, "Who am I"),
    _v("session.delete", "DELETE", "/session", common.Nothing, "Sign out", cookie=Cookie.CLEAR),
    _v("session.ticket", "POST", "/session/ticket", host.Ticket, "A ticket that opens one WebSocket"),
    _v("session.password", "POST", "/session/password", common.Nothing, "Change my password", input=host.PasswordChange),
    _v("user.list", "GET", "/users", host.UserList, "List users", role=_AD),
    _v("user.create", "POST", "/users", host.User, "Create a user", input=host.UserCreate, role=_AD, creates=True, keyed=True, replay=True),
    _v("user.change", "PATCH", "/users/{user}", host.User, "Change role or password", input=host.UserChange, role=_AD, guarded=True),
    _v("user.delete", "DELETE", "/users/{user}", common.Nothing, "Delete a user", role=_AD, guarded=True),
    _v("token.list", "GET", "/tokens", host.TokenList, "List tokens", role=_AD),
    _v("token.create", "POST", "/tokens", host.Session, "Create a token for a program", input=host.TokenCreate, role=_AD, creates=True, keyed=True, replay=True),
    _v("token.delete", "DELETE", "/tokens/{token}", common.Nothing, "Revoke a token", role=_AD),
    _v("host.get", "GET", "/host", host.Host, "The host's state"),
    _v("host.change", "PATCH", "/host", host.Host, "Rename the host", input=host.HostChange, role=_AD, guarded=True),
    _v("host.log", "GET", "/host/log", host.HostLog, "The last lines of the host's log", query=(Param("lines", "how many", Annotated[int, Meta(ge=1, le=5000)]),)),
    _v("host.logs", "GET", "/host/logs", "hardware.Logs", "The log: kernel, PID 1, agent and daemons", query=_LOG),
    _v("host.follow", "GET", "/host/logs/follow", "hardware.LogLine", "The log as it grows, as server-sent events", shape=Shape.EVENTS, query=_LOG),
    _v("host.hardware", "GET", "/host/hardware", "hardware.Hardware", "What the machine is made of"),
    _v("host.sensors", "GET", "/host/sensors", "hardware.Sensors", "Temperatures, fans, voltages, and the BMC"),
    _v("host.health", "GET", "/host/health", "hardware.Health", "How the host is, with reasons", query=(Param("thorough", "1: ask disks and BMC now, too", Flag),)),
    _v("host.time", "GET", "/host/time", "hardware.Time", "The clock, and where it takes the time from"),
    _v("host.bundle", "GET", "/host/bundle", "hardware.Archive", "Everything support needs, without secrets, as tar.gz", role=_AD, shape=Shape.DOWNLOAD),
    _v("host.blink", "POST", "/host/blink", common.Nothing, "Blink the light of a network port or a disk", input=host.Blink, role=_OP),
    _v("host.reboot", "POST", "/host/reboot", Started, "Stop the guests, reboot", input=host.PowerRequest, role=_AD, shape=_TASK),
    _v("host.shutdown", "POST", "/host/shutdown", Started, "Stop the guests, power off", input=host.PowerRequest, role=_AD, shape=_TASK),
    _v("deploy.get", "GET", "/host/deploy", deploy.Deploy, "What it is started from, and how the last update went"),
    _v("deploy.change", "PATCH", "/host/deploy", deploy.Deploy, "Set how this host is updated where nobody says", input=deploy.PolicyChange, role=_AD),
    _v("deploy.upload", "PUT", "/host/image", deploy.Uploaded, "Send an image, to update to or to install", role=_AD, shape=Shape.UPLOAD, query=_SHA256, creates=True),
    _v("deploy.install", "POST", "/host/install", Started, "Install on a disk, or mirror the installation", input=deploy.InstallRequest, role=_AD, shape=_TASK),
    _v("deploy.update", "POST", "/host/update", Started, "Update; undone by itself unless the new one proves good", input=deploy.UpdateRequest, role=_AD, shape=_TASK),
    _v("deploy.rollback", "POST", "/host/rollback", Started, "Go back to the other slot", input=deploy.RollbackRequest, role=_AD, shape=_TASK),
    _v("key.list", "GET", "/host/keys", deploy.KeyList, "List whose updates are accepted"),
    _v("key.create", "POST", "/host/keys", deploy.Key, "Accept updates signed with this key", input=deploy.KeyCreate, role=_AD, creates=True, keyed=True, replay=True),
    _v("key.delete", "DELETE", "/host/keys/{key}", common.Nothing, "Accept them no longer", role=_AD),
    _v("netboot.get", "GET", "/host/netboot", "netboot.Netboot", "What is served to neighbours that boot over the network"),
    _v("netboot.serve", "PUT", "/host/netboot", "netboot.Netboot", "Boot neighbours from this host", input=netboot.ServeBoot, role=_AD, guarded=True),
    _v("netboot.stop", "DELETE", "/host/netboot", common.Nothing, "Boot no neighbours any more", role=_AD),
    _v("neighbour.list", "GET", "/neighbours", "netboot.NeighbourList", "The hosts this one booted, and what they say of themselves"),
    _v("neighbour.delete", "DELETE", "/neighbours/{mac}", common.Nothing, "Forget one; its number is free again", role=_AD),
    _v("management.get", "GET", "/host/management", management.Management, "The management network's settings"),
    _v("management.change", "PATCH", "/host/management", management.Management, "Change the management network", input=management.ManagementChange, role=_AD, guarded=True),
    _v("management.confirm", "POST", "/host/management/confirm", management.Management, "Keep the new settings of the management network", role=_AD, guarded=True),
    _v("management.undo", "POST", "/host/management/undo", management.Management, "Take them back", role=_AD, guarded=True),
    _v("document.plan", "POST", "/document/plan", document_api.DocumentPlan, "What applying a document would do", input=document_api.DocumentText, role=_AD),
    _v("document.apply", "POST", "/document/apply", Started, "Make the host what a document says", input=document_api.DocumentText, role=_AD, shape=_TASK),
    _v("document.export", "GET", "/document/export", document_api.DocumentExport, "The document of this host as it is", role=_AD),
    _v("document.get", "GET", "/document", document_api.DocumentState, "The document applied last, and the drift since", role=_AD),
    _v("vm.list", "GET", "/vms", vm.VmList, "List VMs"),
    _v("vm.create", "POST", "/vms", Started, "Create a VM", input=vm.VmCreate, role=_OP, shape=_TASK, creates=True, keyed=True),
    _v("vm.get", "GET", "/vms/{vm}", vm.Vm, "One VM"),
    _v("vm.change", "PATCH", "/vms/{vm}", Started, "Change a VM", input=vm.VmChange, role=_OP, shape=_TASK, guarded=True),
    _v("vm.delete", "DELETE", "/vms/{vm}", Started, "Delete a VM and its volumes", input=vm.DeleteRequest, role=_OP, shape=_TASK, guarded=True),
    _v("vm.start", "POST", "/vms/{vm}/start", Started, "Start; a saved VM goes on", input=vm.StartRequest, role=_OP, shape=_TASK, guarded=True),
    _v("vm.stop", "POST", "/vms/{vm}/stop", Started, "Ask the guest to shut down", input=vm.StopRequest, role=_OP, shape=_TASK, guarded=True),
    _v("vm.kill", "POST", "/vms/{vm}/kill", Started, "Power off at once", role=_OP, shape=_TASK, guarded=True),
    _v("vm.reset", "POST", "/vms/{vm}/reset", Started, "Press the reset button", role=_OP, shape=_TASK, guarded=True),
    _v("vm.pause", "POST", "/vms/{vm}/pause", Started, "Freeze the vCPUs", role=_OP, shape=_TASK, guarded=True),
    _v("vm.resume", "POST", "/vms/{vm}/resume", Started, "Let the vCPUs run on", role=_OP, shape=_TASK, guarded=True),
    _v("vm.save", "POST", "/vms/{vm}/save", Started, "Save its memory to disk and end it", role=_OP, shape=_TASK, guarded=True),
    _v("vm.log", "GET", "/vms/{vm}/console/log", vm.ConsoleLog, "The last serial output", role=_OP),
    _v("vm.console", "GET", "/vms/{vm}/console", common.Nothing, "The serial console, bytes both ways", role=_OP, shape=Shape.SOCKET),
    _v("datastore.list", "GET", "/datastores", storage.DatastoreList, "List datastores"),
    _v("datastore.create", "POST", "/datastores", storage.Datastore, "Create or adopt a datastore", input=storage.DatastoreCreate, role=_AD, creates=True, keyed=True, replay=True),
    _v("datastore.delete", "DELETE", "/datastores/{datastore}", common.Nothing, "Forget a datastore; its files stay", role=_AD, guarded=True),
    _v("volume.list", "GET", "/volumes", storage.VolumeList, "List volumes"),
    _v("volume.create", "POST", "/volumes", Started, "Create a volume", input=storage.VolumeCreate, role=_OP, shape=_TASK, creates=True, keyed=True, replay=True),
    _v("volume.delete", "DELETE", "/volumes/{volume*}", common.Nothing, "Delete a volume no VM uses", role=_OP),
    _v("image.list", "GET", "/images", storage.ImageList, "List images"),
    _v("image.upload", "PUT", "/images/{image*}", storage.Image, "Upload an image", role=_OP, shape=Shape.UPLOAD, query=_SHA256, creates=True),
    _v("image.delete", "DELETE", "/images/{image*}", common.Nothing, "Delete an image", role=_OP),
    _v("switch.list", "GET", "/switches", network.SwitchList, "List switches"),
    _v("switch.create", "POST", "/switches", network.Switch, "Create a switch", input=network.SwitchCreate, role=_AD, creates=True, keyed=True, replay=True),
    _v("switch.get", "GET", "/switches/{switch}", network.Switch, "One switch"),
    _v("switch.change", "PATCH", "/switches/{switch}", network.Switch, "Change its port forwards", input=network.SwitchChange, role=_AD, guarded=True),
    _v("switch.delete", "DELETE", "/switches/{switch}", common.Nothing, "Delete a switch no VM uses", role=_AD, guarded=True),
    _v("task.list", "GET", "/tasks", host.TaskList, "List tasks, newest first"),
    _v("task.get", "GET", "/tasks/{task}", common.Task, "One task", query=(Param("wait_s", "answer when it ends, or after this many seconds", Annotated[float, Meta(ge=0, le=60)]),)),
    _v("task.cancel", "POST", "/tasks/{task}/cancel", common.Task, "Cancel a task", role=_OP),
    _v("event.stream", "GET", "/events", common.Event, "What changes, as server-sent events", shape=Shape.EVENTS, query=(Param("after", "resume after this revision", Annotated[int, Meta(ge=0, lt=10**18)]),), resumes="after"),
)  # fmt: skip

BY_NAME: dict[str, Verb] = {verb.name: verb for verb in VERBS}
