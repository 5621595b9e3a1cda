#!/bin/sh
# Makes the mesh, once, and hands to each process what an operator would hand to its machine: the relays their secrets,
# activators and sidecars their join tokens. Tokens are for the first start only; at later ones they are not read.
set -eu
umask 077

mesh=/var/lib/turnpike/mesh
if [ ! -e "$mesh" ]; then
    turnpike init "$mesh" --mesh compose --discovery 203.0.113.10:7400 \
        --network west --relay 'turn:203.0.113.12:3478?transport=udp' \
        --network east --relay 'turn:203.0.113.22:3478?transport=udp' \
        --network north --relay 'turn:203.0.113.32:3478?transport=udp'
fi
# An engine publishes what listens on the container's own address. Here whoever is in `public` may see the console, too.
sed -i 's/^console = .*/console = "203.0.113.10:9105"/' "$mesh/discovery.toml"
chown -R turnpike:turnpike /var/lib/turnpike

token() { # volume, network, role
    turnpike token create --mesh-directory "$mesh" --network "$2" --role "$3" >"/volumes/$1/join-token"
}
for network in west east north; do
    install -m 600 -o turnpike "$mesh/$network/relay-secret" "/volumes/$network-relay/relay-secret"
    chown turnpike "/volumes/$network-relay"
    token "$network-activator" "$network" activator
    token "$network-app" "$network" workload
done
token west-twin west workload
chmod 700 /volumes/*
