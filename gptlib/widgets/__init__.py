"""Interactive pictures for the course; each draws in a notebook and in a page without a kernel."""

from gptlib.widgets.architecture_map import ArchitectureMap
from gptlib.widgets.token_explorer import TokenExplorer

__all__ = ["ArchitectureMap", "TokenExplorer"]
