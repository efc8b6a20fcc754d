"""Write docs/configuration.md from the settings in the code: `python docs/configuration.py`."""

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prismrec.config import Config, PrepareConfig

PAGE = Path(__file__).with_suffix(".md")
HEADER = """\
# Configuration

`prismrec prepare` takes its settings as `--set key=value`; `prismrec train` as a TOML file (`--config`) and as
`--set section.key=value` on top of it. Unknown keys and values out of range are errors. A store and a run keep their
settings, so they can be repeated. This page is written from the code by `python docs/configuration.py`.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEADER, *_tables("prepare", PrepareConfig), *_tables("", Config)])


def _tables(section: str, model: type[BaseModel]) -> list[str]:
    """A table of a section's own settings, then those of the sections in it."""
    plain = {name: field for name, field in model.model_fields.items() if not _is_section(field)}
    title = f"`[{section}]`" if section and section != "prepare" else "prepare" if section else "train, top level"
    lines = [f"## {title}", "", " ".join((model.__doc__ or "").split()), ""]
    lines += ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {_values(field)} | `{_default(field)}` | {_text(field)} |" for name, field in plain.items()
    ]
    lines.append("")
    for name, field in model.model_fields.items():
        if _is_section(field):
            lines += _tables(f"{section}.{name}".lstrip("."), typing.cast(type[BaseModel], field.annotation))
    return lines


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _values(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(bound, name)
    ]
    return " ".join([_type(field.annotation), ", ".join(bounds)]).strip()


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is types.UnionType:
        return " or ".join("unset" if part is type(None) else _type(part) for part in arguments)
    if origin in (tuple, dict):
        kind = "list of" if origin is tuple else "table of"
        return f"{kind} {_type(arguments[0 if origin is tuple else 1])}"
    return {"bool": "true or false", "int": "whole number", "float": "number", "str": "text"}[annotation.__name__]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _text(field: FieldInfo) -> str:
    return " ".join((field.description or "").replace("|", "\\|").split())


if __name__ == "__main__":
    PAGE.write_text(page())
