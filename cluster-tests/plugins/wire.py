#!/usr/bin/env python3
"""A network driver for Weft, complete, with nothing but Python's standard library.

    wire.py SOCKET [STATE]

It serves SOCKET (name it DIR/wire.sock and start the daemon with `weft up --plugin-dir DIR`). It moves no packets: what it shows is
how a driver tells its peers on other nodes of its endpoints, and hears of theirs. Each endpoint that joins gets one entry in the
table `wire_ports`: key: the endpoint's id, value: where this plugin would be reached for it.

With STATE, a file, it keeps what it has heard over a restart and goes on where it was.

What it knows can be asked for by people, and by tests: `curl --unix-socket SOCKET http://wire/state`.
"""

import base64
import json
import os
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler

TABLE = "wire_ports"
CREATED, UPDATED, DELETED = 1, 2, 3


class Refused(Exception):
    """Why a call was refused; the text goes to the person who asked."""


class NotImplementedHere(Exception):
    """The call is not one of ours: the answer is 404."""


class Network:
    """A network: our endpoints in it, and what other nodes have."""

    def __init__(self):
        self.endpoints = {}
        self.stream = None
        self.revision = 0
        self.heard = {}
        self.batches = 0


class Driver:
    """What each call does. Calls may come at the same time, so one lock is around all of it."""

    def __init__(self, state_path=None):
        self.lock = threading.Lock()
        self.networks = {}
        self.state_path = state_path
        self.remembered = self.load()

    # Networks

    def create_network(self, request):
        name = request["NetworkID"]
        if name not in self.networks:
            network = self.networks[name] = Network()
            kept = self.remembered.get(name)
            if kept:
                network.stream, network.revision = kept["stream"], kept["revision"]
                network.heard = kept["heard"]
        network = self.networks[name]
        answer = {"Tables": [{"Name": TABLE, "ObjectType": 1}]}
        if network.stream:
            answer["Position"] = {"Stream": network.stream, "Revision": network.revision}
        return answer

    def delete_network(self, request):
        self.networks.pop(request["NetworkID"], None)
        self.save()
        return {}

    # Endpoints: every call may come again, and for what is gone or never was.

    def create_endpoint(self, request):
        network = self.network(request)
        network.endpoints.setdefault(request["EndpointID"], {"joined": False})
        return {}

    def delete_endpoint(self, request):
        self.network(request).endpoints.pop(request["EndpointID"], None)
        return {}

    def join(self, request):
        network, endpoint = self.network(request), request["EndpointID"]
        if endpoint not in network.endpoints:
            raise Refused(f"endpoint {endpoint} does not exist")
        network.endpoints[endpoint]["joined"] = True
        where = f"{os.uname().nodename}/{os.getpid()}"
        return {
            "InterfaceName": {"SrcName": "wire" + endpoint[:8], "DstPrefix": "eth"},
            "TableEntries": [{"TableName": TABLE, "Key": encoded(endpoint), "Value": encoded(where)}],
        }

    def leave(self, request):
        endpoint = self.network(request).endpoints.get(request["EndpointID"])
        if endpoint:
            endpoint["joined"] = False
        return {}

    # Tables

    def event_notify(self, request):
        network = self.network(request)
        if request["After"] == 0 and request["Stream"] != network.stream:
            # A stream begins: nothing of what we have heard counts any more.
            network.stream, network.revision, network.heard = request["Stream"], 0, {}
        if request["Stream"] != network.stream or request["After"] > network.revision:
            # We have missed something. Saying so brings it, or a new stream.
            return {"Revision": network.revision}
        network.batches += 1
        for event in request["Events"]:
            if event["Revision"] <= network.revision:
                continue  # It came before; our answer was lost.
            key = event["Key"]
            if event["Type"] == DELETED:
                network.heard.pop(key, None)
            else:
                network.heard[key] = {"value": event["Value"], "owner": event["Owner"]}
            network.revision = event["Revision"]
        self.save()
        return {"Revision": network.revision}

    def decode_table_entry(self, request):
        if request["TableName"] != TABLE:
            return {}
        return {"EndpointID": decoded(request["Key"]), "Info": {"port": decoded(request["Value"])}}

    # For people

    def show(self):
        networks = {}
        for name, network in self.networks.items():
            heard = {decoded(key): decoded(entry["value"]) for key, entry in network.heard.items()}
            networks[name] = {
                "endpoints": network.endpoints,
                "heard": heard,
                "stream": network.stream,
                "revision": network.revision,
                "batches": network.batches,
            }
        return {"pid": os.getpid(), "networks": networks}

    # What is kept

    def load(self):
        if self.state_path and os.path.exists(self.state_path):
            with open(self.state_path, encoding="utf-8") as file:
                return json.load(file)
        return {}

    def save(self):
        """Writes what was heard before it is said to be taken, and never half of it."""
        if not self.state_path:
            return
        kept = {
            name: {"stream": network.stream, "revision": network.revision, "heard": network.heard}
            for name, network in self.networks.items()
        }
        with open(self.state_path + ".new", "w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.state_path + ".new", self.state_path)

    def network(self, request):
        network = self.networks.get(request["NetworkID"])
        if network is None:
            raise Refused(f"network {request['NetworkID']} does not exist")
        return network

    def call(self, path, request):
        with self.lock:
            calls = {
                "/Plugin.Activate": lambda _: {"Implements": ["NetworkDriver", "weft.TableDriver/1.0"]},
                "/NetworkDriver.GetCapabilities": lambda _: {"Scope": "global"},
                "/NetworkDriver.CreateNetwork": self.create_network,
                "/NetworkDriver.DeleteNetwork": self.delete_network,
                "/NetworkDriver.CreateEndpoint": self.create_endpoint,
                "/NetworkDriver.DeleteEndpoint": self.delete_endpoint,
                "/NetworkDriver.Join": self.join,
                "/NetworkDriver.Leave": self.leave,
                "/NetworkDriver.EventNotify": self.event_notify,
                "/NetworkDriver.DecodeTableEntry": self.decode_table_entry,
            }
            if path not in calls:
                raise NotImplementedHere(path)
            return calls[path](request)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def decoded(text):
    return base64.b64decode(text).decode()


class Handler(BaseHTTPRequestHandler):
    """HTTP around the driver: JSON in, JSON out, errors as `Err`."""

    driver = None

    def do_POST(self):  # noqa: N802 (the library's name)
        try:
            length = int(self.headers.get("Content-Length") or 0)
            request = json.loads(self.rfile.read(length) or "{}")
            self.answer(200, self.driver.call(self.path, request))
        except NotImplementedHere:
            self.answer(404, {"Err": f"{self.path} is not implemented"})
        except Refused as refused:
            self.answer(200, {"Err": str(refused)})
        except (KeyError, TypeError, ValueError) as wrong:
            self.answer(500, {"Err": f"the request is not understood: {wrong!r}"})

    def do_GET(self):  # noqa: N802 (the library's name)
        with self.driver.lock:
            self.answer(200, self.driver.show())

    def answer(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "weft"  # A unix socket has no address to show.

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    path = sys.argv[1]
    Handler.driver = Driver(sys.argv[2] if len(sys.argv) == 3 else None)
    # Bound under another name and moved, so that whoever finds the socket is answered, and a socket left by a crash is replaced.
    unfinished = f"{path}.{os.getpid()}"
    with Server(unfinished, Handler) as server:
        os.rename(unfinished, path)
        server.serve_forever()


if __name__ == "__main__":
    main()
