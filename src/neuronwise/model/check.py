"""The check at load: the sum of what all writers write must be what each feed-forward block really returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.blocks import Block
from neuronwise.model.experts import RoutedCall, record_routed
from neuronwise.model.hooks import Hooks, first_output
from neuronwise.model.passes import edit, inputs_of
from neuronwise.model.weights import dtype_of, is_plain, linear_shape
from neuronwise.model.writers import Site, Writer

ROWS = 2  # tokens of a probe


def require_sums(name: str, module: nn.Module, blocks: Sequence[Block], device: torch.device) -> None:
    """Run the feed-forward blocks on a probe; raises ``ModelError`` naming the first layer that does not add up.

    ``name`` is the model's, ``device`` where inputs of offloaded parts go. Without weights there is nothing to compare.
    """
    if any(parameter.is_meta for parameter in module.parameters()) and not hasattr(module, "_hf_hook"):
        return
    seen: dict[tuple[object, ...], int] = {}
    for block in blocks:
        form = tuple((writer.path, writer.width) for writer in block.writers)
        seen[form] = seen.get(form, 0) + 1
        if seen[form] <= 2:  # one or two layers of each form prove the form
            _require_layer(name, block, device)


def require_readable(name: str, head: nn.Module, hidden_size: int) -> None:
    """Raise ``ModelError`` unless the output embeddings read the stream that the neurons write into."""
    width = (linear_shape(head) or (hidden_size,))[0]
    if width != hidden_size:
        raise ModelError(
            f"{name}: the decoder's hidden size is {hidden_size} but its output embeddings read {width} numbers, so "
            "what a neuron writes cannot be read as tokens."
        )


def _require_layer(name: str, block: Block, device: torch.device) -> None:
    """Each part of the layer that holds writers as a whole, where it is called with hidden states alone.

    Else its dense writers one by one; routed experts are then proved when a run records them.
    """
    for path, writers in _parts(block).items():
        part = _Part(block, block.module.get_submodule(path), writers, device) if path else None
        try:
            whole = part is not None and part.can_be_called()
        except Exception:  # a block that wants more than hidden states
            whole = False
        if whole:
            assert part is not None
            wrong = None if part.adds_up() else path
        else:
            wrong = next((w.path for w in writers if w.expert is None and not _writes_alone(w, device)), None)
        if wrong is not None:
            raise ModelError(
                f"{name}: in layer {block.layer}, activations times the value vectors of '{wrong}' do not reproduce "
                "what the block writes, so its neurons cannot be scored."
            )


def _parts(block: Block) -> dict[str, list[Writer]]:
    """Writers by the outermost module around them within the layer; "" for those of the layer itself."""
    around = [writer.path.rpartition(".")[0] for writer in block.writers]
    found: dict[str, list[Writer]] = {}
    for writer, path in zip(block.writers, around, strict=True):
        outer = [other for other in around if other and f"{path}.".startswith(f"{other}.")]
        found.setdefault(min(outer, key=len, default=path), []).append(writer)
    return found


class _Part:
    """A part of a layer with all its writers, called on probes of ``ROWS`` tokens."""

    def __init__(self, block: Block, module: nn.Module, writers: Sequence[Writer], device: torch.device) -> None:
        self.block, self.module = block, module
        # Made once: Switch's router is cast by its first call.
        self.probes = [_probe(module, (1, ROWS, block.hidden_size), device, seed) for seed in (0, 1)]
        self.dense = [writer for writer in writers if writer.expert is None]
        self.experts = list({writer.experts.site: writer.experts for writer in writers if writer.experts}.values())
        self.exact = all(_exact(writer) for writer in writers)

    def __call__(self, probe: int) -> Tensor:
        """(ROWS, d): what the part returns for a probe."""
        output = first_output(self.module(self.probes[probe].clone()))
        return output.reshape(-1, self.block.hidden_size).float().clone()

    @torch.no_grad()
    def can_be_called(self) -> bool:
        """Whether it takes hidden states alone, and runs each of its dense writers once for them."""
        with contextlib.ExitStack() as stack:
            calls = [stack.enter_context(inputs_of(writer.module)) for writer in self.dense]
            output = self(0)
        return len(output) == ROWS and all(len(seen) == 1 for seen in calls)

    @torch.no_grad()
    def adds_up(self) -> bool:
        """Whether the output is the sum of what all writers write.

        Where a gate or a norm lies between them and the output, this must be the same with the sums in their places,
        halfway with half of them (but for norms), and tell nothing of the probe without them.
        """
        modules = [part for writer in self.dense for part in writer.module.modules()]
        if len(set(modules)) < len(modules):
            return False  # one writer twice, or one within another
        sums, output = self._sums()
        if _close(torch.stack([total.to(output.device) for total in sums.values()]).sum(0), output, self.exact):
            return True
        with self._replaced(sums, 1.0):
            whole = self(0)
        with self._replaced(sums, 0.5):
            half = self(0)
        with self._replaced(sums, 0.0):
            nothing, other = self(0), self(1)
        halfway = _holds_norms(self.module) or _close(2 * half - nothing, whole, self.exact)
        return halfway and _close(whole, output, self.exact) and _close(output + nothing - other, output, self.exact)

    def _sums(self) -> tuple[dict[Site, Tensor], Tensor]:
        """(ROWS, d) by site, of the writers' activations in one call, and what that call returned."""
        calls: list[RoutedCall] = []
        with contextlib.ExitStack() as stack:
            hooks = stack.enter_context(Hooks())
            for experts in self.experts:
                record_routed(hooks, experts, self.dense, lambda: ROWS, calls.append)
            seen = [stack.enter_context(inputs_of(writer.module)) for writer in self.dense]
            output = self(0)
        sums = {
            writer.site: writer.written(values[0].reshape(-1, writer.width))
            for writer, values in zip(self.dense, seen, strict=True)
        }
        for call in calls:
            sums[call.experts.site] = torch.stack([_routed_sum(call, row) for row in range(ROWS)])
        return sums, output

    @contextlib.contextmanager
    def _replaced(self, sums: Mapping[Site, Tensor], factor: float) -> Iterator[None]:
        """Within the body each site gives ``factor`` times what its writers wrote."""
        with contextlib.ExitStack() as stack:
            for writer in self.dense:
                stack.enter_context(edit(writer.module, _given(factor * sums[writer.site])))
            for experts in self.experts:
                total = sums.get(experts.site)
                if total is not None:
                    beside = sum(sums[writer.site].to(total.device) for writer in experts.beside(self.dense))
                    stack.enter_context(edit(experts.unit, _given(factor * (total + beside))))
            yield


