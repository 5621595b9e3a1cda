"""Two aioice clients, each with an allocation, send each other datagrams through channels of both sides.

Arguments: host, port, transport (udp or tcp), tls (yes or no), user, password, number of datagrams.
"""
import asyncio
import ssl
import sys

from aioice import turn


class Endpoint(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.received.put_nowait((data, addr))


async def allocate(host, port, transport, tls, user, password):
    context = ssl.create_default_context() if tls == "yes" else False
    return await turn.create_turn_endpoint(
        Endpoint,
        server_addr=(host, int(port)),
        username=user,
        password=password,
        ssl=context,
        transport=transport,
    )


async def main(host, port, transport, tls, user, password, count):
    a, a_end = await allocate(host, port, transport, tls, user, password)
    b, b_end = await allocate(host, port, transport, tls, user, password)
    a_at, b_at = (t.get_extra_info("sockname") for t in (a, b))
    assert a_at != b_at, (a_at, b_at)
    # The first one binds the other side's channel, and with it its permission.
    b.sendto(b"open", a_at)
    await asyncio.sleep(0.2)
    for number in range(int(count)):
        payload = b"datagram %d " % number * 20
        a.sendto(payload, b_at)
        data, addr = await asyncio.wait_for(b_end.received.get(), 10)
        assert (data, addr) == (payload, a_at), (data, addr)
        b.sendto(data, a_at)
        while True:
            data, addr = await asyncio.wait_for(a_end.received.get(), 10)
            if data != b"open":
                break
        assert (data, addr) == (payload, b_at), (data, addr)
    a.close()
    b.close()
    await asyncio.sleep(0.2)
    print("echoed", count)


asyncio.get_event_loop().run_until_complete(asyncio.wait_for(main(*sys.argv[1:]), 60))
