"""The client: one gRPC channel, and calls that take and return plain Python.

A Client may be used by many threads at once.
"""

import collections
import json

import grpc

from . import homerank_pb2 as pb
from .values import feature_map

Row = collections.namedtuple("Row", "item_id score tasks")
Row.__doc__ = """One ranked item: its id, its fused score, and {task: prediction}."""


class RankError(Exception):
    """A call that failed: `status`, the name of its gRPC status ("INVALID_ARGUMENT"), and `message`."""

    def __init__(self, status, message):
        super().__init__("%s: %s" % (status, message))
        self.status = status
        self.message = message


class Answer:
    """A ranking, best first: iterable over Rows, and what the service says beside it.

    request_id, model ("name@version"); features, timing and experiments as the service's own messages
    (FeatureStatus, Timing, Assignments); warnings, a list of what was degraded.
    """

    def __init__(self, response):
        n = len(response.tasks)
        self.rows = [Row(item_id, score, dict(zip(response.tasks, response.task_scores[i * n:(i + 1) * n])))
                     for i, (item_id, score) in enumerate(zip(response.item_ids, response.scores))]
        self.request_id = response.request_id
        self.model = response.model
        self.tasks = list(response.tasks)
        self.features = response.features
        self.timing = response.timing
        self.experiments = list(response.experiments)
        self.warnings = list(response.warnings)

    def __iter__(self):
        return iter(self.rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def make_request(user_id, items, *, context=None, user_features=None, item_features=None, top_k=0, model="", tasks=(),
                 request_id="", attributes=None, forced_variations=None, priority=0, strict_features=False):
    """A RankRequest of plain values; `item_features` is one mapping (or None) per item."""
    request = pb.RankRequest(request_id=request_id, user_id=str(user_id), item_ids=[str(item) for item in items],
                             top_k=top_k, model=model, tasks=tasks, priority=priority,
                             strict_features=strict_features)
    feature_map(context or {}, request.context)
    feature_map(user_features or {}, request.user_features)
    if item_features is not None:
        request.item_features.extend(feature_map(features or {}) for features in item_features)
    if attributes is not None:
        request.attributes = json.dumps(attributes)
    for experiment, variation in (forced_variations or {}).items():
        request.forced_variations[experiment] = variation
    return request


class Client:
    """Calls one homerank server. Use as a context manager, or close()."""

    def __init__(self, target, options=()):
        self.channel = grpc.insecure_channel(target, options=options)
        self._rank = self.channel.unary_unary("/homerank.v1.Ranker/Rank",
                                              request_serializer=pb.RankRequest.SerializeToString,
                                              response_deserializer=pb.RankResponse.FromString)
        self._rank_stream = self.channel.stream_stream("/homerank.v1.Ranker/RankStream",
                                                       request_serializer=pb.RankRequest.SerializeToString,
                                                       response_deserializer=pb.RankResponse.FromString)

    def rank(self, user_id, items, *, timeout=None, **fields):
        """Ranks items for a user: an Answer. `fields` are make_request's; timeout in seconds. Raises RankError."""
        return self.rank_request(make_request(user_id, items, **fields), timeout)

    def rank_request(self, request, timeout=None):
        """As rank, of a RankRequest."""
        try:
            return Answer(self._rank(request, timeout=timeout))
        except grpc.RpcError as error:
            raise _rank_error(error) from None

    def rank_stream(self, requests, timeout=None):
        """Ranks many requests on one stream: yields an Answer each, in their order.

        requests: an iterable of mappings, the arguments of rank, or of RankRequests.
        """
        call = self._rank_stream((r if isinstance(r, pb.RankRequest) else make_request(**r) for r in requests),
                                 timeout=timeout)
        try:
            for response in call:
                yield Answer(response)
        except grpc.RpcError as error:
            raise _rank_error(error) from None
        finally:
            call.cancel()  # where the caller stops early; after the end it does nothing

    def wait_ready(self, timeout=None):
        """Blocks until the server can be reached. Raises RankError UNAVAILABLE after the timeout (seconds)."""
        try:
            grpc.channel_ready_future(self.channel).result(timeout)
        except grpc.FutureTimeoutError:
            raise RankError("UNAVAILABLE", "not connected after %s s" % timeout) from None

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(target, options=()):
    """A Client of the server at "HOST:PORT"; options are gRPC channel options. It connects when first used."""
    return Client(target, options)


def _rank_error(error):
    return RankError(error.code().name, error.details())
