from neuronwise.model.exchange.convert import export_neurons as export_neurons
from neuronwise.model.exchange.convert import exported as exported
from neuronwise.model.exchange.convert import import_neurons as import_neurons
from neuronwise.model.exchange.form import Form as Form
from neuronwise.model.exchange.forms import FORMS as FORMS
