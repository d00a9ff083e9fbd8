"""Asks an S3 endpoint to tell a queue or webhook of its about new objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from buoy.store.s3 import S3Store

__all__ = ["subscribe"]

_OURS = "buoy-"


def subscribe(store: S3Store, bucket: str, arn: str, prefixes: Iterable[str]) -> None:
    """Have the target told of objects that are created under any of the prefixes, and under no others.

    What else the bucket notifies of stays. Prefixes that lie in one another are one: S3 refuses overlaps.

    Args:
        store: the endpoint.
        bucket: an existing bucket.
        arn: the target, as the endpoint's operator named it (`arn:minio:sqs::BUOY:webhook`).
        prefixes: of keys; '' is the whole bucket; none at all ends the subscription.

    Raises:
        MissingError: there is no such bucket.
        StoreError: the endpoint does not know the target, or does not answer.
    """
    wanted = sorted(set(prefixes))
    widest = [one for one in wanted if not any(one.startswith(other) for other in wanted if other != one)]
    with store.told(bucket):
        found: dict[str, Any] = store.client.get_bucket_notification_configuration(Bucket=bucket)
        found.pop("ResponseMetadata", None)
        others = [one for one in found.get("QueueConfigurations", []) if not one.get("Id", "").startswith(_OURS)]
        ours = [
            {
                "Id": f"{_OURS}{number}",
                "QueueArn": arn,
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
            }
            for number, prefix in enumerate(widest)
        ]
        found["QueueConfigurations"] = others + ours
        store.client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=found)
