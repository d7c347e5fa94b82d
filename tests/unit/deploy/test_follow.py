from __future__ import annotations

from deploy.local.demo.follow import Row, rows

KEY = "0123456789abcdef"


def _node(name: str, **model: object) -> dict[str, object]:
    status = {"models": [{"key": KEY, "cached": False, **model}]} if model else {}
    return {"metadata": {"name": name}, "status": status}


def test_each_node_has_a_row() -> None:
    objects = [
        _node("a", state="Downloaded", cached=True, size=200),
        _node("b", state="Downloading", size=200, downloadedBytes=50, bytesPerSecond=10),
        _node("c"),
        _node("other", state="Downloaded", cached=True, size=200),
    ]
    assert rows(objects, ["a", "b", "c", "d"], KEY) == [
        Row("a", "Downloaded", 200, 200, 0),
        Row("b", "Downloading", 200, 50, 10),
        Row("c"),
        Row("d"),
    ]


def test_a_model_of_another_key_does_not_count() -> None:
    assert rows([_node("a", state="Downloaded", cached=True, size=1)], ["a"], "other") == [Row("a")]


def test_a_row_as_text() -> None:
    row = Row("node-1", "Downloading", 4 << 20, 1 << 20, 512 << 10)
    assert row.text() == "  node-1     Downloading   25%  1Mi of 4Mi, 512Ki/s"
    assert Row("node-1").text() == "  node-1     -              0%"
