"use strict";

// Two WebRTC peers in one page that may use relayed candidates only: what passes between them passed the relay.
const relayed = async (server, count) => {
  const configuration = { iceServers: [server], iceTransportPolicy: "relay" };
  const peers = [new RTCPeerConnection(configuration), new RTCPeerConnection(configuration)];
  const errors = [];
  peers.forEach((peer, at) => {
    const other = peers[1 - at];
    peer.onicecandidate = ({ candidate }) => candidate && other.addIceCandidate(candidate);
    peer.onicecandidateerror = ({ errorCode, errorText }) => errors.push(`${errorCode} ${errorText}`);
  });
  const failed = new Promise((_, reject) => {
    const late = () => reject(new Error(`not in time: ${peers[0].iceConnectionState}; ${errors.join(", ")}`));
    setTimeout(late, 40000);
  });

  const channel = peers[0].createDataChannel("echo");
  peers[1].ondatachannel = ({ channel: other }) => {
    other.onmessage = ({ data }) => other.send(data);
  };
  const opened = new Promise((resolve) => (channel.onopen = resolve));
  await peers[0].setLocalDescription(await peers[0].createOffer());
  await peers[1].setRemoteDescription(peers[0].localDescription);
  await peers[1].setLocalDescription(await peers[1].createAnswer());
  await peers[0].setRemoteDescription(peers[1].localDescription);
  await Promise.race([opened, failed]);

  const echoed = (async () => {
    for (let number = 0; number < count; number += 1) {
      const sent = `message ${number} `.repeat(60);
      const back = new Promise((resolve) => (channel.onmessage = ({ data }) => resolve(data)));
      channel.send(sent);
      if ((await back) !== sent) {
        throw new Error(`message ${number} came back changed`);
      }
    }
  })();
  await Promise.race([echoed, failed]);

  const kinds = new Set();
  for (const report of (await peers[0].getStats()).values()) {
    if (report.type === "local-candidate") {
      kinds.add(`${report.candidateType} ${report.relayProtocol}`);
    }
  }
  peers.forEach((peer) => peer.close());
  return Array.from(kinds);
};
