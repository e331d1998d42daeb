"""The audit: may a net's MACs be trusted? It compares, module by module, what the hooks count with what really runs.

A module hook sees that a module was called, not what it did. A module that calls ``F.conv2d`` itself, or whose class
is not exactly one that ptflops knows, works for nothing. The audit follows every operation from the image to the answer
(`tape`) and refuses a net whose hidden work reaches `TOLERANCE` of what was counted for it, or whose work cannot be
followed. It guards against loopholes, not against code that attacks the Python process it runs in.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from solution.contracts import InputError
from solution.evaluate.charges import Entry, OperationLog
from solution.evaluate.cost import watched
from solution.evaluate.operations import NORMALIZATIONS
from solution.evaluate.tape import Reads, Tape
from solution.graph import as_judged, images_for, run

TOLERANCE = 0.005
"""Share of the counted MACs that may pass unseen: gates and averages of honest nets do, in small amounts."""

CLASSIFIER_TOLERANCE = 0.02
"""Share that timm's own Linear class, which ptflops overlooks, may take as the classifier of a published net."""

_SHOWN = 5
_ATTENTION = (
    "attention: it multiplies two tensors that both come from the image, which no module's hook measures, so this net "
    "cannot have a competition score; its other figures stand"
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One module that hides work. `counted` and `ran` are MACs of one image inside the module itself."""

    path: str
    kind: str
    counted: int
    ran: int
    reason: str

    def __str__(self) -> str:
        place = f"{self.path or '(the net itself)'} ({self.kind})"
        return f"{place}: counted {self.counted:,}, ran {self.ran:,}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The verdict. `ok`: the net may have a competition score. `findings`: why not, the largest first.

    counted, hidden   MACs of one image by the hooks, and what passed them by
    """

    ok: bool
    findings: tuple[Finding, ...]
    counted: int
    hidden: int

    def __str__(self) -> str:
        share = f"{100 * self.hidden / self.counted:.2f} % of " if self.counted else ""
        head = f"{'accepted' if self.ok else 'refused'}: {self.hidden:,} hidden MACs, {share}{self.counted:,} counted"
        lines = [f"  {finding}" for finding in self.findings[:_SHOWN]]
        more = len(self.findings) - _SHOWN
        return "\n".join([head, *lines, *([f"  and {more} more"] if more > 0 else [])])


def audit(model: nn.Module, example: Tensor) -> Audit:
    """Whether `model` does no more work than its hooks count. `model` is left as it was.

    example: (B, C, H, W). Its first image is followed with hooks; two other images are followed without, and must cost
    twice as much: the work may depend neither on the image nor on being watched.
    """
    image = images_for(model, example[:1])
    others = torch.randn(2, *image.shape[1:], generator=torch.Generator().manual_seed(0))
    with as_judged(model):
        alone, complaints = _followed(model, image, hooked=True)
        pair, more = _followed(model, images_for(model, others), hooked=False)
    _forgive_timm(alone)
    return _verdict(model, alone, pair, [*complaints, *more])


def _followed(model: nn.Module, images: Tensor, *, hooked: bool) -> tuple[OperationLog, list[str]]:
    operation_log = OperationLog(model)
    tape = Tape(model, images, operation_log)
    complaints = []
    with watched(model, operation_log.enter, operation_log.leave) if hooked else contextlib.nullcontext():
        try:
            with Reads(tape), tape:
                run(model, images)
        except InputError as error:
            complaints.append(f"cannot be followed: {error}")
    operation_log.close()
    return operation_log, complaints


def _forgive_timm(operation_log: OperationLog) -> None:
    """Two classes of timm do what their parents do, but ptflops overlooks them by their names.

    Its BatchNorm with activation folds into the convolution before it; its Linear is the classifier of small nets.
    """
    if "timm" not in sys.modules:  # then no module can be of its classes, and its import takes seconds
        return
    from timm.layers import BatchNormAct2d, Linear

    counted = sum(entry.counted for entry in operation_log.entries.values())
    operation_log.forgive(BatchNormAct2d, NORMALIZATIONS, at_most=counted)
    operation_log.forgive(Linear, ("mm", "addmm"), at_most=CLASSIFIER_TOLERANCE * counted)


def _verdict(model: nn.Module, alone: OperationLog, pair: OperationLog, complaints: list[str]) -> Audit:
    entries = sorted(alone.entries.values(), key=lambda entry: -entry.hidden)
    counted, hidden = sum(entry.counted for entry in entries), sum(entry.hidden for entry in entries)
    allowed = TOLERANCE * counted
    if not complaints and abs(pair.ran - 2 * alone.ran) > 2 * allowed:
        complaints = [f"one image costs {alone.ran:,} MACs, two others {pair.ran:,}: its work depends on what it sees"]
    whole = Entry(path="", module=model, counted=counted)
    findings = [_finding(whole, reason, alone.ran) for reason in complaints]
    findings += [_finding(entry, reason) for reason, entry in _refusals(pair, alone).items()]
    if sum(entry.attention for entry in entries) > allowed:
        findings += [_finding(entry, _ATTENTION) for entry in entries if entry.attention]
    if hidden > allowed:
        findings += [_finding(entry, _reason(entry)) for entry in entries if entry.hidden and not entry.attention]
    return Audit(ok=not findings, findings=tuple(findings), counted=counted, hidden=hidden)


def _refusals(*operation_logs: OperationLog) -> dict[str, Entry]:
    entries = [entry for operation_log in operation_logs for entry in operation_log.entries.values()]
    return {reason: entry for entry in entries for reason in entry.refused}


def _finding(entry: Entry, reason: str, ran: int | None = None) -> Finding:
    ran = entry.ran.total() if ran is None else ran
    return Finding(path=entry.path, kind=type(entry.module).__name__, counted=entry.counted, ran=ran, reason=reason)


def _reason(entry: Entry) -> str:
    from ptflops.pytorch_ops import MODULES_MAPPING

    work = ", ".join(f"{operation} {macs:,}" for operation, macs in entry.ran.most_common(3) if macs)
    parent = next((kind.__name__ for kind in type(entry.module).__mro__[1:] if kind in MODULES_MAPPING), None)
    if isinstance(entry.module, ScriptModule):
        return f"no hook reaches into a scripted net; it runs {work}"
    if "forward" in vars(entry.module):
        return f"its forward was replaced; it runs {work}"
    if parent is not None:
        return f"ptflops counts {parent}, not its subclasses; it runs {work}"
    return f"work that no module's hook sees: {work}"
