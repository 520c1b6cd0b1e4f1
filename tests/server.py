"""Stands in for a server in test_loading.py: runs a request where this package cannot be imported."""

import sys

import nnsight
import torch
from nnsight.schema.request import RequestModel
from nnsight.tracing.tracer import inc

folder, request, answer = sys.argv[1:]
sys.modules["interp"] = sys.modules["jaxtyping"] = None  # type: ignore[assignment]  # an import of either fails
model = nnsight.TransformersModel(folder, task="text-generation", dispatch=True, attn_implementation="eager")
with open(request, "rb") as file:
    tracer = RequestModel.deserialize(file.read(), model._remoteable_persistent_objects())
inc()
tracer.execute(tracer.info.code)
torch.save({"seen": tracer.info.frame.f_locals["seen"]}, answer)
