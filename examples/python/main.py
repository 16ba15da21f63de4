"""Makes a key, verifies it, rotates a root key and lets a key expire, against a running ostiary.

OSTIARY_ADDRESS is HOST:PORT or unix:PATH, OSTIARY_ROOT_KEY a root key that may do all of this.
"""

import os
import sys
import time
from contextlib import ExitStack

import grpc
from google.protobuf.duration_pb2 import Duration
from ostiary.v1 import apis_pb2, apis_pb2_grpc, keys_pb2, keys_pb2_grpc, root_keys_pb2, root_keys_pb2_grpc

# Without the authority Python sends the path of a socket in its place, which no server takes for a host.
OPTIONS = [("grpc.default_authority", "localhost")]
SECOND = Duration(seconds=1)


def calling_as(root_key: str) -> dict:
    """What a call with this root key is made with."""
    return {"metadata": [("authorization", f"Bearer {root_key}")], "timeout": 30}


def main() -> None:
    address = os.environ["OSTIARY_ADDRESS"]
    admin = calling_as(os.environ["OSTIARY_ROOT_KEY"])
    options = OPTIONS if address.startswith("unix:") else []

    with grpc.insecure_channel(address, options=options) as channel, ExitStack() as cleanup:
        apis = apis_pb2_grpc.ApiServiceStub(channel)
        keys = keys_pb2_grpc.KeyServiceStub(channel)
        root_keys = root_keys_pb2_grpc.RootKeyServiceStub(channel)

        # An API, and a key of it for a customer.
        api_id = apis.CreateApi(apis_pb2.CreateApiRequest(name="example in Python"), **admin).api.api_id
        cleanup.callback(lambda: apis.DeleteApi(apis_pb2.DeleteApiRequest(api_id=api_id), **admin))
        key = keys.CreateKey(keys_pb2.CreateKeyRequest(api_id=api_id, name="customer 42"), **admin)

        def expect(want: str, secret: str, caller: dict) -> None:
            answer = keys.VerifyKey(keys_pb2.VerifyKeyRequest(key=secret, api_id=api_id), **caller)
            code = keys_pb2.VerificationCode.Name(answer.verdict.code)
            if code != f"VERIFICATION_CODE_{want}":
                sys.exit(f"the verdict is {code}, not {want}")
            print("the key verifies as", want)

        # A root key that may verify keys of this API and nothing else, as a server of yours would hold it.
        server = root_keys.CreateRootKey(
            root_keys_pb2.CreateRootKeyRequest(
                name="server of the example in Python", permissions=[f"apis.{api_id}.verify_key"]
            ),
            **admin,
        )
        made = [server.root_key.root_key_id]
        cleanup.callback(
            lambda: root_keys.BatchDeleteRootKeys(
                root_keys_pb2.BatchDeleteRootKeysRequest(root_key_ids=made), **admin
            )
        )
        expect("VALID", key.secret, calling_as(server.secret))

        # Its successor. The old root key works on for one second.
        rotated = root_keys.RotateRootKey(
            root_keys_pb2.RotateRootKeyRequest(root_key_id=made[0], grace_period=SECOND), **admin
        )
        made.append(rotated.root_key.root_key_id)
        successor = calling_as(rotated.secret)

        # A key that lives one second, the shortest life there is.
        brief = keys.CreateKey(keys_pb2.CreateKeyRequest(api_id=api_id, ttl=SECOND), **admin)

        time.sleep(1.5)

        try:
            keys.VerifyKey(keys_pb2.VerifyKeyRequest(key=key.secret), **calling_as(server.secret))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAUTHENTICATED:
                raise
            print("the old root key is refused:", error.details())
        else:
            sys.exit("the root key was rotated out and still works")
        expect("VALID", key.secret, successor)
        expect("EXPIRED", brief.secret, successor)


if __name__ == "__main__":
    main()