def _routed_sum(call: RoutedCall, row: int) -> Tensor:
    """(d,): what the experts that one token was routed to write, and a bias that the module around them adds."""
    bias = call.experts.unit_bias
    total = torch.zeros_like(call.output.reshape(call.tokens, -1)[row], dtype=torch.float32)
    for expert, record in call.row(row).items():
        written = call.experts.writer(expert).written(record.written, torch.tensor(record.weight))
        total += written.to(total.device)
    return total if bias is None else total + bias.to(total.device).float()


def _given(values: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda output: values.to(output.device, output.dtype).reshape(output.shape)


def _writes_alone(writer: Writer, device: torch.device) -> bool:
    """Whether what a linear writer returns for random activations is their product with its value vectors."""
    values = _probe(writer.module, (ROWS, writer.width), device, 0)
    with torch.no_grad():
        output = first_output(writer.module(values)).reshape(-1, writer.hidden_size).float()
    return _close(writer.written(values).to(output.device), output, _exact(writer))


def _probe(module: nn.Module, shape: tuple[int, ...], device: torch.device, seed: int) -> Tensor:
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    device = device if like is None or like.is_meta else like.device
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype_of(module))


def _exact(writer: Writer) -> bool:
    """Single precision; some quantized layers round what they are given too (LLM.int8)."""
    module, name = writer.holder
    weight: object = getattr(module, name, None)
    return is_plain(weight) and isinstance(weight, Tensor) and weight.dtype == torch.float32


def _close(found: Tensor, wanted: Tensor, exact: bool) -> bool:
    return bool((found - wanted).norm() <= (1e-4 if exact else 3e-2) * wanted.norm() + 1e-6)


def _holds_norms(module: nn.Module) -> bool:
    return any("norm" in name.lower() for name, _ in module.named_children())
