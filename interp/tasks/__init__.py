"""Tasks: clean and corrupt prompts, aligned, with right and wrong answers and roles; and prompts with labels.

Those of the embedded model come from its generated language; `interp.english` and `from_rows` serve pretrained models.
"""

from interp.tasks import concepts as concepts
from interp.tasks.concepts import CONCEPTS as CONCEPTS
from interp.tasks.embedded import EMBEDDED as EMBEDDED
from interp.tasks.embedded import agreement as agreement
from interp.tasks.embedded import facts as facts
from interp.tasks.embedded import greater_than as greater_than
from interp.tasks.embedded import honesty as honesty
from interp.tasks.embedded import induction as induction
from interp.tasks.embedded import ioi as ioi
from interp.tasks.embedded import pronoun as pronoun
from interp.tasks.embedded import refusal as refusal
from interp.tasks.embedded import sentiment as sentiment
from interp.tasks.labelled import Labelled as Labelled
from interp.tasks.labelled import from_labels as from_labels
from interp.tasks.labelled import joined as joined
from interp.tasks.task import Task as Task
from interp.tasks.task import from_file as from_file
from interp.tasks.task import from_rows as from_rows
