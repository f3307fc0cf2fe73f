"""Point every link and every set-up cell of the course at another repository.

    python tools/repository.py https://github.com/you/your-fork

The address is in _config.yml; whatever repeats it (README, notebooks, pages, pyproject.toml) is
found by searching the files that git knows, and changed with it. It needs nothing but Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")


def repository() -> str:
    """Return the address that _config.yml names."""
    settings = (ROOT / "_config.yml").read_text("utf-8")
    found = re.search(r"^repository:\n  url: (\S+)$", settings, re.M)
    if found is None:
        raise ValueError("_config.yml must have the lines 'repository:' and '  url: https://…'")
    return found[1]


def text_files() -> list[Path]:
    """List the course's own text files, tracked by git or not yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    kinds = {".bib", ".cff", ".ipynb", ".md", ".py", ".toml", ".yml", ".html", ".js", ".css"}
    paths = [ROOT / name for name in names.splitlines() if Path(name).suffix in kinds]
    return [path for path in paths if path.is_file()]


def moved(text: str, old: str, new: str) -> str:
    """Replace one address by another in a text: whole, as owner/name, and as the clone's folder."""
    old_slug, new_slug = (url.split("/", 3)[3] for url in (old, new))
    text = re.sub(rf"{re.escape(old)}(?![\w-])", new, text)
    # Colab's and Binder's addresses have the owner and the name within them.
    text = re.sub(rf"(/github/|/gh/){re.escape(old_slug)}(?=/)", rf"\g<1>{new_slug}", text)
    old_folder, new_folder = (slug.split("/")[1] for slug in (old_slug, new_slug))
    return re.sub(rf"\bcd {re.escape(old_folder)}(?![\w.-])", f"cd {new_folder}", text)


def move(old: str, new: str) -> list[Path]:
    """Replace one address by another in every file; return the files that changed."""
    changed = []
    for path in text_files():
        before = path.read_bytes().decode("utf-8")
        after = moved(before, old, new)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path)
    return changed


def main(arguments: list[str]) -> int:
    """Change the address; refuse one that is not a repository's."""
    new = (arguments[0] if arguments else "").rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(new):
        print(
            f"URL must look like https://github.com/you/your-fork, not {new!r}: "
            "run 'make repository URL=https://github.com/you/your-fork'.",
            file=sys.stderr,
        )
        return 2
    for path in move(repository(), new):
        print(f"changed {path.relative_to(ROOT)}")
    print(
        f"The repository is now {new}. Commit this, then make a release there "
        "('make release VERSION=…'): the set-up cells install a release of that repository."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
