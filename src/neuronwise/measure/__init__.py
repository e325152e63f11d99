"""Measuring what an edit did: success, generality, portability, locality, fluency and cost."""

from neuronwise.answers.answers import Answered, ask
from neuronwise.answers.questions import Question, others_of, questions_of
from neuronwise.measure.bootstrap import Mean, mean_interval
from neuronwise.measure.case import CaseAnswers, ask_case, case_figures, means, measure_edit, others_figures
from neuronwise.measure.cost import Cost, costs
from neuronwise.measure.figures import Figures, figures
from neuronwise.measure.fluency import fluency

__all__ = [
    "Answered", "CaseAnswers", "Cost", "Figures", "Mean", "Question", "ask", "ask_case", "case_figures", "costs",
    "figures", "fluency", "mean_interval", "means", "measure_edit", "others_figures", "others_of", "questions_of",
]  # fmt: skip
