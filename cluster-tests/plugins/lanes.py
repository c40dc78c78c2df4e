#!/usr/bin/env python3
"""A network driver that allocates, with nothing but Python's standard library.

    lanes.py SOCKET [OPTIONS]

Each network gets a lane, a number that no other network of the cluster has: the leader's node asks its plugin for one
(`/NetworkDriver.AllocateNetwork`), and all nodes are told it with the network (`/NetworkDriver.CreateNetwork`). Lanes are kept in
memory only: whoever leads next tells its plugin of the lanes that are in use before it asks for another.

OPTIONS is JSON for those who test: {"answer": TEXT} answers AllocateNetwork with this text, {"hang": true} not at all,
{"free": TEXT} FreeNetwork with this one, {"silent": true} with 404.

What it knows can be asked for: `curl --unix-socket SOCKET http://lanes/state`.
"""

import json
import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

FIRST = 100


class Refused(Exception):
    """Why a call was refused; the text goes to the person who asked."""


class Lanes:
    """The lanes that this process has handed out or heard of, and the networks that are set up here."""

    def __init__(self, options):
        self.lock = threading.Lock()
        self.options = options
        self.lanes = {}
        self.networks = {}
        self.calls = []

    def allocate_network(self, request):
        network, options = request["NetworkID"], request["Options"] or {}
        if network in self.lanes:
            return {"Options": {"lane": str(self.lanes[network])}}
        if "lane" in options:
            lane = int(options["lane"])
            if lane in self.lanes.values():
                raise Refused(f"lane {lane} is in use")
        else:
            taken = set(self.lanes.values())
            lane = next(lane for lane in range(FIRST, FIRST + len(taken) + 1) if lane not in taken)
        self.lanes[network] = lane
        return {"Options": {"lane": str(lane)}}

    def free_network(self, request):
        if self.lanes.pop(request["NetworkID"], None) is None:
            raise Refused(f"network {request['NetworkID']} has no lane")
        return {}

    def create_network(self, request):
        options = request["Options"]["com.docker.network.generic"]
        self.networks[request["NetworkID"]] = options
        return {}

    def delete_network(self, request):
        self.networks.pop(request["NetworkID"], None)
        return {}

    def call(self, path, request):
        calls = {
            "/Plugin.Activate": lambda _: {"Implements": ["NetworkDriver"]},
            "/NetworkDriver.GetCapabilities": lambda _: {"Scope": "global"},
            "/NetworkDriver.AllocateNetwork": self.allocate_network,
            "/NetworkDriver.FreeNetwork": self.free_network,
            "/NetworkDriver.CreateNetwork": self.create_network,
            "/NetworkDriver.DeleteNetwork": self.delete_network,
            "/NetworkDriver.CreateEndpoint": lambda _: {},
            "/NetworkDriver.DeleteEndpoint": lambda _: {},
            "/NetworkDriver.Join": lambda _: {},
            "/NetworkDriver.Leave": lambda _: {},
        }
        with self.lock:
            self.calls.append(path.rsplit(".", 1)[-1])
            return calls[path](request) if path in calls else None


class Handler(BaseHTTPRequestHandler):
    lanes = None

    def do_POST(self):  # noqa: N802 (the library's name)
        length = int(self.headers.get("Content-Length") or 0)
        request = json.loads(self.rfile.read(length) or "{}")
        options = self.lanes.options
        try:
            answer = self.lanes.call(self.path, request)
            status = 404 if answer is None else 200
        except Refused as refused:
            status, answer = 200, {"Err": str(refused)}
        text = json.dumps(answer)
        if self.path == "/NetworkDriver.AllocateNetwork":
            if options.get("hang"):
                time.sleep(3600)
            text = options.get("answer", text)
        if self.path == "/NetworkDriver.FreeNetwork":
            text = options.get("free", text)
        if options.get("silent") and self.path in ("/NetworkDriver.AllocateNetwork", "/NetworkDriver.FreeNetwork"):
            status, text = 404, "404 page not found"
        self.answer(status, text)

    def do_GET(self):  # noqa: N802 (the library's name)
        lanes = self.lanes
        with lanes.lock:
            known = {"lanes": lanes.lanes, "networks": lanes.networks, "calls": lanes.calls}
            self.answer(200, json.dumps({"pid": os.getpid(), **known}))

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
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
    Handler.lanes = Lanes(json.loads(sys.argv[2]) if len(sys.argv) == 3 else {})
    unfinished = f"{path}.{os.getpid()}"
    with Server(unfinished, Handler) as server:
        os.rename(unfinished, path)
        server.serve_forever()


if __name__ == "__main__":
    main()
