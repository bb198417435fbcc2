"""Clouds and what stands in for them, for tests. ADDRESS is host:port."""

import json
import sys


def topic(address, project, name):
    """Makes a topic of Pub/Sub, and a subscription of the same name, with messages of an ordering key in order."""
    at = f"projects/{project}/topics/{name}"
    _pub_sub("PUT", address, at, {})
    _pub_sub("PUT", address, f"projects/{project}/subscriptions/{name}", {"topic": at, "enableMessageOrdering": True})


def pull(address, project, name, lines):
    """Prints messages as JSON, until they have so many lines or points: [attributes, [line or point, …]].
    An ordering key is an attribute here."""
    import base64
    import gzip

    at = f"projects/{project}/subscriptions/{name}"
    seen = 0
    while seen < int(lines):
        answer = _pub_sub("POST", address, f"{at}:pull", {"maxMessages": 100})
        received = answer.get("receivedMessages", [])
        for message in (one["message"] for one in received):
            data = base64.b64decode(message["data"])
            if message["attributes"]["codec"] == "gzip":
                data = gzip.decompress(data)
            is_text = message["attributes"]["content-type"] == "application/text"
            content = data.decode().splitlines() if is_text else list(_points(data))
            seen += len(content)
            ordered = {"orderingKey": message["orderingKey"]} if message.get("orderingKey") else {}
            print(json.dumps([message["attributes"] | ordered, content]))
        if received:
            _pub_sub("POST", address, f"{at}:acknowledge", {"ackIds": [one["ackId"] for one in received]})


def _points(frames):
    import pickle

    while frames:
        length = int.from_bytes(frames[:4], "big")
        yield from pickle.loads(frames[4 : 4 + length])
        frames = frames[4 + length :]


def _pub_sub(method, address, path, body):
    from urllib.request import Request, urlopen

    headers = {"Content-Type": "application/json"}
    request = Request(f"http://{address}/v1/{path}", json.dumps(body).encode(), headers, method=method)
    with urlopen(request, timeout=10) as answer:
        return json.load(answer)


def datapoints(address, region, namespace, metric, *dimensions):
    """Prints the points of a metric of CloudWatch in the last hours, as JSON: [[timestamp, value], …]."""
    from datetime import datetime, timedelta, timezone

    client = _aws("cloudwatch", address, region)
    pairs = (dimension.split("=", 1) for dimension in dimensions)
    of = {
        "Namespace": namespace,
        "MetricName": metric,
        "Dimensions": [{"Name": name, "Value": value} for name, value in pairs],
    }
    now = datetime.now(timezone.utc)
    results = client.get_metric_data(
        MetricDataQueries=[{"Id": "a", "MetricStat": {"Metric": of, "Period": 1, "Stat": "Sum"}}],
        StartTime=now - timedelta(hours=2),
        EndTime=now + timedelta(hours=1),
        ScanBy="TimestampAscending",
    )["MetricDataResults"]
    times = [int(time.timestamp()) for time in results[0]["Timestamps"]]
    print(json.dumps(list(zip(times, results[0]["Values"]))))


def bucket(address, name):
    """Makes a bucket of S3."""
    _aws("s3", address, "us-east-1").create_bucket(Bucket=name)


def _aws(service, address, region):
    import boto3

    at = {"region_name": region, "endpoint_url": f"http://{address}"}
    return boto3.client(service, **at, aws_access_key_id="somebody", aws_secret_access_key="else")


def signature(url, region, key_id, secret, headers, body):
    """Prints how AWS' own library signs a POST with these headers (JSON), one of which says when, and this body (hex)."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = json.loads(headers)
    request = AWSRequest(method="POST", url=url, data=bytes.fromhex(body), headers=headers)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(key_id, secret), "monitoring", region)
    print(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


def service_account():
    """Prints the key of a new service account of Google's, in JSON."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {
        "type": "service_account",
        "project_id": "monitoring",
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": "relay@monitoring.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    print(json.dumps(key))


def claims(key, token):
    """Prints what a token claims, if it is signed with a service account's key."""
    import base64

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    signed, _, by = token.rpartition(".")
    decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    private = serialization.load_pem_private_key(json.loads(key)["private_key"].encode(), None)
    private.public_key().verify(decode(by), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    print(decode(signed.split(".")[1]).decode())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
