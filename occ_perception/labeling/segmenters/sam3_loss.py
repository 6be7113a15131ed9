"""The loss of SAM3 on one text prompt per row, with the weights of its published segmentation fine-tuning.

Queries are matched one to one with the instances a prompt asks for; boxes, scores, presence and masks of the matched
ones are trained, and the semantic head on their union. The released training also supervises the decoder's earlier
layers and one-to-many queries, which transformers' model does not give out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from occ_perception.training import distributed

WEIGHTS = {"box": 5.0, "giou": 2.0, "score": 20.0, "presence": 20.0, "mask": 200.0, "dice": 10.0,
           "semantic": 20.0, "semantic_dice": 30.0}
"""Of the published configuration `roboflow_v100`, with its mask losses."""
COST_SCORE, COST_BOX, COST_GIOU = 2.0, 5.0, 2.0
ALPHA, GAMMA, SEMANTIC_ALPHA = 0.25, 2.0, 0.6
POSITIVE = 10.0
"""Weight of matched queries in the score loss."""


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for in an image: `boxes` [M, 4] x0 y0 x1 y1 in 0..1, `masks` float32 [M, h, w] in 0..1."""

    boxes: Tensor
    masks: Tensor


def sam3_loss(outputs: Any, wanted: list[Wanted]) -> dict[str, Tensor]:
    """Losses by name, unweighted, and their weighted sum under `total`.

    Args:
        outputs: of the model for P prompts: `pred_masks` [P, Q, h, w], `pred_boxes` [P, Q, 4], `pred_logits` [P, Q],
            `presence_logits` [P, 1], `semantic_seg` [P, 1, h, w].
        wanted: P; without instances the prompt is absent.
    """
    logits, boxes = outputs.pred_logits.float(), outputs.pred_boxes.float()
    presence, semantic = outputs.presence_logits.float(), outputs.semantic_seg.float()[:, 0]
    pairs = [match(logits[row], boxes[row], want.boxes) for row, want in enumerate(wanted)]
    row = torch.cat([torch.full_like(query, at) for at, (query, _) in enumerate(pairs)])
    query = torch.cat([query for query, _ in pairs])
    own = torch.cat([instance for _, instance in pairs])
    target_boxes = torch.cat([want.boxes[i] for want, (_, i) in zip(wanted, pairs)])
    target_masks = torch.cat([want.masks[i] for want, (_, i) in zip(wanted, pairs)])
    # Of several processes each divides by the count averaged over all, so that their mean is that of one batch.
    matched = distributed.average(torch.tensor(float(len(own)), device=logits.device)).clamp(min=1.0)
    present = torch.tensor([float(len(want.boxes) > 0) for want in wanted], device=logits.device)

    found_boxes, found_masks = boxes[row, query], outputs.pred_masks[row, query].float()
    overlap = paired_giou(found_boxes, target_boxes)
    losses = {
        "box": (centred(found_boxes) - centred(target_boxes)).abs().sum() / matched,
        "giou": (1 - overlap[1]).sum() / matched,
        "score": _score_loss(logits, row, query, overlap[0].detach(), present),
        "presence": functional.binary_cross_entropy_with_logits(presence[:, 0], present),
        "mask": focal(found_masks, target_masks, ALPHA).mean(dim=(1, 2)).sum() / matched,
        "dice": dice(found_masks, target_masks).sum() / matched,
    }
    union = torch.stack([want.masks.amax(dim=0) if len(want.masks) else torch.zeros_like(semantic[0])
                         for want in wanted])
    losses["semantic"] = focal(semantic, union, SEMANTIC_ALPHA).mean()
    losses["semantic_dice"] = (dice(semantic, union) * present).sum() / present.sum().clamp(min=1.0)
    losses["total"] = torch.stack([WEIGHTS[name] * value for name, value in losses.items()]).sum()
    return losses


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Queries [K] and instances [K] of one prompt that belong together at the least total cost (Hungarian).

    Args:
        logits, boxes: [Q], [Q, 4] of the queries.
        wanted: boxes [M, 4] of the instances; K is the smaller of Q and M.
    """
    score = logits.sigmoid()
    negative = (1 - ALPHA) * score**GAMMA * -(1 - score + 1e-8).log()
    positive = ALPHA * (1 - score)**GAMMA * -(score + 1e-8).log()
    apart = torch.cdist(centred(boxes), centred(wanted), p=1)
    overlap = paired_giou(boxes[:, None].expand(-1, len(wanted), 4), wanted[None].expand(len(boxes), -1, 4))[1]
    cost = COST_SCORE * (positive - negative)[:, None] + COST_BOX * apart - COST_GIOU * overlap
    query, instance = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(query, device=logits.device), torch.as_tensor(instance, device=logits.device)


def _score_loss(logits: Tensor, row: Tensor, query: Tensor, iou: Tensor, present: Tensor) -> Tensor:
    """Scores of matched queries towards a mix of score and overlap, of others towards 0; absent prompts do not count.

    Whether a prompt is there at all is the presence head's to learn.
    """
    score = logits.detach().sigmoid()
    target = torch.zeros_like(logits)
    target[row, query] = (score[row, query]**ALPHA * iou.clamp(min=0.0)**(1 - ALPHA)).clamp(min=0.01)
    weight = score**GAMMA
    weight[row, query] = POSITIVE
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight * present[:, None]
    return each.sum() / (present.sum().clamp(min=1.0) * logits.shape[1])


def focal(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Focal loss per element (Lin et al. 2017, eq. 5); `target` in 0..1."""
    chance = logits.sigmoid()
    right = chance * target + (1 - chance) * (1 - target)
    weight = alpha * target + (1 - alpha) * (1 - target)
    return weight * (1 - right)**GAMMA * functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice coefficient of each mask [N, h, w]: [N]."""
    chance = logits.sigmoid()
    return 1 - (2 * (chance * target).sum(dim=(1, 2)) + 1) / (chance.sum(dim=(1, 2)) + target.sum(dim=(1, 2)) + 1)


def centred(boxes: Tensor) -> Tensor:
    """x0 y0 x1 y1 [..., 4] as centre and size."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def paired_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes [..., 4] pair by pair: [...], [...]."""
    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0.0).prod(dim=-1)

    low_a, high_a, low_b, high_b = a[..., :2], a[..., 2:], b[..., :2], b[..., 2:]
    common = area(torch.maximum(low_a, low_b), torch.minimum(high_a, high_b))
    union = area(low_a, high_a) + area(low_b, high_b) - common
    hull = area(torch.minimum(low_a, low_b), torch.maximum(high_a, high_b))
    iou = common / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)
