"""The rows: the files, and the tools that download them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.bench.table import Line

OURS = "localmodel"
# Entries that are no download by a peer or by a running agent.
PULL, DISK, NOTHING = "pull", "disk", "nothing"

SHA256_AFTER = ", then sha256"
SYNC_AFTER = ", then fsync"
BOTH_AFTER = ", then sha256 and fsync"
# The steps of these lines. A sync is measured first, while the bytes are not on the disk yet.
STEPS = {SYNC_AFTER: ("fsync",), SHA256_AFTER: ("sha256",), BOTH_AFTER: ("fsync", "sha256")}

# Names of lines that are also compared with others.
CRC = f"{OURS}, checksum of the store"
FLOOR = "the disk: write and sync of the same bytes"
PULLED = f"{OURS} pull"
BESIDE_HTTP, BESIDE_S3 = f"{OURS}, http", f"{OURS}, S3"

# Steps that the benchmark disables in the agent, and that users cannot disable.
SYNCS, VERIFICATION = "syncs", "verification"


@dataclass(frozen=True)
class Entry:
    """A tool in a row.

    `then` are those of `STEPS`: each gets a line with the sum of the download and its steps.
    `without` are steps that are disabled in the agent. With `sums` the store has checksums. An
    empty `scheme` is that of the row.
    """

    line: Line
    tool: str
    options: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sums: bool = False
    scheme: str = ""

    @property
    def name(self) -> str:
        return self.line.name

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the table for one run."""
        return (
            self.line,
            *(
                Line(
                    self.name + after,
                    "sha256" if "sha256" in STEPS[after] else self.line.verified,
                    durable="fsync" in STEPS[after],
                )
                for after in self.then
            ),
        )


