"""Refuse connections beyond this machine in every Python process that a test starts."""

import ipaddress
import socket

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo


def _check(host):
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host in ("", "localhost")
    if not local:
        raise ConnectionRefusedError(f"tests stay on this machine, but something asked for {host}")


def _guarded(call):
    def wrapper(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return call(self, address)

    return wrapper


def _guarded_getaddrinfo(host, *arguments, **options):
    if host is not None:
        _check(host.decode() if isinstance(host, bytes) else host)
    return _getaddrinfo(host, *arguments, **options)


socket.socket.connect = _guarded(_connect)
socket.socket.connect_ex = _guarded(_connect_ex)
socket.getaddrinfo = _guarded_getaddrinfo
