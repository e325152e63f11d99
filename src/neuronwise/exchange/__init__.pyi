from neuronwise.exchange.convert import export_neurons as export_neurons
from neuronwise.exchange.convert import exported as exported
from neuronwise.exchange.convert import import_neurons as import_neurons
from neuronwise.exchange.form import Form as Form
from neuronwise.exchange.forms import FORMS as FORMS
