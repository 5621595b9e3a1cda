"""Two libnice agents that may use relayed candidates only find each other through the relay, and send each other messages.

Arguments: host, port, transport (udp or tcp), user, password, number of messages.
"""
import ctypes
import sys

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402

LIBRARY = ctypes.CDLL("libnice.so.10")
RECEIVE = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
host, port, transport, user, password, count = sys.argv[1:]
count = int(count)
loop = GLib.MainLoop()


class Agent:
    def __init__(self, controlling, on_message):
        self.agent = Nice.Agent.new(GLib.MainContext.default(), Nice.Compatibility.RFC5245)
        self.agent.props.controlling_mode = controlling
        self.agent.props.force_relay = True
        self.agent.props.upnp = False
        self.agent.props.ice_tcp = False
        # The way to a relay on this machine; by itself it leaves loopback out.
        own = ctypes.create_string_buffer(256)
        assert LIBRARY.nice_address_set_from_string(own, host.encode())
        LIBRARY.nice_agent_add_local_address.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        assert LIBRARY.nice_agent_add_local_address(hash(self.agent), own)
        self.stream = self.agent.add_stream(1)
        kind = {"udp": Nice.RelayType.UDP, "tcp": Nice.RelayType.TCP}[transport]
        assert self.agent.set_relay_info(self.stream, 1, host, int(port), user, password, kind)
        self.gathered = self.ready = False
        self.agent.connect("candidate-gathering-done", self.on_gathered)
        self.agent.connect("component-state-changed", self.on_state)
        # It is not in the bindings.
        self.callback = RECEIVE(
            lambda agent, stream, component, length, data, _: on_message(
                self, ctypes.string_at(data, length)
            )
        )
        attach = LIBRARY.nice_agent_attach_recv
        attach.argtypes = [
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            RECEIVE,
            ctypes.c_void_p,
        ]
        assert attach(hash(self.agent), self.stream, 1, None, self.callback, None)

    def on_gathered(self, agent, stream):
        self.gathered = True
        if all(each.gathered for each in agents):
            GLib.idle_add(exchange)

    def on_state(self, agent, stream, component, state):
        if state == 5:
            sys.exit("a component failed")
        self.ready = self.ready or state == 4
        if all(each.ready for each in agents):
            GLib.idle_add(say)

    def send(self, text):
        assert self.agent.send(self.stream, 1, len(text), text) == len(text)


def exchange():
    for one, other in (agents, agents[::-1]):
        candidates = one.agent.get_local_candidates(one.stream, 1)
        assert candidates, "no relayed candidate"
        for candidate in candidates:
            assert candidate.type == Nice.CandidateType.RELAYED, candidate.type
        _, name, secret = one.agent.get_local_credentials(one.stream)
        assert other.agent.set_remote_credentials(other.stream, name, secret)
        assert other.agent.set_remote_candidates(other.stream, 1, candidates) > 0
    return False


sent = 0


def message():
    return "message %d of the first agent" % sent


def say():
    global sent
    if sent == 0:
        sent = 1
        agents[0].send(message())
        # What is lost is sent again, as whoever uses datagrams has to.
        GLib.timeout_add(300, lambda: agents[0].send(message()) or True)
    return False


def on_message(agent, data):
    global sent
    if agent is agents[1]:
        # All comes back as it went.
        GLib.idle_add(lambda: agents[1].send(data.decode()) and False)
        return
    if data.decode() != message():
        # The echo of one that was sent twice.
        number = int(data.decode().split()[1])
        assert data.decode() == "message %d of the first agent" % number and number < sent, data
        return
    if sent == count:
        print("echoed", count)
        loop.quit()
        return
    sent += 1
    GLib.idle_add(lambda: agents[0].send(message()) and False)


agents = (Agent(True, on_message), Agent(False, on_message))
for each in agents:
    assert each.agent.gather_candidates(each.stream)
GLib.timeout_add_seconds(45, lambda: sys.exit("not in time"))
loop.run()
