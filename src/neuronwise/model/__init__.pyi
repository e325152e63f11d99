from neuronwise.model.blocks import Block as Block
from neuronwise.model.concepts import Concept as Concept
from neuronwise.model.concepts import Occurrence as Occurrence
from neuronwise.model.load import load as load
from neuronwise.model.model import Model as Model
from neuronwise.model.run import Run as Run
from neuronwise.model.run import Target as Target
