"""lookup.py A|AAAA|ANY|PTR NAME: what Python gets from the C library."""
import socket
import sys

kind, name = sys.argv[1:]
families = {"A": socket.AF_INET, "AAAA": socket.AF_INET6, "ANY": socket.AF_UNSPEC}
try:
    if kind == "PTR":
        print(socket.gethostbyaddr(name)[0])
    else:
        for address in socket.getaddrinfo(name, None, families[kind], socket.SOCK_STREAM):
            print(address[4][0])
except (socket.gaierror, socket.herror) as error:
    print(":again" if error.errno in (socket.EAI_AGAIN, 2) else ":notfound")
