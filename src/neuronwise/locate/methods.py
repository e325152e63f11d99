"""The table of methods: their names without torch, each opened when it is first asked for."""

from __future__ import annotations

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method, Needs
from neuronwise.registry import Registry

METHODS: Registry[Method] = Registry(
    "method",
    {
        "contribution": "neuronwise.locate.contribution:METHOD",
        "log_prob_increase": "neuronwise.locate.log_prob_increase:METHOD",
        "relp": "neuronwise.locate.relp:METHOD",
        "gradient_activation": "neuronwise.locate.gradient:GRADIENT_ACTIVATION",
        "gradient": "neuronwise.locate.gradient:GRADIENT",
        "attribution_patching": "neuronwise.locate.attribution_patching:METHOD",
        "eap_ig": "neuronwise.locate.eap_ig:METHOD",
        "integrated_gradients": "neuronwise.locate.integrated_gradients:METHOD",
        "activation": "neuronwise.locate.activation:METHOD",
        "random": "neuronwise.locate.controls:RANDOM",
        "activation_difference": "neuronwise.locate.activation_difference:METHOD",
        "two_stage": "neuronwise.locate.two_stage:METHOD",
        "causal_effect": "neuronwise.locate.causal_effect:METHOD",
        "random_same_layers": "neuronwise.locate.controls:RANDOM_SAME_LAYERS",
    },
    kind="neuronwise.locate.method:Method",
    group="neuronwise.methods",
    error=MethodError,
)


def methods(*needs: Needs) -> tuple[str, ...]:
    """The names of the methods that need one of ``needs``; imports them all."""
    return tuple(name for name, method in METHODS.items() if method.needs in needs)