@dataclass(frozen=True)
class Row:
    """One table. `tree` is a bucket, and a folder of the web server.

    In a `slow` row the origin limits each stream. In a `busy` one, loops use each core beside
    each tool. In a `probed` one, a small server's latency is measured beside each tool.
    """

    name: str
    title: str
    tree: str
    scheme: str
    reference: str
    entries: tuple[Entry, ...]
    slow: bool = False
    busy: bool = False
    probed: bool = False
    notes: str = ""

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the table."""
        return tuple(line for entry in self.entries for line in entry.lines)


def _peer(tool: str, name: str = "", *options: str, then: tuple[str, ...] = ()) -> Entry:
    return Entry(Line(name or tool), tool, options, then)


_VERIFIED = (SHA256_AFTER, BOTH_AFTER)
_CURL = _peer("curl", then=(SYNC_AFTER, *_VERIFIED))
_HF = _peer("hf_transfer", "hf_transfer (8 x 10 MiB)", "8", then=_VERIFIED)
_S5CMD = _peer("s5cmd", then=_VERIFIED)
_KSERVE = _peer("kserve-storage", then=_VERIFIED)

_OURS = Entry(Line(OURS, "sha256", durable=True), OURS)
_CRC = Entry(Line(CRC, "crc64nvme", durable=True), OURS, sums=True)
_UNVERIFIED = Entry(Line(f"{OURS} less verification", durable=True), OURS, without=(VERIFICATION,))
_BARE = Entry(Line(f"{OURS} less verification and syncs"), OURS, without=(VERIFICATION, SYNCS))
_FLOOR = Entry(Line(FLOOR, durable=True), DISK)

_QUIET = (
    Row(
        "one-http",
        "One file of {size}, http",
        "one",
        "http",
        "curl",
        (_CURL, _HF, _peer("rclone", "rclone (8 streams)"), _OURS, _UNVERIFIED, _BARE, _FLOOR),
    ),
    Row(
        "one-s3",
        "One file of {size}, S3",
        "one",
        "s3",
        "curl",
        (
            _peer("curl"),
            _peer("boto3", "boto3 (8 x 32 MiB)", "8", "32"),
            _S5CMD,
            _KSERVE,
            _peer("rclone", "rclone (8 streams)"),
            _OURS,
            _CRC,
            _UNVERIFIED,
            _BARE,
            _FLOOR,
        ),
    ),
    Row(
        "folder-http",
        "8 files of {size}, http",
        "folder",
        "http",
        "curl",
        (_CURL, _HF, _peer("rclone", "rclone (8 files)"), _OURS, _FLOOR),
        notes="A model over http is one file, so for localmodel these are 8 models at once.",
    ),
    Row(
        "folder-s3",
        "A folder of 8 files of {size}, S3",
        "folder",
        "s3",
        "curl",
        (
            _peer("curl"),
            _S5CMD,
            _KSERVE,
            _peer("rclone", "rclone (8 files)"),
            _OURS,
            _CRC,
            _FLOOR,
        ),
    ),
    Row(
        "throttled",
        "One file of {size}, S3, every stream held to 50 MiB/s",
        "large",
        "s3",
        "s5cmd",
        (
            _S5CMD,
            _KSERVE,
            _peer("boto3", "boto3 (defaults)"),
            _peer("aria2", "aria2 (-x16 -s16)", "-x16", "-s16"),
            _peer("rclone", "rclone (8 streams)"),
            _peer("hf_transfer", "hf_transfer (100 x 10 MiB), over http", "100"),
            _OURS,
            _FLOOR,
        ),
        slow=True,
    ),
    Row(
        "small",
        "{count} files of {size}, S3",
        "small",
        "s3",
        "s5cmd",
        (_S5CMD, _KSERVE, _peer("rclone", "rclone (32 files)"), _OURS, _BARE, _FLOOR),
    ),
)


def _on_a_busy_node(row: Row, *tools: str) -> Row:
    """A row with loops that use all cores, and fewer lines."""
    entries = tuple(
        entry
        for entry in row.entries
        if (entry.tool in tools or entry.tool in (OURS, DISK)) and not entry.without
    )
    return replace(
        row,
        name=f"{row.name}-busy",
        title=f"{row.title}, on a busy node",
        entries=entries,
        busy=True,
    )


_PULL = Row(
    "pull",
    "`localmodel-agent pull` of a file of {size}, http",
    "tiny",
    "http",
    "curl",
    (
        _peer("curl", then=(BOTH_AFTER,)),
        Entry(Line(PULLED, "sha256", durable=True), PULL),
        Entry(Line(f"{PULLED}, S3", "sha256", durable=True), PULL, scheme="s3"),
        _FLOOR,
    ),
    notes="The whole process, from its start to its end.",
)
_LATENCY = Row(
    "latency",
    "Latency of a small server beside downloads of one file of {size}",
    "one",
    "s3",
    "s5cmd",
    (
        Entry(Line(NOTHING), NOTHING),
        _peer("curl"),
        _peer("s5cmd", then=(SHA256_AFTER,)),
        Entry(Line(BESIDE_HTTP, "sha256", durable=True), OURS, scheme="http"),
        Entry(Line(BESIDE_S3, "sha256", durable=True), OURS),
    ),
    probed=True,
    notes="localmodel's are verified and synced.",
)

ROWS = (
    *_QUIET,
    *(
        _on_a_busy_node(row, "curl", "hf_transfer", "s5cmd", "kserve-storage")
        for row in _QUIET
        if row.tree in {"one", "folder"}
    ),
    *(_on_a_busy_node(row, "s5cmd") for row in _QUIET if row.tree in {"large", "small"}),
    _PULL,
    _LATENCY,
)
_ALWAYS = frozenset({OURS, PULL, DISK, NOTHING})


def chosen(names: str, peers: str) -> tuple[Row, ...]:
    """The rows and peers with these names; an empty list means all. Raises ValueError.

    Each row contains its reference, localmodel and the disk, whatever the peers are.
    """
    rows = {row.name: row for row in ROWS}
    tools = {entry.tool for row in ROWS for entry in row.entries} - _ALWAYS
    wanted, kept = _words(names) or list(rows), set(_words(peers)) or tools
    for word, known in ((set(wanted) - set(rows), rows), (kept - tools, tools)):
        if word:
            raise ValueError(f"{sorted(word)} is not one of {sorted(known)}")
    return tuple(_with(rows[name], kept | _ALWAYS) for name in wanted)


def _with(row: Row, tools: set[str]) -> Row:
    kept = tuple(
        entry for entry in row.entries if entry.tool in tools or entry.name == row.reference
    )
    return replace(row, entries=kept)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
