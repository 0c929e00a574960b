// The small program at the bottom of a node. It is the first process of the node's namespaces
// (`hold`), the door by which others enter its control group (`exec`), the API server's way out of
// its network (`forward`), and in every pod, under the name pause, the process that holds that
// pod's namespaces. Small, because the last runs once a pod.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

func init() {
	// The main thread's namespaces are those that others enter by this process's id.
	runtime.LockOSThread()
}

func main() {
	var err error
	switch arguments := os.Args[1:]; {
	case filepath.Base(os.Args[0]) == "pause":
		reap()
	case len(arguments) > 2 && arguments[0] == "hold":
		if err = furnish(arguments[1], arguments[2], arguments[3:]); err == nil {
			reap()
		}
	case len(arguments) > 2 && arguments[0] == "exec":
		err = execInCgroup(arguments[1], arguments[2:])
	case len(arguments) == 2 && arguments[0] == "forward":
		err = forward(arguments[1])
	default:
		err = fmt.Errorf("unknown arguments %q", os.Args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodeinit:", err)
		os.Exit(1)
	}
}

// reap collects orphans' exit statuses, which is the duty of a process number 1, until it is told
// to end.
func reap() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGCHLD)
	for received := range signals {
		if received != unix.SIGCHLD {
			return
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
				break
			}
		}
	}
}
