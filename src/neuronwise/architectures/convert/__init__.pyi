from neuronwise.architectures.convert.converters import CONVERTERS as CONVERTERS
from neuronwise.architectures.convert.converting import convert as convert
from neuronwise.architectures.convert.plan import Plan as Plan
from neuronwise.architectures.convert.plan import Recipe as Recipe
from neuronwise.architectures.convert.plan import taken as taken
from neuronwise.architectures.convert.weights import Weights as Weights
from neuronwise.architectures.convert.weights import open_weights as open_weights
from neuronwise.architectures.convert.writer import write as write
