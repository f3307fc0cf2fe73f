"""Point every link and every set-up cell of the course at another repository.

    python tools/repository.py https://github.com/you/your-fork

The address stands in _config.yml; whatever repeats it (README, notebooks, pages, pyproject.toml) is
found by searching the files that git tracks, and changed with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]+")


def repository() -> str:
    """Return the address that _config.yml names."""
    url: str = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]
    return url


def text_files() -> list[Path]:
    """List the course's own text files, tracked by git or not yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    kinds = {".bib", ".cff", ".ipynb", ".md", ".py", ".toml", ".yml", ".html", ".js", ".css"}
    return [ROOT / name for name in names.splitlines() if Path(name).suffix in kinds]


def move(old: str, new: str) -> list[Path]:
    """Replace one address by another in every file; return the files that changed."""
    changed = []
    old_slug, new_slug = (url.split("/", 3)[3] for url in (old, new))
    for path in text_files():
        if not path.is_file():
            continue
        before = path.read_bytes().decode("utf-8")
        after = before.replace(old, new).replace(f"/github/{old_slug}/", f"/github/{new_slug}/")
        after = after.replace(f"cd {old_slug.split('/')[1]} ", f"cd {new_slug.split('/')[1]} ")
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
    old = repository()
    for path in move(old, new):
        print(f"changed {path.relative_to(ROOT)}")
    print(f"The repository is now {new}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
