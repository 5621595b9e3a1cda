// lookup.js TYPE NAME: A4, A6 and ANY by the C library, as most programs for Node do; all others by its own resolver.
const dns = require("dns").promises;
const [kind, name] = process.argv.slice(2);

async function lookup() {
  switch (kind) {
    case "A4": return (await dns.lookup(name, { family: 4, all: true })).map((it) => it.address);
    case "A6": return (await dns.lookup(name, { family: 6, all: true })).map((it) => it.address);
    case "ANY": return (await dns.lookup(name, { all: true })).map((it) => it.address);
    case "A": return dns.resolve4(name);
    case "AAAA": return dns.resolve6(name);
    case "TXT": return (await dns.resolveTxt(name)).map((it) => it.join(""));
    case "PTR": return dns.reverse(name);
    case "SRV":
      return (await dns.resolveSrv(name)).map((it) => [it.priority, it.weight, it.port, it.name].join("_"));
  }
}

lookup().then(
  (found) => found.forEach((it) => console.log(it)),
  (error) => console.log(["ENOTFOUND", "ENODATA"].includes(error.code) ? ":notfound" : ":again"),
);
