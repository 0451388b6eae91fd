"""Pictures of an evaluation, as display objects: the losses, their course, calibration and temperature.

    axes.py              new axes where none are given; the only file that knows matplotlib
    loss_histogram.py    how many tokens have which loss
    loss_by_position.py  the mean loss by position in a sequence
    reliability.py       how often the model is right when it is so sure
    temperature.py       the loss at other temperatures
    page.py              several displays on one page, in a file

A display holds its data as attributes, draws them with ``plot(ax=None)``, and then has ``ax_`` and
``figure_``. ``from_logits`` and ``from_evaluation`` make one and draw it. Only drawing needs matplotlib,
which the extra ``softxent[plot]`` installs.
"""

from softxent.plots.loss_by_position import LossByPositionDisplay
from softxent.plots.loss_histogram import LossHistogramDisplay
from softxent.plots.page import save_page
from softxent.plots.reliability import ReliabilityDisplay
from softxent.plots.temperature import TemperatureDisplay

__all__ = [
    "LossByPositionDisplay",
    "LossHistogramDisplay",
    "ReliabilityDisplay",
    "TemperatureDisplay",
    "save_page",
]
