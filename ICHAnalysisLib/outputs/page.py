"""One self-contained page from a template: escaped, with its own policy that admits one script and no network."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from ICHAnalysisLib.analysis import RESEARCH_USE


def render_page(name: str, context: dict[str, Any]) -> str:
    """The page of templates/`name`.html, which extends base.html, with the script `name`.js."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ICHAnalysisLib.outputs", "templates"), autoescape=True, undefined=StrictUndefined
    )
    folder = files("ICHAnalysisLib.outputs") / "templates"
    script = (folder / f"{name}.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template(f"{name}.html").render(
        css=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        research_use=RESEARCH_USE,
        **context,
    )
