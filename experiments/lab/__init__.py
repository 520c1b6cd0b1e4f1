"""What the questions share: options, keeping a run, sweeps, the command line.

Nothing here imports torch before a run needs it, so that `python -m experiments NAME --help` answers at once.
"""

from experiments.lab.experiment import Experiment as Experiment
from experiments.lab.experiment import experiment_of as experiment_of
from experiments.lab.experiment import find as find
from experiments.lab.keeping import keep as keep
from experiments.lab.options import Arrays as Arrays
from experiments.lab.options import OnModel as OnModel
from experiments.lab.options import Shown as Shown
from experiments.lab.options import option as option
from experiments.lab.sweeping import Sweep as Sweep
from experiments.lab.sweeping import sweep as sweep
