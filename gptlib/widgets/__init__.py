"""Interactive pictures for the course; each draws in a notebook and in a page without a kernel."""

from gptlib.widgets.architecture_map import ArchitectureMap
from gptlib.widgets.attention_map import AttentionMap
from gptlib.widgets.checkpoint_explorer import CheckpointExplorer
from gptlib.widgets.parameter_breakdown import ParameterBreakdown
from gptlib.widgets.sampling_bench import SamplingBench
from gptlib.widgets.token_explorer import TokenExplorer
from gptlib.widgets.training_cost import TrainingCost
from gptlib.widgets.training_replay import TrainingReplay

__all__ = [
    "ArchitectureMap",
    "AttentionMap",
    "CheckpointExplorer",
    "ParameterBreakdown",
    "SamplingBench",
    "TokenExplorer",
    "TrainingCost",
    "TrainingReplay",
]
