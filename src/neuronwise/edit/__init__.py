"""Edits: permanent changes of weights, as objects that can be applied, reverted, composed, saved and shared."""

from neuronwise.answers.modalities import MODALITIES, asked
from neuronwise.edit.alphaedit import AlphaEditSettings, alphaedit
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit, column_norms, load_edit
from neuronwise.edit.editors import EDITORS, Editor
from neuronwise.edit.fine import FineSettings, SpecificSettings, fine, fine_each, fine_specific
from neuronwise.edit.fine_tune import FineTuneSettings, fine_tune
from neuronwise.edit.knowledge_neurons import KnowledgeNeuronsSettings, knowledge_neurons
from neuronwise.edit.memit import MemitSettings, memit
from neuronwise.edit.memory.gather import gather_statistics, statistics_size
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.pmet import PmetSettings, pmet
from neuronwise.edit.rome import RomeSettings, rome
from neuronwise.edit.suppress import SuppressSettings, suppress, suppress_neurons
from neuronwise.edit.swap import SwapSettings, swap

__all__ = [
    "EDITORS", "MODALITIES", "AlphaEditSettings", "Delta", "Edit", "Editor", "FineSettings", "FineTuneSettings",
    "KnowledgeNeuronsSettings", "MemitSettings", "PmetSettings", "RomeSettings", "SpecificSettings", "Statistics",
    "SuppressSettings", "SwapSettings", "alphaedit", "asked", "column_norms", "fine", "fine_each", "fine_specific",
    "fine_tune", "gather_statistics", "knowledge_neurons", "load_edit", "memit", "pmet", "rome", "statistics_size",
    "suppress", "suppress_neurons", "swap",
]  # fmt: skip
