"""The residual stream between attention and MLP, which no module holds: a site made out of two others.

Editing the second norm's input would change what the MLP reads and leave the stream as it was, for the skip connection
has been taken by then. So `resid_mid` is edited by changing what attention adds.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def mid_through(visit: Callable[[Tensor], Tensor], resid_pre: Tensor, attn_out: Tensor) -> Tensor:
    """What attention has to add for the stream to be what the visit makes of `resid_pre + attn_out`."""
    mid = resid_pre + attn_out
    new = visit(mid)
    added = torch.where(new == mid, attn_out, new - resid_pre)  # exact where nothing was changed, and where it is zero
    if not torch.is_grad_enabled():
        return added
    # The value is `added`; the gradient is that of `new - resid_pre`, so that it passes through what was read.
    path = new - resid_pre
    return added.detach() + (path - path.detach())
