#!/usr/bin/env python3
"""A network driver that carries packets on one host, with nothing but Python's standard library and the program `ip`.

    lan.py SOCKET

Each network is a bridge, each endpoint a pair of links: one end is a port of the bridge, the other is moved into the container's
sandbox by who asks for the endpoint. It hands out the addresses itself, so a network of it is created with `--ipam-driver null`.
Like most plugins it knows of no second attempt: what it has, it says that it has already.

What it knows can be asked for: `curl --unix-socket SOCKET http://lan/state`.
"""

import json
import os
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler

SUBNET = "10.99.0.{}/24"
BEYOND = "198.51.100.0/24"  # A prefix that is said to be on the link.


class Refused(Exception):
    """Why a call was refused; the text goes to the person who asked."""


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def is_there(link):
    show = ["ip", "link", "show", link]
    return subprocess.run(show, capture_output=True, check=False).returncode == 0


class Lan:
    """The networks, each with the addresses of its endpoints; which endpoints have joined; which nodes there are."""

    def __init__(self):
        self.lock = threading.Lock()
        self.networks = {}
        self.joined = set()
        self.left = []
        self.nodes = {}

    def create_network(self, request):
        network = request["NetworkID"]
        if network in self.networks:
            raise Refused(f"network {network} already exists")
        if [data["AddressSpace"] for data in request["IPv4Data"]] != ["null"] or request["IPv6Data"]:
            raise Refused("this driver gives the addresses: create the network with --ipam-driver null")
        bridge = "lan" + network[:8]
        ip("link", "add", bridge, "type", "bridge")
        ip("address", "add", SUBNET.format(1), "dev", bridge)
        ip("link", "set", bridge, "up")
        self.networks[network] = {}
        return {}

    def delete_network(self, request):
        self.networks.pop(request["NetworkID"], None)
        bridge = "lan" + request["NetworkID"][:8]
        if is_there(bridge):
            ip("link", "del", bridge)
        return {}

    def create_endpoint(self, request):
        network, endpoint = request["NetworkID"], request["EndpointID"]
        addresses = self.networks.get(network)
        if addresses is None:
            raise Refused(f"network {network} does not exist")
        if endpoint in addresses:
            raise Refused(f"endpoint {endpoint} already exists")
        wanted = (request.get("Interface") or {}).get("Address")
        address = wanted or next(
            SUBNET.format(n) for n in range(2, 255) if SUBNET.format(n) not in addresses.values()
        )
        ip("link", "add", link(endpoint), "type", "veth", "peer", "name", port(endpoint))
        ip("link", "set", port(endpoint), "master", "lan" + network[:8], "up")
        addresses[endpoint] = address
        return {} if wanted else {"Interface": {"Address": address}}

    def delete_endpoint(self, request):
        endpoint = request["EndpointID"]
        self.networks.get(request["NetworkID"], {}).pop(endpoint, None)
        if is_there(link(endpoint)):
            ip("link", "del", link(endpoint))
        return {}

    def join(self, request):
        endpoint = request["EndpointID"]
        if endpoint in self.joined:
            raise Refused(f"endpoint {endpoint} already joined")
        self.joined.add(endpoint)
        return {
            "InterfaceName": {"SrcName": link(endpoint), "DstPrefix": "eth"},
            "Gateway": SUBNET.format(1).split("/", maxsplit=1)[0],
            "StaticRoutes": [{"Destination": BEYOND, "RouteType": 1}],
        }

    def leave(self, request):
        endpoint = request["EndpointID"]
        if endpoint in self.joined:
            self.joined.remove(endpoint)
            self.left.append({"endpoint": endpoint, "has_link": is_there(link(endpoint))})
        return {}

    def discover(self, request):
        self.nodes[request["DiscoveryData"]["Address"]] = request["DiscoveryData"]["Self"]
        return {}

    def lose(self, request):
        self.nodes.pop(request["DiscoveryData"]["Address"], None)
        return {}

    def call(self, path, request):
        calls = {
            "/Plugin.Activate": lambda _: {"Implements": ["NetworkDriver"]},
            "/NetworkDriver.GetCapabilities": lambda _: {"Scope": "local", "ConnectivityScope": "global"},
            "/NetworkDriver.CreateNetwork": self.create_network,
            "/NetworkDriver.DeleteNetwork": self.delete_network,
            "/NetworkDriver.CreateEndpoint": self.create_endpoint,
            "/NetworkDriver.DeleteEndpoint": self.delete_endpoint,
            "/NetworkDriver.Join": self.join,
            "/NetworkDriver.Leave": self.leave,
            "/NetworkDriver.DiscoverNew": self.discover,
            "/NetworkDriver.DiscoverDelete": self.lose,
        }
        with self.lock:
            return calls[path](request) if path in calls else None

    def show(self):
        return {
            "pid": os.getpid(),
            "networks": self.networks,
            "joined": sorted(self.joined),
            "left": self.left,
            "nodes": self.nodes,
        }


def link(endpoint):
    return "l" + endpoint[:12]


def port(endpoint):
    return "p" + endpoint[:12]


class Handler(BaseHTTPRequestHandler):
    lan = Lan()

    def do_POST(self):  # noqa: N802 (the library's name)
        try:
            length = int(self.headers.get("Content-Length") or 0)
            answer = self.lan.call(self.path, json.loads(self.rfile.read(length) or "{}"))
            if answer is None:
                self.answer(404, {"Err": f"{self.path} is not implemented"})
            else:
                self.answer(200, answer)
        except Refused as refused:
            self.answer(200, {"Err": str(refused)})
        except (KeyError, TypeError, ValueError) as wrong:
            self.answer(500, {"Err": f"the request is not understood: {wrong!r}"})

    def do_GET(self):  # noqa: N802 (the library's name)
        with self.lan.lock:
            self.answer(200, self.lan.show())

    def answer(self, status, answer):
        body = json.dumps(answer).encode()
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


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    path = sys.argv[1]
    unfinished = f"{path}.{os.getpid()}"
    with Server(unfinished, Handler) as server:
        os.rename(unfinished, path)
        server.serve_forever()


if __name__ == "__main__":
    main()
