package main

import (
	"io"
	"net"
	"testing"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestForwardPassesBothDirectionsAndTheirEnds(t *testing.T) {
	// given a server that answers only after it has seen the end of the request
	server := listen(t)
	go func() {
		connection, err := server.Accept()
		if err != nil {
			return // the test is over
		}
		defer connection.Close()
		request, _ := io.ReadAll(connection)
		connection.Write(append([]byte("answer to "), request...))
	}()
	front := listen(t)
	go func() {
		if client, err := front.Accept(); err == nil {
			serve(client, server.Addr().String())
		}
	}()

	// when a client sends a request through the forwarder, and says that this was all
	client, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("request")); err != nil {
		t.Fatal(err)
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}

	// then it reads the answer, and its end
	answer, err := io.ReadAll(client)
	if err != nil || string(answer) != "answer to request" {
		t.Errorf("read %q, %v", answer, err)
	}
}

func TestForwardClosesWhenTheServerIsDown(t *testing.T) {
	down := listen(t)
	down.Close()
	client, other := net.Pipe()
	go serve(other, down.Addr().String())
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v, expected the end of the connection", err)
	}
}
