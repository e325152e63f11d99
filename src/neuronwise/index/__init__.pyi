from neuronwise.index.bins import Histogram as Histogram
from neuronwise.index.entry import Entry as Entry
from neuronwise.index.entry import Example as Example
from neuronwise.index.index import Index as Index
from neuronwise.index.items import Item as Item
