package local

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// holder is the process that a node's namespaces belong to, and the first in them: when it ends,
// the kernel ends every other process there, and mounts and network go with them.
const holder = "namespaces"

// createNamespaces starts the holder, in mount, network, process and control-group namespaces of
// its own, and waits until it has furnished them.
func (c *Cluster) createNamespaces() error {
	if err := c.createCgroups(); err != nil {
		return err
	}
	program, err := beside("nodeinit")
	if err != nil {
		return err
	}
	furnished, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer furnished.Close()
	command := exec.Command(program, append([]string{"hold", c.Dir, nodeAddress}, c.state.Cgroups...)...)
	command.ExtraFiles = []*os.File{writer}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
	}
	process, err := c.run(holder, command)
	writer.Close()
	if err != nil {
		return err
	}
	// It writes a byte when it is done; if it fails, the pipe just ends.
	if _, err := furnished.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		return process.failure(<-process.exited)
	} else if err != nil {
		return err
	}
	return nil
}

// startInside starts the command inside the node's namespaces and control group; without a node,
// right here.
func (c *Cluster) startInside(command *exec.Cmd) error {
	if !c.state.Node {
		return command.Start()
	}
	var namespaces Process
	for _, process := range c.state.Processes {
		if process.Name == holder {
			namespaces = process.Process
		}
	}
	pidfd, ok := namespaces.open()
	if !ok {
		return fmt.Errorf("the node of cluster %q is not running: start it again (up --node --name %s)", c.Name, c.Name)
	}
	defer unix.Close(pidfd)
	program, err := beside("nodeinit")
	if err != nil {
		return err
	}
	if command.Err != nil {
		return command.Err
	}
	// nodeinit joins the control group, then becomes the command.
	command.Args = append([]string{"nodeinit", "exec", command.Path}, command.Args...)
	command.Path = program
	if command.Dir == "" {
		// Entering a mount namespace changes the working directory.
		if command.Dir, err = os.Getwd(); err != nil {
			return err
		}
	}
	started := make(chan error)
	go func() {
		// Never unlocked: the thread that has changed its namespaces ends with this goroutine.
		runtime.LockOSThread()
		const inside = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP
		err := unix.Unshare(unix.CLONE_FS) // a thread that shares its root directory can't move
		if err == nil {
			err = unix.Setns(pidfd, inside)
		}
		if err != nil {
			err = fmt.Errorf("enter the node's namespaces: %w", err)
		} else {
			err = command.Start()
		}
		started <- err
	}()
	return <-started
}

// forward makes the API server, which listens inside the node's network, reachable at the same
// address on the host: the listener is opened here, and handed to a process in there.
func (c *Cluster) forward() error {
	address := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: c.state.Ports.API}
	listener, err := net.ListenTCP("tcp", &address)
	if err != nil {
		return err
	}
	defer listener.Close()
	descriptor, err := listener.File()
	if err != nil {
		return err
	}
	defer descriptor.Close()
	program, err := beside("nodeinit")
	if err != nil {
		return err
	}
	command := exec.Command(program, "forward", address.String())
	command.ExtraFiles = []*os.File{descriptor}
	_, err = c.run("forward", command)
	return err
}
