from neuronwise.index.bins import Histogram as Histogram
from neuronwise.index.entry import Entry as Entry
from neuronwise.index.entry import Example as Example
from neuronwise.index.explain import explain as explain
from neuronwise.index.index import Index as Index
from neuronwise.index.items import Item as Item
from neuronwise.index.labels import Label as Label
from neuronwise.index.labels import Labels as Labels
