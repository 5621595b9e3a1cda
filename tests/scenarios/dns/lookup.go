// lookup TYPE NAME: what Go's own resolver gets, without the C library.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

func main() {
	kind, name := os.Args[1], os.Args[2]
	resolver := net.Resolver{PreferGo: true}
	ctx := context.Background()
	var found []string
	var err error
	addresses := func(network string) {
		var ips []net.IP
		ips, err = resolver.LookupIP(ctx, network, name)
		for _, ip := range ips {
			found = append(found, ip.String())
		}
	}
	switch kind {
	case "A":
		addresses("ip4")
	case "AAAA":
		addresses("ip6")
	case "ANY":
		addresses("ip")
	case "TXT":
		found, err = resolver.LookupTXT(ctx, name)
	case "PTR":
		found, err = resolver.LookupAddr(ctx, name)
	case "SRV":
		var services []*net.SRV
		_, services, err = resolver.LookupSRV(ctx, "", "", name)
		for _, it := range services {
			found = append(found, fmt.Sprintf("%d_%d_%d_%s", it.Priority, it.Weight, it.Port, it.Target))
		}
	}
	for _, it := range found {
		fmt.Println(it)
	}
	var failed *net.DNSError
	switch {
	case errors.As(err, &failed) && failed.IsNotFound:
		fmt.Println(":notfound")
	case err != nil:
		fmt.Println(":again")
	}
}
