"""The rows: the files, the tools that download them, and the expected speed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.bench.table import Line

OURS = "localmodel"
SHA256_AFTER = ", then sha256"
SYNC_AFTER = ", then fsync"

# Steps that the benchmark disables in the agent, and that users cannot disable.
SYNCS, VERIFICATION = "syncs", "verification"


@dataclass(frozen=True)
class Entry:
    """A tool in a row.

    `then` are steps after the download, `sha256` or `fsync`, each of which gets a line with the sum
    of both times. `without` are steps that are disabled in the agent. With `sums` the store has
    checksums.
    """

    line: Line
    tool: str
    options: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sums: bool = False

    @property
    def name(self) -> str:
        return self.line.name

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the table for one run."""
        after = {
            "sha256": Line(self.name + SHA256_AFTER, "sha256"),
            "fsync": Line(self.name + SYNC_AFTER, durable=True),
        }
        return (self.line, *(after[step] for step in self.then))


@dataclass(frozen=True)
class Row:
    """One table. `tree` is a bucket, and a folder of the web server."""

    name: str
    title: str
    tree: str
    scheme: str
    reference: str
    entries: tuple[Entry, ...]
    slow: bool = False
    notes: str = ""
    lines: tuple[Line, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = tuple(line for entry in self.entries for line in entry.lines)
        object.__setattr__(self, "lines", found)


def _peer(tool: str, name: str = "", *options: str, then: tuple[str, ...] = ()) -> Entry:
    return Entry(Line(name or tool), tool, options, then)


def _ours(reach: float | None = None, seconds: float | None = None) -> Entry:
    line = Line(OURS, "sha256", durable=True, reach=reach, reach_seconds=seconds)
    return Entry(line, OURS)


def _crc(reach: float | None = None) -> Entry:
    line = Line(f"{OURS}, checksum of the store", "crc64nvme", durable=True, reach=reach)
    return Entry(line, OURS, sums=True)


def _unverified(reach: float) -> Entry:
    line = Line(f"{OURS} less verification", durable=True, reach=reach)
    return Entry(line, OURS, without=(VERIFICATION,))


def _bare(reach: float | None = None) -> Entry:
    line = Line(f"{OURS} less verification and syncs", reach=reach)
    return Entry(line, OURS, without=(VERIFICATION, SYNCS))


_CURL = _peer("curl", then=("fsync", "sha256"))
_BOTO = _peer("boto3", "boto3 (8 x 32 MiB)", "8", "32")

ROWS = (
    Row(
        "one-http",
        "One file of {one}, http",
        "one",
        "http",
        "curl",
        (
            _CURL,
            _peer("hf_transfer", "hf_transfer (8 x 10 MiB)", "8", then=("sha256",)),
            _peer("rclone", "rclone (8 streams)"),
            _peer("aria2"),
            _ours(0.75),
            _unverified(0.43),
            _bare(0.37),
        ),
    ),
    Row(
        "one-s3",
        "One file of {one}, S3",
        "one",
        "s3",
        "curl",
        (
            _peer("curl"),
            _BOTO,
            _peer("s5cmd", then=("sha256",)),
            _peer("kserve-storage", then=("sha256",)),
            _peer("rclone", "rclone (8 streams)"),
            _ours(0.75),
            _crc(0.48),
            _unverified(0.50),
            _bare(),
        ),
    ),
    Row(
        "folder-http",
        "8 files of {shard}, http",
        "folder",
        "http",
        "curl",
        (
            _CURL,
            _peer("hf_transfer", "hf_transfer (8 x 10 MiB)", "8", then=("sha256",)),
            _peer("rclone", "rclone (8 files)"),
            _peer("aria2", "aria2 (8 files)"),
            _ours(0.60),
            _unverified(0.42),
        ),
        notes="A model over http is one file, so for localmodel these are 8 models at once.",
    ),
    Row(
        "folder-s3",
        "A folder of 8 files of {shard}, S3",
        "folder",
        "s3",
        "curl",
        (
            _peer("curl"),
            _BOTO,
            _peer("s5cmd", then=("sha256",)),
            _peer("kserve-storage", then=("sha256",)),
            _peer("rclone", "rclone (8 files)"),
            _ours(0.60),
            _crc(0.48),
            _unverified(0.53),
        ),
    ),
    Row(
        "throttled",
        "One file of {one}, S3, every stream held to 50 MiB/s",
        "one",
        "s3",
        "s5cmd",
        (
            _peer("s5cmd"),
            _peer("kserve-storage"),
            _peer("boto3", "boto3 (defaults)"),
            _peer("aria2", "aria2 (-x16 -s16)", "-x16", "-s16"),
            _peer("rclone", "rclone (8 streams)"),
            _peer("hf_transfer", "hf_transfer (100 x 10 MiB), over http", "100"),
            _ours(seconds=2.0),
        ),
        slow=True,
    ),
    Row(
        "small",
        "10,000 files of {small}, S3",
        "small",
        "s3",
        "s5cmd",
        (
            _peer("s5cmd"),
            _peer("rclone", "rclone (32 files)"),
            _peer("aria2", "aria2 (16 files)"),
            _peer("kserve-storage"),
            _ours(1.0),
            _bare(),
        ),
    ),
)


def chosen(names: str, peers: str) -> tuple[Row, ...]:
    """The rows and peers with these names; an empty list means all. Raises ValueError.

    Each row contains its reference and localmodel, whatever the peers are.
    """
    rows = {row.name: row for row in ROWS}
    tools = {entry.tool for row in ROWS for entry in row.entries}
    wanted, kept = _words(names) or list(rows), set(_words(peers)) or tools
    for word, known in ((set(wanted) - set(rows), rows), (kept - tools, tools)):
        if word:
            raise ValueError(f"{sorted(word)} is not one of {sorted(known)}")
    return tuple(_with(rows[name], kept) for name in wanted)


def _with(row: Row, tools: set[str]) -> Row:
    kept = tuple(
        entry
        for entry in row.entries
        if entry.tool in tools | {OURS} or entry.name == row.reference
    )
    return Row(row.name, row.title, row.tree, row.scheme, row.reference, kept, row.slow, row.notes)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
