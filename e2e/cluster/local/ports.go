package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
)

// Ports are where a cluster listens on 127.0.0.1. They are chosen when it is first started, so any
// number of clusters run side by side.
type Ports struct {
	API      int `json:"api"`
	Etcd     int `json:"etcd"`
	EtcdPeer int `json:"etcdPeer"`
}

// choosePorts finds three free ports.
func choosePorts() (Ports, error) {
	lowest, highest := portRange()
	var found []int
	for range 1000 {
		port := lowest + rand.IntN(highest-lowest)
		if isFree(port) && !slices.Contains(found, port) {
			found = append(found, port)
		}
		if len(found) == 3 {
			return Ports{API: found[0], Etcd: found[1], EtcdPeer: found[2]}, nil
		}
	}
	return Ports{}, fmt.Errorf("no free port found on 127.0.0.1 between %d and %d", lowest, highest)
}

// free tells whether nothing listens on any of the ports.
func (p Ports) free() bool {
	return isFree(p.API) && isFree(p.Etcd) && isFree(p.EtcdPeer)
}

// portRange lies below the ports that the kernel gives to outgoing connections. Among those, a
// client that retries while the API server is down could be given the server's own port, and so
// keep the server from starting again.
func portRange() (lowest, highest int) {
	ephemeral := 32768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(text), &ephemeral)
	}
	if ephemeral < 12000 { // nothing to speak of below it: any port will do
		return 12000, 65000
	}
	return 10000, ephemeral
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	listener.Close()
	return true
}
