"""Programs compiled to transformers, so that their circuits are known before anything is measured."""

from interp.zoo.compiled.claims import changes as changes
from interp.zoo.compiled.claims import known as known
from interp.zoo.compiled.claims import model_of as model_of
from interp.zoo.compiled.compiler import compile_program as compile_program
from interp.zoo.compiled.interpreter import interpret as interpret
from interp.zoo.compiled.placing import place as place
from interp.zoo.compiled.programs import PROGRAMS as PROGRAMS
from interp.zoo.compiled.programs import Program as Program
