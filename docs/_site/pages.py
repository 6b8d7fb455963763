"""Adds to the documentation site the pages that are made: the front page, all pages, the results, the API reference."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SHOWN = {".md", ".png", ".gif", ".json", ".csv", ".py", ".ipynb"}
"""What of results/ and examples/ the site shows or links to."""
SHORT = 36
"""Characters of code that fit into a line on a phone."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the pages of the methods and of the API in the navigation."""
    methods = sorted(path.name for path in (ROOT / "docs" / "methods").glob("*.md"))
    for section in config.nav or []:
        if isinstance(section, dict) and "Methods" in section:
            section["Methods"] += [f"methods/{name}" for name in methods]
    (config.nav or []).append({"API": [f"reference/{room}.md" for room in rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside docs/ or are made."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    pages = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "pages.md", content=pages))
    files.append(File.generated(config, "style.css", abs_src_path=str(ROOT / "docs" / "_site" / "style.css")))
    for folder in ("results", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            run = "runs" in path.relative_to(ROOT).parts  # of the notebook, in the folder where it lies
            if path.suffix in SHOWN and path.name != "__init__.py" and not run:
                files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for room in rooms():
        content = f"# curl_rl.{room}\n\n::: curl_rl.{room}\n"
        files.append(File.generated(config, f"reference/{room}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links of the repository's folders into links of the site's, and the names of files in them into titles."""
    here = page.file.src_uri
    if here == "index.md":
        markdown = markdown.replace("](docs/README.md", "](pages.md").replace("](docs/", "](")
    elif here == "pages.md":
        markdown = markdown.replace("](../README.md", "](index.md").replace("](../examples/", "](examples/")
    elif here.startswith(("results/", "examples/")):
        markdown = markdown.replace("](../docs/", "](../")
    else:
        markdown = re.sub(r"\]\(((?:\.\./)*)\.\./(results|examples)/", r"](\1\2/", markdown)

    def titled(link: re.Match[str]) -> str:
        file = files.get_file_from_path(posixpath.normpath(posixpath.join(posixpath.dirname(here), link[1])))
        return link[0] if file is None else f"[{_title(file)}]({link[1]}{link[2] or ''})"

    return re.sub(r"\[[\w/]+\.md\]\(([\w/.]+\.md)(#[\w-]+)?\)", titled, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keeps percentages together, and marks what style.css keeps whole: short code in a line, options in blocks."""
    html = re.sub(rf"(?<!<pre>)<code>(?=[^<]{{1,{SHORT}}}</code>)", '<code class="whole">', html)
    html = re.sub(
        r"<pre>.*?</pre>|(?<=\d) (?=%)",
        lambda part: "\N{NO-BREAK SPACE}" if part[0] == " " else part[0],
        html,
        flags=re.DOTALL,
    )

    def marked(block: re.Match[str]) -> str:
        return re.sub(r"(?<=[\s>])--[\w.]+|-&gt;", r'<span class="whole">\g<0></span>', block[0])

    return re.sub(r"<pre>.*?</pre>", marked, html, flags=re.DOTALL)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Titles the front page."""
    for page in nav.pages:
        if page.file.src_uri == "index.md":
            page.title = "Overview"
    return nav


def _title(file: File) -> str:
    return file.content_string.partition("\n")[0].removeprefix("# ")


def rooms() -> list[str]:
    """The parts of the package that users import."""
    hidden = {"commands", "__main__", "completion", "installation", "moved", "__init__"}
    found = {
        path.stem for path in (ROOT / "curl_rl").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return sorted(found - hidden)
