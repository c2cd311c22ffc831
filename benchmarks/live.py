"""The memory that a computation needs, counted in the bytes of its tensors."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Operations that multiply matrices, and how many of what each gives is in the dtype of what it takes.
PRODUCTS = {
    "aten.mm.default": 1,
    "aten.addmm.default": 1,
    "aten.bmm.default": 1,
    "aten.baddbmm.default": 1,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": 1,
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": 3,
    "bitsandbytes.gemm_4bit.default": 1,
}


class LiveTensors(TorchDispatchMode):
    """Adds up the bytes of all tensors that are made while it is entered, and are still there.

    That is the same twice. The peak of a process would also count what an allocator keeps, and what an operation
    takes inside of itself.

    now, peak: In bytes.
    float32_products: Compute products of bfloat16 in float32 and round them, on CPUs that have no instructions for
        bfloat16 and would take many times as long. What is counted is the same.
    """

    def __init__(self, float32_products: bool = False) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.float32_products = float32_products
        self._seen: set[int] = set()

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if torch.is_tensor(each)}
        out = self._call(func, args, kwargs or {})
        for each in tree_leaves(out):
            if torch.is_tensor(each) and not each.is_meta:
                storage = each.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in old | self._seen:
                    self._seen.add(key)
                    self.now += size
                    weakref.finalize(storage, self._drop, key, size)
        self.peak = max(self.peak, self.now)
        return out

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        n = PRODUCTS.get(str(func), 0) if self.float32_products else 0
        if not n or not any(map(_is_bfloat16, tree_leaves(args))):
            return func(*args, **kwargs)
        args, kwargs = tree_map(lambda each: each.float() if _is_bfloat16(each) else each, (args, kwargs))
        out = func(*args, **kwargs)
        if torch.is_tensor(out):
            return out.bfloat16()
        return (*(each.bfloat16() for each in out[:n]), *out[n:])

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _is_bfloat16(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype == torch.bfloat16
