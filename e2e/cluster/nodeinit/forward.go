package main

import (
	"io"
	"net"
	"os"
	"sync"
)

// forward accepts connections on the listener that descriptor 3 is, and passes each on to the
// address. The listener belongs to the network that it was opened in, the connections made here
// to this process's.
func forward(address string) error {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(client, address)
	}
}

func serve(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return // the client sees its connection closed, as when it meets a server that is starting
	}
	defer server.Close()
	var directions sync.WaitGroup
	for _, ends := range [][2]net.Conn{{client, server}, {server, client}} {
		directions.Go(func() {
			from, to := ends[0], ends[1]
			_, _ = io.Copy(to, from) // an error is the end of the connection, passed on like any other
			_ = to.(*net.TCPConn).CloseWrite()
		})
	}
	directions.Wait()
}
