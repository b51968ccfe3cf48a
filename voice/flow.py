"""Flow: of which site's result the input of each site is made."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from voice.intercept import intercept
from voice.site_call import SiteCall
from voice.tracing import Tracing

_NONE = -1
"""Origin of what no site made; all others are positions among the calls."""


def find_flow(module: nn.Module, run: Callable[[], object]) -> dict[str, str]:
    """Find the site whose result each site's input is made of, by running the model once.

    Followed is every tensor of real or complex numbers through all that runs between sites: adds, norms, activations,
    softmax, views, copies, other types, operations in place. Where a tensor is made of several results the site that
    was called last counts; where a product has two activations, the later of both. A site's own result is made of that
    site alone. Of a site called several times the first call counts. Nothing is followed through integers (an embedding
    looked up by tokens is made of the table), shapes, numpy, Python's own numbers, or tensors without a storage
    (sparse, nested). A storage is followed as a whole: of a buffer filled by two sites every part is of the later one.

    Args:
        module: the model; its results are those it has without this.
        run: renders one clip with it, a short one will do; what it returns is dropped.

    Returns:
        Producer of each site that has one, in the order of first calls; producers were first called before.
    """
    fed_by: dict[str, str | None] = {}
    callers: list[str] = []
    tracing = _Latest(_NONE)

    def handle(call: SiteCall) -> Tensor:
        operands = [call.x, call.weight] if call.is_product else [call.x]
        latest = max(map(tracing.known, operands))
        fed_by.setdefault(call.site, callers[latest] if latest != _NONE else None)
        result = call.compute()
        tracing.mark(result, len(callers))
        callers.append(call.site)
        return result

    with intercept(module, handle), tracing:
        run()
    return {site: producer for site, producer in fed_by.items() if producer is not None}


class _Latest(Tracing[int]):
    """Knows for every storage the last call whose result it was made of."""

    def joined(self, name: str, read: Sequence[Tensor], parts: Sequence[int]) -> int:
        """The latest of the calls."""
        return max(parts, default=_NONE)
