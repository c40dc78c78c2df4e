#!/usr/bin/env python3
"""An IPAM driver for Weft, with nothing but Python's standard library.

    pools.py SOCKET [by-mac|keeps]

It hands out /24 pools of 10.0.0.0/16 in order, or /64 pools of fd00:77::/48, and their addresses from the lowest on, of the part of
the pool that was asked for. It keeps nothing over a restart, and says so:
the daemon then asks again for what is in use (`RequiresRequestReplay`). With `keeps` it does not say so, as one that has a disk would
not; with `by-mac` it neither says so nor gives another address to who asks again in the name of the same MAC address. What it has
handed out can be asked for with `curl --unix-socket SOCKET http://pools/state`.
"""

import ipaddress
import json
import os
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler


class Refused(Exception):
    """Why a call was refused; the text goes to the person who asked."""


class Pools:
    """The pools that are handed out, each with the addresses of it that are."""

    def __init__(self):
        self.lock = threading.Lock()
        self.pools = {}
        self.ranges = {}
        self.kind = sys.argv[2] if len(sys.argv) > 2 else "replayed"
        self.macs = {}

    def request_pool(self, request):
        wanted = request.get("Pool")
        if wanted:
            pool = str(ipaddress.ip_network(wanted))
            if ":" in pool and not pool.startswith("fd00:77:"):
                raise Refused("only IPv6 pools of fd00:77::/48 are handed out here")
        else:
            of, length = ("fd00:77::/48", 64) if request.get("V6") else ("10.0.0.0/16", 24)
            every = ipaddress.ip_network(of).subnets(new_prefix=length)
            free = (str(pool) for pool in every if str(pool) not in self.pools)
            pool = next(free, None)
            if pool is None:
                raise Refused("no pool is left")
        self.pools.setdefault(pool, [])
        self.ranges[pool] = request.get("SubPool") or pool
        return {"PoolID": pool, "Pool": pool}

    def release_pool(self, request):
        self.pools.pop(request["PoolID"], None)
        return {}

    def request_address(self, request):
        pool, taken = request["PoolID"], self.taken(request)
        network = ipaddress.ip_network(pool)
        mac = (request.get("Options") or {}).get("com.docker.network.endpoint.macaddress")
        if self.kind == "by-mac" and (pool, mac) in self.macs:
            return {"Address": f"{self.macs[pool, mac]}/{network.prefixlen}"}
        if request.get("Address"):
            address = request["Address"]
            if address in taken:
                raise Refused(f"{address} is taken")
        else:
            hosts = ipaddress.ip_network(self.ranges[pool]).hosts()
            free = (str(address) for address in hosts if str(address) not in taken)
            address = next(free, None)
            if address is None:
                return {}  # No address is left.
        taken.append(address)
        if mac:
            self.macs[pool, mac] = address
        return {"Address": f"{address}/{network.prefixlen}"}

    def release_address(self, request):
        taken = self.taken(request)
        if request["Address"] in taken:
            taken.remove(request["Address"])
        gone = (request["PoolID"], request["Address"])
        self.macs = {who: address for who, address in self.macs.items() if (who[0], address) != gone}
        return {}

    def taken(self, request):
        if request["PoolID"] not in self.pools:
            raise Refused(f"pool {request['PoolID']} was not handed out")
        return self.pools[request["PoolID"]]

    def call(self, path, request):
        calls = {
            "/Plugin.Activate": lambda _: {"Implements": ["IpamDriver"]},
            "/IpamDriver.GetCapabilities": lambda _: {
                "RequiresRequestReplay": self.kind == "replayed",
                "RequiresMACAddress": self.kind == "by-mac",
            },
            "/IpamDriver.GetDefaultAddressSpaces": lambda _: {
                "LocalDefaultAddressSpace": "local",
                "GlobalDefaultAddressSpace": "global",
            },
            "/IpamDriver.RequestPool": self.request_pool,
            "/IpamDriver.ReleasePool": self.release_pool,
            "/IpamDriver.RequestAddress": self.request_address,
            "/IpamDriver.ReleaseAddress": self.release_address,
        }
        with self.lock:
            return calls[path](request) if path in calls else None


class Handler(BaseHTTPRequestHandler):
    pools = Pools()

    def do_POST(self):  # noqa: N802 (the library's name)
        length = int(self.headers.get("Content-Length") or 0)
        try:
            answer = self.pools.call(self.path, json.loads(self.rfile.read(length) or "{}"))
            status = 404 if answer is None else 200
        except Refused as refused:
            status, answer = 200, {"Error": str(refused)}  # IPAM drivers say `Error`, network drivers `Err`.
        except (KeyError, TypeError, ValueError) as wrong:
            status, answer = 500, {"Error": f"the request is not understood: {wrong!r}"}
        self.answer(status, answer)

    def do_GET(self):  # noqa: N802 (the library's name)
        with self.pools.lock:
            self.answer(200, {"pid": os.getpid(), "pools": self.pools.pools})

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
    if sys.argv[2:] not in ([], ["by-mac"], ["keeps"]) or len(sys.argv) < 2:
        sys.exit(__doc__)
    path = sys.argv[1]
    unfinished = f"{path}.{os.getpid()}"
    with Server(unfinished, Handler) as server:
        os.rename(unfinished, path)
        server.serve_forever()


if __name__ == "__main__":
    main()
