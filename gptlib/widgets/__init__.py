"""Interactive pictures for the course; each draws in a notebook and in a page without a kernel."""

from gptlib.widgets.architecture_map import ArchitectureMap
from gptlib.widgets.attention_map import AttentionMap
from gptlib.widgets.checkpoint_explorer import CheckpointExplorer
from gptlib.widgets.logit_lens import LogitLens
from gptlib.widgets.parameter_breakdown import ParameterBreakdown
from gptlib.widgets.playground import Playground
from gptlib.widgets.sampling_bench import SamplingBench
from gptlib.widgets.surprise import Surprise
from gptlib.widgets.token_explorer import TokenExplorer
from gptlib.widgets.training_cost import TrainingCost
from gptlib.widgets.training_replay import TrainingReplay

__all__ = [
    "ArchitectureMap",
    "AttentionMap",
    "CheckpointExplorer",
    "LogitLens",
    "ParameterBreakdown",
    "Playground",
    "SamplingBench",
    "Surprise",
    "TokenExplorer",
    "TrainingCost",
    "TrainingReplay",
]
