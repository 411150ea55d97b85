"""A thin client of the homerank ranking service.

    import homerank

    with homerank.connect("127.0.0.1:50051") as client:
        answer = client.rank("user 7", ["a", "b", "c"], context={"tab": 1}, top_k=2, timeout=0.1)
        for row in answer:
            print(row.item_id, row.score, row.tasks["click"])
"""

from .client import Answer, Client, RankError, Row, connect
from .values import feature_map, feature_value

__all__ = ["Answer", "Client", "RankError", "Row", "connect", "feature_map", "feature_value"]
