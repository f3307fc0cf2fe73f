"""Interactive pictures for the course; each draws in a notebook and in a page without a kernel."""

from gptlib.widgets.architecture_map import ArchitectureMap
from gptlib.widgets.attention_map import AttentionMap
from gptlib.widgets.parameter_breakdown import ParameterBreakdown
from gptlib.widgets.token_explorer import TokenExplorer

__all__ = ["ArchitectureMap", "AttentionMap", "ParameterBreakdown", "TokenExplorer"]
