"use strict";

// A WebRTC peer in a page: opens the two channels of a link, and sends UDP through them to a service that echoes.
const peer = (() => {
  const connection = new RTCPeerConnection();
  const open = (label, delivery) => {
    const channel = connection.createDataChannel(label, { ...delivery, protocol: "turnpike" });
    channel.binaryType = "arraybuffer";
    channel.opened = new Promise((resolve, reject) => {
      channel.onopen = resolve;
      channel.onclose = () => reject(new Error(`${label} closed`));
    });
    return channel;
  };
  const control = open("control", { ordered: true });
  const ip = open("ip", { ordered: false, maxRetransmits: 0 });

  const heard = [];
  let listener = null;
  control.onmessage = ({ data }) => {
    heard.push(Array.from(new Uint8Array(data)));
    listener?.();
  };

  /// The offer with all candidates in it.
  async function offer() {
    const gathered = new Promise((resolve) => {
      connection.onicegatheringstatechange = () => connection.iceGatheringState === "complete" && resolve();
    });
    await connection.setLocalDescription(await connection.createOffer());
    await gathered;
    return connection.localDescription.sdp;
  }

  /// Takes the answer and waits for the channels; gives back their ids.
  async function accept(sdp) {
    const failed = new Promise((_, reject) => {
      connection.onconnectionstatechange = () =>
        connection.connectionState === "failed" && reject(new Error("the connection failed"));
    });
    await connection.setRemoteDescription({ type: "answer", sdp });
    await Promise.race([Promise.all([control.opened, ip.opened]), failed]);
    return [control.id, ip.id];
  }

  const say = (bytes) => control.send(new Uint8Array(bytes));

  /// The next message on `control`.
  async function hear() {
    while (heard.length === 0) {
      await new Promise((resolve) => (listener = resolve));
    }
    return heard.shift();
  }

  const FRAME = 12;
  const IPV4 = 20;
  const HEADERS = IPV4 + 8;
  const PORT = 40000;

  /// The Internet checksum's sum, not complemented.
  function sum(begin, bytes) {
    let sum = begin;
    for (let at = 0; at < bytes.length; at += 2) {
      sum += (bytes[at] << 8) | (bytes[at + 1] ?? 0);
    }
    while (sum > 0xffff) {
      sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
    }
    return sum;
  }

  /// A datagram's payload: its number, and what a xorshift generator makes of it.
  function fill(words, id) {
    words[0] = id;
    let x = (id ^ 0x9e3779b9) >>> 0;
    for (let at = 1; at < words.length; at++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      words[at] = x;
    }
  }

  /// Sends `datagrams` of `length` bytes from `source` to `target`, at most `window` at once, in frames of as many as
  /// `joined` says in turns, and compares every byte of what comes back.
  function echo({ datagrams, length, window, joined, again, source, target, port }) {
    const pseudo = (total) => sum(17 + total - IPV4, [...source, ...target]);

    function frame(first, count) {
      const total = HEADERS + count * length;
      const bytes = new Uint8Array(FRAME + total);
      const view = new DataView(bytes.buffer);
      const packet = bytes.subarray(FRAME);
      packet.set([0x45, 0, total >> 8, total & 255, 0, 0, 0x40, 0, 64, 17, 0, 0, ...source, ...target]);
      view.setUint16(FRAME + 10, ~sum(0, packet.subarray(0, IPV4)));
      view.setUint16(FRAME + IPV4, PORT);
      view.setUint16(FRAME + IPV4 + 2, port);
      view.setUint16(FRAME + IPV4 + 4, total - IPV4);
      view.setUint16(FRAME + IPV4 + 6, pseudo(total));
      for (let at = 0; at < count; at++) {
        fill(new Uint32Array(bytes.buffer, FRAME + HEADERS + at * length, length / 4), first + at);
      }
      bytes[0] = 0x10;
      if (count > 1) {
        // The far kernel cuts it and completes the checksums: UDP segmentation.
        bytes[0] |= 1;
        bytes[1] = 5;
        view.setUint16(2, HEADERS);
        view.setUint16(4, length);
        view.setUint16(6, IPV4);
        view.setUint16(8, 6);
      } else {
        view.setUint16(FRAME + IPV4 + 6, ~sum(0, packet.subarray(IPV4)) & 0xffff || 0xffff);
      }
      return bytes;
    }

    const scratch = new Uint32Array(length / 4);
    const underWay = new Map();
    let next = 0;
    let frames = 0;
    let returned = 0;
    let repeated = 0;

    function take(buffer) {
      const bytes = new Uint8Array(buffer);
      const view = new DataView(buffer);
      const packet = bytes.subarray(FRAME);
      const check = (what, right) => {
        if (!right) throw new Error(`${what}: ${Array.from(bytes.subarray(0, FRAME + HEADERS))}`);
      };
      check("version", bytes[0] >> 4 === 1);
      check("packet", packet[0] === 0x45 && packet[9] === 17 && view.getUint16(FRAME + 2) === packet.length);
      check("source", packet.subarray(12, 16).every((byte, at) => byte === target[at]));
      check("destination", packet.subarray(16, 20).every((byte, at) => byte === source[at]));
      check("ports", view.getUint16(FRAME + IPV4) === port && view.getUint16(FRAME + IPV4 + 2) === PORT);
      check("IPv4 checksum", sum(0, packet.subarray(0, IPV4)) === 0xffff);
      if ((bytes[0] & 1) === 0) {
        check("UDP checksum", sum(pseudo(packet.length), packet.subarray(IPV4)) === 0xffff);
      }
      check("length", (packet.length - HEADERS) % length === 0);
      for (let at = FRAME + HEADERS; at < bytes.length; at += length) {
        const piece = new Uint32Array(buffer, at, length / 4);
        fill(scratch, piece[0]);
        check(`datagram ${piece[0]}`, piece.every((word, at) => word === scratch[at]));
        returned += underWay.delete(piece[0]);
      }
    }

    function send() {
      for (;;) {
        const count = Math.min(joined[frames % joined.length], datagrams - next);
        if (count === 0 || underWay.size + count > window) return;
        const now = performance.now();
        for (let at = 0; at < count; at++) underWay.set(next + at, now);
        ip.send(frame(next, count));
        next += count;
        frames += 1;
      }
    }

    return new Promise((resolve, reject) => {
      const begin = performance.now();
      const late = setInterval(() => {
        const now = performance.now();
        for (const [id, sent] of underWay) {
          if (now - sent > again) {
            underWay.set(id, now);
            ip.send(frame(id, 1));
            repeated += 1;
          }
        }
      }, again);
      const end = (settle, value) => {
        clearInterval(late);
        settle(value);
      };
      ip.onclose = () => end(reject, new Error("`ip` closed"));
      ip.onmessage = ({ data }) => {
        try {
          take(data);
          send();
        } catch (error) {
          end(reject, error);
        }
        if (returned === datagrams) {
          end(resolve, { repeated, seconds: (performance.now() - begin) / 1000 });
        }
      };
      send();
    });
  }

  return { offer, accept, say, hear, echo };
})();
