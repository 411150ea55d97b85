"""The training loop: multi-task cross entropy, AdamW with a rate of its own for embeddings, early stop."""

import copy

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from training import DataError


def stack(upper, lower):
    """One column above another; lists are padded to the longest of both."""
    if upper.dim() == 2 and not upper.is_floating_point():
        width = max(upper.shape[1], lower.shape[1])
        upper, lower = (F.pad(c, (0, width - c.shape[1]), value=-1) for c in (upper, lower))
    return torch.cat([upper, lower])


class Columns:
    """Encoded users, items and contexts, and the gather of a batch's columns from them."""

    def __init__(self, encoder, users, items):
        """users, items: {id: record}. What has no record counts as one with an empty record, as in serving."""
        self.encoder = encoder
        self.parts = {"user": ({}, {}), "item": ({}, {})}  # {id: row}, {feature: column}
        self._add("user", users)
        self._add("item", items)

    def _add(self, entity, records):
        index, columns = self.parts[entity]
        added = self.encoder.columns(entity, list(records), list(records.values()))
        index.update(zip(records, range(len(index), len(index) + len(records))))
        for name, column in added.items():
            column = torch.from_numpy(column)
            columns[name] = stack(columns[name], column) if name in columns else column

    def rows(self, entity, ids):
        ids = list(ids)
        index = self.parts[entity][0]
        self._add(entity, {i: {} for i in ids if i not in index})
        return torch.tensor([index[i] for i in ids], dtype=torch.long)

    def gather(self, user_rows, item_rows, context):
        """context: {feature: tensor (B, ...)}"""
        columns = {k: c[user_rows] for k, c in self.parts["user"][1].items()}
        columns.update({k: c[item_rows] for k, c in self.parts["item"][1].items()})
        columns.update(context)
        return columns


class Dataset:
    """Impressions as rows of encoded users and items, an encoded context, and labels (n, T)."""

    def __init__(self, columns, user_ids, item_ids, contexts, labels):
        self.columns = columns
        self.users, self.items = columns.rows("user", user_ids), columns.rows("item", item_ids)
        encoded = columns.encoder.columns("context", None, contexts)
        self.context = {k: torch.from_numpy(c) for k, c in encoded.items()}
        self.labels = torch.from_numpy(np.asarray(labels, np.float32))

    def __len__(self):
        return len(self.labels)

    def batch(self, rows):
        context = {k: c[rows] for k, c in self.context.items()}
        return self.columns.gather(self.users[rows], self.items[rows], context), self.labels[rows]


def predict(model, dataset, batch_size=4096):
    """Logits (n, T), in inference form."""
    model.eval()
    with torch.no_grad():
        parts = [model(dataset.batch(rows)[0]) for rows in torch.arange(len(dataset)).split(batch_size)]
    return torch.cat(parts).numpy()


def optimizer(model, options):
    embeddings = list(model.embedding.parameters())
    ours = {id(p) for p in embeddings}
    others = [p for p in model.parameters() if id(p) not in ours]
    return torch.optim.AdamW([
        {"params": embeddings, "lr": options.embedding_rate, "weight_decay": options.embedding_decay},
        {"params": others, "lr": options.rate, "weight_decay": options.decay},
    ])


def train(model, dataset, options, validate=None):
    """Trains in place. options: epochs, batch_size, rate, embedding_rate, decay, embedding_decay, seed, weights.
    validate(model) -> figure of merit after each epoch; training stops when it falls and the best is kept."""
    generator = torch.Generator().manual_seed(options.seed)
    steps_of_epoch = len(dataset) // options.batch_size
    if steps_of_epoch == 0:
        raise DataError(f"training: expected at least one batch of {options.batch_size} impressions, "
                        f"found {len(dataset)}")
    adam = optimizer(model, options)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: 1 - step / (options.epochs * steps_of_epoch) * (1 - options.final_rate))
    weights = torch.tensor(options.weights)
    best, best_state = -float("inf"), None
    for epoch in range(options.epochs):
        model.train()
        order = torch.randperm(len(dataset), generator=generator) if options.shuffle else torch.arange(len(dataset))
        bar = tqdm(order[: steps_of_epoch * options.batch_size].view(steps_of_epoch, -1),
                   desc=f"epoch {epoch + 1}/{options.epochs}", disable=None, unit="step")
        for rows in bar:
            columns, labels = dataset.batch(rows)
            losses = F.binary_cross_entropy_with_logits(model(columns), labels, reduction="none").mean(0)
            adam.zero_grad(set_to_none=True)
            (losses * weights).sum().backward()
            adam.step()
            schedule.step()
            bar.set_postfix(loss=f"{losses.sum().item():.4f}")
        if validate is not None:
            merit = validate(model)
            if not merit > best:  # NaN, where training diverged, is no better than any
                break
            best, best_state = merit, copy.deepcopy(model.state_dict())
    if best_state is not None:
        model.load_state_dict(best_state)
    return model.eval()
